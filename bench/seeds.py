"""Does distillation help? Every paper's comparison on real speech, same student, same steps.

    python bench/seeds.py [--quick] [--seeds 3] [--workers 2] [--only TEXT] [--out DIR]

Word error rates on the test splits of speech_commands and digits_fsdd (other speakers), without and
with each method, pooled over seeds; relative reduction with a 95 % interval, a paired bootstrap
over seeds and utterances. What is compared: bench/distillation/cells.py. Prepares features,
teachers, first weights, pseudo-labels and targets once, then trains cells side by side; killed, it
goes on where it stopped. --quick: one seed, fewer steps and cells, 15 minutes on two cores.
Writes bench/results/seeds.{json,md,png}, seeds-quick.* with --quick.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells run side by side, one thread each

from compress.data.sets import synthetic_store
from compress.label import label_data
from compress.train_lm import LmSettings, train_lm
from distillation.cells import CELLS, COMPARISONS
from distillation.data import PACKS as PACK_NAMES
from distillation.data import Hearing, augmenter_of, choose_cuts, train_sources
from distillation.table import build_rows, draw, to_markdown
from distillation.teachers import DEMO, Schooling, make_start, make_teacher
from distillation.training import Plan, prepare_targets, run_cell
from side_by_side import side_by_side

BENCH = Path(__file__).parent
PACKS = BENCH.parents[1] / "shared" / "data"
SCHOOLING = Schooling()
QUICK_SCHOOLING = Schooling(
    (900, 600, 400), teacher=60, lstm=100, synthetic=4000, hearing=Hearing(1, 300)
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few cells and steps")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every cell")
    parser.add_argument("--workers", type=int, default=2, help="cells trained side by side")
    parser.add_argument("--only", default="", help="comparisons whose setting or paper has this")
    parser.add_argument("--packs", type=Path, default=PACKS, help="folder of the data packs")
    parser.add_argument("--out", type=Path, help="working folder; goes on with what is there")
    arguments = parser.parse_args()
    missing = [pack for pack in (*PACK_NAMES, "noise") if not (arguments.packs / pack).is_dir()]
    if missing:
        parser.error(f"{arguments.packs} lacks {', '.join(missing)}: give the packs by --packs")
    name = "seeds-quick" if arguments.quick else "seeds"
    arguments.out = arguments.out or BENCH.parent / "runs" / name
    arguments.results = BENCH / "results" / name
    return arguments


def choose_comparisons(arguments: argparse.Namespace) -> list:
    chosen = [one for one in COMPARISONS if arguments.only in f"{one.paper} {one.setting}"]
    return [one for one in chosen if one.quick] if arguments.quick else chosen


def prepare(arguments: argparse.Namespace, names: list[str], seeds: range) -> Plan:
    """Everything that cells share, each made once."""
    out, packs, quick, workers = (
        arguments.out,
        arguments.packs,
        arguments.quick,
        arguments.workers,
    )
    schooling = QUICK_SCHOOLING if quick else SCHOOLING
    cells = [CELLS[name] for name in names]
    train_sources("all", choose_cuts(packs, "all"), packs, schooling.hearing)
    synthetic_store(schooling.synthetic, "train", 1, augmenter_of(packs))

    teachers = sorted({cell.teacher for cell in cells})
    families = sorted({cell.family for cell in cells} - {"pruned"})
    tasks = [(make_teacher, name, out / "teachers", packs, schooling) for name in teachers]
    tasks += [
        (make_start, family, seed, out / "starts", packs, schooling)
        for family in families
        for seed in seeds
    ]
    side_by_side("teachers and first weights", workers, tasks)
    folders = {name: out / "teachers" / name if name != "demo" else DEMO for name in teachers}
    data = [str(packs / pack) for pack in PACK_NAMES]
    labelling = sorted({cell.data.partition("+")[2] for cell in cells} - {""})
    for name in labelling:
        label_data(folders[name], data, out / "labels" / name, split="dev", resume=True)
    if any("lm" in settings for cell in cells for settings in cell.methods.values()):
        train_lm(LmSettings(), DEMO, [], data, out / "lm", resume=True)

    starts = {
        (family, seed): out / "starts" / f"{family}-{seed}" for family in families for seed in seeds
    }
    steps = 300 if quick else 600
    plan = Plan(packs, out, schooling.hearing, steps, 20, folders, starts, out / "lm")
    groups: dict[tuple[str, str], list[str]] = {}
    for name, cell in zip(names, cells, strict=True):
        groups.setdefault((cell.teacher, cell.data), []).append(name)
    side_by_side("targets", workers, [(prepare_targets, plan, some) for some in groups.values()])
    return plan


def main() -> None:
    arguments = parse_arguments()
    comparisons = choose_comparisons(arguments)
    names = list(dict.fromkeys(name for one in comparisons for name in (one.without, one.with_)))
    seeds = range(1 if arguments.quick else arguments.seeds)
    plan = prepare(arguments, names, seeds)
    tasks = [(run_cell, plan, name, seed) for seed in seeds for name in names]
    results: dict[str, list[dict[str, Any]]] = {}
    for result in side_by_side("cells", arguments.workers, tasks):
        results.setdefault(result["cell"], []).append(result)
    for some in results.values():
        some.sort(key=lambda one: one["seed"])
    rows = build_rows(results)
    arguments.results.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    arguments.results.with_suffix(".md").write_text(to_markdown(rows))
    draw(rows, arguments.results.with_suffix(".png"))
    print(to_markdown(rows))
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
