"""Search, end-points and text of the page against streaming/, on scripted networks."""

from types import SimpleNamespace

import numpy as np
import pytest

from streaming.bundle import TensorInfo
from streaming.endpoint import DEFAULT_RULES, is_endpoint
from streaming.search import GreedySearch, silent_tokens
from streaming.session import SESSIONS
from streaming.tokens import pieces_to_text, read_tokens
from tests.reference.frames import search_frames

RNG = np.random.default_rng(3)
V = 7  # tokens, of which one may be <unk>


class TableSession:
    """logits = encoded + table[last label], in small whole numbers: the twin is in calls.mjs."""

    def __init__(self, table, info):
        self.table = np.float32(table)
        self.info = info

    def empty_memory(self):
        return (np.zeros((1, 0), dtype=np.int64),)

    def predict(self, labels, memory):
        return self.table[labels], (np.concatenate([memory[0], labels[:, None]], axis=1),)

    def join(self, encoded, predicted):
        return encoded + predicted


def build_case(target: str, max_symbols: int, joins_rows: bool) -> dict:
    """A random network over chunks of random length, with blank from rare to always the winner."""
    blank = V - 1 if target == "sherpa_nemo" else 0
    symbols = [f"▁{letter}" for letter in "abcdefg"]
    symbols[blank], symbols[3] = "<blk>", "<unk>"
    chunks = [RNG.integers(-4, 5, (RNG.integers(1, 9), V)) for _ in range(3)]
    bias = RNG.integers(0, 14)
    for chunk in chunks:
        chunk[:, blank] += bias
    return {
        "call": "search",
        "info": {"target": target, "blank_id": blank},
        "symbols": symbols,
        "table": RNG.integers(-3, 4, (V, V)).tolist(),
        "chunks": [chunk.tolist() for chunk in chunks],
        "maxSymbols": max_symbols,
        "joinsRows": joins_rows,
    }


def search_here(case: dict) -> dict:
    info = SimpleNamespace(**case["info"])
    session = TableSession(case["table"], info)
    silent = silent_tokens(info, case["symbols"])
    state, tokens = GreedySearch(session, silent, case["maxSymbols"]).start(), []
    for chunk in case["chunks"]:
        encoded = np.float32(chunk)
        found, state = search_frames(session, encoded, state, silent, case["maxSymbols"])
        tokens += [[token.index, token.frame] for token in found]
    return {
        "tokens": tokens,
        "memory": state.memory[0].tolist(),
        "numFrames": state.num_frames,
        "numTrailingBlanks": state.num_trailing_blanks,
    }


@pytest.mark.parametrize("joins_rows", [True, False])
@pytest.mark.parametrize(
    ("target", "max_symbols"), [("sherpa_lstm", 1), ("sherpa_lstm", 3), ("sherpa_nemo", 10)]
)
def test_label_looping_finds_the_tokens_of_the_frame_by_frame_loop(
    values, target, max_symbols, joins_rows
):
    cases = [build_case(target, max_symbols, joins_rows) for _ in range(60)]
    found = values(cases)
    num_joins = [answer.pop("numJoins") for answer in found]
    expected = [search_here(case) for case in cases]
    assert found == expected
    num_tokens = [len(answer["tokens"]) for answer in expected]
    assert min(num_tokens) == 0 and max(num_tokens) > 12, "silence and a torrent were both tried"
    if joins_rows:  # one call a chunk and one after each label, at most
        most = [len(case["chunks"]) + n for case, n in zip(cases, num_tokens, strict=True)]
        assert all(joins <= limit for joins, limit in zip(num_joins, most, strict=True))


def test_a_frame_may_say_ten_labels_and_no_more(values):
    """The predictor wants label 1 for ever; each frame stops after max_symbols of it."""
    case = build_case("sherpa_nemo", 10, True)
    case["table"] = np.eye(V, dtype=int)[np.ones(V, dtype=int)].tolist()
    case["chunks"] = [np.zeros((2, V), dtype=int).tolist()]
    [found] = values([case])
    assert found["tokens"] == [[1, 0]] * 10 + [[1, 1]] * 10
    assert found["tokens"] == search_here(case)["tokens"]


def test_the_three_end_point_rules(values):
    times = [0.0, 0.04, 1.16, 1.2, 2.36, 2.4, 3.0, 19.96, 20.0, 25.0]
    pairs = [(trailing, utterance) for trailing in times for utterance in times]
    calls = [{"call": "endpoint", "trailing": t, "utterance": u} for t, u in pairs]
    assert values(calls) == [is_endpoint(DEFAULT_RULES, *pair) for pair in pairs]


def test_pieces_become_the_same_text(values):
    cases = [
        [" turn", " o", "n"],
        [" caf", "<0xC3>", "<0xA9>", "s"],
        [" half ", "<0xe2>", "<0x82>"],
        ["<0xEF>", "<0xBB>", "<0xBF>", "a"],  # a byte order mark is a character too
        [" a", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", " b"],
        [],
    ]
    found = values([{"call": "text", "pieces": pieces} for pieces in cases])
    assert found == [pieces_to_text(pieces) for pieces in cases]


def test_tokens_are_read_strictly(answers, values, tmp_path):
    good = "<blk> 0\n<unk> 1\n▁the 2\n\u2028 3\n"
    (tmp_path / "tokens.txt").write_text(good, encoding="utf-8")
    [found] = values([{"call": "tokens", "text": good, "vocabSize": 4, "blankId": 0}])
    assert found == read_tokens(tmp_path / "tokens.txt", 4)
    bad = ["", "<blk> 0\na 0\n", "<blk> 0\na b 1\n", "<blk> 0\na 1\nb 2\n", "a 0\n<blk> 1\n"]
    calls = [{"call": "tokens", "text": text, "vocabSize": 2, "blankId": 0} for text in bad]
    assert [answer["kind"] for answer in answers(calls)] == ["BundleError"] * len(bad)


def describe_nemo(layers: int, width: int) -> dict[str, dict[str, list[TensorInfo]]]:
    state = TensorInfo(name="h", shape=[layers, "N", width], dtype="float32")
    return {"decoder": {"inputs": [state, state, state, state], "outputs": []}}


@pytest.mark.parametrize("target", list(SESSIONS))
def test_the_graphs_are_given_the_same_arrays(values, target):
    """Shapes, types, order and values of what each graph is run on."""
    frames, bins, width, encoded_frames, layers = 8, 3, 5, 2, 2
    info = {
        "target": target,
        "chunk_frames": frames,
        "context_size": 2,
        "blank_id": 0,
        "state_sizes": [6, 1],
        "features": {"num_mel_bins": bins},
        "tensors": describe_nemo(layers, 4),
    }
    chunk = RNG.normal(size=(1, frames, bins)).astype(np.float32)
    rows = RNG.normal(size=(encoded_frames, width)).astype(np.float32)
    given = record_here(target, info, chunk, rows, layers)
    outputs = {
        name: [{"data": part.ravel().tolist(), "dims": part.shape} for part in parts]
        for name, parts in given["outputs"].items()
    }
    call = {"call": "session", "info": info, "outputs": outputs, "label": 3}
    call |= {"chunk": chunk.ravel().tolist(), "frames": rows.ravel().tolist()}
    [found] = values([call])
    assert found["given"] == given["given"]
    np.testing.assert_array_equal(np.float32(found["encoded"]), rows.ravel())


def record_here(target, info, chunk, rows, layers) -> dict:
    """What streaming/ gives the graphs for the same calls, and what they answer."""
    frames = rows.T[None] if target == "sherpa_nemo" else rows[None]
    state = np.zeros((layers, 1, 4), dtype=np.float32)
    predicted = rows[:1] if target == "sherpa_lstm" else rows[:1, :, None]
    outputs = {"encoder": [frames] * 6, "decoder": [predicted, state, state, state]}
    outputs["joiner"] = [np.zeros((len(rows), V), dtype=np.float32)]
    given = []

    def run(graph, arrays):
        given.append([graph, [[str(a.dtype), a.ravel().tolist(), list(a.shape)] for a in arrays]])
        return outputs[graph]

    features = SimpleNamespace(**info["features"])
    values = info | {"features": features, "predictor_shape": (layers, 4)}
    session = SESSIONS[target](SimpleNamespace(**values), run, "fp32")
    state0 = session.initial_state()
    run("encoder", session.encoder_inputs(chunk, state0))
    session.predict(np.array([3]), session.empty_memory())
    session.join(rows, np.repeat(rows[:1], len(rows), axis=0))
    return {"given": given, "outputs": outputs}


@pytest.mark.parametrize("target", list(SESSIONS))
def test_a_joiner_that_scales_all_rows_together_is_found(values, target):
    tensors = {"joiner": {"inputs": [{"shape": ["N", 5]}]}}
    call = {"call": "rowsAreAlone", "info": {"target": target, "tensors": tensors}}
    assert values([call | {"shared": True}, call | {"shared": False}]) == [False, True]


def test_percentiles(values):
    calls = [{"call": "percentile", "values": [3, 1, 2, 40], "share": s} for s in (0.5, 0.95, 0)]
    assert values(calls) == [2, 40, 1]
