"""The page in headless Chromium: a WAV as the microphone, files, offline, small screens, errors.

Slow, and skipped without Chromium (apt-get install chromium) and what npm ci installs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import compress
import streaming
from compress.cli import run_app
from streaming.audio import read_audio
from streaming.bundle import write_sha256sums
from tests.streaming.tiny_bundle import make_speech
from tests.web.conftest import HERE, WEB

pytestmark = pytest.mark.slow
SHARED = Path(__file__).parents[2] / "../shared/data"
TEACHER = Path(compress.__file__).parent / "assets/demo-teacher"
PACKS = {
    "speech_to_intent": 15,
    "librispeech_mini": 15,
    "speech_commands": 10,
    "speechocean762": 10,
}


@pytest.fixture(scope="module")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return path


@pytest.fixture
def browse(node, runtime, chromium, tmp_path):
    """A function: scenario of browser.mjs, bundle, its settings -> what was found."""
    if not (WEB / "node_modules/playwright-core").is_dir():
        pytest.skip("playwright-core is not installed: run npm ci in examples/web")

    def run(scenario: str, bundle: Path, **settings) -> dict:
        task = {"web": str(WEB), "python": sys.executable, "chromium": chromium}
        task |= {"bundle": str(bundle), "profile": str(tmp_path / "profile"), "scenario": scenario}
        done = subprocess.run(
            [node, HERE / "browser.mjs"],
            input=json.dumps(task | settings),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def write_wav(path: Path, samples: np.ndarray, sample_rate: int = 16000) -> str:
    soundfile.write(path, samples, sample_rate, subtype="FLOAT")
    return str(path)


def tokens_here(bundle: Path, precision: str, path: str) -> list[int]:
    recognizer = streaming.open_bundle(bundle, precision)
    stream = recognizer.create_stream()
    stream.accept(*read_audio(path))
    stream.finish()
    return [token.index for token in stream.tokens]


def test_the_microphone_is_heard(browse, bundle, tmp_path):
    speech = make_speech(48000 * 4, seed=2, sample_rate=48000)
    soundfile.write(tmp_path / "speech.wav", speech, 48000, subtype="PCM_16")
    found = browse("microphone", bundle, wav=str(tmp_path / "speech.wav"), seconds=5)
    listening = found["listening"]
    assert listening["finals"] + listening["partial"], "text while speaking"
    assert listening["status"] == "Listening"
    assert listening["focus"] == "microphone", "the key that started it stops it"
    assert 0 < float(listening["factor"]) < 1
    assert listening["delay"].endswith("ms")
    assert len(found["tokens"]) > 20
    assert found["after"]["status"] == "Ready"
    assert not found["after"]["error"] and not found["faults"]


@pytest.mark.parametrize(
    ("denied", "said"), [(True, "not allowed: allow it"), (False, "there is no microphone")]
)
def test_no_microphone(browse, bundle, denied, said):
    found = browse("look", bundle, denied=denied)
    assert said in found["after"]["error"]
    assert found["after"]["status"] == "Ready"


def test_files_give_the_same_tokens(browse, bundle, tmp_path):
    """At the model's rate, at another one, in stereo; FLAC is the browser's to decode."""
    signals = [(make_speech(32000, 1), 16000), (make_speech(30000, 2), 22050)]
    signals.append((np.stack([make_speech(9000, 3), make_speech(9000, 4)], axis=1), 16000))
    files = [write_wav(tmp_path / f"{i}.wav", *signal) for i, signal in enumerate(signals)]
    files.append(str(tmp_path / "speech.flac"))
    soundfile.write(files[-1], signals[0][0], 16000, subtype="PCM_16")
    found = browse("files", bundle, files=files, query="?precision=fp32")
    assert found["tokens"] == [tokens_here(bundle, "fp32", path) for path in files]
    assert found["after"]["isolated"] and not found["faults"]


def test_files_without_sound_are_refused(browse, bundle, tmp_path):
    files = [tmp_path / name for name in ("no.mp3", "empty.wav", "short.wav")]
    files[0].write_text("no sound")
    files[1].write_bytes(b"")
    write_wav(files[2], make_speech(8000))
    files[2].write_bytes(files[2].read_bytes()[:-100])
    found = browse("refuse", bundle, files=[str(path) for path in files])
    assert found["errors"][0] == "no.mp3: no sound this browser can read"
    assert found["errors"][1] == "empty.wav: the file is empty"
    assert found["errors"][2].startswith("short.wav: the WAV file holds")
    assert found["after"]["status"] == "Ready"


def test_it_works_without_a_network(browse, bundle, tmp_path):
    path = write_wav(tmp_path / "speech.wav", make_speech(32000, 1))
    found = browse("offline", bundle, files=[path], query="?precision=fp32")
    assert found["offline"] == found["online"] == tokens_here(bundle, "fp32", path)
    assert "works offline" in found["after"]["model"]


def test_a_host_of_files_alone_gets_threads(browse, bundle, tmp_path):
    """No headers from the server: the service worker sends them, and the page loads once more."""
    root = Path(shutil.copytree(WEB / "page", tmp_path / "page"))
    shutil.copytree(bundle, root / "bundle", dirs_exist_ok=True)
    path = write_wav(tmp_path / "speech.wav", make_speech(32000, 1))
    query = "?precision=fp32&threads=2"
    found = browse("files", bundle, root=str(root), files=[path], query=query)
    assert found["tokens"] == [tokens_here(bundle, "fp32", path)]
    assert found["after"]["isolated"]
    assert "2 threads" in found["after"]["model"]


def test_a_damaged_bundle_is_named(browse, bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (folder / "joiner.int8.onnx").write_bytes(b"no graph")
    found = browse("look", folder)
    assert found["after"]["error"].startswith("joiner.int8.onnx: does not match SHA256SUMS")
    assert found["after"]["status"] == "Nothing is loaded"
    write_sha256sums(folder)
    found = browse("look", folder)
    assert found["after"]["error"].startswith("joiner.int8.onnx: onnxruntime-web cannot load it")
    found = browse("look", bundle, query="?bundle=./elsewhere/")
    assert "SHA256SUMS: missing: give the folder of a bundle" in found["after"]["error"]


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_finger_and_a_keyboard(browse, bundle, width):
    found = browse("layout", bundle, viewport={"width": width, "height": 740})
    assert found["small"] == []
    assert found["overflow"] == 0
    names, outlines = zip(*found["reached"][:5], strict=True)
    assert names == ("transcript", "microphone", "choose", "splits", "summary")
    assert "none" not in outlines, "the focus is seen"
    for part in ("status: Ready", "meter", 'button "Start microphone"', 'checkbox "New line'):
        assert part in found["tree"]


def test_the_same_tokens_on_50_real_files(browse, tmp_path):
    """The built-in teacher in fp32 says the same; in int8 nearly (examples/web/README.md)."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    bundle = tmp_path / "bundle"
    assert run_app(["export", str(TEACHER), "--out", str(bundle)]) == 0
    files = []
    for pack, count in PACKS.items():
        recordings = (SHARED / pack / "audio").rglob("*.*")
        for path in sorted(recordings)[:count]:
            files.append(write_wav(tmp_path / f"{path.stem}.wav", *read_audio(path)))
    found = browse("files", bundle, files=files, query="?precision=fp32")
    expected = [tokens_here(bundle, "fp32", path) for path in files]
    assert len(files) == 50
    assert found["tokens"] == expected
