"""One client: reads a message, has it decoded, answers, and only then reads the next.

So a client that sends faster than it is decoded finds its socket full and waits: at most MAX_QUEUE
+ 1 messages of it are in memory. What it does not read waits in an Outbox, which is bounded too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from compress.serve.decoder import Decoder
from compress.serve.limits import Limits
from compress.serve.metrics import Metrics
from compress.serve.outbox import Outbox, StuckReaderError
from compress.serve.protocol import (
    Audio,
    Config,
    Eof,
    format_error,
    format_partial,
    format_utterance,
    parse_message,
)
from streaming import InputError
from streaming.pool import Heard, PoolStream

NORMAL, GOING_AWAY, INVALID, POLICY, OUR_FAULT = 1000, 1001, 1007, 1008, 1011
BROKEN = (1002, 1007, 1009)  # no websocket, no UTF-8, too large: the library itself closes then

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """How a connection ends: the code of the close frame, and why, in at most 123 bytes."""

    code: int
    reason: str = ""


class LimitError(InputError):
    """A client has had its share; what it said until then is answered."""


class Connection:
    """stopping: a future that is done when the server ends; model_rate: Hz without a config."""

    def __init__(
        self,
        websocket: ServerConnection,
        decoder: Decoder,
        metrics: Metrics,
        limits: Limits,
        stopping: asyncio.Future[Any],
        model_rate: int,
    ) -> None:
        self.websocket = websocket
        self.decoder = decoder
        self.metrics = metrics
        self.limits = limits
        self.stopping = stopping
        self.config = Config(sample_rate=model_rate)
        self.outbox = Outbox(websocket.send, limits.send_seconds)
        self.num_samples = 0
        self._stream: PoolStream | None = None
        self._finished = False

    async def run(self) -> None:
        """Serves until the client, the server, a limit or an error ends it; never raises."""
        sender = asyncio.create_task(self.outbox.run())
        try:
            ending = await self._first(self._talk(), sender)
            self.outbox.close()
            await sender
            await self.websocket.close(ending.code, ending.reason)
        except StuckReaderError:
            self.metrics.errors_total += 1
            await self._abort()
        except ConnectionClosed as closed:
            self.metrics.errors_total += closed.sent is not None and closed.sent.code in BROKEN
        finally:
            sender.cancel()
            self.metrics.partials_dropped_total += self.outbox.num_dropped
            if self._stream is not None and not self._finished:
                self.decoder.close(self._stream)

    async def _first(self, talk: Awaitable[Ending], sender: asyncio.Task[None]) -> Ending:
        """What the talk ends with, unless sending fails before."""
        talking = asyncio.ensure_future(talk)
        try:
            await asyncio.wait({talking, sender}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                sender.result()
            return await talking
        finally:
            talking.cancel()

    async def _abort(self) -> None:
        """A close frame behind what it does not read would never arrive: says it, waits briefly."""
        closing = asyncio.ensure_future(self.websocket.close(POLICY, "you do not read the results"))
        await asyncio.wait({closing}, timeout=1.0)
        self.websocket.transport.abort()
        await asyncio.wait({closing})

    async def _talk(self) -> Ending:
        try:
            return await self._listen()
        except LimitError as error:
            await self._finish()
            return self._refuse(error, POLICY, "a limit is reached: see the error before this")
        except InputError as error:
            return self._refuse(error, INVALID, "wrong input: see the error before this")
        except (ConnectionClosed, StuckReaderError):
            raise
        except Exception:
            logger.exception("a connection failed")
            ours = RuntimeError("our own fault: the server's log says more")
            return self._refuse(ours, OUR_FAULT, "our own fault")

    def _refuse(self, error: Exception, code: int, reason: str) -> Ending:
        self.metrics.errors_total += 1
        self.outbox.put_final(format_error(error))
        return Ending(code, reason)

    async def _listen(self) -> Ending:
        """Messages until the end of the sound, or of the server."""
        while (message := await self._receive()) is not None:
            action = parse_message(message, self.config)
            if isinstance(action, Eof):
                await self._finish()
                return Ending(NORMAL)
            if isinstance(action, Audio):
                await self._hear(action)
            elif self._stream is not None:
                raise InputError("config came after sound: send it first, or connect again")
            else:
                self.config = action
        await self._finish()
        return Ending(GOING_AWAY, "the server ends")

    async def _receive(self) -> bytes | str | None:
        """The next message; None when the server ends. Raises LimitError after idle_seconds."""
        if self.stopping.done():
            return None
        receiving = asyncio.ensure_future(self.websocket.recv())
        try:
            done, _ = await asyncio.wait(
                {receiving, self.stopping},
                timeout=self.limits.idle_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            if not receiving.done():
                receiving.cancel()
        if receiving in done:
            return receiving.result()
        if done:
            return None
        raise LimitError(
            f'no message for {self.limits.idle_seconds:g} s: send sound or {{"eof": 1}}, or start '
            "the server with a longer --idle-timeout"
        )

    async def _hear(self, audio: Audio) -> None:
        rate = self.config.sample_rate
        assert rate is not None
        self.num_samples += len(audio.samples)
        if self.num_samples > self.limits.audio_seconds * rate:
            raise LimitError(
                f"more than {self.limits.audio_seconds:g} s of sound in one connection: connect "
                "again, or start the server with a larger --max-seconds"
            )
        if self._stream is None:
            self._stream = await self.decoder.open()
        heard = await self.decoder.hear(self._stream, rate, audio.samples)
        self.metrics.audio_seconds += len(audio.samples) / rate
        self._answer(heard)
        if not heard.utterances:
            self.outbox.put_partial(format_partial(heard.partial))

    async def _finish(self) -> None:
        """The words after the last pause; an empty text when no sound came at all."""
        if self._stream is None:
            self.outbox.put_final('{"text": ""}')
            return
        heard = await self.decoder.finish(self._stream)
        self._finished = True
        self._answer(heard)

    def _answer(self, heard: Heard) -> None:
        for result in heard.utterances:
            self.metrics.utterances_total += bool(result.text)
            self.outbox.put_final(format_utterance(result, self.config.words))
