"""What waits to be sent to one client: every result, but of stale partial texts only the newest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

MAX_PARTIALS = 16  # a client that reads at all has fewer under way, and misses none
MAX_FINALS = 64  # utterances: minutes of speech that nobody read


class StuckReaderError(Exception):
    """The client does not read its results."""


class Outbox:
    """put() never waits; run() sends, in order, until close() and all is sent.

    Memory is bounded: with MAX_PARTIALS waiting, those before the newest are dropped; with
    MAX_FINALS waiting, or one that could not be sent for send_seconds, the reader is stuck.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], send_seconds: float) -> None:
        self.num_dropped = 0
        self._send = send
        self._send_seconds = send_seconds
        self._waiting: deque[tuple[str, bool]] = deque()
        self._num_finals = 0
        self._closed = False
        self._something = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put_partial(self, message: str) -> None:
        if len(self._waiting) - self._num_finals >= MAX_PARTIALS:
            kept = [item for item in self._waiting if item[1]]
            self.num_dropped += len(self._waiting) - len(kept)
            self._waiting = deque(kept)
        self._waiting.append((message, False))
        self._something.set()

    def put_final(self, message: str) -> None:
        """Raises StuckReaderError when too many wait."""
        if self._num_finals >= MAX_FINALS:
            raise StuckReaderError
        self._waiting.append((message, True))
        self._num_finals += 1
        self._something.set()

    def close(self) -> None:
        """Nothing more is put; run() returns when all is sent."""
        self._closed = True
        self._something.set()

    async def run(self) -> None:
        """Raises StuckReaderError, and what sending raises."""
        while True:
            while self._waiting:
                message, final = self._waiting.popleft()
                self._num_finals -= final
                try:
                    await asyncio.wait_for(self._send(message), self._send_seconds)
                except asyncio.TimeoutError:  # on Python 3.10 not yet the built-in one
                    raise StuckReaderError from None
            if self._closed:
                return
            self._something.clear()
            await self._something.wait()
