"""What on this machine would make `compress` fail or run slowly, one line each with the fix.

A check is a function that returns a Finding. To add one: the function, a line in CHECKS, a row in
tests/test_doctor.py.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from compress.precision import choose, cpu_flags

OPSET = 17  # what export writes
IR_VERSION = 8
FREE_GIB = 5.0  # a default run with its synthetic speech and checkpoints, and room for a second
CPU_FLAGS = ("avx512_vnni", "avx_vnni")  # fast int8


@dataclass(frozen=True)
class Finding:
    """state is "ok", "slow" (works, not as fast or not every command) or "broken"."""

    name: str
    state: str
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether compress can work at all; slow is good enough."""
        return self.state != "broken"

    def __str__(self) -> str:
        return f"{self.state:6s} {self.name}: {self.detail}" + (f"; {self.fix}" if self.fix else "")


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python(folder: Path) -> Finding:
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Finding("python", "ok", version)
    return Finding("python", "broken", version, "use 3.10 to 3.13: make run PYTHON=python3.11")


def check_torch(folder: Path) -> Finding:
    return compare_torch(installed_version("torch"), installed_version("torchaudio"))


def compare_torch(torch: str | None, torchaudio: str | None) -> Finding:
    """torch and torchaudio share compiled code: same release, and both +cpu or neither."""
    if torch is None or torchaudio is None:
        missing = "torch" if torch is None else "torchaudio"
        detail = f"{missing} is not installed; transcribe and listen work without"
        return Finding(
            "torch", "slow", detail, "to train: pip install 'compress-transducer[train]'"
        )
    detail = f"torch {torch}, torchaudio {torchaudio}"
    if torch.split("+")[0].split(".")[:2] != torchaudio.split("+")[0].split(".")[:2]:
        release = torch.split("+")[0]
        return Finding("torch", "broken", detail, f"pip install torchaudio=={release}")
    if "+cpu" in torch and "+cpu" not in torchaudio:
        fix = f"install both from one index: pip install --force-reinstall torch=={torch[:-4]}"
        return Finding("torch", "broken", detail + " do not import together", fix)
    return Finding("torch", "ok", detail)


def check_onnxruntime(folder: Path) -> Finding:
    """Run a model of the opset and IR version that export/ writes."""
    version = installed_version("onnxruntime")
    if version is None:
        return Finding("onnxruntime", "broken", "not installed", "pip install onnxruntime")
    if find_spec("onnx") is None:
        return Finding("onnxruntime", "ok", f"{version}; opset not tried, onnx is not installed")
    try:
        run_tiny_model()
    except Exception as error:  # whatever onnxruntime raises for a model it refuses
        detail = f"{version} refuses opset {OPSET}: {str(error).splitlines()[0]}"
        return Finding("onnxruntime", "broken", detail, "pip install -U onnxruntime")
    return Finding("onnxruntime", "ok", f"{version} runs opset {OPSET}, IR {IR_VERSION}, int8")


def run_tiny_model() -> None:
    """Quantise x = [1, 2] and multiply by [1, 1]^T in int8, the one operator all bundles need."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["y"]),
        ],
        "tiny",
        [value("x", TensorProto.FLOAT, [1, 2])],
        [value("y", TensorProto.INT32, [1, 1])],
        [numpy_helper.from_array(np.ones((2, 1), np.int8), "w")],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    session.run(None, {"x": np.array([[1.0, 2.0]], np.float32)})


def check_voices(folder: Path) -> Finding:
    """The speech of a run without --data is made by espeak-ng from the espeakng-loader wheel."""
    fix = "pip install 'compress-transducer[demo]', or give --data"
    if find_spec("espeakng_loader") is None:
        return Finding("espeak-ng", "slow", "not installed: no built-in speech", fix)
    try:
        data = Path(import_module("espeakng_loader").get_data_path())
    except Exception as error:  # a wheel for another platform fails in its own ways
        return Finding("espeak-ng", "broken", f"does not load: {error}", fix)
    num_voices = len(list((data / "voices" / "!v").glob("*")))
    if num_voices < 60:
        detail = f"{num_voices} voice variants in {data}, want 60"
        return Finding(
            "espeak-ng", "broken", detail, "pip install --force-reinstall espeakng-loader"
        )
    return Finding("espeak-ng", "ok", f"{num_voices} voice variants")


def check_microphone(folder: Path) -> Finding:
    """sounddevice is Python around PortAudio, which Linux wheels do not carry."""
    if find_spec("sounddevice") is None:
        fix = "for compress listen: pip install 'compress-transducer[mic]'"
        return Finding("microphone", "slow", "sounddevice is not installed", fix)
    try:
        devices = import_module("sounddevice").query_devices()
    except Exception:  # OSError without the library, PortAudioError without a sound system
        fix = "for compress listen: sudo apt install libportaudio2, or brew install portaudio"
        return Finding("microphone", "slow", "PortAudio is missing", fix)
    inputs = [device for device in devices if device["max_input_channels"] > 0]
    if not inputs:
        fix = "plug a microphone in, or play a file: compress listen BUNDLE --device FILE"
        return Finding("microphone", "slow", "no input device", fix)
    return Finding("microphone", "ok", f"{len(inputs)} input devices")


def check_cpu(folder: Path) -> Finding:
    """Without VNNI int8 is slower than measured."""
    return judge_cpu(platform.machine(), set(cpu_flags()))


def judge_cpu(machine: str, flags: set[str]) -> Finding:
    if machine not in ("x86_64", "AMD64") or not flags:
        return Finding("cpu", "ok", f"{machine}: speed was measured on x86-64 only, run make bench")
    if flags.isdisjoint(CPU_FLAGS):
        detail = "no fast int8 instructions (VNNI)"
        return Finding("cpu", "slow", detail, "results are the same; expect longer times")
    return Finding("cpu", "ok", "fast int8 (VNNI)")


def check_precision(folder: Path) -> Finding:
    """Nothing to mend: what trainings do when their recipe says nothing, or bfloat16: auto."""
    if installed_version("torch") is None:
        return Finding("precision", "ok", "not used: training is not installed")
    return Finding("precision", "ok", f"trainings run in {choose('auto', 'cpu')}")


def check_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(existing_part(folder)).free / 2**30
    detail = f"{free:.1f} GiB free for {folder}"
    if free < FREE_GIB:
        fix = f"a run wants {FREE_GIB:.0f} GiB: delete old runs or choose --out on another disk"
        return Finding("disk", "slow", detail, fix)
    return Finding("disk", "ok", detail)


def check_output(folder: Path) -> Finding:
    return judge_folder("output", folder, "choose another folder with --out")


def check_cache(folder: Path) -> Finding:
    """Synthetic speech and features are kept there from run to run."""
    try:
        from compress.data.sets import cache_folder
    except ImportError:
        return Finding("cache", "ok", "not used: training is not installed")
    return judge_folder("cache", cache_folder(), "name another folder in COMPRESS_CACHE")


def judge_folder(name: str, folder: Path, fix: str) -> Finding:
    """Write a file, gone at once, in the folder or in what of its path exists already."""
    try:
        with tempfile.NamedTemporaryFile(dir=existing_part(folder)):
            return Finding(name, "ok", f"{folder} can be written")
    except OSError as error:
        return Finding(name, "broken", f"{folder} cannot be written ({error.strerror})", fix)


def existing_part(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


CHECKS: dict[str, Callable[[Path], Finding]] = {
    "python": check_python,
    "torch": check_torch,
    "onnxruntime": check_onnxruntime,
    "espeak-ng": check_voices,
    "microphone": check_microphone,
    "cpu": check_cpu,
    "precision": check_precision,
    "disk": check_disk,
    "output": check_output,
    "cache": check_cache,
}


def examine(folder: Path = Path("runs")) -> list[Finding]:
    """Run every check. folder: where runs are written. Nothing is left behind."""
    return [check(folder) for check in CHECKS.values()]
