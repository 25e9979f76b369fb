"""Finds what would kill sherpa-onnx, or make it deaf, before it loads a bundle.

There a missing metadata key calls _Exit(-1) and an unknown model_type is a segmentation fault: no
exception, no message a user sees. Each problem here is one line: file, what is wrong, the fix.
Works on other people's folders too: bundle.json is checked where there is one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from onnx import TensorProto

from export.families import ICEFALL, NEMO_KEYS, NEMO_TEXTS
from export.interface import (
    Graph,
    is_number,
    read_graph,
    require_integer,
    require_integers,
    require_shape,
    require_tensors,
    require_type,
)
from export.states import STATES
from streaming.bundle import INFO_FILE, MAX_TOKENS_BYTES, ORT_SUFFIX, TOKENS_FILE, read_bundle
from streaming.errors import InputError

GRAPHS = ("encoder", "decoder", "joiner")


def validate_bundle(folder: Path | str) -> list[str]:
    """All problems of a folder of encoder, decoder, joiner and tokens.txt; [] when it is fit."""
    folder = Path(folder)
    problems: list[str] = []
    if not folder.is_dir():
        return [f"{folder}: no such folder: give the folder that holds {TOKENS_FILE}"]
    try:
        sets = find_sets(folder)
    except InputError as error:
        return [str(error)]
    if not sets:
        problems.append(f"{folder}: no encoder*.onnx: give the folder that holds the model")
    for names in sets.values():
        problems += validate_graphs({graph: folder / name for graph, name in names.items()})
    return list(dict.fromkeys(problems))


def find_sets(folder: Path) -> dict[str, dict[str, str]]:
    """precision -> graph -> file name. Raises InputError for a bundle that cannot be read."""
    if (folder / INFO_FILE).exists():
        return read_bundle(folder).files
    names = {}
    for graphs in find_graphs(folder):
        middle = graphs["encoder"].removeprefix("encoder").removesuffix(".onnx")
        names[middle.strip(".-_") or "fp32"] = graphs
    return names


def find_graphs(folder: Path) -> list[dict[str, str]]:
    """The sets of files of a folder without bundle.json, paired by what follows the network.

    An int8 encoder takes the fp32 decoder or joiner where there is no int8 one.
    """
    sets = []
    found = (path for path in folder.glob("encoder*") if path.suffix in (".onnx", ORT_SUFFIX))
    for path in sorted(found):
        names = {graph: path.name.replace("encoder", graph, 1) for graph in GRAPHS}
        for graph, name in names.items():
            if not (folder / name).exists() and (folder / name.replace(".int8", "")).exists():
                names[graph] = name.replace(".int8", "")
        sets.append(names)
    return sets


def validate_graphs(paths: dict[str, Path]) -> list[str]:
    """Problems of one encoder, decoder and joiner, with the tokens.txt beside them."""
    problems: list[str] = []
    graphs = {name: read_graph(path, problems) for name, path in paths.items()}
    encoder, decoder, joiner = (graphs[name] for name in GRAPHS)
    if encoder is None or decoder is None or joiner is None:
        return problems
    blank_last = is_nemo(decoder)
    (_check_nemo if blank_last else _check_icefall)(encoder, decoder, joiner)
    vocab_size = require_integer(encoder if blank_last else decoder, "vocab_size")
    if vocab_size is not None:
        tokens = paths["encoder"].with_name(TOKENS_FILE)
        problems += check_tokens_file(tokens, vocab_size, blank_last)
    return problems


def is_nemo(decoder: Graph) -> bool:
    """How sherpa-onnx tells the two kinds of families apart."""
    return len(decoder.outputs) != 1


def _check_icefall(encoder: Graph, decoder: Graph, joiner: Graph) -> None:
    kind = encoder.metadata.get("model_type")
    known = ", ".join(ICEFALL)
    if encoder.require(kind in ICEFALL, f"metadata model_type is {kind!r}: set one of {known}"):
        _check_encoder(encoder, str(kind))
    context = require_integer(decoder, "context_size")
    vocab_size = require_integer(decoder, "vocab_size")
    if require_tensors(decoder, "inputs", 1) and context is not None:
        require_type(decoder, decoder.inputs[0], TensorProto.INT64)
        require_shape(decoder, decoder.inputs[0], (None, context))
    require_type(decoder, decoder.outputs[0], TensorProto.FLOAT)
    if len(decoder.outputs[0].shape) != 2:
        shape = list(decoder.outputs[0].shape)
        decoder.require(False, f"output must be (N, J), is {shape}: drop the time axis")
    elif require_tensors(joiner, "inputs", 2) and require_tensors(joiner, "outputs", 1):
        widths = [encoder.outputs[0].shape[-1:], decoder.outputs[0].shape[-1:]]
        for value, width in zip(joiner.inputs, widths, strict=True):
            require_shape(joiner, value, (None, width[0] if width else "?"))
        require_shape(joiner, joiner.outputs[0], (None, "?" if vocab_size is None else vocab_size))
        require_shape(decoder, decoder.outputs[0], (None, "?"))
        for value in (*joiner.inputs, *joiner.outputs):
            require_type(joiner, value, TensorProto.FLOAT)


def _check_encoder(encoder: Graph, kind: str) -> None:
    family = ICEFALL[kind]
    numbers = {key: require_integer(encoder, key) for key in family.keys}
    lists = {key: require_integers(encoder, key) for key in family.lists}
    chunk, shift = numbers["T"], numbers["decode_chunk_len"]
    if None in (*numbers.values(), *lists.values()) or chunk is None or shift is None:
        return
    encoder.require(
        0 < shift <= chunk, f"decode_chunk_len {shift} must be 1..T ({chunk}): export again"
    )
    lengths = {key: len(values or ()) for key, values in lists.items()}
    same = len({*lengths.values()}) <= 1
    if not encoder.require(same, f"metadata lists differ in length, {lengths}: export again"):
        return
    states = family.num_states(encoder.metadata)
    right = require_tensors(encoder, "inputs", 1 + states + family.inputs)
    if not (require_tensors(encoder, "outputs", 1 + states + family.counters) and right):
        return
    require_shape(encoder, encoder.inputs[0], (None, chunk, "?"))
    require_shape(encoder, encoder.outputs[0], (None, "?", "?"))
    for value in (encoder.inputs[0], encoder.outputs[0]):
        require_type(encoder, value, TensorProto.FLOAT)
    bins = encoder.inputs[0].shape[-1]
    numbers |= {"bins": bins if isinstance(bins, int) else 80}
    _check_states(encoder, kind, dict(numbers), dict(lists))


def _check_states(
    encoder: Graph, kind: str, numbers: dict[str, Any], lists: dict[str, Any]
) -> None:
    """States in and out are those that sherpa-onnx will fill; the first wrong one is told."""
    wanted = STATES[kind](numbers, lists, numbers["bins"])
    streams = encoder.inputs[0].shape[0]
    fixed = streams if isinstance(streams, int) else None  # told already, of x
    for side in (encoder.inputs, encoder.outputs):
        for value, (dtype, shape) in zip(side[1:], wanted, strict=False):
            # In the family conformer the counter is no output.
            right = require_type(encoder, value, dtype)
            shape = tuple(fixed if size is None else size for size in shape)
            if not (right and require_shape(encoder, value, shape)):
                return


def _check_nemo(encoder: Graph, decoder: Graph, joiner: Graph) -> None:
    values = {key: require_integer(encoder, key) for key in NEMO_KEYS}
    for key in NEMO_TEXTS:
        encoder.require(key in encoder.metadata, f"metadata has no {key}: set it to NA")
    right = require_tensors(encoder, "inputs", 5) and require_tensors(encoder, "outputs", 5)
    if right and None not in values.values():
        _check_nemo_encoder(encoder, {key: value or 0 for key, value in values.items()})
    if require_tensors(decoder, "inputs", 4) and require_tensors(decoder, "outputs", 4):
        _check_nemo_decoder(decoder, values["pred_rnn_layers"], values["pred_hidden"])
    if require_tensors(joiner, "inputs", 2) and require_tensors(joiner, "outputs", 1):
        logit, vocab_size = joiner.outputs[0], values["vocab_size"]
        require_type(joiner, logit, TensorProto.FLOAT)
        size = logit.shape[-1] if logit.shape else "?"
        if vocab_size is not None and isinstance(size, int):
            why = f"{logit.name} has {size} values, vocab_size {vocab_size} and blank ask for"
            joiner.require(size == vocab_size + 1, f"{why} {vocab_size + 1}: export again")


def _check_nemo_encoder(encoder: Graph, values: dict[str, int]) -> None:
    audio = encoder.inputs[0]
    fixed = len(audio.shape) == 3 and isinstance(audio.shape[1], int)
    encoder.require(
        fixed, f"audio must be (N, mel bins, T) with fixed bins, is {list(audio.shape)}"
    )
    if fixed:
        require_shape(encoder, audio, (None, "?", values["window_size"]))
    encoder.require(values["subsampling_factor"] > 0, "metadata subsampling_factor must be above 0")
    caches = [
        (None, *(values[f"cache_last_{what}_dim{i}"] for i in (1, 2, 3)))
        for what in ("channel", "time")
    ]
    types = [TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    for value, dtype in zip(encoder.inputs, (*types, TensorProto.INT64), strict=True):
        require_type(encoder, value, dtype)
    require_type(encoder, encoder.outputs[0], TensorProto.FLOAT)
    for side in (encoder.inputs, encoder.outputs):
        for value, shape in zip(side[2:4], caches, strict=True):
            require_shape(encoder, value, shape)
        require_shape(encoder, side[4], (None,))


def _check_nemo_decoder(decoder: Graph, layers: int | None, width: int | None) -> None:
    """It is called with one stream at a time, so that axis may be fixed to 1."""
    for value in decoder.inputs[:2]:
        require_type(decoder, value, TensorProto.INT32)
    for value in (decoder.outputs[0], *decoder.inputs[2:], *decoder.outputs[2:]):
        require_type(decoder, value, TensorProto.FLOAT)
    if layers is not None and width is not None:
        for value in (*decoder.inputs[2:], *decoder.outputs[2:]):
            require_shape(decoder, value, (layers, 1, width))


def check_tokens_file(path: Path, vocab_size: int, blank_last: bool = False) -> list[str]:
    """Problems of tokens.txt: every id once, no white space, blank where the family has it."""
    if not path.is_file():
        return [f"{path}: missing: write one 'symbol id' a line"]
    if path.stat().st_size > MAX_TOKENS_BYTES:
        return [
            f"{path}: larger than {MAX_TOKENS_BYTES >> 20} MiB: no list of tokens, copy it again"
        ]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [f"{path}: not UTF-8: write it as UTF-8"]
    symbols: dict[int, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        parts = re.split(r"[ \t\r\v\f]+", line.strip(" \t\r\v\f"))  # white space of C++
        right = len(parts) in (1, 2) and is_number(parts[-1])
        if not right:
            return [f"{path}:{number}: not 'symbol id': sherpa-onnx exits on this line, fix it"]
        if int(parts[-1]) in symbols:
            return [f"{path}:{number}: id {parts[-1]} is there twice: number each symbol once"]
        symbols[int(parts[-1])] = parts[0] if len(parts) == 2 else " "
    size = vocab_size + blank_last
    missing = next((index for index in range(size) if index not in symbols), None)
    if missing is not None:
        return [f"{path}: no symbol for id {missing} of {size}: export tokens and model together"]
    if blank_last and (symbols.get(vocab_size) != "<blk>" or len(symbols) != size):
        return [f"{path}: must hold {size} symbols, <blk> last: export for this family"]
    if not blank_last and symbols[0] not in ("<blk>", "<eps>", "<blank>"):
        return [f"{path}: id 0 is {symbols[0]!r}, sherpa-onnx takes it for blank: put <blk> first"]
    return []
