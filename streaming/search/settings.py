"""How to decode: which search, and what else has a say. Names are those of sherpa-onnx."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streaming.bundle import BundleInfo, hash_file
from streaming.errors import InputError
from streaming.search.arpa import read_arpa
from streaming.search.beam import BeamSearch
from streaming.search.fusion import Fusion
from streaming.search.greedy import GreedySearch
from streaming.search.kenlm import KenlmEvents, is_kenlm
from streaming.search.ngram import BackoffTables, Events, NgramLm
from streaming.search.spelling import (
    Speller,
    check_score,
    read_lines,
    spell_phrases,
    split_phrases,
)
from streaming.search.token import Search, silent_tokens
from streaming.session import Session

MAX_PATHS = 256


@dataclass(frozen=True)
class DecodingSettings:
    """decoding_method: a key of SEARCHES. max_active_paths: hypotheses of a beam search.

    hotwords: phrases, each with a score of its own as in "turn on :2.0", or one string with / in
    between; hotwords_file: one a line; hotwords_score: of those without, nats a token.
    lm: an n-gram model over the bundle's pieces (.arpa, .arpa.gz; KenLM's binary where the library
    kenlm is installed), with lm_weight. blank_penalty: nats off blank's logit.
    temperature_scale: of the tokens' log_probs alone. max_symbols_per_frame: of the greedy search;
    None takes the bundle's own, which is sherpa-onnx's: 1, or 10 of target sherpa_nemo.
    Raises InputError for a value out of its range.
    """

    decoding_method: str = "greedy_search"
    max_active_paths: int = 4
    hotwords: str | Sequence[str] = ()
    hotwords_file: Path | str | None = None
    hotwords_score: float = 1.5
    lm: Path | str | None = None
    lm_weight: float = 0.3
    blank_penalty: float = 0.0
    temperature_scale: float = 1.0
    max_symbols_per_frame: int | None = None

    def __post_init__(self) -> None:
        if self.decoding_method not in SEARCHES:
            raise InputError(
                f"decoding_method {self.decoding_method!r} is not known: "
                f"use one of {', '.join(SEARCHES)}"
            )
        if not 1 <= self.max_active_paths <= MAX_PATHS:
            raise InputError(
                f"max_active_paths is {self.max_active_paths}: give 1 to {MAX_PATHS}, as 4"
            )
        if self.max_symbols_per_frame is not None and self.max_symbols_per_frame < 1:
            raise InputError(
                f"max_symbols_per_frame is {self.max_symbols_per_frame}: give 1 or more"
            )
        check_score(self.hotwords_score, "hotwords_score")
        ranges = {
            "lm_weight": (0.0, 10.0, "0.3"),
            "blank_penalty": (0.0, 100.0, "0"),
            "temperature_scale": (0.01, 100.0, "1"),
        }
        for name, (low, high, usual) in ranges.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"{name} is {value:g}: give {low:g} to {high:g}, as {usual}")

    @property
    def identity(self) -> str:
        """What two settings have in common when a stream of one can go on in the other."""
        hotwords = sorted(self.phrases()), self.hotwords_score
        lm = hash_file(Path(self.lm)) if self.lm else None
        says = repr((self.decoding_method, hotwords, lm, self.lm_weight, self.blank_penalty))
        return hashlib.sha256(says.encode()).hexdigest()[:16]

    def phrases(self) -> list[str]:
        """All hotwords as they were written. Raises InputError for a file that cannot be read."""
        lines = read_lines(Path(self.hotwords_file)) if self.hotwords_file else []
        return [*split_phrases(self.hotwords), *lines]


Maker = Callable[[Session, Iterable[int], DecodingSettings, Fusion], Search]


def _make_greedy(
    session: Session, blanks: Iterable[int], settings: DecodingSettings, fusion: Fusion
) -> Search:
    most = settings.max_symbols_per_frame or session.info.max_symbols_per_frame
    return GreedySearch(session, blanks, most, fusion)


def _make_beam(
    session: Session, blanks: Iterable[int], settings: DecodingSettings, fusion: Fusion
) -> Search:
    return BeamSearch(session, blanks, settings.max_active_paths, fusion)


SEARCHES: dict[str, Maker] = {"greedy_search": _make_greedy, "modified_beam_search": _make_beam}


def make_search(
    session: Session, symbols: Sequence[str], speller: Speller, settings: DecodingSettings
) -> Search:
    """The search of a bundle's session. Raises InputError for hotwords or an LM of other tokens."""
    info: BundleInfo = session.info
    fusion = Fusion(
        info.blank_id,
        settings.blank_penalty,
        settings.temperature_scale,
        open_lm(Path(settings.lm), symbols, info.blank_id) if settings.lm else None,
        settings.lm_weight,
        spell_phrases(settings.phrases(), speller, settings.hotwords_score),
    )
    blanks = silent_tokens(info, symbols)
    return SEARCHES[settings.decoding_method](session, blanks, settings, fusion)


def open_lm(path: Path, symbols: Sequence[str], blank_id: int) -> NgramLm:
    """A language model's file; what it is is told by its first bytes.

    Raises InputError for a file that is missing, damaged or over other tokens.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file: give the .arpa of a language model")
    events: Events
    if is_kenlm(path):
        events = KenlmEvents(path, symbols, blank_id)
    else:
        events = BackoffTables(read_arpa(path, symbols, blank_id), len(symbols))
    return NgramLm(events, symbols, blank_id)
