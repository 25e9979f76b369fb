"""Speaks to `compress serve`, or to a vosk-server: a sound file or the microphone in, text out.

    python examples/websocket_client.py ws://127.0.0.1:2700 talk.wav
    python examples/websocket_client.py ws://127.0.0.1:2700              the default microphone

Needs `pip install .[serve]`, and .[mic] with PortAudio for a microphone.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
from websockets.sync.client import connect

from streaming import InputError
from streaming.microphone import open_microphone


def show(answer: dict) -> None:
    """A partial text redraws itself in place, an utterance ends its line."""
    if answer.get("text"):
        print(f"\r{answer['text']}")
    elif "error" in answer:
        sys.exit(f"\r{answer['error']}")
    else:
        print(f"\r{answer.get('partial', '')}", end="", flush=True)


def speak(url: str, blocks: Iterator[np.ndarray]) -> None:
    with connect(url) as server:
        server.send(json.dumps({"config": {"sample_rate": 16000}}))
        for samples in blocks:
            server.send((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
            show(json.loads(server.recv()))
        server.send(json.dumps({"eof": 1}))
        for message in server:
            show(json.loads(message))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python examples/websocket_client.py URL [sound file or DEVICE]")
    try:
        speak(sys.argv[1], open_microphone(sys.argv[2] if len(sys.argv) > 2 else None))
    except (InputError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print()
