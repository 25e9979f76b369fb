"""The command line: what is refused in one line, exit codes, help, what importing it loads."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from compress import cli
from compress.cli import app, run_app
from tests.streaming.tiny_bundle import build_bundle, make_speech

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.fixture
def refuse(capsys):
    """Run a command that must end with exit code 2 and one line on stderr; returns the line.

    A command that loads libraries first says so in a line of its own, `compress NAME: ...`.
    """

    def refuse(run, *arguments, alone=False):
        code = run(*arguments)
        told = capsys.readouterr()
        lines = told.err.splitlines()
        errors = [line for line in lines if line.startswith("compress: ")]
        assert code == 2, told.err
        assert errors == lines[-1:], told.err
        assert not alone or len(lines) == 1, told.err
        assert "Traceback" not in told.err
        assert not told.out
        return errors[0]

    return refuse


def run(*arguments):
    return run_app([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def write_pack(folder, *changes):
    """A pack of two good utterances a split, but for the changes in its last line."""
    folder.mkdir()
    soundfile.write(folder / "a.wav", make_speech(8000), 16_000)
    lines = []
    for index, split in enumerate(["train", "train", "test", "test"]):
        fields = {"id": f"u{index}", "text": "yes", "speaker": f"s{index}", "split": split}
        lines.append({"audio_filepath": "a.wav", **fields})
    for change in changes:
        lines[-1] = {key: value for key, value in (lines[-1] | change).items() if value is not None}
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


# Options of compress run


@pytest.mark.parametrize(
    ("sparsity", "fix"),
    [
        ("90", "did you mean 0.9?"),
        ("1.0", "nothing would be left, try 0.9"),
        ("-1", "in [0, 1); got -1"),
        ("nan", "in [0, 1); got nan"),
        ("lots", "Invalid value for '--sparsity': "),
    ],
)
def test_sparsity(refuse, sparsity, fix):
    assert fix in refuse(run, "run", "--sparsity", sparsity, alone=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "fast"], "no recipe fast: give a YAML file or one of"),
        (["--distill", "magic=1"], "no distillation method 'magic': use none or one of lattice"),
        (["--distill", "lattice=much"], "the weight of lattice is a number, got 'much'"),
        (["--distill", "lattice=-1"], "the weight of lattice is above 0, got -1"),
        (["--distill", "lattice=nan"], "the weight of lattice is above 0, got nan"),
        (["--steps", "0"], "steps: Input should be greater than 0, got 0"),
        (["--seed", "-1"], "seed: Input should be greater than or equal to 0, got -1"),
        (
            ["--quantize", "int3"],
            "quantize: Input should be 'int8', 'static', 'qat', 'int4', 'auto' or 'none'",
        ),
        (["--pattern", "moire"], "no pattern 'moire': choose one of channel, block"),
        (["--pattern", "4:2"], "4:2: n of m columns stay, 1 <= n < m: 2:4, for example"),
        (["--pattern", "block:7"], "which blocks of 7 do not divide: choose one of 1, 2, 3"),
        (["--exclude", "attention_layer"], "no module is called 'attention_layer'"),
        (["--pattern", "layers", "--exclude", "front"], "pattern layers is of a whole model"),
        (["--target-size", "800KB"], "--sparsity and a target are two budgets"),
        (
            ["--chunk-ms", "100"],
            "a chunk is a multiple of 40 ms, from 40 to 40960; got 100: try 80",
        ),
        (["--colour", "red"], "No such option: --colour"),
        (["--data", "nowhere"], "nowhere does not exist: check the spelling of --data"),
        (["--teacher", "nowhere"], "nowhere is no folder: give one with config.json"),
    ],
)
def test_options(refuse, call, tmp_path, options, message):
    assert message in refuse(call, "--out", "here", *options)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "manifest.jsonl, line 4: no text: write the transcript there"),
        ({"text": " ?! "}, "manifest.jsonl, line 4: empty text"),
        ({"audio_filepath": "b.wav"}, "manifest.jsonl, line 4: "),
        ({"split": "later"}, "manifest.jsonl, line 4: unknown split 'later': use one of train"),
        ({"duration": 9.0}, "manifest.jsonl, line 4: "),
        ({"id": "u0"}, "2 utterances are called u0"),
    ],
)
def test_manifest_lines(refuse, call, tmp_path, change, message):
    pack = write_pack(tmp_path / "pack", change)
    assert message in refuse(call, "--out", "here", "--data", str(pack))
    assert not (tmp_path / "here").exists()


def test_data_without_a_test_split(refuse, call, tmp_path):
    pack = write_pack(tmp_path / "pack")
    text = (pack / "manifest.jsonl").read_text()
    (pack / "manifest.jsonl").write_text(text.replace('"test"', '"train"'))
    told = refuse(call, "--out", "here", "--data", str(pack))
    assert "no split 'test': use one of train" in told


def copy_teacher(teacher, folder, leave_out=None, **contents):
    folder.mkdir()
    for path in teacher.iterdir():
        if path.name != leave_out:
            (folder / path.name).write_bytes(contents.get(path.stem, path.read_bytes()))
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "bpe.model"])
def test_teacher_without_a_file(refuse, call, teacher, tmp_path, name):
    broken = copy_teacher(teacher, tmp_path / "broken", leave_out=name)
    assert f"lacks {name}" in refuse(call, "--out", "here", "--teacher", str(broken))
    assert not (tmp_path / "here").exists()


def test_teacher_with_a_foreign_file(refuse, call, teacher, tmp_path):
    broken = copy_teacher(teacher, tmp_path / "broken", model=b"PK not weights")
    told = refuse(call, "--out", "here", "--teacher", str(broken))
    assert "model.safetensors is not a safetensors file" in told
    assert not (tmp_path / "here").exists()


# Output folders, interruption, resuming. The stages are replaced: only the way there counts.


@pytest.fixture
def stages(monkeypatch):
    """Replace the pipeline's stages by one function."""

    def replace(function):
        from compress import pipeline

        monkeypatch.setattr(pipeline, "STAGES", [("prepare", function)])

    return replace


def interrupt(run):
    raise KeyboardInterrupt


def fill_disk(run):
    raise OSError(errno.ENOSPC, "No space left on device")


def succeed(run):
    return {}


def test_interrupted_run_says_how_to_go_on_and_is_left_alone(
    call, refuse, stages, tmp_path, capsys
):
    stages(interrupt)
    assert call("--out", "here") == 130
    told = capsys.readouterr().err
    assert "add --resume --out here to the same command" in told
    assert "Traceback" not in told
    before = (tmp_path / "here" / "config.yaml").read_bytes()
    assert "holds a run: add --resume" in refuse(call, "--out", "here")
    told = refuse(call, "--out", "here", "--resume", "--seed", "5")
    assert "was made with recipe.seed 0, now it is 5" in told
    assert (tmp_path / "here" / "config.yaml").read_bytes() == before
    stages(succeed)
    assert call("--out", "here", "--resume") == 0


def test_another_teacher_under_the_same_name(call, refuse, stages, teacher, tmp_path):
    stages(succeed)
    mine = copy_teacher(teacher, tmp_path / "mine")
    assert call("--out", "here", "--teacher", str(mine)) == 0
    from compress.checkpoint import save_model
    from tests.tiny_teacher import build_teacher, build_tokenizer

    save_model(build_teacher(seed=1), mine, build_tokenizer(), {})
    told = refuse(call, "--out", "here", "--teacher", str(mine), "--resume")
    assert "was made with teacher_sha256" in told


def test_folder_with_other_files(call, refuse, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.tex").write_text("years of work")
    assert "holds other files" in refuse(call, "--out", "here")
    assert "holds other files" in refuse(run, "train", "--out", tmp_path / "here")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["thesis.tex"]


def test_full_disk(call, refuse, stages):
    stages(fill_disk)
    assert "no space left on the disk: free some, then" in refuse(call, "--out", "here")


def test_our_own_fault_is_one_line_and_a_log(call, stages, capsys):
    stages(lambda run: 1 / 0)
    assert call("--out", "here") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("compress: our own fault: please report it with ")
    log = Path(last.split()[-1])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_default_folders_are_numbered(call, stages, tmp_path, capsys):
    stages(succeed)
    assert call() == call() == call("--resume") == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "channel-0.5",
        "channel-0.5-2",
    ]
    assert "prepare: done before" in capsys.readouterr().err


def test_interrupted_training_says_how_to_go_on(tmp_path, monkeypatch, capsys, refuse):
    monkeypatch.setattr("compress.train.train_recipe", lambda *arguments: interrupt(None))
    arguments = ["train", "--out", tmp_path / "here"]
    assert run(*arguments) == 130
    assert "add --resume to the same command" in capsys.readouterr().err
    assert "holds a run: add --resume" in refuse(run, *arguments)
    assert run(*arguments, "--resume") == 130


# transcribe and eval


def break_sound(folder, kind):
    path = folder / "talk.wav"
    if kind != "missing":
        soundfile.write(path, make_speech(16_000), 16_000)
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-9000])
    if kind == "silent header":
        soundfile.write(path, np.zeros(0), 16_000)
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "silent header"])
def test_bad_sound_for_transcribe(refuse, bundle, tmp_path, kind):
    path = break_sound(tmp_path, kind)
    assert str(path) in refuse(run, "transcribe", bundle, path, alone=True)


@pytest.mark.parametrize(("sample_rate", "channels"), [(8_000, 1), (16_000, 2), (44_100, 2)])
def test_any_rate_and_channels_for_transcribe(bundle, tmp_path, capsys, sample_rate, channels):
    samples = make_speech(sample_rate, sample_rate=sample_rate)
    soundfile.write(tmp_path / "talk.wav", np.stack([samples] * channels, 1), sample_rate)
    assert run("transcribe", bundle, tmp_path / "talk.wav") == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    assert not told.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoding-method", "beam"], "greedy_search, modified_beam_search"),
        (["--max-active-paths", "0"], "max_active_paths is 0"),
        (["--hotwords-file", "gone.txt"], "gone.txt"),
        (["--hotwords-score", "-1"], "hotwords_score is -1"),
        (["--lm", "gone.arpa"], "gone.arpa is no file"),
        (["--lm-weight", "nan"], "lm_weight is nan"),
        (["--blank-penalty", "-2"], "blank_penalty is -2"),
    ],
)
def test_decoding_options(refuse, bundle, tmp_path, options, message):
    soundfile.write(tmp_path / "talk.wav", make_speech(16_000), 16_000)
    arguments = ["transcribe", bundle, tmp_path / "talk.wav", *options]
    assert message in refuse(run, *arguments, alone=True)
    if options[0] != "--decoding-method":
        assert message in refuse(run, "listen", bundle, *options, alone=True)


def test_a_beam_and_hotwords_from_the_command_line(bundle, tmp_path, capsys):
    soundfile.write(tmp_path / "talk.wav", make_speech(16_000), 16_000)
    (tmp_path / "hotwords.txt").write_text("coz :20\n")
    hotwords = ["--hotwords-file", tmp_path / "hotwords.txt"]
    texts = []
    for options in ([], ["--decoding-method", "modified_beam_search"], hotwords):
        assert run("transcribe", bundle, tmp_path / "talk.wav", *options) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3
    assert "coz" in texts[2]


def test_no_bundle(refuse, tmp_path):
    soundfile.write(tmp_path / "talk.wav", make_speech(16_000), 16_000)
    refuse(run, "transcribe", tmp_path / "nowhere", tmp_path / "talk.wav", alone=True)
    refuse(run, "transcribe", tmp_path, tmp_path / "talk.wav", alone=True)
    refuse(run, "eval", tmp_path)
    refuse(run, "report", tmp_path)


def test_eval_of_a_model_and_of_a_bundle(bundle, teacher, tmp_path, monkeypatch, capsys, refuse):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    pack = write_pack(tmp_path / "pack")
    for model in (teacher, bundle):
        assert run("eval", model, "--data", pack) == 0
        assert capsys.readouterr().out.startswith("pack/test: WER ")
        told = refuse(run, "eval", model, "--data", pack, "--split", "dev")
        assert "no split 'dev': use one of test, train" in told
    assert "has no split 'later'" in refuse(run, "eval", teacher, "--split", "later")


# The program itself


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name, capsys):
    assert run(name, "--help") == 0
    assert f"Example: compress {name}" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    assert run("--help") == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)


def test_unknown_command(refuse):
    assert "No such command 'shrink'" in refuse(run, "shrink", alone=True)


def test_main_exits_with_the_code(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["compress", "run", "--sparsity", "90"])
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 2
    assert "did you mean 0.9?" in capsys.readouterr().err


def test_the_command_line_and_transcribe_need_no_extra():
    heavy = ["torch", "lhotse", "onnx", "pydantic", "yaml", "sentencepiece", "kaldialign"]
    heavy += ["matplotlib", "safetensors", "torch_pruning", "espeakng_loader", "sounddevice"]
    code = (
        "import sys, compress.cli, compress.transcribe, compress.listen;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_without_its_libraries_names_the_extra(refuse, monkeypatch):
    def absent(*arguments, **settings):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("compress.config.read_recipe", absent)
    assert "needs torch" in refuse(run, "run")
    assert "pip install '.[train,demo]'" in refuse(run, "train")
