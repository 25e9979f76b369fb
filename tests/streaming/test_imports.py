import subprocess
import sys

HEAVY = ["torch", "torchaudio", "lhotse", "onnx", "sentencepiece", "soundfile", "sounddevice"]


def test_streaming_loads_no_torch():
    code = (
        "import sys, streaming, streaming.microphone, streaming.audio;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
