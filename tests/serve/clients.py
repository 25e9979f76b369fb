"""A server in a thread of its own, and clients that talk to it as vosk's do."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import numpy as np
from websockets.sync.client import ClientConnection, connect

from compress.serve import Limits, Server


@contextlib.contextmanager
def running(recognizer, **limits) -> Iterator[Server]:
    """A server on a free port of this machine; it has ended cleanly when the block is left."""
    server = Server(recognizer, "127.0.0.1", 0, Limits(**limits))
    started = threading.Event()
    failed: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await server.run(started.set)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    server.end = lambda: loops[0].call_soon_threadsafe(server.stop)
    try:
        yield server
    finally:
        if not failed:
            with contextlib.suppress(RuntimeError):  # it has ended before
                server.end()
        thread.join(20)
        assert not thread.is_alive()
        assert not failed, failed


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}"


@contextlib.contextmanager
def open_client(server: Server, **config) -> Iterator[ClientConnection]:
    with connect(url(server), compression=None, max_size=None, open_timeout=30) as client:
        if config:
            client.send(json.dumps({"config": config}))
        yield client


def to_pcm(samples: np.ndarray) -> bytes:
    return (samples * 32768).clip(-32768, 32767).astype("<i2").tobytes()


def talk(client: ClientConnection, samples: np.ndarray, block: int = 3200) -> list[dict]:
    """In lockstep, an answer for each message, as vosk-server's test.py; then all finals."""
    answers = []
    for start in range(0, len(samples), block):
        client.send(to_pcm(samples[start : start + block]))
        answers.append(json.loads(client.recv(10)))
    client.send('{"eof" : 1}')
    answers += [json.loads(message) for message in client]
    return answers


def join_text(answers: list[dict]) -> str:
    return " ".join(a["text"] for a in answers if a.get("text"))
