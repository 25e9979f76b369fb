"""The decoding thread: answers, streams that nobody waits for any more, its end."""

import asyncio
import time

import numpy as np
import pytest

from compress.serve.decoder import Decoder
from compress.serve.metrics import Metrics
from streaming.errors import AudioError
from streaming.pool import RecognizerPool
from tests.streaming.tiny_bundle import make_speech


def run(recognizer, use):
    """Runs use(decoder) in an event loop, with a decoder that has ended afterwards."""

    async def main():
        decoder = Decoder(RecognizerPool(recognizer), Metrics())
        decoder.start()
        try:
            return await use(decoder)
        finally:
            decoder.stop()
            assert not decoder._thread.is_alive()

    return asyncio.run(main())


async def settle(decoder):
    """Until the thread has done all it was given."""
    end = time.monotonic() + 5
    while decoder.pool.streams or not decoder._jobs.empty():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_what_was_heard(recognizer):
    async def use(decoder):
        stream = await decoder.open()
        await decoder.hear(stream, 16000, make_speech(24000, 1))
        return await decoder.finish(stream)

    heard = run(recognizer, use)
    expected = list(recognizer.transcribe([make_speech(24000, 1)]))[-1]
    assert [result.text for result in heard.utterances] == [expected]


def test_wrong_sound_is_the_callers(recognizer):
    async def use(decoder):
        stream = await decoder.open()
        with pytest.raises(AudioError, match="not finite"):
            await decoder.hear(stream, 16000, np.full(100, np.nan, dtype=np.float32))
        await settle(decoder)

    run(recognizer, use)


def test_nobody_waits_any_more(recognizer):
    """Cancelled while it opens, while it hears: the stream goes all the same."""

    async def use(decoder):
        opening = asyncio.ensure_future(decoder.open())
        await asyncio.sleep(0)
        opening.cancel()
        stream = await decoder.open()
        hearing = asyncio.ensure_future(decoder.hear(stream, 16000, make_speech(160000)))
        await asyncio.sleep(0)
        hearing.cancel()
        decoder.close(stream)
        await settle(decoder)
        assert not decoder._unanswered

    run(recognizer, use)


def test_a_thread_that_dies_says_so(recognizer):
    async def use(decoder):
        decoder.pool.decode = lambda: 1 / 0
        opening = asyncio.ensure_future(decoder.open())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(decoder.died, 5)
        opening.cancel()

    run(recognizer, use)
