"""One client: the protocol, what it hears, and what is refused; the server goes on."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.serve.clients import join_text, open_client, running, talk, to_pcm
from tests.streaming.tiny_bundle import make_speech

SILENCE = np.zeros(40000, dtype=np.float32)  # 2.5 s: an end-point


@pytest.fixture(scope="module")
def sound():
    """Two utterances, as 16-bit samples have them."""
    samples = np.concatenate([make_speech(24000, 1), SILENCE, make_speech(16000, 2)])
    return np.frombuffer(to_pcm(samples), "<i2").astype(np.float32) / 32768


def decode(recognizer, samples):
    """Utterances as a program with end-points sees them."""
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    utterances = []
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        if recognizer.is_endpoint(stream):
            utterances.append(recognizer.get_result_all(stream))
            recognizer.reset(stream)
    stream.finish()
    return [*utterances, recognizer.get_result_all(stream)]


def test_the_same_text_as_the_file(server, recognizer, sound):
    with open_client(server, sample_rate=16000) as client:
        answers = talk(client, sound)
    expected = decode(recognizer, sound)
    assert [a["text"] for a in answers if "text" in a] == [r.text for r in expected]
    assert len([r for r in expected if r.text]) == 2
    assert answers[-1]["text"] == expected[-1].text != ""


def test_one_answer_for_each_message(server, sound):
    with open_client(server, sample_rate=16000.0, words=1) as client:
        answers = talk(client, sound)
    assert len(answers) == -(-len(sound) // 3200) + 1
    partials = [a["partial"] for a in answers if "partial" in a]
    assert len(set(partials)) > 3
    assert client.close_code == 1000


def test_words_have_times_of_the_connection(server, sound):
    with open_client(server) as client:
        first, last = [a for a in talk(client, sound) if a.get("text")]
    for answer in (first, last):
        assert " ".join(word["word"] for word in answer["result"]) == answer["text"]
        assert all(set(w) == {"word", "start", "end", "conf"} for w in answer["result"])
        assert all(0 < word["conf"] <= 1 for word in answer["result"])
        assert all(word["start"] < word["end"] for word in answer["result"])
    assert first["result"][-1]["end"] < 2.2
    assert 3.9 < last["result"][0]["start"] < 5.0


def test_without_words(server, sound):
    with open_client(server, words=0) as client:
        assert {frozenset(a) for a in talk(client, sound)} == {
            frozenset({"partial"}),
            frozenset({"text"}),
        }


def test_another_rate(server, recognizer):
    samples = make_speech(40000, 1, 20000)
    heard = np.frombuffer(to_pcm(samples), "<i2").astype(np.float32) / 32768
    stream = recognizer.create_stream()
    stream.accept_waveform(20000, heard)
    with open_client(server, sample_rate=20000) as client:
        assert join_text(talk(client, samples)) == stream.finish() != ""


def test_no_sound_no_words(server):
    with open_client(server) as client:
        assert talk(client, SILENCE[:0]) == [{"text": ""}]
    with open_client(server) as client:
        client.send(b"")
        assert json.loads(client.recv(5)) == {"partial": ""}
        assert talk(client, SILENCE[:16000])[-1] == {"text": ""}


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("turn on the light", "send sound as binary messages"),
        (b"\0" * 4001, "2 bytes a sample"),
        ('{"start": 1}', 'send {"config": {...}}'),
        ('{"config": {"sample_rate": 0}}', "give the rate of your sound in Hz"),
        ('{"config": {"sample_rate": 1e999}}', "give the rate of your sound in Hz"),
        ('{"config": {"phrase_list": ["one"]}}', "leave it out"),
        ('{"config": {"\\ud800": 1}}', "leave it out"),
        ("[" * 60000, "no JSON object"),
    ],
)
def test_wrong_messages_are_answered_with_the_fix(server, message, fix):
    with open_client(server) as other, open_client(server) as client:
        client.send(message)
        assert fix in json.loads(client.recv(5))["error"]
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(5)
        assert closed.value.rcvd.code == 1007
        assert "text" in talk(other, SILENCE[:3200])[-1], "the others go on"


def test_config_after_sound(server):
    with open_client(server) as client:
        client.send(to_pcm(SILENCE[:3200]))
        client.recv(5)
        client.send('{"config": {"sample_rate": 8000}}')
        assert "send it first" in json.loads(client.recv(5))["error"]


def test_a_frame_of_100_mb(server, sound):
    with open_client(server) as other, open_client(server) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.send(bytes(100 << 20))
            client.recv(10)
        assert closed.value.rcvd.code == 1009
        assert "exceeds limit of 1048576 bytes" in closed.value.rcvd.reason
        assert len(talk(other, sound)) > 3, "the others go on"


def test_too_much_sound_is_answered_and_refused(recognizer, sound):
    with running(recognizer, audio_seconds=1.0) as server, open_client(server) as client:
        for start in range(0, 19200, 3200):
            client.send(to_pcm(sound[start : start + 3200]))
        answers = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                answers.append(json.loads(client.recv(5)))
        assert closed.value.rcvd.code == 1008
        assert "--max-seconds" in answers[-1]["error"]
        assert answers[-2]["text"]


def test_idle_clients_are_told(recognizer):
    with running(recognizer, idle_seconds=0.2) as server, open_client(server) as client:
        assert json.loads(client.recv(5)) == {"text": ""}
        assert "--idle-timeout" in json.loads(client.recv(5))["error"]
        with pytest.raises(ConnectionClosed):
            client.recv(5)
    assert server.metrics.errors_total == 1


def test_the_limit_on_connections(recognizer):
    with running(recognizer, connections=2) as server:
        with open_client(server), open_client(server):
            with pytest.raises(InvalidStatus) as refused, open_client(server):
                pass
            assert refused.value.response.status_code == 503
            assert b"try later" in refused.value.response.body
            assert fetch(server, "/healthz") == "ok\n", "health is no client"
        assert server.metrics.refused_total == 1


def fetch(server, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_a_browser_is_told_what_this_is(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(server, "/")
    with refused.value as answer:
        assert answer.status == 426
        assert b"WebSocket" in answer.read()


def test_health_and_metrics(recognizer, sound):
    with running(recognizer) as server:
        assert fetch(server, "/healthz") == "ok\n"
        with open_client(server) as client:
            talk(client, sound)
            lines = fetch(server, "/metrics?x=1").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values["compress_connections_total"] == "1"
    assert float(values["compress_audio_seconds_total"]) == pytest.approx(len(sound) / 16000)
    assert 0 < float(values["compress_real_time_factor"]) < 1
    chunks = int(values["compress_batch_size_count"])
    assert chunks == int(values['compress_batch_size_bucket{le="1"}']) >= 15
    assert int(values['compress_chunk_latency_seconds_bucket{le="+Inf"}']) > 10
    assert values["compress_streams"] == "0"
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert all(any(name.startswith(d) for d in described) for name in values)
