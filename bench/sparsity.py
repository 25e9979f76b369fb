"""Is sparsity real? Speed and bytes of every pattern, and what it costs in words.

    python bench/sparsity.py [--quick] [--speed] [--accuracy] [--plan full] [--seeds 3] [--out DIR]

--speed: layers of 512x2048 and Conformers of width 512, dense and pruned, one thread, ratios inside
one run; peak memory; files. --accuracy: real speech; from a teacher that knows speech_commands,
digits_fsdd and speechocean762, students of each pattern at 60, 80, 90 and 95 % removed, with
distillation and without, the same steps; their bundles exported, packed and timed side by side.
Both without either. Killed, it goes on where it stopped; --finished only makes the table of what is
there. --plan short, the default, is two hours of one core, full seven and more (shrinking/plan.py);
--quick: one seed, two levels, few steps.
Writes bench/results/sparsity.{json,md,png}; with --quick sparsity-quick.*.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # chains run side by side, one thread each

from compress.checkpoint import load_model
from compress.data.sets import synthetic_store
from shrinking.accuracy import (
    augmenter_of,
    judge_teacher,
    make_start,
    make_teacher,
    read_results,
    run_chain,
    sampler_of,
    store_shares,
    store_targets,
)
from shrinking.plan import PACKS, PLANS, Plan
from shrinking.sizes import measure_sizes
from shrinking.speed import measure_speed
from shrinking.table import (
    build_comparisons,
    build_rows,
    comparisons_to_markdown,
    draw,
    to_markdown,
)
from side_by_side import side_by_side

BENCH = Path(__file__).parent
SHARED = BENCH.parents[1] / "shared" / "data"
# Rows by the table leave most layers of a teacher this narrow dense, far from 90 %. Of 4 and 8, 4
# lost fewer words on development speech (bench/LOG.md); they save bytes, not time.
PATTERNS = ("unstructured", "block:4", "channel", "small")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", choices=("short", "full"), default="short", help="of --accuracy")
    parser.add_argument("--quick", action="store_true", help="one seed, two levels, fewer steps")
    parser.add_argument("--finished", action="store_true", help="a table of what is there already")
    parser.add_argument("--speed", action="store_true", help="speed alone")
    parser.add_argument("--accuracy", action="store_true", help="accuracy alone")
    parser.add_argument("--seeds", type=int, default=3, help="chains of every pattern")
    parser.add_argument("--workers", type=int, default=2, help="chains trained side by side")
    parser.add_argument("--patterns", default=",".join(PATTERNS), help="with commas between")
    parser.add_argument("--packs", type=Path, default=SHARED, help="folder of the data packs")
    parser.add_argument("--out", type=Path, help="working folder; goes on with what is there")
    arguments = parser.parse_args()
    missing = [pack for pack in (*PACKS, "noise") if not (arguments.packs / pack).is_dir()]
    if missing and not arguments.speed:
        parser.error(f"{arguments.packs} lacks {', '.join(missing)}: give the packs by --packs")
    if arguments.quick:
        arguments.plan, arguments.seeds = "quick", 1
    arguments.out = arguments.out or BENCH.parent / "runs" / f"sparsity-{arguments.plan}"
    arguments.results = BENCH / "results" / ("sparsity-quick" if arguments.quick else "sparsity")
    arguments.patterns = arguments.patterns.split(",")
    return arguments


def train_chains(plan: Plan, arguments: argparse.Namespace) -> None:
    """Prepare what chains share, then run them side by side: all of the first seed before any of
    the second, so that a run which is stopped leaves whole tables of fewer seeds."""
    patterns = arguments.patterns
    make_teacher(plan)
    _ = sampler_of(plan, load_model(plan.out / "teacher")[1], 0)  # features, by all cores
    store_targets(plan)
    if "small" in patterns:
        synthetic_store(plan.synthetic, "train", 1, augmenter_of(plan))
    tasks: list[tuple] = [(store_shares, plan, pattern) for pattern in patterns]
    if "small" in patterns:
        tasks += [(make_start, plan, level) for level in plan.levels]
    side_by_side("first weights and shares", arguments.workers, [*tasks, (judge_teacher, plan)])
    chains = [
        (run_chain, plan, pattern, distilled, seed)
        for seed in range(arguments.seeds)
        for distilled in (True, False)
        for pattern in patterns
    ]
    side_by_side("chains", arguments.workers, chains)


def measure_accuracy(arguments: argparse.Namespace) -> dict[str, Any]:
    """{"plan": its name, "accuracy": rows, "comparisons": rows} of the chains that are there."""
    plan = Plan(arguments.packs, arguments.out, **PLANS[arguments.plan])
    if not arguments.finished:
        train_chains(plan, arguments)
    results = read_results(plan, arguments.patterns, arguments.seeds)
    rows = build_rows(results, measure_sizes(plan, arguments.patterns))
    comparisons = build_comparisons(results)
    return {"plan": arguments.plan, "accuracy": rows, "comparisons": comparisons}


def main() -> None:
    arguments = parse_arguments()
    results = arguments.results.with_suffix(".json")
    content = json.loads(results.read_text()) if results.exists() else {}
    if not arguments.accuracy:
        content["speed"] = measure_speed(quick=arguments.quick)
    if not arguments.speed:
        content |= measure_accuracy(arguments)
        draw(content["accuracy"], arguments.results.with_suffix(".png"))
        table = to_markdown(content["accuracy"])
        table += "\n" + comparisons_to_markdown(content["comparisons"])
        arguments.results.with_suffix(".md").write_text(table)
        print(table)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content))


if __name__ == "__main__":
    main()
