"""Finds what would kill sherpa-onnx, or make it deaf, before it loads a bundle.

There a missing metadata key calls _Exit(-1) and an unknown model_type is a segmentation fault: no
exception, no message a user sees. Each problem here is one line: file, what is wrong, the fix.
Works on other people's folders too: bundle.json is checked where there is one.
"""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto

from export.families import ICEFALL, NEMO_KEYS, NEMO_TEXTS
from export.interface import (
    Graph,
    read_graph,
    require_integer,
    require_shape,
    require_tensors,
)
from streaming.bundle import INFO_FILE, TOKENS_FILE, read_bundle
from streaming.errors import InputError

GRAPHS = ("encoder", "decoder", "joiner")


def validate_bundle(folder: Path | str) -> list[str]:
    """All problems of a folder of encoder, decoder, joiner and tokens.txt; [] when it is fit."""
    folder = Path(folder)
    problems: list[str] = []
    if not folder.is_dir():
        return [f"{folder}: no such folder: give the folder that holds {TOKENS_FILE}"]
    if (folder / INFO_FILE).exists():
        try:
            sets = list(read_bundle(folder).files.values())
        except InputError as error:
            return [str(error)]
    else:
        sets = find_graphs(folder)
    if not sets:
        problems.append(f"{folder}: no encoder*.onnx: give the folder that holds the model")
    for names in sets:
        problems += validate_graphs({graph: folder / name for graph, name in names.items()})
    return list(dict.fromkeys(problems))


def find_graphs(folder: Path) -> list[dict[str, str]]:
    """The sets of files of a folder without bundle.json, paired by what follows the network.

    An int8 encoder takes the fp32 decoder or joiner where there is no int8 one.
    """
    sets = []
    for path in sorted(folder.glob("encoder*.onnx")):
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
    if len(decoder.outputs) != 1:
        _check_nemo(encoder, decoder)
        blank_last = True
    else:
        _check_icefall(encoder, decoder, joiner)
        blank_last = False
    vocab_size = require_integer(decoder if not blank_last else encoder, "vocab_size")
    if vocab_size is not None:
        tokens = paths["encoder"].with_name(TOKENS_FILE)
        problems += check_tokens_file(tokens, vocab_size, blank_last)
    return problems


def _check_icefall(encoder: Graph, decoder: Graph, joiner: Graph) -> None:
    kind = encoder.metadata.get("model_type")
    known = ", ".join(ICEFALL)
    if encoder.require(kind in ICEFALL, f"metadata model_type is {kind!r}: set one of {known}"):
        _check_encoder(encoder, str(kind))
    context = require_integer(decoder, "context_size")
    vocab_size = require_integer(decoder, "vocab_size")
    if require_tensors(decoder, "inputs", 1) and context is not None:
        y = decoder.inputs[0]
        decoder.require(y.dtype == TensorProto.INT64, f"{y.name} must be int64: export it so")
        require_shape(decoder, y, (None, context))
    if len(decoder.outputs[0].shape) != 2:
        shape = list(decoder.outputs[0].shape)
        decoder.require(False, f"output must be (N, J), is {shape}: drop the time axis")
    elif require_tensors(joiner, "inputs", 2) and require_tensors(joiner, "outputs", 1):
        widths = [encoder.outputs[0].shape[-1:], decoder.outputs[0].shape[-1:]]
        for value, width in zip(joiner.inputs, widths, strict=True):
            require_shape(joiner, value, (None, width[0] if width else "?"))
        require_shape(joiner, joiner.outputs[0], (None, "?" if vocab_size is None else vocab_size))
        require_shape(decoder, decoder.outputs[0], (None, "?"))


def _check_encoder(encoder: Graph, kind: str) -> None:
    family = ICEFALL[kind]
    values = {key: require_integer(encoder, key) for key in family.keys}
    for key in family.lists:
        texts = encoder.metadata.get(key, "").split(",")
        fix = f"metadata {key} must be integers parted by commas: export again"
        if not encoder.require(all(text.strip().isdigit() for text in texts), fix):
            return
    chunk, shift = values["T"], values["decode_chunk_len"]
    if None in values.values() or chunk is None or shift is None:
        return
    encoder.require(0 < shift <= chunk, f"decode_chunk_len {shift} must be 1..T ({chunk})")
    states = family.num_states(encoder.metadata)
    right = require_tensors(encoder, "inputs", 1 + states + family.inputs)
    if not (require_tensors(encoder, "outputs", 1 + states + family.counters) and right):
        return
    require_shape(encoder, encoder.inputs[0], (None, chunk, "?"))
    require_shape(encoder, encoder.outputs[0], (None, "?", "?"))
    for value in (*encoder.inputs[: 1 + states], *encoder.outputs[: 1 + states]):
        if kind != "lstm" and value not in (encoder.inputs[0], encoder.outputs[0]):
            continue
        right = value.dtype == TensorProto.FLOAT
        encoder.require(right, f"{value.name} must be float32: keep inputs and outputs float32")
    if kind == "lstm":
        for side in (encoder.inputs, encoder.outputs):
            for value, key in zip(side[1:], ("d_model", "rnn_hidden_size"), strict=True):
                layers, width = values["num_encoder_layers"], values[key]
                assert layers is not None and width is not None
                require_shape(encoder, value, (layers, None, width))


def _check_nemo(encoder: Graph, decoder: Graph) -> None:
    for key in NEMO_KEYS:
        require_integer(encoder, key)
    for key in NEMO_TEXTS:
        encoder.require(key in encoder.metadata, f"metadata has no {key}: set it to NA")
    if require_tensors(encoder, "inputs", 5):
        shape = encoder.inputs[0].shape
        right = len(shape) == 3 and isinstance(shape[1], int)
        encoder.require(right, f"audio must be (N, mel bins, T) with fixed bins, is {list(shape)}")
    require_tensors(decoder, "inputs", 4)


def check_tokens_file(path: Path, vocab_size: int, blank_last: bool = False) -> list[str]:
    """Problems of tokens.txt: every id once, no white space, blank where the family has it."""
    if not path.is_file():
        return [f"{path}: missing: write one 'symbol id' a line"]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return [f"{path}: not UTF-8: write it as UTF-8"]
    symbols: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split()
        right = len(parts) in (1, 2) and parts[-1].isascii() and parts[-1].isdigit()
        if not right:
            return [f"{path}:{number}: not 'symbol id': sherpa-onnx exits on this line, fix it"]
        if int(parts[-1]) in symbols:
            return [f"{path}:{number}: id {parts[-1]} is there twice: number each symbol once"]
        symbols[int(parts[-1])] = parts[0] if len(parts) == 2 else " "
    size = vocab_size + blank_last
    missing = [index for index in range(size) if index not in symbols]
    if missing:
        return [
            f"{path}: no symbol for id {missing[0]} of {size}: export tokens and model together"
        ]
    if blank_last and (symbols.get(vocab_size) != "<blk>" or len(symbols) != size):
        return [f"{path}: must hold {size} symbols, <blk> last: export for this family"]
    if not blank_last and symbols[0] not in ("<blk>", "<eps>", "<blank>"):
        return [f"{path}: id 0 is {symbols[0]!r}, sherpa-onnx takes it for blank: put <blk> first"]
    return []
