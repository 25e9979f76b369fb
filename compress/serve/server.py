"""Listens, admits, counts, and ends cleanly; GET /healthz and /metrics on the same port.

It has no encryption and asks nobody who they are: it listens on this machine alone unless told
otherwise, and wants a reverse proxy before it where others can reach it (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.asyncio.server import Server as Listener

from compress.progress import say
from compress.serve.connection import Connection
from compress.serve.decoder import Decoder
from compress.serve.limits import Limits
from compress.serve.metrics import Metrics
from streaming import DecodingSettings, GateSettings, InputError, Recognizer, open_bundle
from streaming.pool import RecognizerPool

MAX_QUEUE = 2  # messages that are read ahead of the one that is decoded
SEND_BUFFER = 1 << 15  # bytes in the kernel; by itself it takes megabytes of stale partials
STOP_SECONDS = 10.0  # for the last results when the server ends


class Server:
    """One recogniser for many connections; port 0 takes a free one, which `port` names then."""

    def __init__(self, recognizer: Recognizer, host: str, port: int, limits: Limits) -> None:
        self.host, self.port = host, port
        self.limits = limits
        self.metrics = Metrics()
        self.decoder = Decoder(RecognizerPool(recognizer, limits.max_batch), self.metrics)
        self._rate = recognizer.info.features.sample_rate

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serves until stop(); then what was heard is answered and every client gets 1001."""
        self.stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.decoder.start()
        try:
            async with await self._listen() as listener:
                self.port = listener.sockets[0].getsockname()[1]
                started()
                await asyncio.wait(
                    {self.stopping, self.decoder.died}, return_when=asyncio.FIRST_COMPLETED
                )
                self.stop()
                listener.close(close_connections=False)
                await self._wait_for_clients(listener)
            if self.decoder.died.done():
                self.decoder.died.result()
        finally:
            self.decoder.stop()

    def stop(self) -> None:
        if not self.stopping.done():
            self.stopping.set_result(None)

    async def _listen(self) -> Listener:
        try:
            return await serve(
                self._serve_client,
                self.host,
                self.port,
                process_request=self._answer_request,
                compression=None,  # a kilobyte could unfold to gigabytes
                max_size=self.limits.message_bytes,
                max_queue=MAX_QUEUE,
                ping_interval=None,  # pongs wait behind sound; idle_seconds finds who has gone
                close_timeout=5,
            )
        except (OSError, OverflowError) as error:
            reason = os.strerror(getattr(error, "errno", 0) or 0)
            if isinstance(error, socket.gaierror | OverflowError):
                reason = "no such address"
            raise InputError(
                f"{self.host}:{self.port}: {reason}: choose another --host or --port"
            ) from None

    async def _wait_for_clients(self, listener: Listener) -> None:
        """Until all have their last results, or too long."""
        for _ in range(round(STOP_SECONDS / 0.02)):
            if not self.metrics.connections or self.decoder.died.done():
                break
            await asyncio.sleep(0.02)
        for websocket in list(listener.connections):
            websocket.transport.abort()

    def _answer_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """HTTP before the websocket begins; None lets it begin, on any other path."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.metrics.render())
        if self.metrics.connections >= self.limits.connections:
            self.metrics.refused_total += 1
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.limits.connections} clients are connected, as many as may: try later\n",
            )
        return None

    async def _serve_client(self, websocket: ServerConnection) -> None:
        wire = websocket.transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.metrics.connections += 1
        self.metrics.connections_total += 1
        try:
            await Connection(
                websocket, self.decoder, self.metrics, self.limits, self.stopping, self._rate
            ).run()
        finally:
            self.metrics.connections -= 1


def serve_bundle(
    bundle: Path | str,
    host: str = "127.0.0.1",
    port: int = 2700,
    limits: Limits | None = None,
    precision: str | None = None,
    num_threads: int = 1,
    decoding: DecodingSettings | None = None,
    gate: GateSettings | None = None,
) -> None:
    """Serves until Ctrl-C or SIGTERM, and says what it served."""
    limits = limits or Limits()
    recognizer = open_bundle(bundle, precision, num_threads, decoding, gate)
    server = Server(recognizer, host, port, limits)
    asyncio.run(_serve_until_signal(server))
    metrics = server.metrics
    say(
        f"served {metrics.connections_total} clients, {metrics.utterances_total} utterances, "
        f"{metrics.audio_seconds:.0f} s of sound at a real-time factor of "
        f"{metrics.real_time_factor:.4f}; {metrics.errors_total} ended by an error, "
        f"{metrics.refused_total} refused"
    )


async def _serve_until_signal(server: Server) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)

    def announce() -> None:
        host = f"[{server.host}]" if ":" in server.host else server.host
        say(f"listening on ws://{host}:{server.port}, Ctrl-C ends; /healthz and /metrics beside")
        say(f"try: python examples/websocket_client.py ws://{host}:{server.port} FILE.wav")

    await server.run(announce)
