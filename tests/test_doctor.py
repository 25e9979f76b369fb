"""Each check on a machine that has the trouble it looks for."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress import doctor, precision


def test_every_finding_is_one_line(tmp_path):
    findings = doctor.examine(tmp_path / "runs")
    assert [finding.name for finding in findings] == list(doctor.CHECKS)
    for finding in findings:
        assert "\n" not in str(finding)
        assert finding.state in ("ok", "slow", "broken")
        assert finding.fix or finding.state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("torch", "torchaudio", "state", "fix"),
    [
        ("2.11.0", "2.11.0", "ok", ""),
        ("2.11.0+cpu", "2.11.0+cpu", "ok", ""),
        ("2.11.0+cu130", "2.11.0", "ok", ""),
        ("2.11.0", "2.9.1", "broken", "torchaudio==2.11.0"),
        ("2.11.0+cpu", "2.11.0", "broken", "torch==2.11.0"),
        ("2.11.0", None, "slow", "[train]"),
        (None, None, "slow", "[train]"),
    ],
)
def test_torch_and_torchaudio(torch, torchaudio, state, fix):
    finding = doctor.compare_torch(torch, torchaudio)
    assert finding.state == state
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("machine", "flags", "state", "detail"),
    [
        ("x86_64", {"avx512_vnni", "avx512_bf16"}, "ok", "fast int8"),
        ("x86_64", {"avx_vnni"}, "ok", "fast int8"),
        ("x86_64", {"avx2"}, "slow", "no fast int8"),
        ("aarch64", {"asimd"}, "ok", "make bench"),
    ],
)
def test_cpu(machine, flags, state, detail):
    finding = doctor.judge_cpu(machine, flags)
    assert finding.state == state
    assert detail in finding.detail


@pytest.mark.parametrize(("flag", "wanted"), [("amx_bf16", "bfloat16"), ("avx2", "float32")])
def test_precision_of_trainings(monkeypatch, flag, wanted):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({flag}))
    finding = doctor.check_precision(Path())
    assert finding.state == "ok"
    assert finding.detail.startswith(f"trainings run in {wanted} (")
    assert "AMX" in finding.detail
    monkeypatch.setattr(doctor, "installed_version", lambda package: None)
    assert "not installed" in doctor.check_precision(Path()).detail


def test_voices_missing(monkeypatch, tmp_path):
    fake = SimpleNamespace(get_data_path=lambda: str(tmp_path))
    monkeypatch.setattr(doctor, "import_module", lambda name: fake)
    assert doctor.check_voices(tmp_path).state == "broken"
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert "[demo]" in doctor.check_voices(tmp_path).fix


def test_microphone(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # importing it now fails
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    assert "PortAudio" in doctor.check_microphone(tmp_path).detail
    devices = [{"max_input_channels": 0}, {"max_input_channels": 2}]
    fake = SimpleNamespace(query_devices=lambda: devices)
    monkeypatch.setattr(doctor, "import_module", lambda name: fake)
    assert doctor.check_microphone(tmp_path).state == "ok"
    devices.pop()
    assert "no input device" in doctor.check_microphone(tmp_path).detail
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert "[mic]" in doctor.check_microphone(tmp_path).fix


def test_disk_and_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    assert "--out" in doctor.check_disk(tmp_path / "not/yet/there").fix
    file = tmp_path / "file"
    file.touch()
    assert not doctor.check_output(file).ok
    assert not doctor.check_output(file / "below").ok
    monkeypatch.setenv("COMPRESS_CACHE", str(file))
    assert "COMPRESS_CACHE" in doctor.check_cache(tmp_path).fix


def test_onnxruntime_refusing_the_opset(monkeypatch):
    monkeypatch.setattr(doctor, "OPSET", 99)
    finding = doctor.check_onnxruntime(Path())
    assert finding.state == "broken"
    assert "refuses opset 99" in finding.detail
    monkeypatch.setattr(doctor, "installed_version", lambda package: None)
    assert doctor.check_onnxruntime(Path()).state == "broken"


def test_doctor_imports_nothing_heavy_by_itself():
    source = Path(doctor.__file__).read_text()
    top = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not any(name in line for line in top for name in ("torch", "onnx", "numpy", "lhotse"))
