"""`compress serve` as a process: what it says, how it ends, what it refuses before it serves."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from websockets.sync.client import connect

from compress.cli import run_app
from tests.serve.clients import to_pcm
from tests.streaming.tiny_bundle import make_speech

COMMAND = [sys.executable, "-c", "from compress.cli import main; main()", "serve"]


@pytest.fixture
def process(bundle, request):
    """A running server, and the address it prints; its parameter: more options."""
    environment = os.environ | {"PYTHONPATH": "."}
    command = [*COMMAND, str(bundle), "--port", "0", *getattr(request, "param", ())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            address = re.search(r"ws://[\d.:]+", process.stderr.readline())[0]
            example = process.stderr.readline()
            assert f"examples/websocket_client.py {address} FILE" in example
            yield process, address
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_and_says_what_it_served(process, number):
    process, address = process
    with connect(address) as client:
        client.send(to_pcm(make_speech(16000, 1)))
        client.recv(10)
        process.send_signal(number)
        assert json.loads(client.recv(10))["text"]
    assert process.wait(10) == 0
    said = process.stderr.read()
    assert "served 1 clients, 1 utterances, 1 s of sound" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("process", [["--blank-penalty", "50", "--vad"]], indirect=True)
def test_decoding_options_reach_every_stream(process, recognizer):
    _, address = process
    sound = make_speech(32000, 1)
    with connect(address) as client:
        client.send(to_pcm(sound))
        client.send('{"eof": 1}')
        texts = [json.loads(message).get("text", "") for message in client]
    plain = list(recognizer.transcribe([sound]))[-1]
    assert len(" ".join(texts)) > len(plain), "without blanks every frame says something"


def test_the_example_client(process, tmp_path):
    import soundfile

    _, address = process
    soundfile.write(tmp_path / "a.wav", make_speech(24000, 1), 16000)
    done = subprocess.run(
        [sys.executable, "examples/websocket_client.py", address, str(tmp_path / "a.wav")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert done.stdout.rsplit("\r", 1)[-1].strip()


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        (["--max-connections", "0"], "--max-connections 0: give a number"),
        (["--max-message-bytes", "-1"], "--max-message-bytes -1"),
        (["--max-seconds", "nan"], "--max-seconds nan"),
        (["--idle-timeout", "0"], "--idle-timeout 0"),
        (["--max-batch", "0"], "max_batch must be 1 or more"),
        (["--decoding-method", "beam"], "use one of greedy_search, modified_beam_search"),
        (["--hotwords-file", "missing.txt"], "missing.txt"),
        (["--port", "99999"], "choose another --host or --port"),
        (["--host", "192.0.2.1"], "Cannot assign requested address: choose another --host"),
        (["--host", "no such host"], "no such address: choose another --host"),
    ],
)
def test_what_cannot_be_served(bundle, capsys, options, fix):
    assert run_app(["serve", str(bundle), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert fix in lines[0]


def test_a_port_that_is_taken(bundle, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run_app(["serve", str(bundle), "--port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve"], ["transcribe"], ["listen"]])
def test_a_folder_that_is_no_bundle(tmp_path, capsys, command):
    files = ["a.wav"] if command == ["transcribe"] else []
    assert run_app([*command, str(tmp_path), *files]) == 2
    assert "bundle.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "listen"])
def test_a_bundle_of_another_schema(bundle, tmp_path, capsys, command):
    """The version is looked at before the hashes: the message is about it."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    info = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(info | {"schema": 99}))
    assert run_app([command, str(copy)]) == 2
    assert "schema 99" in capsys.readouterr().err
