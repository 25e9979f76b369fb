"""The recogniser a program uses; its calls are those of sherpa-onnx's OnlineRecognizer.

    recognizer = open_bundle("bundle")            stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)        while recognizer.is_ready(stream):
    stream.input_finished()                           recognizer.decode_stream(stream)

or, without a loop of one's own:  for partial in recognizer.transcribe(chunks): ...
or:  stream.accept(samples) -> the text so far,  stream.finish() -> the whole text.
How the audio is cut changes nothing in the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.audio import check_samples
from streaming.bundle import TOKENS_FILE, BundleInfo
from streaming.endpoint import DEFAULT_RULES, EndpointRule, is_endpoint
from streaming.errors import AudioError, InputError
from streaming.features import FeatureStream
from streaming.resample import Resampler
from streaming.search import GreedyState, Token, greedy_search, initial_search, silent_tokens
from streaming.session import open_session
from streaming.tokens import UNKNOWN, pieces_to_text, read_tokens


@dataclass(frozen=True)
class Result:
    """What was heard since the stream began or was last reset.

    tokens: pieces; timestamps: seconds from start_seconds to the frame that emitted each;
    seconds: how much sound was decoded; start_seconds: where in the stream this segment starts.
    """

    text: str
    tokens: list[str]
    timestamps: list[float]
    seconds: float
    start_seconds: float = 0.0
    segment: int = 0


class Stream:
    """One speaker's audio and all that is carried for it; made by Recognizer.create_stream()."""

    def __init__(self, recognizer: "Recognizer") -> None:
        session = recognizer.session
        self.features = FeatureStream(recognizer.info.features)
        self.state = session.initial_state()
        self.search = initial_search(session)
        self.tokens: list[Token] = []
        self.start_frame = 0  # encoder frames before this segment
        self.segment = 0
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
        self.features.accept(self._resampler.accept(samples))

    def input_finished(self) -> None:
        """Ends the audio: appends as much silence as brings the last word out.

        All frames of the audio plus tail_frames are decoded, rounded up to whole chunks.
        """
        if self._finished:
            return
        self._finished = True
        if self._resampler is not None:
            self.features.accept(self._resampler.finish())
        num_samples = self.features.num_samples
        if num_samples == 0:
            return
        info, settings = self._recognizer.info, self.features.settings
        num_frames = settings.num_frames(num_samples) + info.tail_frames
        num_chunks = -(-num_frames // info.chunk_frames)
        padded = settings.num_samples(num_chunks * info.chunk_frames)
        self.features.accept(np.zeros(max(0, padded - num_samples), dtype=np.float32))

    def accept(self, samples: npt.ArrayLike, sample_rate: int | None = None) -> str:
        """Takes samples (at the model's own rate when none is given); returns the text so far."""
        self.accept_waveform(sample_rate or self.features.settings.sample_rate, samples)
        return self._recognizer.decode_ready(self)

    def finish(self) -> str:
        """Ends the audio; returns the whole text."""
        self.input_finished()
        return self._recognizer.decode_ready(self)


class Recognizer:
    """Decodes any number of streams with one set of graphs.

    max_symbols_per_frame: None takes the bundle's own, which is sherpa-onnx's: 1, or 10
    of target sherpa_nemo.
    """

    def __init__(
        self,
        info: BundleInfo,
        precision: str | None = None,
        num_threads: int = 1,
        max_symbols_per_frame: int | None = None,
        endpoint_rules: tuple[EndpointRule, ...] = DEFAULT_RULES,
    ) -> None:
        assert info.folder is not None, "a Recognizer needs a bundle that was read from a folder"
        self.info = info
        self.symbols = read_tokens(info.folder / TOKENS_FILE, info.vocab_size, info.blank_id)
        self.session = open_session(info, precision, num_threads)
        self.max_symbols = max_symbols_per_frame or info.max_symbols_per_frame
        self.endpoint_rules = endpoint_rules
        self._blanks = silent_tokens(info, self.symbols)
        self._hidden = {i for i, symbol in enumerate(self.symbols) if symbol == UNKNOWN}

    def create_stream(self) -> Stream:
        return Stream(self)

    def is_ready(self, stream: Stream) -> bool:
        """True when a whole chunk of features waits to be decoded."""
        return stream.features.num_ready >= self.info.chunk_frames

    def decode_stream(self, stream: Stream) -> None:
        """Decodes one chunk of one stream."""
        self.decode_streams([stream])

    def decode_streams(self, streams: Sequence[Stream]) -> None:
        """Decodes one chunk of each stream in one batch; all must be ready and different.

        With fp32 graphs a stream's tokens do not depend on its company; dynamic int8 graphs
        choose one activation scale a batch, so there they may.
        """
        if len({id(stream) for stream in streams}) != len(streams):
            raise InputError("the same stream is given twice: give each once a call")
        if not all(map(self.is_ready, streams)):
            raise InputError("a stream has no whole chunk yet: call is_ready() before decoding")
        if not streams:
            return
        chunks = [stream.features.read(self.info.chunk_frames) for stream in streams]
        states = zip(*(stream.state for stream in streams), strict=True)
        batch = np.stack([chunk for chunk in chunks if chunk is not None])
        encoded, state = self.session.encode(
            batch, tuple(np.concatenate(parts, axis=1) for parts in states)
        )
        searches = [stream.search for stream in streams]
        tokens, searches = greedy_search(
            self.session, encoded, searches, self.max_symbols, self._blanks
        )
        for n, stream in enumerate(streams):
            stream.state = tuple(part[:, n : n + 1] for part in state)
            stream.tokens.extend(t for t in tokens[n] if t.index not in self._hidden)
            stream.search = searches[n]

    def decode_ready(self, stream: Stream) -> str:
        """Decodes every chunk that is ready; returns the text so far."""
        while self.is_ready(stream):
            self.decode_stream(stream)
        return self.get_result(stream)

    def get_result(self, stream: Stream) -> str:
        """The text since the stream began or was last reset."""
        return pieces_to_text([self.symbols[token.index] for token in stream.tokens])

    def get_result_all(self, stream: Stream) -> Result:
        frame_seconds = self.info.frame_seconds
        pieces = [self.symbols[token.index] for token in stream.tokens]
        return Result(
            text=pieces_to_text(pieces),
            tokens=pieces,
            timestamps=[round(token.frame * frame_seconds, 3) for token in stream.tokens],
            seconds=round(stream.search.num_frames * frame_seconds, 3),
            start_seconds=round(stream.start_frame * frame_seconds, 3),
            segment=stream.segment,
        )

    def is_endpoint(self, stream: Stream) -> bool:
        """True when a rule says that the utterance is over; then take the result and reset()."""
        frame_seconds = self.info.frame_seconds
        trailing = stream.search.num_trailing_blanks * frame_seconds
        return is_endpoint(self.endpoint_rules, trailing, stream.search.num_frames * frame_seconds)

    def reset(self, stream: Stream) -> None:
        """Begins the next utterance, as sherpa-onnx does: the text starts afresh.

        Target sherpa_lstm: the encoder hears on, and the last labels stay the predictor's context,
        unless nothing was heard. Target sherpa_nemo: both begin anew.
        """
        stream.start_frame += stream.search.num_frames
        stream.segment += bool(stream.tokens)
        if self.session.reset_forgets:
            stream.state = self.session.initial_state()
        if stream.tokens and not self.session.reset_forgets:
            stream.search = GreedyState(stream.search.memory, stream.search.predicted)
        else:
            stream.search = initial_search(self.session)
        stream.tokens = []

    def transcribe(
        self, chunks: Iterable[npt.ArrayLike], sample_rate: int | None = None
    ) -> Iterator[str]:
        """Yields the text whenever it changes, and the final text last, even when it is empty."""
        stream = self.create_stream()
        text = ""
        for samples in chunks:
            partial = stream.accept(samples, sample_rate)
            if partial != text:
                text = partial
                yield text
        yield stream.finish()
