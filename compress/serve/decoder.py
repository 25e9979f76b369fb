"""One thread that decodes for all connections, so that the event loop never waits for a network.

decoder = Decoder(pool, metrics)       decoder.start()       decoder.stop()
stream = await decoder.open()
heard = await decoder.hear(stream, 16000, samples)
heard = await decoder.finish(stream)
decoder.close(stream)
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compress.serve.metrics import Metrics
from streaming.features import FloatArray
from streaming.pool import Heard, PoolStream, RecognizerPool


@dataclass(frozen=True)
class Job:
    """What the thread shall do for a stream; `answer` gets what came of it, unless cancelled."""

    stream: PoolStream | None
    act: Callable[[], Any]
    answer: asyncio.Future[Any] | None
    came: float  # time.monotonic()
    num_chunks: int = 0  # of the stream before it


class Decoder:
    """A pool in a thread of its own. A stream has at most one unanswered call at a time.

    died: a future that raises what ended the thread, our own fault; a server ends with it.
    """

    def __init__(self, pool: RecognizerPool, metrics: Metrics) -> None:
        self.pool = pool
        self.metrics = metrics
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._unanswered: dict[PoolStream, Job] = {}
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.died = self._loop.create_future()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after what it was given."""
        self._jobs.put(None)
        self._thread.join()

    async def open(self) -> PoolStream:
        stream: PoolStream = await self._ask(None, self.pool.open)
        return stream

    async def hear(self, stream: PoolStream, sample_rate: int, samples: FloatArray) -> Heard:
        """What came of the samples, when all of them are decoded; raises InputError."""
        heard: Heard = await self._ask(
            stream, lambda: self.pool.accept_waveform(stream, sample_rate, samples)
        )
        return heard

    async def finish(self, stream: PoolStream) -> Heard:
        """The last utterance; the stream is closed."""
        heard: Heard = await self._ask(stream, lambda: self.pool.input_finished(stream))
        return heard

    def close(self, stream: PoolStream) -> None:
        """Forgets a stream, whatever of it is under way."""
        self._jobs.put(Job(None, lambda: self._forget(stream), None, time.monotonic()))

    def _ask(self, stream: PoolStream | None, act: Callable[[], Any]) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        chunks = stream.num_chunks if stream else 0
        self._jobs.put(Job(stream, act, answer, time.monotonic(), chunks))
        return answer

    # In the thread.

    def _run(self) -> None:
        try:
            self._decode()
        except Exception as error:
            self._loop.call_soon_threadsafe(self._settle, [(self.died, error)])

    def _decode(self) -> None:
        going = True
        while going or self.pool.is_busy:
            answers: list[tuple[asyncio.Future[Any], Any]] = []
            going = self._take_jobs(answers) and going
            start = time.perf_counter()
            done = self.pool.decode()
            self._count(time.perf_counter() - start)
            answers += [self._answer(stream) for stream in done if stream in self._unanswered]
            if answers:
                self._loop.call_soon_threadsafe(self._settle, answers)

    def _take_jobs(self, answers: list[tuple[asyncio.Future[Any], Any]]) -> bool:
        """Begins all jobs that came; waits for one when there is nothing to decode."""
        going = True
        wait = not self.pool.is_busy
        while wait or not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                going = wait = False
                continue
            wait = False
            try:
                outcome = job.act()
            except Exception as error:
                outcome = error
            if job.stream is not None and not isinstance(outcome, Exception):
                self._unanswered[job.stream] = job
            elif job.answer is not None:
                answers.append((job.answer, outcome))
        return going

    def _forget(self, stream: PoolStream) -> None:
        self._unanswered.pop(stream, None)
        self.pool.close(stream)
        self.metrics.streams = len(self.pool.streams)

    def _count(self, seconds: float) -> None:
        metrics = self.metrics
        metrics.decode_seconds += seconds
        metrics.streams = len(self.pool.streams)
        if self.pool.last_batch:
            metrics.batch_size.observe(self.pool.last_batch)

    def _answer(self, stream: PoolStream) -> tuple[asyncio.Future[Any], Any]:
        job = self._unanswered.pop(stream)
        if stream.num_chunks > job.num_chunks:
            self.metrics.chunk_latency.observe(time.monotonic() - job.came)
        assert job.answer is not None
        try:
            return job.answer, stream.take()
        except Exception as error:
            return job.answer, error

    # In the event loop again.

    def _settle(self, answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
        """A connection that has gone has cancelled its future; its stream is closed here."""
        for future, outcome in answers:
            if future.done():
                if isinstance(outcome, PoolStream):
                    self.close(outcome)
            elif isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
