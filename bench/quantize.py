"""What each form of quantisation costs: word errors, bytes, time, loading and memory.

    python bench/quantize.py [--quick] [--packs DIR] [--out DIR] [--steps 600] [--only auto,int8]

Three models, the built-in teacher, a student of a tenth of its size that is trained first, and the
same with outliers, which int8 hurts, in fp32, int8, static, int4, qat (the student: its training
ended with rounding) and auto (a form for every layer). Words are judged on the test splits of the
packs, decoded from audio by streaming/; times are ratios of rounds in which all variants take turns
on one thread. Killed, it goes on where it stopped. Writes bench/results/quantize.{json,md,png};
--quick: quantize-quick.*. --only: these forms and fp32; the rows of others stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

from quantisation.costs import measure_costs, measure_words, read_sets
from quantisation.table import Row, draw, to_markdown
from quantisation.variants import JUDGED, LEARNT, VARIANTS, Plan, make_models, make_variants

BENCH = Path(__file__).parent
SHARED = BENCH.parents[1] / "shared" / "data"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, two packs, 40 utterances")
    parser.add_argument("--packs", type=Path, default=SHARED, help="folder of the data packs")
    parser.add_argument("--steps", type=int, default=600, help="of the student's training")
    parser.add_argument("--only", default=",".join(VARIANTS), help="forms, with commas between")
    parser.add_argument("--out", type=Path, help="working folder; goes on with what is there")
    arguments = parser.parse_args()
    missing = [pack for pack in (*JUDGED, "noise") if not (arguments.packs / pack).is_dir()]
    if missing:
        parser.error(f"{arguments.packs} lacks {', '.join(missing)}: give the packs by --packs")
    arguments.name = "quantize-quick" if arguments.quick else "quantize"
    arguments.out = arguments.out or BENCH.parent / "runs" / arguments.name
    return arguments


def keep_others(file: Path, words: list[Row], costs: list[Row]) -> tuple[list[Row], list[Row]]:
    """New rows in place of old ones of the same model, form and set; the others as they were."""
    old = json.loads(file.read_text()) if file.exists() else {"words": [], "costs": []}

    def key(row: Row) -> tuple:
        return row["model"], row.get("data"), row["variant"]

    merged = []
    for before, now in ((old["words"], words), (old["costs"], costs)):
        rows = {key(row): row for row in before} | {key(row): row for row in now}
        merged.append(list(rows.values()))
    return merged[0], merged[1]


def main() -> None:
    arguments = parse_arguments()
    steps, num = (30, 40) if arguments.quick else (arguments.steps, 1000)
    plan = Plan(arguments.packs, arguments.out, steps, num, arguments.quick)
    sets = read_sets(plan)
    words, costs = [], []
    for name, model in make_models(plan).items():
        bundles = make_variants(plan, name, model, arguments.only.split(","))
        words += measure_words(name, bundles, sets)
        costs += measure_costs(name, bundles, sets)
    results = BENCH / "results" / arguments.name
    results.parent.mkdir(parents=True, exist_ok=True)
    words, costs = keep_others(results.with_suffix(".json"), words, costs)
    draw(words, costs, LEARNT, results.with_suffix(".png"))
    table = to_markdown(words, costs)
    results.with_suffix(".md").write_text(table)
    print(table)
    content = {"words": words, "costs": costs}
    results.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content))


if __name__ == "__main__":
    main()
