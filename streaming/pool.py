"""Many streams through one recogniser, a chunk of each in one call, fair to all.

    pool = RecognizerPool(recognizer)             stream = pool.open()
    pool.accept_waveform(stream, 16000, samples)  pool.input_finished(stream)
    while pool.is_busy:
        for stream in pool.decode():              # those whose audio is used up, or that failed
            heard = stream.take()                 # utterances that ended, and the text so far

One decode() takes a chunk of at most max_batch streams, in the order in which they came, and puts
those that have more behind the others: an hour that arrives at once delays nobody by more than a
round. Nothing here locks or waits: call a pool from one thread.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from streaming.errors import InputError
from streaming.features import FloatArray
from streaming.recognizer import Recognizer
from streaming.result import Result
from streaming.stream import Stream

MAX_BATCH = 32


@dataclass(frozen=True)
class Heard:
    """What came of a stream since the last take().

    utterances: those that ended, in order; partial: the text of the one that goes on, empty when
    the stream is finished.
    """

    utterances: list[Result]
    partial: str


@dataclass(eq=False)
class PoolStream:
    """A stream of a pool: audio that waits, and results that were not taken yet.

    num_chunks: chunks decoded so far. error: why it cannot go on; it is out of the pool then.
    """

    stream: Stream
    audio: deque[tuple[int, FloatArray]] = field(default_factory=deque)
    finishes: bool = False
    finished: bool = False
    utterances: list[Result] = field(default_factory=list)
    partial: str = ""
    num_chunks: int = 0
    error: Exception | None = None

    def take(self) -> Heard:
        """What was heard; raises the stream's error, when it has one."""
        if self.error is not None:
            raise self.error
        heard = Heard(self.utterances, self.partial)
        self.utterances = []
        return heard


class RecognizerPool:
    """Streams that share the calls of one recogniser."""

    def __init__(self, recognizer: Recognizer, max_batch: int = MAX_BATCH) -> None:
        if max_batch < 1:
            raise InputError(f"max_batch must be 1 or more, got {max_batch}: use {MAX_BATCH}")
        self.recognizer = recognizer
        self.max_batch = max_batch
        self.streams: set[PoolStream] = set()
        self.last_batch = 0  # streams of the last call
        info = recognizer.info
        chunk_samples = info.chunk_frames * info.features.shift_samples
        self._chunk_seconds = chunk_samples / info.features.sample_rate
        self._queue: dict[PoolStream, None] = {}  # in order, each once

    @property
    def is_busy(self) -> bool:
        """Whether decode() has something to do."""
        return bool(self._queue)

    def open(self) -> PoolStream:
        stream = PoolStream(self.recognizer.create_stream())
        self.streams.add(stream)
        return stream

    def close(self, stream: PoolStream) -> None:
        """Forgets a stream, and what of it waits."""
        self.streams.discard(stream)
        stream.audio.clear()
        self._queue.pop(stream, None)

    def accept_waveform(self, stream: PoolStream, sample_rate: int, samples: FloatArray) -> None:
        """Stores float32 (num_samples,) in [-1, 1]; what is wrong with it comes by take()."""
        if stream.finishes:
            raise InputError("the stream's input is finished: open another stream")
        stream.audio.append((sample_rate, samples))
        self._enqueue(stream)

    def input_finished(self, stream: PoolStream) -> None:
        """Ends the audio; the last utterance comes when what waits is decoded."""
        stream.finishes = True
        self._enqueue(stream)

    def _enqueue(self, stream: PoolStream) -> None:
        if stream in self.streams:
            self._queue.setdefault(stream)

    def decode(self) -> list[PoolStream]:
        """One round: a chunk of each of the next streams; returns those that have no more."""
        done: list[PoolStream] = []
        batch: list[PoolStream] = []
        while self._queue and len(batch) < self.max_batch:
            stream = next(iter(self._queue))
            del self._queue[stream]
            (batch if self._feed(stream) else done).append(stream)
        self.last_batch = len(batch)
        self._decode_batch(batch)
        for stream in batch:
            if stream.error is None:
                stream.num_chunks += 1
                self._end_utterance(stream)
                self._enqueue(stream)
        done += [stream for stream in batch if stream.error is not None]
        for stream in done:
            self._settle(stream)
        return done

    def _feed(self, stream: PoolStream) -> bool:
        """Hands on audio until a chunk is ready, no more: features take time too."""
        try:
            while not self.recognizer.is_ready(stream.stream):
                if stream.audio:
                    self._feed_piece(stream)
                elif stream.finishes and not stream.finished:
                    stream.finished = True
                    stream.stream.input_finished()
                else:
                    return False
        except InputError as error:
            stream.error = error
            return False
        return True

    def _feed_piece(self, stream: PoolStream) -> None:
        rate, samples = stream.audio.popleft()
        size = max(1, math.ceil(self._chunk_seconds * rate))
        if len(samples) > size:
            stream.audio.appendleft((rate, samples[size:]))
        stream.stream.accept_waveform(rate, samples[:size])

    def _decode_batch(self, batch: Sequence[PoolStream]) -> None:
        """All in one call; when that fails, each by itself, so that only the bad one ends."""
        try:
            self.recognizer.decode_streams([stream.stream for stream in batch])
        except Exception:
            for stream in batch:
                self._decode_alone(stream)

    def _decode_alone(self, stream: PoolStream) -> None:
        try:
            self.recognizer.decode_stream(stream.stream)
        except Exception as error:
            stream.error = error

    def _end_utterance(self, stream: PoolStream) -> None:
        """Takes the result and begins the next, when a rule says so."""
        if self.recognizer.is_endpoint(stream.stream):
            stream.utterances.append(self.recognizer.get_result_all(stream.stream))
            self.recognizer.reset(stream.stream)

    def _settle(self, stream: PoolStream) -> None:
        """What a stream says that has no more audio, or has failed."""
        if stream.error is not None:
            self.close(stream)
        elif stream.finished:
            stream.utterances.append(self.recognizer.get_result_all(stream.stream))
            stream.partial = ""
            self.close(stream)
        else:
            self._end_utterance(stream)  # behind a gate time passes without a chunk
            stream.partial = self.recognizer.get_result(stream.stream)
