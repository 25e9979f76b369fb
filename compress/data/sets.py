"""The sets a run trains on and is judged by: synthetic speech and the packs of --data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from compress.data.batches import Source
from compress.data.cuts import assign_splits, read_data, read_samples, select_split, splits_in
from compress.data.join import join_cuts
from compress.data.noise import Augmenter
from compress.data.store import FeatureStore, Row, build_store, text_of
from compress.data.synthetic import make_synthetic
from compress.data.tokenizer import UNKNOWN_ID, Tokenizer
from compress.models.config import SUBSAMPLING
from compress.progress import say
from streaming.errors import InputError
from streaming.features import FeatureSettings, FloatArray

if TYPE_CHECKING:
    from lhotse.cut import Cut

KALDI = FeatureSettings()
Item = TypeVar("Item")


def cache_folder() -> Path:
    """Where synthetic speech and features are kept: $COMPRESS_CACHE, else below ~/.cache."""
    default = Path.home() / ".cache" / "compress-transducer"
    return Path(os.environ.get("COMPRESS_CACHE", default))


def synthetic_cuts(num_utterances: int, split: str, seed: int) -> list[Cut]:
    """Synthetic speech by the voices of `split`, made or found in the cache."""
    return list(make_synthetic(cache_folder() / "synthetic", num_utterances, split, seed))


def cuts_to_judge(
    data: Sequence[str], num_synthetic: int, seed: int = 0, split: str = "test"
) -> dict[str, list[Cut]]:
    """Utterances to judge by, by set and split: of `data`, else synthetic ones."""
    if not data:
        return {f"synthetic/{split}": synthetic_cuts(num_synthetic, split, seed)}
    return {f"{set_name(spec)}/{split}": real_cuts(spec, split) for spec in data}


def read_utterances(cuts: Iterable[Cut]) -> list[tuple[str, FloatArray, str]]:
    """Id, samples and text of each, as measure.py decodes them."""
    return [(cut.id, read_samples(cut), text_of(cut)) for cut in cuts]


def spread(items: Sequence[Item], num: int) -> Sequence[Item]:
    """At most `num` of them, evenly spaced."""
    return items[:: -(-len(items) // num) or 1]


def synthetic_store(
    num_utterances: int,
    split: str,
    seed: int,
    augmenter: Augmenter | None = None,
    features: FeatureSettings = KALDI,
) -> FeatureStore:
    cuts = synthetic_cuts(num_utterances, split, seed)
    name = f"synthetic-{split}"
    return build_store(cache_folder(), name, cuts, augmenter, seed=seed, settings=features)


def real_cuts(spec: str, split: str) -> list[Cut]:
    """One split of a pack; a pack that names no splits gets them by speaker."""
    return list(select_split(assign_splits(read_data(spec)), split))


def has_split(spec: str, split: str) -> bool:
    return split in splits_in(assign_splits(read_data(spec)))


def train_store(
    spec: str,
    augmenter: Augmenter,
    seed: int,
    *,
    copies: int,
    joined: int,
    words_range: tuple[int, int],
    features: FeatureSettings = KALDI,
) -> FeatureStore:
    """Training split of a pack: each utterance heard `copies` times, augmented differently.

    Clips of one word are also joined into `joined` strings of one speaker's clips.
    """
    cuts = real_cuts(spec, "train")
    words = [cut for cut in cuts if " " not in cut.supervisions[0].text]
    strings = join_cuts(words, joined, words_range, seed) if words and joined else []
    name = f"{set_name(spec)}-train"
    utterances = [*cuts, *strings]
    return build_store(cache_folder(), name, utterances, augmenter, copies, seed, features)


def drop_unreachable(store: FeatureStore, tokenizer: Tokenizer, tail_frames: int) -> None:
    """Leave out utterances with more tokens than encoder frames, and say so.

    Greedy search emits at most one label a frame: what such an utterance teaches is never used.
    """
    fitting: list[Row] = []
    short: list[Row] = []
    for row in store.rows:
        num_frames = (row.num_frames + tail_frames) // SUBSAMPLING
        (fitting if len(tokenizer.encode(row.text)) <= num_frames else short).append(row)
    if short:
        say(f"  {short[0].data}: {len(short)} utterances too short for their text: left out")
        say(f"  the first of them is {short[0].id}")
    if not fitting:
        raise InputError("every utterance is too short for its text: check the transcripts")
    store.rows = fitting


def real_store(spec: str, split: str, features: FeatureSettings = KALDI) -> FeatureStore:
    """A split of a pack as it is, to be judged by."""
    name = f"{set_name(spec)}-{split}"
    return build_store(cache_folder(), name, real_cuts(spec, split), settings=features)


def check_texts(store: FeatureStore, tokenizer: Tokenizer) -> None:
    """Raises InputError for a text with signs that no token stands for, such as digits."""
    for row in store.rows:
        if UNKNOWN_ID in tokenizer.encode(row.text):
            raise InputError(
                f"{row.data}, utterance {row.id}: {row.text!r} has signs that the model has no "
                "tokens for: spell it in letters, numbers as words"
            )


def check_sources(sources: list[Source], tokenizer: Tokenizer, tail_frames: int) -> list[Source]:
    """The sources, their texts checked and unreachable utterances left out: see the two above."""
    for source in sources:
        check_texts(source.store, tokenizer)
        drop_unreachable(source.store, tokenizer, tail_frames)
    return sources


def set_name(spec: str) -> str:
    """What a pack is called in reports: its folder or file, without the suffix."""
    path = Path(spec)
    return (path.parent if path.name in ("manifest.jsonl", "cuts.jsonl.gz") else path).stem
