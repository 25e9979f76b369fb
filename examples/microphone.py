"""Live captions from a bundle in a dozen lines.

    python examples/microphone.py runs/NAME/bundle            the default microphone
    python examples/microphone.py runs/NAME/bundle talk.wav   a file that plays as the microphone

Needs `pip install .[mic]` and PortAudio for a microphone; a file needs neither.
"""

import sys

from streaming import InputError, open_bundle
from streaming.microphone import open_microphone


def main(bundle: str, device: str | None = None) -> None:
    recognizer = open_bundle(bundle)
    stream = recognizer.create_stream()
    for samples in open_microphone(device):
        text = stream.accept(samples)
        print(f"\r{text}", end="", flush=True)
        if recognizer.is_endpoint(stream):
            recognizer.reset(stream)
            print()
    print(f"\r{stream.finish()}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python examples/microphone.py BUNDLE [DEVICE or sound file]")
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print()
