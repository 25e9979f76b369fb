"""How much one client may take, so that the others get their share."""

from __future__ import annotations

from dataclasses import dataclass

from streaming import InputError


@dataclass(frozen=True)
class Limits:
    """connections: at once. message_bytes: of one message. audio_seconds: of one connection.

    idle_seconds: without a message. send_seconds: a client that takes no result for so long is
    disconnected. max_batch: streams of one call of the encoder.
    """

    connections: int = 200
    message_bytes: int = 1 << 20  # 33 s of 16 kHz sound
    audio_seconds: float = 4 * 3600.0
    idle_seconds: float = 60.0
    send_seconds: float = 20.0
    max_batch: int = 32

    def __post_init__(self) -> None:
        for name, option, value in (
            ("connections", "--max-connections", self.connections),
            ("bytes", "--max-message-bytes", self.message_bytes),
            ("seconds", "--max-seconds", self.audio_seconds),
            ("seconds", "--idle-timeout", self.idle_seconds),
        ):
            if not value > 0:
                raise InputError(f"{option} {value}: give a number of {name} above 0")
