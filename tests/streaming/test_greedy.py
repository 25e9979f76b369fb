"""Label looping against the loop over frames, on sessions that are tables of numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming.search import GreedySearch
from streaming.session import MAX_ANSWERS_BYTES
from tests.reference.frames import search_frames
from tests.streaming.table_session import TableSession
from tests.streaming.tiny_bundle import J, V, make_speech

BLANKS = frozenset({0, 1})


def compare(session, encoded, cuts, max_symbols):
    """Every stream through both loops, in the same chunks; returns the tokens."""
    search = GreedySearch(session, BLANKS, max_symbols)
    states = [search.start() for _ in encoded]
    slow, heard = list(states), [[] for _ in encoded]
    for chunk in np.split(encoded, cuts, axis=1):
        tokens, states = search.advance(chunk, states)
        for n, stream in enumerate(chunk):
            wanted, slow[n] = search_frames(session, stream, slow[n], BLANKS, max_symbols)
            assert tokens[n] == wanted
            np.testing.assert_allclose(
                [t.log_prob for t in tokens[n]], [t.log_prob for t in wanted], atol=1e-5
            )
            assert states[n].num_frames == slow[n].num_frames
            assert states[n].num_trailing_blanks == slow[n].num_trailing_blanks
            np.testing.assert_array_equal(states[n].memory[0], slow[n].memory[0])
            np.testing.assert_array_equal(states[n].predicted, slow[n].predicted)
            heard[n] += wanted
    return heard


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    num_streams=st.integers(1, 4),
    max_symbols=st.sampled_from([1, 1, 2, 10]),
    blank=st.floats(-2, 5),
    cuts=st.lists(st.integers(0, 24), max_size=4).map(sorted),
    rows_alone=st.booleans(),
)
def test_label_looping_finds_what_the_loop_over_frames_finds(
    seed, num_streams, max_symbols, blank, cuts, rows_alone
):
    encoded = np.random.default_rng(seed).standard_normal((num_streams, 24, 6)).astype(np.float32)
    encoded[..., 0] += blank
    compare(TableSession(6, rows_alone, seed), encoded, cuts, max_symbols)


def test_the_joiner_is_called_once_and_again_for_every_token():
    session = TableSession(6)
    encoded = np.zeros((1, 24, 6), dtype=np.float32)
    encoded[..., 0] = 9
    encoded[0, [3, 4, 20], 5] = 20
    search = GreedySearch(session, BLANKS, 1)
    tokens, _ = search.advance(encoded, [search.start()])
    assert [t.frame for t in tokens[0]] == [3, 4, 20]
    assert session.num_joins == 4


def test_a_joiner_that_minds_its_neighbours_is_asked_frame_by_frame():
    session = TableSession(6, rows_alone=False)
    encoded = np.zeros((1, 24, 6), dtype=np.float32)
    encoded[..., 0] = 9
    search = GreedySearch(session, BLANKS, 1)
    search.advance(encoded, [search.start()])
    assert session.num_joins == 24


def test_the_state_that_went_in_is_left_as_it_was():
    session, rng = TableSession(6), np.random.default_rng(1)
    search = GreedySearch(session, BLANKS, 1)
    encoded = rng.standard_normal((1, 24, 6)).astype(np.float32)
    _, [state] = search.advance(encoded, [search.start()])
    before = (state.memory[0].copy(), state.predicted.copy(), state.num_frames)
    first, _ = search.advance(encoded, [state])
    second, _ = search.advance(encoded, [state])
    assert first == second
    np.testing.assert_array_equal(state.memory[0], before[0])
    np.testing.assert_array_equal(state.predicted, before[1])
    assert state.num_frames == before[2]


def test_which_joiners_mind_their_neighbours(recognizer, bundle):
    assert recognizer.session.joins_rows_alone
    dynamic = streaming.open_bundle(bundle, "int8")  # by onnxruntime's quantiser alone
    assert not dynamic.session.joins_rows_alone


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_loops_on_real_graphs(bundle, precision):
    recognizer = streaming.open_bundle(bundle, precision)
    session, search = recognizer.session, recognizer.search
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, make_speech(64000, 3))
    state, slow, quick, num_tokens = stream.state, stream.search, stream.search, 0
    while recognizer.is_ready(stream):
        chunk = stream.features.read(recognizer.info.chunk_frames)
        encoded, state = session.encode(chunk[None], state)
        [tokens], [quick] = search.advance(encoded, [quick])
        wanted, slow = search_frames(session, encoded[0], slow, BLANKS, 1)
        assert tokens == wanted
        num_tokens += len(tokens)
    assert num_tokens > 5


def test_a_predictor_is_asked_once_about_the_same_labels(recognizer):
    session, calls = recognizer.session, []
    run = session.run
    counted = type(session)(session.info, lambda *a: calls.append(a) or run(*a), "fp32")
    labels, memory = np.array([5, 6, 5]), counted.empty_memory(3)
    first, after = counted.predict(labels, memory)
    assert len(calls) == 2
    again, _ = counted.predict(labels, memory)
    assert len(calls) == 2
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(after[0], [[-1, 5], [-1, 6], [-1, 5]])
    for label in range(V):
        for other in range(V):
            counted.predict(np.array([other]), (np.array([[0, label]]),))
    assert len(counted._answers) * J * 4 <= MAX_ANSWERS_BYTES
