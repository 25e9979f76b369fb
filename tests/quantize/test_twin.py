"""A rounded student, chunk by chunk, is what onnxruntime computes from its qat bundle."""

from __future__ import annotations

import pytest
import torch

from compress.bundle import block_rows
from compress.data.batches import Batch
from compress.models.transducer import Transducer
from compress.quantize.ranges import observe_inputs
from compress.quantize.twin import Twin
from export.bundle import write_bundle
from export.parity import compare
from export.torch_session import TorchSession
from export.traces import lay_course, trace_chunks
from streaming.session import open_session
from tests.export.conftest import TOKENS, build_model
from tests.export.nemo_models import build_nemo_model
from tests.export.test_sparse import BLOCKS
from tests.reference.sparse import prune_blocks_

NUM_CHUNKS = 50


def build_blocks() -> Transducer:
    model = build_model("conformer", seed=1)
    prune_blocks_(model, BLOCKS["conformer"], 0.7)
    model.joiner.output.bias.data[0] -= 4.0  # else it says nothing
    specs = {name: f"block:{rows}" for name, rows in BLOCKS["conformer"].items()}
    model.config = model.config.model_copy(update={"sparse": specs})
    return model


MODELS = {
    "conformer": build_blocks,
    "lstm": lambda: build_nemo_model("lstm"),  # an LSTM predictor too
}
# Mean error, in parts of what rounding changes. Equal to float32's last bits but where a sum in
# another order brings a value to the next of its levels; in LSTMs onnxruntime's approximate sigmoid
# does so now and then to one of h.
TOLERANCES = {"conformer": 0.005, "lstm": 0.1}


def batch_of(features) -> Batch:
    """Pieces of 56 frames, with labels."""
    pieces = torch.stack([torch.from_numpy(f[:56]) for f in features])
    labels = torch.tensor([[3, 4, 5]] * len(pieces))
    lengths = [torch.full((len(pieces),), n) for n in (56, 3)]
    return Batch(pieces, lengths[0], labels, lengths[1], torch.zeros(len(pieces), 56), [])


def make_twin(model: Transducer, features) -> Twin:
    return Twin(model, observe_inputs(model, [batch_of(features)]))


@pytest.fixture(scope="module")
def made(features, tmp_path_factory):
    """kind -> twin and bundle."""
    folder = tmp_path_factory.mktemp("qat")
    found = {}
    for kind, build in MODELS.items():
        model = build()
        twin = make_twin(model, features)
        settings = {"quantize": "qat", "learned": twin.ranges.learned()}
        settings |= {"block_rows": block_rows(model)}
        if kind == "lstm":
            settings |= {"target": "sherpa_nemo", "features": model.config.encoder.feature_settings}
        parts = (model.encoder, model.predictor, model.joiner)
        found[kind] = twin, write_bundle(folder / kind, *parts, TOKENS, **settings)
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_streaming_is_the_bundle(kind, made, features):
    twin, info = made[kind]
    rounded = twin.freeze()
    session = TorchSession(info, rounded.encoder, rounded.predictor, rounded.joiner)
    course = lay_course(features, 1, NUM_CHUNKS, info.chunk_frames, 0)
    ours = trace_chunks("twin", session, course)
    found, plain = (
        compare(ours, trace_chunks(name, open_session(info, name), course), None, 0.9)
        for name in ("qat", "fp32")
    )
    print(kind, found["max_error"], found["mean_error"], plain["mean_error"])
    assert found["mean_error"] < TOLERANCES[kind] * plain["mean_error"]
    assert found["max_error"] < 0.5 * plain["max_error"]
    assert len(ours.tokens[0]) > 5
    assert found["token_agreement"] == 1.0 or kind == "lstm"
    assert found["token_agreement"] > 0.95


def test_layers_say_that_their_range_was_learned(made):
    twin, info = made["lstm"]
    learned = twin.ranges.learned()
    assert (info.default_precision, set(info.files)) == ("qat", {"fp32", "qat"})
    assert info.files["qat"]["encoder"] == "encoder.qat.onnx"
    layers = {layer["name"]: layer for layer in info.layers}
    assert set(learned) == {"encoder.project", "predictor.project", "joiner.output"}
    for name, ends in learned.items():
        assert layers[name]["form"] == "static"
        assert layers[name]["learned_range"] == list(ends)
    others = {layer["form"] for name, layer in layers.items() if name not in learned}
    assert others == {"int8", "half"}, "LSTMs and embedding; convolutions"
    assert not any("learned_range" in layers[name] for name in layers.keys() - learned.keys())


def test_the_student_stays_as_it_is(features):
    model = MODELS["conformer"]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = make_twin(model, features)
    batch = batch_of(features)
    with torch.no_grad():
        plain = model.encoder(batch.features, batch.feature_lengths)[0]
        rounded = twin.refresh().encoder(batch.features, batch.feature_lengths)[0]
        again = model.encoder(batch.features, batch.feature_lengths)[0]
    assert torch.equal(plain, again)
    assert not torch.allclose(plain, rounded, atol=1e-3)
    state = model.state_dict()
    assert before.keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_every_parameter_of_the_student_gets_a_gradient(features):
    model = MODELS["lstm"]().requires_grad_(True)
    twin = make_twin(model, features)
    batch = batch_of(features)
    rounded = twin.refresh()
    encoded = rounded.encoder(batch.features, batch.feature_lengths)[0]
    predicted = rounded.predictor.forward_sequence(batch.targets)
    rounded.joiner(encoded[:, :1], predicted[:, :1]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert twin.ranges.high_gains.grad.any()
