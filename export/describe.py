"""`compress validate`: what kills a recogniser, else what the folder holds and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.interface import Graph, read_graph
from export.loading import bundle_problems, graph_problems
from export.validate import find_sets, is_nemo, validate_bundle
from streaming.bundle import INFO_FILE, SUMS_FILE, TOKENS_FILE, read_sums
from streaming.external import SUFFIX

FRAME_MS = 10


@dataclass(frozen=True)
class Inspection:
    """problems: one line each, with the fix. description: lines for the user, of a fit folder."""

    problems: list[str]
    description: list[str]
    next_command: str = ""


def inspect_folder(folder: Path) -> Inspection:
    """validate_bundle(), then onnxruntime, in a process of its own, on two silent streams."""
    try:
        return _inspect(folder)
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}: check the path and its permissions"
        return Inspection([problem], [])


def _inspect(folder: Path) -> Inspection:
    ours = (folder / INFO_FILE).exists()
    problems = validate_bundle(folder)
    if problems:
        return Inspection(problems, [])
    if ours and (problems := foreign_files(folder)):
        return Inspection(problems, [])
    sets = find_sets(folder)
    read = [[_read(folder / name) for name in names.values()] for names in sets.values()]
    if ours:
        problems = bundle_problems(folder)
    else:
        known = not is_nemo(read[0][1])
        once = {graph.path: graph for graphs in read for graph in graphs}
        problems = graph_problems([*once.values()], run=known)
    if problems:
        return Inspection(problems, [])
    lines = [describe_model(folder, *read[0])]
    for precision, graphs in zip(sets, read, strict=True):
        sizes = [f"{g.path.name} {_megabytes([g.path])}" for g in graphs]
        lines.append(f"{precision}: {', '.join(sizes)}, {_megabytes([g.path for g in graphs])}")
    if ours:
        return Inspection([], lines, f"compress verify {folder}")
    names = sets[next(iter(sets))]
    options = " ".join(f"--{graph}={folder / name}" for graph, name in names.items())
    return Inspection([], lines, f"sherpa-onnx --tokens={folder / TOKENS_FILE} {options} FILE.wav")


def foreign_files(folder: Path) -> list[str]:
    """What lies in a bundle without a hash; hidden files are the system's."""
    known = {SUMS_FILE, *read_sums(folder)}
    extra = sorted(p.name for p in folder.iterdir() if p.name not in known and p.name[0] != ".")
    fix = f"not in {SUMS_FILE}, so nobody answers for it: remove it, or copy the bundle again"
    return [f"{folder / name}: {fix}" for name in extra]


def _read(path: Path) -> Graph:
    graph = read_graph(path, [])
    assert graph is not None, "validate_bundle has read it"
    return graph


def describe_model(folder: Path, encoder: Graph, decoder: Graph, joiner: Graph) -> str:
    """Family, chunk, vocabulary."""
    meta = encoder.metadata
    if is_nemo(decoder):
        family, vocab_size = "NeMo", int(meta["vocab_size"]) + 1
        chunk, shift, blank = meta["window_size"], meta["chunk_shift"], vocab_size - 1
        bins, num_states = encoder.inputs[0].shape[1], len(encoder.inputs) - 2
    else:
        family, vocab_size = meta["model_type"], int(decoder.metadata["vocab_size"])
        chunk, shift, blank = meta["T"], meta["decode_chunk_len"], 0
        bins, num_states = encoder.inputs[0].shape[2], len(encoder.inputs) - 1
    ahead = int(chunk) - int(shift)
    more = f" and {ahead} frames of look-ahead" if ahead else ""
    return (
        f"{folder}: fit for sherpa-onnx, family {family}; chunks of {shift} frames = "
        f"{FRAME_MS * int(shift)} ms{more}; {vocab_size} tokens, blank {blank}; {bins} mel bins; "
        f"{num_states} state tensors"
    )


def _megabytes(paths: list[Path]) -> str:
    """Of graphs, with the weights that they keep outside as our bundles do."""
    files = [*paths, *(path.with_name(path.name + SUFFIX) for path in paths)]
    return f"{sum(path.stat().st_size for path in files if path.is_file()) / 1e6:.2f} MB"
