"""`compress label`: speech without transcripts becomes training data, in the teacher's words.

    OUT/cuts.jsonl.gz    Lhotse cuts whose text is the teacher's best hypothesis: --data OUT
        targets/         the teacher's N-best and its scores, as training stores them
        record.json      counts, hours, the teacher's hash
        config.yaml      what was asked for

The teacher runs first, over all utterances, into targets/; killed, it goes on where it stopped.
Then the cuts are chosen, which takes seconds: --resume with another --min-confidence chooses again.
Transcripts that the data has are not used; they only tell how good the pseudo-labels are.
"""

from __future__ import annotations

import gzip
import io
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.atomic import write_atomically, write_json
from compress.checkpoint import load_model
from compress.claim import claim_folder
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.cuts import normalise_text, read_data, select_split, splits_in
from compress.data.sets import cache_folder, set_name
from compress.data.store import FRAME_SECONDS, FeatureStore, Row, build_store
from compress.data.tokenizer import Tokenizer
from compress.distill.targets.kind import Item
from compress.distill.targets.nbest import NBestTargets, split_tokens
from compress.distill.targets.store import TargetStore, fingerprint, key_of, store_targets
from compress.evaluate import word_error_rate
from compress.lm import check_tokenizer
from compress.models.transducer import Transducer
from compress.progress import say
from compress.search import stateless_predictor
from streaming.errors import InputError

if TYPE_CHECKING:
    from lhotse.cut import Cut


@dataclass(frozen=True)
class PseudoLabel:
    """The teacher's best hypothesis; score is log P(text|x) in nats, over all alignments.

    confidence: exp(score / number of tokens), in [0, 1], the geometric mean of what the teacher
    grants a token and the blanks around it. It compares long utterances with short ones; the
    probability of a whole utterance does not.                                            [ours]
    """

    text: str
    score: float
    confidence: float


@dataclass(frozen=True)
class Heard:
    """An utterance the teacher heard; `row.text` is its transcript, empty where nobody knows it."""

    cut: Cut
    row: Row
    label: PseudoLabel

    @property
    def seconds(self) -> float:
        return self.row.num_frames * FRAME_SECONDS


def label_data(
    teacher_folder: Path,
    data: list[str],
    out: Path,
    *,
    split: str = "train",
    min_confidence: float = 0.0,
    beam: int = 4,
    nbest: int = 4,
    lm: Path | None = None,
    lm_weight: float = 0.3,
    resume: bool = False,
) -> dict[str, Any]:
    """Label `split` of each set of `data`, or all of a set that names no splits; the record.

    lm: folder of a language model over the teacher's tokens, which then has a say in the search.
    Raises InputError for a confidence outside [0, 1], a folder with other files or of another
    call, and when no utterance is left.
    """
    if not 0 <= min_confidence <= 1:
        raise InputError(f"--min-confidence is a share, 0 to 1; got {min_confidence:g}")
    kind = NBestTargets(beam, nbest, str(lm) if lm else None, lm_weight)
    teacher, tokenizer = load_model(teacher_folder)
    stateless_predictor(teacher)
    if kind.language_model:
        check_tokenizer(kind.language_model, tokenizer)
    cuts = read_unlabelled(data, split)
    asked = {
        "teacher": str(teacher_folder.resolve()),
        "data": [str(Path(spec).resolve()) for spec in data],
        "split": split,
        "beam": beam,
        "nbest": nbest,
    }
    if lm:
        asked |= {"lm": str(lm.resolve()), "lm_weight": lm_weight}
    claim_folder(asked, out, resume)
    settings = teacher.config.encoder.feature_settings
    stores = [
        build_store(cache_folder(), f"{set_name(spec)}-{split}", some, settings=settings)
        for spec, some in zip(data, cuts, strict=True)
    ]
    targets = run_teacher(out / "targets", kind, teacher, tokenizer, stores)
    by_id = {cut.id: cut for some in cuts for cut in some}
    heard = [
        Heard(by_id[row.id], row, read_label(targets, kind, row, tokenizer))
        for store in stores
        for row in store.rows
        if row.num_frames
    ]
    origin = {f"{name}_hash": found for name, found in fingerprint(teacher, tokenizer).items()}
    record = asked | origin | {"min_confidence": min_confidence}
    return write_labels(out, heard, len(by_id) - len(heard), record)


def read_unlabelled(data: list[str], split: str) -> list[list[Cut]]:
    """The cuts of each set, of one supervision each; where two sets share an id, ids get the
    set's name in front. Raises InputError when that does not tell them apart."""
    sets = []
    for spec in data:
        cuts = read_data(spec, labelled=False)
        sets.append(list(select_split(cuts, split) if splits_in(cuts) else cuts))
    cuts = [one_supervision(cut) for some in sets for cut in some]
    if len({cut.id for cut in cuts}) < len(cuts):
        for cut in cuts:
            cut.id = f"{cut.custom['data']}/{cut.id}"
    cut_id, count = Counter(cut.id for cut in cuts).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} utterances are called {cut_id}: label each set by its own call")
    return sets


def one_supervision(cut: Cut) -> Cut:
    """In place: the texts of all supervisions in one, nothing else but the speaker."""
    from lhotse import SupervisionSegment

    told = cut.supervisions
    segment = SupervisionSegment(
        id=cut.id,
        recording_id=cut.recording.id,
        start=0.0,
        duration=cut.duration,
        text=" ".join(part.text for part in told if part.text),
        speaker=told[0].speaker if told else None,
    )
    cut.supervisions = [segment]
    return cut


def run_teacher(
    folder: Path,
    kind: NBestTargets,
    teacher: Transducer,
    tokenizer: Tokenizer,
    stores: list[FeatureStore],
) -> TargetStore:
    """Store the N-best of every utterance that has a frame, or find it stored."""
    sources = [Source(hide_texts(store)) for store in stores]
    sampler = BatchSampler(sources, tokenizer, BatchSettings(), augment=False)
    return store_targets(folder, [kind], teacher, sampler)


def hide_texts(store: FeatureStore) -> FeatureStore:
    """The same features without transcripts and without utterances too short for one frame."""
    hidden = FeatureStore(store.folder)
    hidden.rows = [replace(row, text="") for row in store.rows if row.num_frames]
    return hidden


def read_label(
    targets: TargetStore, kind: NBestTargets, row: Row, tokenizer: Tokenizer
) -> PseudoLabel:
    item: Item = targets.kinds[kind.name].item(key_of(row))
    tokens, score = split_tokens(item)[0], float(item["scores"][0])
    confidence = math.exp(score / max(1, len(tokens)))
    return PseudoLabel(normalise_text(tokenizer.decode(tokens)), score, min(1.0, confidence))


def write_labels(
    out: Path, heard: list[Heard], num_unheard: int, record: dict[str, Any]
) -> dict[str, Any]:
    """Choose, write cuts.jsonl.gz and record.json, and say the counts."""
    spoken = [one for one in heard if one.label.text]
    kept = [one for one in spoken if one.label.confidence >= record["min_confidence"]]
    record = record | {
        "kept": len(kept),
        "below_min_confidence": len(spoken) - len(kept),
        "empty": len(heard) - len(spoken),
        "too_short": num_unheard,
        "hours": sum(one.seconds for one in heard) / 3600,
        "hours_kept": sum(one.seconds for one in kept) / 3600,
        "wer": {"kept": judge_labels(kept), "all": judge_labels(heard)},
    }
    say_record(record)
    if not kept:
        raise InputError(
            "no utterance is left: lower --min-confidence and add --resume, or look at the audio"
        )
    content = pack_cuts([cut_of(one, record["teacher_hash"]) for one in kept])
    write_atomically(out / "cuts.jsonl.gz", lambda path: path.write_bytes(content))
    write_json(out / "record.json", record)
    return record


def judge_labels(heard: list[Heard]) -> dict[str, Any] | None:
    """WER of the pseudo-labels where the data has transcripts; None where it has none."""
    known = [one for one in heard if one.row.text]
    if not known:
        return None
    texts = [one.row.text for one in known]
    return asdict(word_error_rate(texts, [one.label.text for one in known]))


def say_record(record: dict[str, Any]) -> None:
    say(
        f"  kept {record['kept']} utterances ({record['hours_kept']:.2f} of "
        f"{record['hours']:.2f} hours); left out: {record['below_min_confidence']} below "
        f"--min-confidence {record['min_confidence']:g}, {record['empty']} without words, "
        f"{record['too_short']} shorter than a frame"
    )
    for name, rate in record["wer"].items():
        if rate:
            say(
                f"  the data has transcripts, which are not used: WER {100 * rate['wer']:.2f} % "
                f"of {rate['utterances']} utterances ({name})"
            )


def cut_of(heard: Heard, teacher_hash: str) -> Cut:
    """The cut as training reads it: in the training split, its audio by an absolute path."""
    cut, label = heard.cut, heard.label
    cut.supervisions[0].text = label.text
    for source in cut.recording.sources:
        if source.type == "file":
            source.source = str(Path(source.source).resolve())
    cut.custom = {
        **cut.custom,
        "split": "train",
        "confidence": round(label.confidence, 6),
        "score": round(label.score, 4),
        "teacher": teacher_hash,
    }
    return cut


def pack_cuts(cuts: list[Cut]) -> bytes:
    """A .jsonl.gz of cuts; no time goes into it, so equal cuts are equal bytes."""
    content = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as file:
        for cut in cuts:
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")
    return content.getvalue()
