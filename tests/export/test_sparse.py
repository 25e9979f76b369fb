"""Block layers: the lowered graph is the masked dense layer, in fp32, in int8 and in a bundle."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.bundle import write_bundle
from export.errors import ExportError
from export.graph import export_graph
from export.lower import replace_blocks
from export.parity import ladder
from export.quantize import list_layers, quantize_graph
from export.sherpa import compare_with_sherpa
from export.sparse import SPLIT_FROM, find_blocks
from streaming.bundle import read_bundle
from tests.export.conftest import KINDS, TOKENS, build_model, make_speech
from tests.reference.sparse import dense_int8, keep_blocks_, prune_blocks_

# P, K, G, k: one group, a few large ones, many small ones.
FORMS = {
    "one": (48, 40, 48, 7),
    "split": (208, 240, 104, 120),
    "batched": (48, 40, 8, 7),
    "rows": (12, 9, 1, 2),
}
BLOCKS = {
    "conformer": {
        "encoder.front.second": 24,
        "encoder.layers.0.feed_forward_in.up": 6,
        "encoder.layers.0.feed_forward_in.down": 8,
        "encoder.layers.1.attention.query": 2,
        "encoder.layers.1.convolution.gate": 12,
        "encoder.project": 8,
        "predictor.project": 32,
        "joiner.output": 10,
    },
    "lstm": {
        "encoder.front.first": 10,
        "encoder.layers.0": 14,
        "encoder.layers.1": 4,
        "encoder.project": 32,
        "joiner.output": 8,
    },
}


def linear(form: str, bias: bool = True) -> nn.Linear:
    outputs, inputs, group_rows, num_kept = FORMS[form]
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    keep_blocks_(layer.weight, group_rows, num_kept)
    return layer


def export(module, x, path, block_rows):
    export_graph(module, {"x": x}, ["y"], [0], {}, path, block_rows)
    return onnxruntime.InferenceSession(str(path))


class Wrapped(nn.Module):
    """A layer with a name, among other work."""

    def __init__(self, layer: nn.Module, turned: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.turned = turned

    def forward(self, x):
        y = self.layer(x.transpose(1, 2) if self.turned else x)
        return (y.transpose(1, 2) if self.turned else y).tanh()


def test_find_blocks_by_hand():
    matrix = torch.tensor([[0, 1, 0, 2], [0, 3, 0, 4], [5, 0, 0, 0], [6, 0, 7, 0.0]])
    columns, weight = find_blocks(matrix, 2, "layer")
    assert columns.tolist() == [[1, 3], [0, 2]]
    assert weight.tolist() == [[[1, 3], [2, 4]], [[5, 6], [0, 7]]]


def test_a_group_that_uses_fewer_columns_gets_zeros():
    columns, weight = find_blocks(torch.tensor([[0, 1, 0], [0, 2, 3.0]]), 1, "layer")
    assert columns.tolist() == [[0, 1], [1, 2]]
    assert weight.tolist() == [[[0], [1]], [[2], [3]]]


@pytest.mark.parametrize("group_rows", [0, 3, 16])
def test_groups_must_divide_the_outputs(group_rows):
    with pytest.raises(ExportError, match=f"up: groups of {group_rows} rows do not divide its 8"):
        find_blocks(torch.ones(8, 4), group_rows, "up")


@pytest.mark.parametrize("share_kept", [0.1, 0.5])
def test_unstructured_zeros_are_no_blocks(share_kept):
    torch.manual_seed(0)
    matrix = torch.randn(32, 64) * (torch.rand(32, 64) < share_kept)
    with pytest.raises(ExportError, match=r"layers.0.up: its zeros are no balanced blocks of 8"):
        find_blocks(matrix, 8, "layers.0.up")


def test_unbalanced_groups_are_refused():
    matrix = torch.ones(8, 16)
    matrix[:4, 2:] = 0
    with pytest.raises(ExportError, match="no balanced blocks"):
        find_blocks(matrix, 4, "up")


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_lowered_linear_equals_masked_dense(form, axes, tmp_path):
    layer = linear(form, bias=axes == 3)
    inputs, group_rows = FORMS[form][1:3]
    module = Wrapped(layer)
    lowered = replace_blocks(module, {"layer": group_rows})
    assert type(lowered.layer).__name__ == "BlockLinear"
    example = torch.zeros(2, inputs) if axes == 2 else torch.zeros(2, 5, inputs)
    session = export(module, example, tmp_path / "g.onnx", {"layer": group_rows})
    for num_streams in (1, 3):
        x = torch.randn(num_streams, *example.shape[1:])
        torch.testing.assert_close(lowered(x), module(x), rtol=0, atol=1e-5)
        found = session.run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(found, module(x).numpy(), rtol=0, atol=1e-5)


def test_forms_are_the_documented_nodes(tmp_path):
    assert FORMS["split"][2] * FORMS["split"][3] >= SPLIT_FROM > 8 * 7
    kinds = {}
    for form in ("one", "split", "batched"):
        path = tmp_path / f"{form}.onnx"
        x = torch.zeros(2, 5, FORMS[form][1])
        export(Wrapped(linear(form)), x, path, {"layer": FORMS[form][2]})
        *kinds[form], _tanh = [node.op_type for node in onnx.load(path).graph.node]
    gathered = ["Transpose", "Gather", "Transpose"]
    assert kinds["one"] == ["Gather", "MatMul", "Add"]
    assert kinds["split"] == [*gathered, "Split", "MatMul", "MatMul", "Concat", "Add"]
    assert kinds["batched"] == [*gathered, "MatMul", "Transpose", "Reshape", "Add"]


@pytest.mark.parametrize(
    ("group_rows", "frames", "stride"), [(24, 17, 2), (6, 16, 2), (1, 9, 1), (6, 20, 3)]
)
def test_lowered_convolution_equals_masked_dense(group_rows, frames, stride, tmp_path):
    torch.manual_seed(0)
    layer = nn.Conv1d(10, 24, 3, stride=stride).requires_grad_(False)
    keep_blocks_(layer.weight, group_rows, 9)
    module = Wrapped(layer, turned=True)
    session = export(module, torch.zeros(2, frames, 10), tmp_path / "g.onnx", {"layer": group_rows})
    x = torch.randn(3, frames, 10)
    found = session.run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(found, module(x).numpy(), rtol=0, atol=1e-5)
    assert list_layers(onnx.load(tmp_path / "g.onnx")) == [
        {
            "name": "layer",
            "kind": "convolution",
            "shape": [24, 10, 3],
            "sparsity": 0.7,
            "bits": 32,
            "form": "fp32",
            "block_rows": group_rows,
        }
    ]


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, batch_first=batch_first)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x, (h[None], c[None]))
        return y, h[0], c[0]


@pytest.mark.parametrize(
    ("batch_first", "parts"), [(True, ("ih", "hh")), (False, ("ih",)), (False, ("hh",))]
)
def test_lowered_lstm_equals_masked_dense(batch_first, parts, tmp_path):
    torch.manual_seed(0)
    module = Recurrent(batch_first).requires_grad_(False)
    for part in parts:
        keep_blocks_(getattr(module.lstm, f"weight_{part}_l0"), 8, 5)
    sizes = {"x": (2, 4, 12) if batch_first else (4, 2, 12), "h": (2, 16), "c": (2, 16)}
    example = {name: torch.zeros(size) for name, size in sizes.items()}
    axes = [0 if batch_first else 1, 0, 0]
    path = tmp_path / "g.onnx"
    export_graph(module, example, ["y", "h1", "c1"], axes, {}, path, {"lstm": 8})
    feed = {name: torch.randn_like(value) for name, value in example.items()}
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {name: value.numpy() for name, value in feed.items()})
    for one, other in zip(found, module(*feed.values()), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-5)
    layers = {layer["name"]: layer for layer in list_layers(onnx.load(path))}
    assert {name for name, layer in layers.items() if "block_rows" in layer} == {
        f"lstm.weight_{part}_l0" for part in parts
    }
    assert {tuple(layer["shape"]) for layer in layers.values()} == {(64, 12), (64, 16)}


def quantised(layer, x, folder, group_rows, **settings):
    """The int8 session of one layer, and what quantize_graph listed."""
    export(Wrapped(layer), x[:2], folder / "g.onnx", {"layer": group_rows})
    layers = quantize_graph(folder / "g.onnx", folder / "q.onnx", **settings)
    return onnxruntime.InferenceSession(str(folder / "q.onnx")), layers


@pytest.mark.parametrize("num_streams", [1, 3])
@pytest.mark.parametrize("form", ["split", "batched", "rows"])
def test_int8_is_dense_int8_of_the_masked_layer(form, num_streams, tmp_path):
    layer = linear(form)
    x = torch.randn(3, 5, FORMS[form][1])
    session, layers = quantised(layer, x, tmp_path, FORMS[form][2])
    x = x[:num_streams].numpy()
    rows = x.reshape(-1, x.shape[-1])
    wanted = dense_int8(rows, layer.weight.numpy(), layer.bias.numpy())
    found = session.run(None, {"x": x})[0].reshape(len(rows), -1)
    np.testing.assert_allclose(found, np.tanh(wanted), rtol=0, atol=1e-5)
    outputs, inputs, group_rows, num_kept = FORMS[form]
    sparsity = round(1 - num_kept / inputs, 4)
    assert layers == [
        {
            "name": "layer",
            "kind": "linear",
            "shape": [outputs, inputs],
            "sparsity": sparsity,
            "bits": 8,
            "form": "int8",
            "block_rows": group_rows,
        }
    ]


def test_int8_of_one_group_is_onnxruntimes_own_after_the_gather(tmp_path):
    layer = linear("one")
    x = torch.randn(2, 5, 40)
    session, layers = quantised(layer, x, tmp_path, 48)
    kept = layer.weight.numpy().any(0)
    wanted = dense_int8(
        x.numpy()[..., kept].reshape(10, -1), layer.weight.numpy()[:, kept], layer.bias.numpy()
    )
    found = session.run(None, {"x": x.numpy()})[0].reshape(10, -1)
    np.testing.assert_allclose(found, np.tanh(wanted), rtol=0, atol=2e-3)
    assert [layer["bits"] for layer in layers] == [8]


def test_one_scale_for_a_matrix(tmp_path):
    layer = linear("batched")
    x = torch.randn(2, 5, 40)
    session, _ = quantised(layer, x, tmp_path, 8, per_channel=False)
    found = session.run(None, {"x": x.numpy()})[0]
    assert np.abs(found - np.tanh(layer(x).numpy())).max() < 0.02
    sizes = [
        int(np.prod(i.dims))
        for i in onnx.load(tmp_path / "q.onnx").graph.initializer
        if i.data_type == onnx.TensorProto.FLOAT
    ]
    assert sorted(sizes) == [1, 48], "one scale beside the bias"


def test_layers_that_share_an_input_quantise_it_once(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = linear("batched"), linear("batched")
            self.other.weight.mul_(2)

        def forward(self, x):
            return self.one(x) + self.other(x)

    path = tmp_path / "g.onnx"
    export(Two(), torch.zeros(2, 5, 40), path, {"one": 8, "other": 8})
    layers = quantize_graph(path, tmp_path / "q.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert kinds.count("DynamicQuantizeLinear") == 1
    assert kinds.count("MatMulInteger") == 2
    assert [(layer["name"], layer["bits"]) for layer in layers] == [("one", 8), ("other", 8)]


def test_kept_block_layer_stays_fp32(tmp_path):
    layer = linear("batched")
    x = torch.randn(2, 5, 40)
    session, layers = quantised(layer, x, tmp_path, 8, forms={"layer": "fp32"})
    np.testing.assert_allclose(
        session.run(None, {"x": x.numpy()})[0], layer(x).tanh().numpy(), rtol=0, atol=1e-5
    )
    assert [(layer["bits"], layer["block_rows"]) for layer in layers] == [(32, 8)]


def test_nine_tenths_removed_are_thirty_times_fewer_bytes(tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(512, 2048).requires_grad_(False)
    keep_blocks_(layer.weight, 64, 51)
    x = torch.zeros(2, 8, 512)
    export(Wrapped(layer), x, tmp_path / "dense.onnx", {})
    quantised(layer, x, tmp_path, 64)
    dense, fp32, int8 = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("dense", "g", "q"))
    assert dense > 30 * int8
    assert dense > 9.5 * fp32


def test_a_layer_that_keeps_everything_stays_as_it_is():
    module = Wrapped(nn.Linear(8, 4))
    assert type(replace_blocks(module, {"layer": 2}).layer) is nn.Linear


@pytest.mark.parametrize(
    ("layer", "path", "message"),
    [
        (nn.Linear(8, 4), "lair", "block_rows names 'lair', which the model does not have"),
        (nn.LayerNorm(8), "layer", "layer: a LayerNorm has no block form"),
        (nn.Conv1d(8, 8, 3, groups=8), "layer", "grouped, dilated or padded Conv1d"),
        (nn.Conv1d(8, 8, 3, padding=1), "layer", "grouped, dilated or padded Conv1d"),
        (nn.LSTM(8, 8, num_layers=2), "layer", "an LSTM of one layer and direction"),
        (nn.LSTM(8, 9), "layer", "groups of 2 rows do not divide its 9 units"),
    ],
)
def test_what_has_no_block_form_is_refused(layer, path, message):
    with pytest.raises(ExportError, match=message):
        replace_blocks(Wrapped(layer), {path: 2})


@pytest.fixture(scope="module")
def sparse_models():
    models = {kind: build_model(kind, seed=1) for kind in KINDS}
    for kind, model in models.items():
        prune_blocks_(model, BLOCKS[kind], 0.7)
    return models


@pytest.fixture(scope="module")
def sparse_bundles(sparse_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    for kind, model in sparse_models.items():
        parts = (model.encoder, model.predictor, model.joiner)
        write_bundle(folder / kind, *parts, TOKENS, block_rows=BLOCKS[kind])
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_parity_of_a_sparse_bundle(kind, sparse_models, sparse_bundles, features):
    model = sparse_models[kind]
    rows = ladder(
        model.encoder,
        model.predictor,
        model.joiner,
        sparse_bundles[kind],
        features,
        min_int8_agreement=0.6,
    )
    assert [row for row in rows if not row["passed"]] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_sparse_bundle_lists_its_layers(kind, sparse_models, sparse_bundles):
    layers = {layer["name"]: layer for layer in read_bundle(sparse_bundles[kind]).layers}
    state = sparse_models[kind].state_dict()
    for name, value in state.items():
        if value.ndim < 2:
            continue
        layer = layers.pop(name.removesuffix(".weight"))
        path = name.removesuffix(".weight").removesuffix(".weight_ih_l0")
        path = path.removesuffix(".weight_hh_l0")
        assert layer["shape"] == list(value.shape), name
        assert layer.get("block_rows") == BLOCKS[kind].get(path), name
        assert layer["sparsity"] == round(float((value == 0).float().mean()), 4), name
        wide = {"convolution": 16, "mul": 32}
        assert layer["bits"] == wide.get(layer["kind"], 8), name
    assert layers == {}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_sherpa_hears_the_same_in_a_sparse_bundle(kind, precision, sparse_bundles):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is in the extra [dev]")
    samples = [make_speech(8000 + 2777 * seed, seed) for seed in range(6)]
    row = compare_with_sherpa(sparse_bundles[kind], samples, precision)
    assert row["passed"], row
    assert row["tokens"] > 10


def test_same_sparse_model_gives_the_same_bytes(sparse_models, sparse_bundles, tmp_path):
    model = sparse_models["conformer"]
    parts = (model.encoder, model.predictor, model.joiner)
    write_bundle(tmp_path / "conformer", *parts, TOKENS, block_rows=BLOCKS["conformer"])
    for path in sparse_bundles["conformer"].iterdir():
        assert path.read_bytes() == (tmp_path / "conformer" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("path", ["decoder.project", "encoder.layers.9.attention.out"])
def test_an_unknown_layer_is_named(path, sparse_models, tmp_path):
    model = sparse_models["conformer"]
    parts = (model.encoder, model.predictor, model.joiner)
    with pytest.raises(ExportError, match=f"block_rows names '{path}'"):
        write_bundle(tmp_path / "bundle", *parts, TOKENS, block_rows={path: 8})
