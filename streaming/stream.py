"""One speaker's audio, and all that is carried for it from chunk to chunk."""

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streaming.audio import check_samples
from streaming.errors import AudioError, InputError
from streaming.features import FeatureStream, FloatArray
from streaming.gate import Gate
from streaming.paused import write_values
from streaming.resample import Resampler
from streaming.search import Phrases, SearchState, Token

if TYPE_CHECKING:
    from streaming.recognizer import Recognizer


class Stream:
    """One speaker's audio and all that is carried for it; made by Recognizer.create_stream()."""

    def __init__(self, recognizer: "Recognizer", hotwords: Phrases = ()) -> None:
        session = recognizer.session
        self.features = FeatureStream(recognizer.info.features)
        self.state = session.initial_state()
        self.search: SearchState = recognizer.search.start(hotwords)
        self.tokens: list[Token] = []
        self.start_frame = 0  # encoder frames before this segment
        self.segment = 0
        self.gate = Gate(recognizer.gate, recognizer.info) if recognizer.gate else None
        self._skips: deque[tuple[int, int]] = deque()  # feature frame, encoder frames left out
        self._recognizer = recognizer
        self._sample_rate: int | None = None
        self._resampler: Resampler | None = None
        self._finished = False

    def accept_waveform(self, sample_rate: int, samples: npt.ArrayLike) -> None:
        """Takes float (num_samples,) or (num_samples, channels) in [-1, 1], at any one rate.

        Only stores them: decode with Recognizer.decode_stream while Recognizer.is_ready.
        Raises AudioError for samples that are not finite, and when the rate changes.
        """
        if self._finished:
            raise InputError("the stream's input is finished: create another stream")
        samples = check_samples(samples)
        if self._resampler is None:
            self._resampler = Resampler(sample_rate, self.features.settings.sample_rate)
            self._sample_rate = sample_rate
        if sample_rate != self._sample_rate:
            raise AudioError(
                f"the stream began at {self._sample_rate} Hz and now gets {sample_rate} Hz: "
                "create a stream for each rate"
            )
        self._pass_gate(self._resampler.accept(samples))

    def _pass_gate(self, samples: FloatArray) -> None:
        if self.gate is None:
            self.features.accept(samples)
            return
        for piece in self.gate.accept(samples):
            if isinstance(piece, int):
                at = self.features.num_samples // self.features.settings.shift_samples
                self._skips.append((at, piece))
            else:
                self.features.accept(piece)
        self.count_skipped()

    def count_skipped(self) -> None:
        """Adds what the gate left out to the time, once no whole chunk before it waits."""
        due = self.features.num_read + self._recognizer.info.chunk_frames
        while self._skips and self._skips[0][0] < due:
            self.search = self._recognizer.search.skip(self.search, self._skips.popleft()[1])

    def input_finished(self) -> None:
        """Ends the audio: appends as much silence as brings the last word out.

        All frames of the audio plus tail_frames are decoded, rounded up to whole chunks.
        """
        if self._finished:
            return
        self._finished = True
        if self._resampler is not None:
            self._pass_gate(self._resampler.finish())
        if self.gate is not None:
            self.features.accept(self.gate.finish())
        num_samples = self.features.num_samples
        if num_samples == 0:
            return
        info, settings = self._recognizer.info, self.features.settings
        num_frames = settings.num_frames(num_samples) + info.tail_frames
        num_chunks = -(-num_frames // info.chunk_frames)
        padded = settings.num_samples(num_chunks * info.chunk_frames)
        self.features.accept(np.zeros(max(0, padded - num_samples), dtype=np.float32))

    @property
    def is_finished(self) -> bool:
        """Whether no more sound will come."""
        return self._finished

    def accept(self, samples: npt.ArrayLike, sample_rate: int | None = None) -> str:
        """Takes samples (at the model's own rate when none is given); returns the text so far."""
        self.accept_waveform(sample_rate or self.features.settings.sample_rate, samples)
        return self._recognizer.decode_ready(self)

    def finish(self) -> str:
        """Ends the audio; returns the whole text."""
        self.input_finished()
        return self._recognizer.decode_ready(self)

    def copy(self) -> "Stream":
        """A second stream that has heard the same; the two go on independently."""
        return Stream.restore(self._recognizer, self.save())

    def pause(self) -> bytes:
        """All that the stream carries; Recognizer.resume_stream() makes a stream of it again."""
        return write_values(self.save() | {"recognizer": self._recognizer.identity})

    def save(self) -> dict[str, Any]:
        """What restore() needs, as plain values; none of the arrays is ever written into."""
        return {
            "features": self.features.save(),
            "state": self.state,
            "search": self.search,
            "tokens": list(self.tokens),
            "start_frame": self.start_frame,
            "segment": self.segment,
            "sample_rate": self._sample_rate,
            "resampler": self._resampler.save() if self._resampler else None,
            "finished": self._finished,
            "gate": self.gate.save() if self.gate else None,
            "skips": [list(skip) for skip in self._skips],
        }

    @classmethod
    def restore(cls, recognizer: "Recognizer", saved: dict[str, Any]) -> "Stream":
        """A stream that goes on where another was saved."""
        stream = cls(recognizer)
        settings = stream.features.settings
        stream.features = FeatureStream.restore(settings, saved["features"])
        stream.state, stream.search = saved["state"], saved["search"]
        stream.tokens = saved["tokens"]
        stream.start_frame, stream.segment = int(saved["start_frame"]), int(saved["segment"])
        stream._finished = bool(saved["finished"])
        stream._skips = deque((int(at), int(left_out)) for at, left_out in saved["skips"])
        if stream.gate is not None and saved["gate"]:
            stream.gate.restore(saved["gate"])
        if saved["resampler"]:
            rate = int(saved["sample_rate"])
            stream._sample_rate = rate
            stream._resampler = Resampler.restore(rate, settings.sample_rate, saved["resampler"])
        return stream
