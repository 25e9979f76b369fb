"""The recogniser a program uses; its calls are those of sherpa-onnx's OnlineRecognizer.

    recognizer = open_bundle("bundle")            stream = recognizer.create_stream()
    stream.accept_waveform(16000, samples)        while recognizer.is_ready(stream):
    stream.input_finished()                           recognizer.decode_stream(stream)

or, without a loop of one's own:  for partial in recognizer.transcribe(chunks): ...
or:  stream.accept(samples) -> the text so far,  stream.finish() -> the whole text.
How the audio is cut changes nothing in the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from streaming.bundle import SUMS_FILE, TOKENS_FILE, BundleInfo, hash_file
from streaming.endpoint import DEFAULT_RULES, EndpointRule, is_endpoint
from streaming.errors import InputError
from streaming.features import FloatArray
from streaming.gate import GateSettings
from streaming.paused import read_values
from streaming.result import Result
from streaming.search import (
    DecodingSettings,
    Search,
    Speller,
    Token,
    make_search,
    spell_phrases,
    split_phrases,
)
from streaming.session import open_session
from streaming.stream import Stream
from streaming.tokens import UNKNOWN, pieces_to_text, read_tokens
from streaming.words import count_stable


class Recognizer:
    """Decodes any number of streams with one set of graphs.

    decoding: the search and what else has a say; greedy alone when None. gate: leaves silence
    out of all streams; None decodes it.
    """

    def __init__(
        self,
        info: BundleInfo,
        precision: str | None = None,
        num_threads: int = 1,
        decoding: DecodingSettings | None = None,
        endpoint_rules: tuple[EndpointRule, ...] = DEFAULT_RULES,
        gate: GateSettings | None = None,
    ) -> None:
        assert info.folder is not None, "a Recognizer needs a bundle that was read from a folder"
        self.info = info
        self.symbols = read_tokens(info.folder / TOKENS_FILE, info.vocab_size, info.blank_id)
        self.session = open_session(info, precision, num_threads)
        self.decoding = decoding or DecodingSettings()
        self._speller = Speller(self.symbols)
        self.search: Search = make_search(self.session, self.symbols, self._speller, self.decoding)
        self.endpoint_rules = endpoint_rules
        self.gate = gate
        self._hidden = {i for i, symbol in enumerate(self.symbols) if symbol == UNKNOWN}

    @cached_property
    def identity(self) -> str:
        """What two recognisers have in common when a stream of one can go on in the other."""
        assert self.info.folder is not None
        files = hash_file(self.info.folder / SUMS_FILE)
        return f"{files} {self.session.precision} {self.decoding.identity}"

    def create_stream(self, hotwords: str | Sequence[str] = ()) -> Stream:
        """hotwords: of this stream, beside the recogniser's; as in DecodingSettings."""
        lines = split_phrases(hotwords)
        phrases = spell_phrases(lines, self._speller, self.decoding.hotwords_score)
        return Stream(self, phrases)

    def resume_stream(self, paused: bytes) -> Stream:
        """The stream that Stream.pause() was called on, here or on another machine.

        Raises InputError for other bytes, and for a stream of another bundle.
        """
        try:
            values = read_values(paused)
            stream = Stream.restore(self, values)
            if values["recognizer"] != self.identity or not self._fits(stream):
                raise ValueError("of another recogniser")
        except Exception:  # bytes that were tampered with may bring about any of them
            raise InputError(
                "not a stream of this recogniser: give what Stream.pause() returned, with the "
                "bundle, the precision and the search that it had"
            ) from None
        return stream

    def _fits(self, stream: Stream) -> bool:
        """Tries the stream's states on a chunk; raises whatever they bring about."""
        state = [(part.shape, part.dtype) for part in stream.state]
        fits = state == [(part.shape, part.dtype) for part in self.session.initial_state()]
        fits = fits and all(0 <= token.index < len(self.symbols) for token in stream.tokens)
        if fits and type(stream.search) is type(self.search.start()):
            chunk = np.zeros((1, self.info.chunk_frames, self.info.features.num_mel_bins))
            encoded, _ = self.session.encode(chunk.astype(np.float32), stream.state)
            self.search.advance(encoded, [stream.search])
            self.get_result_all(stream)
            return True
        return False

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
        for stream in streams:
            stream.count_skipped()
        encoded = self._encode(streams)
        tokens, searches = self.search.advance(encoded, [stream.search for stream in streams])
        for stream, found, search in zip(streams, tokens, searches, strict=True):
            stream.tokens.extend(token for token in found if token.index not in self._hidden)
            stream.search = search

    def _encode(self, streams: Sequence[Stream]) -> FloatArray:
        """Takes a chunk of each stream; returns encoded (N, T', J) and leaves the states behind.

        A stream alone hands its state over as it is: copies of it took 5 to 8 % of a chunk.
        """
        states = streams[0].state
        if len(streams) > 1:  # before the chunks are read: a bad state costs the others nothing
            parts = zip(*(stream.state for stream in streams), strict=True)
            states = tuple(np.concatenate(part, axis=1) for part in parts)
        read = [stream.features.read(self.info.chunk_frames) for stream in streams]
        chunks = [chunk for chunk in read if chunk is not None]
        if len(streams) == 1:
            encoded, streams[0].state = self.session.encode(chunks[0][None], states)
            return encoded
        encoded, state = self.session.encode(np.stack(chunks), states)
        for n, stream in enumerate(streams):
            stream.state = tuple(part[:, n : n + 1].copy() for part in state)
        return encoded

    def decode_ready(self, stream: Stream) -> str:
        """Decodes every chunk that is ready; returns the text so far."""
        while self.is_ready(stream):
            self.decode_stream(stream)
        return self.get_result(stream)

    def get_result(self, stream: Stream) -> str:
        """The text since the stream began or was last reset."""
        return pieces_to_text([self.symbols[token.index] for token in self._heard(stream)])

    def get_stable_prefix(self, stream: Stream) -> str:
        """The beginning of the text that later sound will not change: whole words.

        It grows until the next reset, and each is a prefix of the next and of the final text. All
        of the text once its input is finished and decoded.
        """
        return self.get_result_all(stream).stable_prefix

    def _heard(self, stream: Stream) -> list[Token]:
        """The certain tokens and the best guess at those after them."""
        pending = (t for t in stream.search.pending if t.index not in self._hidden)
        return [*stream.tokens, *pending]

    def get_result_all(self, stream: Stream) -> Result:
        frame_seconds = self.info.frame_seconds
        heard = self._heard(stream)
        over = stream.is_finished and not self.is_ready(stream)
        pieces = [self.symbols[token.index] for token in heard]
        return Result(
            text=pieces_to_text(pieces),
            tokens=pieces,
            timestamps=[round(token.frame * frame_seconds, 3) for token in heard],
            seconds=round(stream.search.num_frames * frame_seconds, 3),
            start_seconds=round(stream.start_frame * frame_seconds, 3),
            segment=stream.segment,
            log_probs=[token.log_prob for token in heard],
            num_stable=len(heard) if over else count_stable(pieces[: len(stream.tokens)]),
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
        heard = bool(self._heard(stream))
        stream.segment += heard
        if self.session.reset_forgets:
            stream.state = self.session.initial_state()
        if heard and not self.session.reset_forgets:
            stream.search = self.search.resume(stream.search)
        else:
            stream.search = self.search.start(stream.search.hotwords)
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
