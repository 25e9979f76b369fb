"""What zeros are worth on stock onnxruntime: layers of 512x2048 and Conformers of width 512.

    python bench/shrinking/speed.py [--quick]     4 minutes on one core, or one

Random weights, nine tenths removed by magnitude, files as export/ writes them, one thread. Goals: a
block layer at least 5 times as fast as dense fp32 for 1, 4, 8 and 16 rows and 30 times smaller in
int8; an encoder 3 times as fast as dense fp32, and faster than dense int8.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from compress.models.config import StatelessPredictorConfig, TransducerConfig, uniform_conformer
from compress.models.transducer import Transducer
from compress.shrink.channel import ChannelPruner
from export.graph import export_graph
from export.latency import choose_group, load_table
from export.quantize import quantize_graph
from export.stopwatch import PRECISIONS, Precision
from export.wrap import EncoderExport, freeze
from shrinking.stopwatch import Case, Row, compare

SPARSITY = 0.9
WIDTH, HIDDEN, HEADS = 512, 2048, 8
CHUNK_FRAMES = 32  # 8 rows a call
ROWS = (1, 4, 8, 16)
LAYER_GOAL, BYTES_GOAL, ENCODER_GOAL = 5.0, 30.0, 3.0
BY_TABLE = "block by the table"
BlockRows = dict[str, int]


def measure_speed(quick: bool = False) -> dict[str, Any]:
    """{"layers": rows, "encoders": rows, "goals": which of the goals hold, and by how much}."""
    turns = 9 if quick else 25
    with tempfile.TemporaryDirectory() as folder:
        layers = measure_layers(Path(folder), (64, 128) if quick else (32, 64, 128, 256), turns)
        encoders = measure_encoders(Path(folder), 4 if quick else 12, turns)
    return {"layers": layers, "encoders": encoders, "goals": judge(layers, encoders)}


def measure_layers(folder: Path, groups: tuple[int, ...], turns: int) -> list[Row]:
    """Eight layers of 512x2048 and 2048x512 in turns, one after the other; figures of all eight."""
    channel = [8 * round((1 - SPARSITY) ** 0.5 * size / 8) for size in (WIDTH, HIDDEN)]
    files = {"dense": write_layers(chain(WIDTH, HIDDEN), folder / "dense")}
    zeros = chain(WIDTH, HIDDEN)
    for layer in matrices(zeros).values():
        keep_largest_(layer.weight, 1 - SPARSITY)
    files["unstructured, zeros left"] = write_layers(zeros, folder / "zeros")
    for group_rows in groups:
        model = chain(WIDTH, HIDDEN)
        rows_of = dict.fromkeys(matrices(model), group_rows)
        prune_blocks_(model, rows_of, 1 - SPARSITY)
        files[f"block:{group_rows}"] = write_layers(model, folder / f"block{group_rows}", rows_of)
    files["channel"] = write_layers(chain(*channel), folder / "channel")
    table: list[Row] = []
    for num_rows in ROWS:
        cases = []
        for pattern, paths in files.items():
            width = channel[0] if pattern == "channel" else WIDTH
            x = np.random.default_rng(0).standard_normal((num_rows, width), dtype=np.float32)
            cases += cases_of(paths, {"x": x}, {"rows": num_rows, "pattern": pattern})
        table += compare(cases, turns)
    return table


def chain(width: int, hidden: int) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = [(width, hidden), (hidden, width)] * 4
    return nn.Sequential(*(nn.Linear(*size) for size in sizes)).requires_grad_(False)


def write_layers(
    model: nn.Sequential, stem: Path, block_rows: Mapping[str, int] | None = None
) -> dict[str, Path]:
    """The rows of a call are the free axis: one file for all of them."""
    example = {"x": torch.zeros(2, model[0].in_features)}
    paths = paths_of(stem)
    export_graph(model, example, ["y"], [0], {}, paths["fp32"], block_rows)
    quantize_graph(paths["fp32"], paths["int8"])
    return paths


def measure_encoders(folder: Path, num_layers: int, turns: int) -> list[Row]:
    """Whole encoders chunk by chunk, 8 rows a call."""
    dense = conformer(num_layers)
    names = matrices(dense.encoder)
    variants: list[tuple[str, BlockRows, tuple[Precision, ...]]] = [
        ("dense", {}, PRECISIONS),
        *((f"block:{g}", {f"encoder.{n}": g for n in names}, PRECISIONS) for g in (64, 128)),
        *((BY_TABLE, groups_by_table(names, p), (p,)) for p in PRECISIONS),
        ("channel", {}, PRECISIONS),
    ]
    dense_values = sum(p.numel() for p in dense.encoder.parameters())
    cases = []
    for number, (pattern, block_rows, precisions) in enumerate(variants):
        model = conformer(num_layers)
        if block_rows:
            prune_blocks_(model, block_rows, share_kept(model.encoder, block_rows))
        elif pattern == "channel":
            ChannelPruner(model).prune_to(SPARSITY)
        values = sum(int((p != 0).sum()) for p in model.encoder.parameters())
        labels = {"pattern": pattern, "sparsity": round(1 - values / dense_values, 4)}
        paths, feed = write_encoder(model, folder / f"encoder{number}", block_rows)
        cases += cases_of({p: paths[p] for p in precisions}, feed, labels)
    return compare(cases, turns)


def conformer(num_layers: int) -> Transducer:
    torch.manual_seed(0)
    encoder = uniform_conformer(
        num_layers=num_layers,
        width=WIDTH,
        num_heads=HEADS,
        feed_forward=HIDDEN,
        joint_width=WIDTH,
        chunk_frames=CHUNK_FRAMES,
    )
    predictor = StatelessPredictorConfig(width=WIDTH, joint_width=WIDTH)
    config = TransducerConfig(vocab_size=500, encoder=encoder, predictor=predictor)
    return Transducer(config).requires_grad_(False)


def share_kept(encoder: nn.Module, block_rows: Mapping[str, int]) -> float:
    """Of every matrix named, so that of the whole encoder SPARSITY is gone: the rest stays."""
    layers = matrices(encoder)
    names = [name.removeprefix("encoder.") for name in block_rows]
    total = sum(parameter.numel() for parameter in encoder.parameters())
    pruned = sum(layers[name].weight.numel() for name in names)
    return ((1 - SPARSITY) * total - (total - pruned)) / pruned


def groups_by_table(layers: Mapping[str, nn.Module], precision: Precision) -> BlockRows:
    """What the latency table chooses; layers that would not gain are left out."""
    table = load_table()
    rows = {}
    for name, layer in layers.items():
        outputs, inputs = layer.weight.flatten(1).shape
        num_rows = CHUNK_FRAMES // 4
        group = choose_group(table, inputs, outputs, num_rows, SPARSITY, precision)
        rows |= {f"encoder.{name}": group} if group else {}
    return rows


def write_encoder(
    model: Transducer, stem: Path, block_rows: Mapping[str, int]
) -> tuple[dict[str, Path], dict[str, np.ndarray]]:
    wrapped = EncoderExport(freeze(model.encoder))
    sizes = wrapped.layout.sizes
    shapes = {"x": (2, CHUNK_FRAMES, 80), "state0": (1, 2, sizes[0]), "state1": (1, 2, sizes[1])}
    example = {name: torch.zeros(shape) for name, shape in shapes.items()}
    outputs = ["encoder_out", "next_state0", "next_state1"]
    paths = paths_of(stem)
    export_graph(wrapped, example, outputs, [0, 1, 1], {}, paths["fp32"], block_rows)
    quantize_graph(paths["fp32"], paths["int8"])
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((1, CHUNK_FRAMES, 80), dtype=np.float32)}
    for number, size in enumerate(sizes):
        feed[f"state{number}"] = np.zeros((1, 1, size), dtype=np.float32)
    return paths, feed


def paths_of(stem: Path) -> dict[str, Path]:
    return {p: stem.with_name(f"{stem.name}.{p}.onnx") for p in PRECISIONS}


def cases_of(paths: Mapping[str, Path], feed: dict[str, np.ndarray], labels: Row) -> list[Case]:
    return [
        Case(path, feed, {**labels, "precision": precision}) for precision, path in paths.items()
    ]


def matrices(module: nn.Module) -> dict[str, nn.Module]:
    """Every Linear, and every Conv1d that is not depthwise."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d) and layer.groups == 1)
    }


def prune_blocks_(model: nn.Module, block_rows: Mapping[str, int], share: float) -> None:
    """Leaves each group of rows its largest columns, the same number everywhere."""
    for name, group_rows in block_rows.items():
        weight = model.get_submodule(name).weight.data
        groups = weight.flatten(1).unflatten(0, (-1, group_rows))
        num_kept = max(1, math.floor(share * groups.shape[-1]))
        best = groups.square().sum(1).topk(num_kept).indices
        mask = torch.zeros(len(groups), groups.shape[-1]).scatter(1, best, 1.0)
        weight.mul_(mask[:, None].expand_as(groups).reshape(weight.shape))


def keep_largest_(weight: torch.Tensor, share: float) -> None:
    limit = weight.data.abs().flatten().kthvalue(round((1 - share) * weight.numel())).values
    weight.data.mul_(weight.data.abs() > limit)


def judge(layers: list[Row], encoders: list[Row]) -> dict[str, Any]:
    """The worst figures of layers in blocks of 64 and 128, and of the encoder by the table."""
    blocks = [row for row in layers if row["pattern"] in ("block:64", "block:128")]
    int8 = [row for row in blocks if row["precision"] == "int8"]
    fp32 = [row for row in blocks if row not in int8]
    encoder = [row for row in encoders if row["pattern"] == BY_TABLE]
    encoder_int8 = [row for row in encoder if row["precision"] == "int8"]

    def worst(rows: list[Row], name: str) -> float:
        return min(row[name] for row in rows)

    goals = {
        "layer_fp32": (worst(fp32, "ratio_to_dense_fp32"), LAYER_GOAL),
        "layer_int8": (worst(int8, "ratio_to_dense_fp32"), LAYER_GOAL),
        "layer_int8_bytes": (worst(int8, "bytes_ratio"), BYTES_GOAL),
        "encoder_fp32": (worst(encoder, "ratio_to_dense_fp32"), ENCODER_GOAL),
        "encoder_int8": (worst(encoder_int8, "ratio_to_dense_fp32"), ENCODER_GOAL),
        "encoder_int8_to_dense_int8": (worst(encoder_int8, "ratio_to_dense_int8"), 1.0),
    }
    return {
        name: {"worst": value, "goal": goal, "holds": value >= goal}
        for name, (value, goal) in goals.items()
    }


def print_rows(rows: list[Row]) -> None:
    """Columns as wide as their widest cell."""
    head = list(rows[0])
    lines = [head, *([str(row[name]) for name in head] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer groups, layers and turns")
    found = measure_speed(parser.parse_args().quick)
    for name in ("layers", "encoders"):
        print_rows(found[name])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
