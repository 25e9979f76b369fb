"""`--quantize auto`: a form for every layer, together the cheapest mix within a budget of WER.

    every layer alone in every form -> nats, us, bytes      export/quantize/candidates.py
    -> mixes from the cheapest to the most exact            export/quantize/mixes.py
    -> the cheapest that surely loses no more WER than --max-wer-increase on development speech

Surely: the upper end of the 95 % interval of the difference from fp32, paired over utterances, is
within the budget. A mix that happens to help on a few hundred words is not taken for a good one;
the nearer a mix is to fp32, the fewer words differ, and the narrower is the interval.

The last is found by halving, each time with all of the speech, decoded from audio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from compress.difference import Sets, WerDifference, compare_texts, decode
from compress.progress import console, progress_bar, say, track
from export.names import NETWORK_OF, PREFIXES
from export.precisions import add_precision
from export.quantize import Method, Ranges, calibrate
from export.quantize.candidates import Candidate, Choice, Measurements, list_choices
from export.quantize.mixes import Mix, explain, list_mixes
from export.quantize.probe import record
from streaming.bundle import GRAPHS, BundleInfo, read_bundle
from streaming.errors import InputError
from streaming.features import FloatArray

PRECISION: Method = "auto"
PROBED = 12  # utterances that every candidate hears; the ranges come from all that are given


@dataclass(frozen=True)
class Chosen:
    """forms: layer -> form. layers: what is known of each, to be added to bundle.json's.

    alone: what int8 of a single network costs, network -> a difference for each set. within: what
    the mix costs.
    """

    forms: dict[str, str]
    layers: list[dict[str, Any]]
    alone: dict[str, list[WerDifference]]
    within: list[WerDifference]
    budget: float

    def to_json(self) -> dict[str, Any]:
        return {
            "max_wer_increase": self.budget,
            "wer_difference": [asdict(one) for one in self.within],
            "int8_alone": {
                network: [asdict(one) for one in some] for network, some in self.alone.items()
            },
        }


@dataclass
class Judge:
    """Word errors of mixes against fp32's, on the same utterances."""

    info: BundleInfo
    sets: Sets
    ranges: Mapping[str, Ranges]
    _exact: dict[str, list[str]] = field(default_factory=dict)

    def measure(self, forms: Mapping[str, str]) -> list[WerDifference]:
        """A difference for each set; forms: of all layers, as torch names them."""
        info, _ = add_precision(self.info, PRECISION, forms, self.ranges)
        return [self._compare(info, name, utterances) for name, utterances in self.sets.items()]

    def _compare(self, info: BundleInfo, name: str, utterances: Sequence[Any]) -> WerDifference:
        if name not in self._exact:
            self._exact[name] = decode(self.info, "fp32", utterances)
        said = [text for _, _, text in utterances]
        heard = decode(info, PRECISION, utterances)
        return compare_texts(name, PRECISION, said, self._exact[name], heard)


def choose_forms(
    bundle: Path, sets: Sets, calibration: Sequence[FloatArray], budget: float
) -> Chosen:
    """The cheapest mix for an fp32 bundle, beside whose graphs files are written on the way.

    sets: development speech with its text. calibration: features (T, F) of a few dozen utterances.
    budget: points of WER that every set may lose. Raises InputError for sets without words.
    """
    sets = {name: [u for u in some if u[2].split()] for name, some in sets.items()}
    if not sets or not all(sets.values()):
        raise InputError("auto judges by word errors: give --data with transcripts, or int8")
    info = read_bundle(bundle)
    ranges = calibrate(info, calibration)
    measured = measure_layers(info, calibration, ranges)
    return settle(measured, Judge(info, sets, ranges), budget)


def measure_layers(
    info: BundleInfo, calibration: Sequence[FloatArray], ranges: Mapping[str, Ranges]
) -> list[list[Candidate]]:
    """The candidates of every choice."""
    measurements = Measurements(info, record(info, calibration[:PROBED]), ranges)
    choices = list_choices(info)
    bar = track(choices, "layers in every form", len(choices))
    return [measurements.measure(choice) for choice in bar]


def settle(measured: Sequence[Sequence[Candidate]], judge: Judge, budget: float) -> Chosen:
    """The cheapest mix of the candidates within the budget, and all that is to be told of it."""
    alone = measure_networks(judge, [candidates[0].choice for candidates in measured])
    mix, within = find_cheapest(list_mixes(measured), judge.measure, budget)
    report(measured, mix, within)
    layers = [describe(*pair) for pair in zip(measured, mix.chosen, strict=True)]
    known = [{"name": name, **about} for names, about in layers for name in names]
    return Chosen(forms_of(mix), known, alone, within, budget)


def measure_networks(judge: Judge, choices: Sequence[Choice]) -> dict[str, list[WerDifference]]:
    """What int8 costs in encoder, predictor and joiner, each alone: transducers differ in that."""
    alone = {}
    for graph in GRAPHS:
        forms = {
            name: "int8" if choice.graph == graph else "fp32"
            for choice in choices
            for name in torch_names(choice)
        }
        alone[NETWORK_OF[graph]] = found = judge.measure(forms)
        say(f"  int8 in the {NETWORK_OF[graph]} alone: {show(found)}")
    return alone


def find_cheapest(
    mixes: Sequence[Mix],
    measure: Callable[[Mapping[str, str]], list[WerDifference]],
    budget: float,
) -> tuple[Mix, list[WerDifference]]:
    """The first mix within the budget, by halving: dearer mixes are taken to be more exact.

    The last one, which moves nothing that can be measured, is within any budget.
    """
    low, high = 0, len(mixes) - 1
    found: dict[int, list[WerDifference]] = {}
    with progress_bar() as bar:
        task = bar.add_task("mixes", total=math.ceil(math.log2(len(mixes))) or 1, note="")
        while low < high:
            middle = (low + high) // 2
            found[middle] = measure(forms_of(mixes[middle]))
            bar.update(task, advance=1, note=show(found[middle]))
            if is_within(found[middle], budget):
                high = middle
            else:
                low = middle + 1
    return mixes[high], found.get(high) or measure(forms_of(mixes[high]))


def is_within(found: Sequence[WerDifference], budget: float) -> bool:
    return all(100 * one.high <= budget for one in found)


def forms_of(mix: Mix) -> dict[str, str]:
    return {name: c.form for c in mix.chosen for name in torch_names(c.choice)}


def torch_names(choice: Choice) -> list[str]:
    return [PREFIXES[choice.graph] + layer for layer in choice.layers]


def describe(
    candidates: Sequence[Candidate], chosen: Candidate
) -> tuple[list[str], dict[str, Any]]:
    """The names of a choice's layers, and what bundle.json says of each beside its form."""
    about: dict[str, Any] = {"nats": {c.form: float(f"{c.nats:.2e}") for c in candidates if c.nats}}
    if why := explain(candidates, chosen):
        about["why"] = why
    return torch_names(chosen.choice), about


def show(found: Sequence[WerDifference]) -> str:
    """ "+0.12 (up to +0.40) points on speech_commands/dev"."""
    return ", ".join(
        f"{100 * one.difference:+.2f} (up to {100 * one.high:+.2f}) points on {one.data}"
        for one in found
    )


def report(
    measured: Sequence[Sequence[Candidate]], mix: Mix, within: Sequence[WerDifference]
) -> None:
    """The sensitivity of every layer, why wide layers are wide, and what the mix gives."""
    console.print(sensitivity_table(measured, mix))
    wide: dict[str, list[str]] = {}
    for candidates, chosen in zip(measured, mix.chosen, strict=True):
        if why := explain(candidates, chosen):
            wide.setdefault(f"{chosen.form}: {why}", []).append(torch_names(chosen.choice)[0])
    for why, names in wide.items():
        more = f" and {len(names) - 1} more" if names[1:] else ""
        say(f"  {names[0]}{more} in {why}")
    whole = [c for candidates in measured for c in candidates if c.form == "fp32"]
    say(
        f"  auto: {mix.bytes / 1e6:.3f} MB of weights for {sum(c.bytes for c in whole) / 1e6:.3f}, "
        f"{mix.us:.0f} us of products a chunk for {sum(c.us for c in whole):.0f}"
    )
    for one in within:
        say(f"  {one}")


def sensitivity_table(measured: Sequence[Sequence[Candidate]], mix: Mix) -> Table:
    """A row for each choice: nats of narrow forms, then what the chosen one takes."""
    forms = ("int8", "static", "int4")  # half moves nothing that counts
    table = Table(box=SIMPLE, collapse_padding=True, padding=(0, 1, 0, 0))
    table.title = "nats that a form of one layer moves the output by, and the form it gets"
    table.add_column("layer", no_wrap=True)
    for title in (*forms, "chosen", "kB", "us/chunk"):
        table.add_column(title, justify="right", no_wrap=True)
    for candidates, chosen in zip(measured, mix.chosen, strict=True):
        nats = {candidate.form: show_nats(candidate.nats) for candidate in candidates}
        name = torch_names(chosen.choice)[0].removeprefix("encoder.")
        sizes = f"{chosen.bytes / 1000:.1f}", f"{chosen.us:.1f}"
        table.add_row(name, *(nats.get(form, "") for form in forms), chosen.form, *sizes)
    return table


def show_nats(nats: float) -> str:
    """0.000032 is "3e-5"."""
    digit, exponent = f"{nats:.0e}".split("e")
    return f"{digit}e{int(exponent)}" if nats else "0"
