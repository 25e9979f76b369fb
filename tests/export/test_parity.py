"""torch whole = torch streaming = onnxruntime fp32; int8 says nearly the same tokens."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import export.divergence
from export.divergence import first_divergent_node
from export.errors import ExportError
from export.parity import compare, ladder
from export.traces import Trace, join_utterances, lay_course, trace_chunks
from streaming.bundle import read_bundle, write_sha256sums
from streaming.search import Token
from streaming.session import Session, open_session
from tests.export.conftest import KINDS

STEPS = [
    ("torch whole", "torch streaming"),
    ("torch streaming", "onnxruntime fp32"),
    ("fp32, after reset", "fp32, new stream"),
    ("onnxruntime fp32", "onnxruntime int8"),
    ("int8, after reset", "int8, new stream"),
]


def run_ladder(model, bundle, features, **settings):
    return ladder(model.encoder, model.predictor, model.joiner, bundle, features, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rung_agrees_over_50_carried_chunks(kind, models, bundles, features):
    rows = run_ladder(models[kind], bundles[kind], features, min_int8_agreement=0.7, seed=1)
    for streams in (1, 3):
        ours = [row for row in rows if row["streams"] == streams]
        steps = STEPS if streams == 1 else STEPS[:-1]
        assert [(row["from"], row["to"]) for row in ours] == steps
        for row in ours:
            assert row["chunks"] >= (16 if "reset" in row["from"] else 50)
            assert row["passed"], row
        for row in ours[:3]:
            assert row["max_error"] <= 1e-4
            assert row["token_agreement"] == 1.0
            assert row["first_divergent_chunk"] is None
        outputs = {"encoder_out", "next_state0", "next_state1", "decoder_out", "logit"}
        assert {*ours[1]["errors"]} == {*ours[1]["mean_errors"]} == outputs
        assert ours[3]["max_error"] > 1e-4, "int8 equal to fp32: was anything quantised?"


def test_without_a_model_the_ladder_begins_at_onnxruntime(bundles, features):
    rows = ladder(None, None, None, bundles["lstm"], features, num_chunks=6, streams=(1,))
    assert [(row["from"], row["to"]) for row in rows] == STEPS[2:]


def test_a_wrong_model_fails_says_where_and_keeps_the_chunk(models, bundles, features, tmp_path):
    model = copy.deepcopy(models["lstm"])
    with torch.no_grad():
        model.joiner.output.bias[3].add_(0.5)
    settings = {"num_chunks": 4, "streams": (1,), "evidence": tmp_path}
    rows = run_ladder(model, bundles["lstm"], features, **settings)
    assert [row["passed"] for row in rows[:3]] == [True, False, True]
    assert rows[1]["first_divergent_chunk"] is None, "only the joiner differs"
    assert "joiner.onnx: node" in rows[1]["node"]
    assert "joiner.output.bias" in rows[1]["node"] or "output.bias" in rows[1]["node"]
    kept = np.load(rows[1]["evidence"])
    assert np.abs(kept["from_logit"] - kept["to_logit"]).max() == pytest.approx(0.5, abs=1e-4)


def matrices(path):
    """Weights of the graph's products, in topological order."""
    model = onnx.load(path)
    held = {i.name for i in model.graph.initializer}
    wanted = [n for n in model.graph.node if n.op_type in ("MatMul", "LSTM", "Gemm", "Conv")]
    return [name for node in wanted for name in node.input if name in held]


def perturb(path, name, amount=0.3):
    """Changes one value of a weight, and the hashes, as a bad copy of a checkpoint would."""
    model = onnx.load(path)
    weight = next(i for i in model.graph.initializer if i.name == name)
    array = numpy_helper.to_array(weight).copy()
    array.flat[array.size // 2] += amount
    weight.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    write_sha256sums(path.parent)


def test_the_first_divergent_node_reads_the_changed_weight(
    copied_bundle, bundles, models, features, tmp_path, monkeypatch
):
    def export_again(encoder, predictor, joiner, folder, blocks):
        """The same model gives the same bytes (test_bundle.py): 20 s saved."""
        shutil.copytree(bundles["conformer"], folder, dirs_exist_ok=True)

    monkeypatch.setitem(export.divergence.TARGETS, "sherpa_lstm", export_again)
    path = copied_bundle / "encoder.onnx"
    name = matrices(path)[5]
    perturb(path, name)
    rows = run_ladder(
        models["conformer"],
        copied_bundle,
        features,
        num_chunks=3,
        streams=(1,),
        evidence=tmp_path,
    )
    assert [row["passed"] for row in rows[:2]] == [True, False]
    assert "encoder.onnx: node" in rows[1]["node"]
    assert f"reading {name}" in rows[1]["node"]
    kept = np.load(rows[1]["evidence"])
    session = open_session(read_bundle(copied_bundle), "fp32")
    encoded, _ = session.encode(kept["x"], (kept["state0"], kept["state1"]))
    np.testing.assert_allclose(encoded, kept["to_encoder_out"], atol=1e-5)
    assert np.abs(kept["from_encoder_out"] - kept["to_encoder_out"]).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_bisection_names_every_weight_in_turn(kind, bundles, tmp_path):
    """Each matrix of a graph, changed alone: the node named reads it."""
    whole, broken = bundles[kind] / "encoder.onnx", tmp_path / "encoder.onnx"
    rng = np.random.default_rng(0)
    sizes = read_bundle(bundles[kind]).state_sizes
    shapes = [(2, 16, 80), (1, 2, sizes[0]), (1, 2, sizes[1])]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    assert first_divergent_node(whole, whole, inputs) is None
    for name in matrices(whole)[::3]:
        broken.write_bytes(whole.read_bytes())
        perturb(broken, name)
        found = first_divergent_node(broken, whole, inputs)
        assert found is not None, name
        assert name in found.weights
        assert found.error > 1e-5


def test_other_graphs_are_not_compared_node_by_node(bundles):
    one, other = (bundles[kind] / "encoder.onnx" for kind in KINDS)
    with pytest.raises(ExportError, match=r"another structure .* was it exported from this model"):
        first_divergent_node(one, other, [])


def test_a_nan_fails(models, bundles, features):
    model = copy.deepcopy(models["lstm"])
    with torch.no_grad():
        model.joiner.output.bias[5] = float("nan")
    rows = run_ladder(model, bundles["lstm"], features, num_chunks=2, streams=(1,))
    assert not rows[1]["passed"]


def test_a_state_that_leaks_into_new_streams_is_found(bundles, features, monkeypatch):
    """A session that carries something past the reset: the step after it fails."""

    heard = []
    encode = Session.encode

    def leaking(self, chunk, state):
        encoded, state = encode(self, chunk, state)
        heard.append(chunk)
        return encoded + np.float32(0.01 * len(heard)), state

    monkeypatch.setattr(Session, "encode", leaking)
    rows = ladder(None, None, None, bundles["lstm"], features, num_chunks=6, streams=(1,))
    assert rows[0]["to"] == "fp32, new stream"
    assert not rows[0]["passed"]
    assert rows[0]["first_divergent_chunk"] == 0


def test_streams_are_the_utterances_in_turn():
    one, two = torch.zeros(3, 2).numpy(), torch.ones(2, 2).numpy()
    joined = join_utterances([one, two], num_streams=3, length=7)
    assert joined[0, :, 0].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert joined[1, :, 0].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert joined[2, :, 0].tolist() == joined[0, :, 0].tolist()


def test_a_course_begins_anywhere_in_a_chunk_and_resets_in_its_middle_third():
    frames = np.arange(400, dtype=np.float32)[:, None]
    courses = [lay_course([frames], 2, 12, 16, seed) for seed in range(40)]
    starts = {int(course.features[n, 0, 0]) for course in courses for n in (0, 1)}
    assert starts <= {*range(16)}
    assert len(starts) > 12
    assert {course.reset for course in courses} == {4, 5, 6, 7, 8}
    course = courses[0]
    assert course.num_chunks == 12
    assert course.chunk(3)[1, 0, 0] == course.features[1, 48, 0]
    rest = course.after_reset()
    assert rest.features[0, 0, 0] == course.features[0, course.reset * 16, 0]
    assert rest.num_chunks == 12 - course.reset


def test_only_stream_0_begins_anew(bundles, features):
    session = open_session(read_bundle(bundles["conformer"]), "fp32")
    course = lay_course(features, 3, 9, 16, seed=0)
    trace = trace_chunks("", session, course)
    before = trace.before[course.reset]
    assert not before[0][:, 0].any()
    assert before[0][:, 1].any()
    np.testing.assert_array_equal(
        before[0][:, 1:], trace.chunks["next_state0"][course.reset - 1][:, 1:]
    )
    assert trace.chunks["next_state0"][course.reset - 1][:, 0].any(), "changed in place"


@pytest.mark.parametrize(("noise", "passed"), [(0.01, True), (0.5, False)])
def test_a_model_on_ties_passes_by_the_size_of_its_errors(noise, passed):
    """Other tokens everywhere: rounding when the outputs are close, else a broken graph."""
    rng = np.random.default_rng(0)

    def shake(array):
        return array + noise * rng.standard_normal(array.shape).astype(np.float32)

    encoded = [rng.standard_normal((1, 4, 8)).astype(np.float32) for _ in range(3)]
    probes = {
        name: rng.standard_normal((6, 8)).astype(np.float32) for name in ("decoder_out", "logit")
    }
    one = Trace("a", {"encoder_out": encoded}, probes, [[Token(1, 0), Token(2, 3)]])
    other = Trace("b", {"encoder_out": list(map(shake, encoded))}, {}, [[Token(3, 1)]])
    other.probes = {name: shake(array) for name, array in probes.items()}
    row = compare(one, other, None, 0.6)
    assert row["token_agreement"] == 0
    assert row["passed"] is passed
