"""Many clients at once, slow ones, ones that vanish: the others get their text, nothing leaks."""

import asyncio
import gc
import json
import resource
import socket
import time
import tracemalloc

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.serve.clients import join_text, open_client, running, talk, to_pcm, url
from tests.streaming.tiny_bundle import make_speech

BLOCK = 3200  # samples: 0.2 s, as vosk-server's own clients


def hear(recognizer, samples):
    """The text of all utterances, decoded alone."""
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)
    return stream.finish()


@pytest.fixture(scope="module")
def sounds():
    return [
        np.frombuffer(to_pcm(make_speech(9000 + 400 * n, n)), "<i2").astype(np.float32) / 32768
        for n in range(10)
    ]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def check_nothing_is_left(server):
    """No connection, no stream, no unanswered call."""
    wait_until(lambda: not server.metrics.connections)
    wait_until(lambda: not server.decoder.pool.streams)
    assert not server.decoder.pool.is_busy
    assert not server.decoder._unanswered


def test_a_client_that_vanishes_in_mid_sentence(recognizer, sounds):
    with running(recognizer) as server:
        with open_client(server) as client:
            client.send(to_pcm(sounds[0][:9600]))
            client.recv(5)
            assert server.metrics.streams == 1
            client.socket.shutdown(socket.SHUT_RDWR)
        check_nothing_is_left(server)
        with open_client(server) as client:
            assert join_text(talk(client, sounds[1])) == hear(recognizer, sounds[1])


def test_the_end_of_the_server_answers_what_was_heard(recognizer, sounds):
    with running(recognizer) as server, open_client(server) as client:
        for start in range(0, len(sounds[2]), BLOCK):
            client.send(to_pcm(sounds[2][start : start + BLOCK]))
            client.recv(5)
        server.end()
        assert json.loads(client.recv(5))["text"] == hear(recognizer, sounds[2]) != ""
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(5)
        assert closed.value.rcvd.code == 1001
    check_nothing_is_left(server)


def shake_hands(server):
    """A socket that speaks websocket and has hardly room for what comes back."""
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    wire.connect(("127.0.0.1", server.port))
    wire.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"101" in wire.recv(16)
    return wire


def test_a_reader_that_is_stuck_is_dropped(recognizer, sounds):
    """It sends and sends; what comes back piles up, first in its socket, then nowhere."""
    frame = b"\x82\x80\0\0\0\0"  # an empty binary message, masked with zeros
    with running(recognizer, send_seconds=0.3) as server, shake_hands(server) as wire:
        wire.settimeout(10)
        with pytest.raises(ConnectionError):
            while True:
                wire.sendall(frame * 500)
        check_nothing_is_left(server)
        assert server.metrics.errors_total == 1
        assert server.metrics.partials_dropped_total > 0
        with open_client(server) as client:
            assert join_text(talk(client, sounds[1])) == hear(recognizer, sounds[1])


async def speak(uri, samples, manner):
    """One client; returns the text it read, or None when it left before the end.

    manner: "steady" reads all, "slow" reads nothing until it has said all, "gone" vanishes halfway.
    """
    async with connect(uri, compression=None, open_timeout=60, ping_interval=None) as client:
        await client.send('{"config": {"sample_rate": 16000}}')
        answers = []
        for start in range(0, len(samples), BLOCK):
            await client.send(to_pcm(samples[start : start + BLOCK]))
            if manner == "steady":
                answers.append(json.loads(await client.recv()))
            if manner == "gone" and start > len(samples) / 2:
                client.transport.abort()
                return None
        if manner == "slow":
            await asyncio.sleep(0.2)
        await client.send('{"eof" : 1}')
        answers += [json.loads(message) async for message in client]
        return join_text(answers)


MANNERS = ("steady", "slow", "steady", "gone")


async def speak_all(uri, sounds, number):
    """All at once; returns the text of each."""
    return await asyncio.gather(
        *(speak(uri, sounds[n % len(sounds)], MANNERS[n % 4]) for n in range(number))
    )


def check_texts(texts, expected):
    for n, text in enumerate(texts):
        assert text == (None if MANNERS[n % 4] == "gone" else expected[n % len(expected)])


def measure_memory():
    """Bytes that Python holds, garbage collected."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def crowd(recognizer, sounds, number, rounds):
    """Rounds of so many clients against one server; returns the growth of memory of each round."""
    expected = [hear(recognizer, samples) for samples in sounds]
    assert all(expected)
    growths = []
    with running(recognizer, connections=number) as server:
        for _ in range(rounds):
            before = measure_memory()
            check_texts(asyncio.run(speak_all(url(server), sounds, number)), expected)
            check_nothing_is_left(server)
            growths.append(measure_memory() - before)
        assert server.metrics.connections_total == rounds * number
        assert server.metrics.errors_total == 0
        assert sum(server.metrics.batch_size.counts[2:]) > 0, "some calls had over two streams"
    return growths


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_forty_clients_at_once(recognizer, sounds, traced):
    growths = crowd(recognizer, sounds, 40, rounds=3)
    # What leaks grows in every round; a connection that is cut may be let go a round later.
    assert min(growths[1:]) < 300_000, growths


@pytest.mark.slow
def test_two_hundred_clients_at_once(recognizer, sounds, traced):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growths = crowd(recognizer, sounds, 200, rounds=4)
    assert min(growths[1:]) < 300_000, growths
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kB"
