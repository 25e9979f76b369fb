"""Every encoder, predictor, target and precision, as .onnx and as .ort: the same tokens.

A bundle holds one precision beside fp32, as write_bundle makes it. What is compared: .ort with
.onnx, which must say the same; and the encodings of each precision with those of fp32.
"""

from __future__ import annotations

import dataclasses
import shutil
from itertools import cycle

import numpy as np
import pytest
import torch

from compress.quantize.ranges import observe_inputs
from export.agreement import token_agreement
from export.bundle import complete_bundle, write_bundle
from export.convert import convert_bundle
from export.names import split_by_graph
from export.precisions import add_precision
from export.quantize import METHODS, calibrate
from export.targets import PRESETS
from export.validate import validate_bundle
from streaming import open_bundle
from streaming.bundle import read_bundle
from streaming.features import compute_features, preset_settings
from streaming.session import open_session
from tests.export.conftest import KNOWN, build_model, make_speech
from tests.export.nemo_models import SAY, build_nemo_model
from tests.export.test_sparse import BLOCKS
from tests.quantize.test_twin import batch_of
from tests.reference.sparse import prune_blocks_

ENCODERS = ("conformer", "lstm", "blocks")
# A predictor with a state goes with one target alone.
NETWORKS = (
    ("stateless", "sherpa_lstm"),
    ("stateless", "sherpa_nemo"),
    ("lstm", "sherpa_nemo"),
)
PRECISIONS = tuple(METHODS)
# Each encoder, predictor and target once; the others with `-m slow`.
DEFAULT = {
    ("conformer", "stateless", "sherpa_nemo"),
    ("lstm", "lstm", "sherpa_nemo"),
    ("blocks", "stateless", "sherpa_lstm"),
}
SOURCES = [
    pytest.param(
        (e, p, t), id=f"{e}-{p}-{t}", marks=() if (e, p, t) in DEFAULT else pytest.mark.slow
    )
    for e in ENCODERS
    for p, t in NETWORKS
]
# Mean error of the encoding against fp32, in its deviations, which random weights make large.
MOST = {"none": 0.0, "int8": 0.05, "static": 0.06, "qat": 0.06, "auto": 0.06, "int4": 0.7}
MIX = ("int8", "static", "half", "fp32")


def build(encoder: str, predictor: str, target: str):
    kind = "lstm" if encoder == "lstm" else "conformer"
    if target == "sherpa_lstm":
        model = build_model(kind, seed=1)
    else:
        model = build_nemo_model(kind, stateless=predictor == "stateless")
        if predictor == "stateless":  # its weights are scaled for an LSTM, whose outputs are small
            model.predictor.project.weight.data.div_(SAY[kind])
    if encoder == "blocks":
        prune_blocks_(model, BLOCKS["conformer"], 0.7)
    with torch.no_grad():
        model.joiner.output.bias[0] -= 3.0  # so that every one of them says something
    return model


@pytest.fixture(scope="module")
def source(request, tmp_path_factory):
    """The fp32 bundle of a model, its encodings, and how precisions are added to it."""
    encoder, predictor, target = request.param
    model = build(encoder, predictor, target)
    features = preset_settings(PRESETS[target])
    heard = [compute_features(make_speech(20000, seed), features) for seed in range(3)]
    folder = tmp_path_factory.mktemp("source") / "bundle"
    parts = (model.encoder, model.predictor, model.joiner)
    settings = {"target": target, "features": features, "quantize": "none"}
    settings |= {"block_rows": BLOCKS["conformer"] if encoder == "blocks" else {}}
    info = write_bundle(folder, *parts, KNOWN, **settings)
    learned = observe_inputs(model, [batch_of(heard)]).learned()
    return folder, encode(folder), calibrate(info, heard), learned


def write(folder, precision, source):
    """A copy of the fp32 bundle with the precision beside it."""
    exact, _, ranges, learned = source
    shutil.copytree(exact, folder)
    if precision == "none":
        return
    info, forms = read_bundle(folder), {}
    if precision == "qat":
        forms, ranges = dict.fromkeys(learned, "static"), split_by_graph(learned)
    if precision == "auto":  # which layer gets what is another test's: here all forms go together
        forms = dict(zip(learned, cycle(MIX), strict=False))
    info, layers = add_precision(info, precision, forms, ranges)
    complete_bundle(dataclasses.replace(info, layers=layers), folder)


def encode(folder):
    """Encodings of seven chunks in a row, states carried: (frames, J)."""
    info = read_bundle(folder)
    features = compute_features(make_speech(30000, 30), info.features)
    session = open_session(info)
    state, encoded = session.initial_state(), []
    for start in range(0, 16 * 7, 16):
        frames, state = session.encode(features[None, start : start + 16], state)
        encoded.append(frames[0])
    return np.concatenate(encoded)


def tokens(folder):
    """Of three utterances, each a stream of its own."""
    recognizer = open_bundle(folder)
    found = []
    for seed in range(3):
        stream = recognizer.create_stream()
        stream.accept(make_speech(60000, 20 + seed))
        stream.finish()
        found.append([token.index for token in stream.tokens])
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_the_same_in_every_form(precision, source, tmp_path):
    write(tmp_path / "onnx", precision, source)
    heard = tokens(tmp_path / "onnx")
    assert sum(map(len, heard)) > 10
    exact = source[1]
    error = np.abs(encode(tmp_path / "onnx") - exact).mean() / exact.std()
    assert error <= MOST[precision]
    convert_bundle(tmp_path / "onnx", "ort", tmp_path / "ort")
    again = tokens(tmp_path / "ort")
    # A last bit that is summed otherwise may move an activation to the next of int4's few levels.
    assert again == heard or (precision == "int4" and token_agreement(again, heard) > 0.8)
    assert validate_bundle(tmp_path / "ort") == validate_bundle(tmp_path / "onnx") == []
