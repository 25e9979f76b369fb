"""Modified beam search against whole label sequences in a dictionary, and against greedy search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming.search import BeamSearch, GreedySearch
from streaming.search.beam import MAX_PENDING
from tests.reference.hypotheses import search_hypotheses
from tests.streaming.table_session import TableSession
from tests.streaming.tiny_bundle import make_speech

BLANKS = frozenset({0, 1})


def search_chunks(search, encoded, cuts):
    """Every stream in the same chunks; returns tokens of each, pending ones too, and the states."""
    states, heard = [search.start() for _ in encoded], [[] for _ in encoded]
    for chunk in np.split(encoded, cuts, axis=1):
        tokens, states = search.advance(chunk, states)
        for n, found in enumerate(tokens):
            heard[n] += found
    return [h + list(s.pending) for h, s in zip(heard, states, strict=True)], states


def noise(seed, num_streams, num_tokens=6, num_frames=24, blank=0.0):
    rng = np.random.default_rng(seed)
    encoded = rng.standard_normal((num_streams, num_frames, num_tokens)).astype(np.float32)
    encoded[..., 0] += blank
    return encoded


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    num_streams=st.integers(1, 3),
    num_paths=st.integers(1, 6),
    blank=st.floats(-2, 5),
    cuts=st.lists(st.integers(1, 23), max_size=4).map(sorted),
)
def test_finds_what_whole_sequences_find(seed, num_streams, num_paths, blank, cuts):
    session, encoded = TableSession(6, seed=seed), noise(seed, num_streams, blank=blank)
    found, states = search_chunks(BeamSearch(session, BLANKS, num_paths), encoded, cuts)
    for stream, tokens, state in zip(encoded, found, states, strict=True):
        labels, frames, trailing = search_hypotheses(session, stream, BLANKS, num_paths, 2)
        assert [(t.index, t.frame) for t in tokens] == list(zip(labels, frames, strict=True))
        assert state.num_trailing_blanks == trailing
        assert state.num_frames == 24


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1 << 30), blank=st.floats(-2, 5))
def test_one_path_is_greedy_search(seed, blank):
    session, encoded = TableSession(6, seed=seed), noise(seed, 2, blank=blank)
    greedy, _ = search_chunks(GreedySearch(session, BLANKS, 1), encoded, [8])
    beam, states = search_chunks(BeamSearch(session, BLANKS, 1), encoded, [8])
    assert beam == greedy
    assert all(not state.pending for state in states), "a single path is certain"
    for ours, theirs in zip(beam, greedy, strict=True):
        np.testing.assert_allclose(
            [t.log_prob for t in ours], [t.log_prob for t in theirs], atol=1e-5
        )


def test_one_call_of_the_joiner_a_frame_for_all_streams():
    session = TableSession(6)
    search_chunks(BeamSearch(session, BLANKS, 4), noise(1, 3), [8, 16])
    assert session.num_joins == 24


def test_the_state_that_went_in_is_left_as_it_was():
    search, encoded = BeamSearch(TableSession(6), BLANKS, 4), noise(2, 1)
    _, [state] = search.advance(encoded, [search.start()])
    first, second = (search.advance(encoded, [state]) for _ in range(2))
    assert first[0] == second[0]
    assert first[1][0].pending == second[1][0].pending


def test_certain_tokens_stay_and_what_is_pending_stays_short():
    """A long stream: what was certain is the beginning of what is heard at any later time."""
    search = BeamSearch(TableSession(6, seed=3), BLANKS, 4)
    state, certain, texts = search.start(), [], []
    for chunk in np.split(noise(3, 1, num_frames=4000, blank=-1.0), 500, axis=1):
        [tokens], [state] = search.advance(chunk, [state])
        certain += tokens
        texts.append((len(certain), certain + list(state.pending)))
        assert len(state.pending) <= MAX_PENDING
        assert -20 < max(h.log_prob for h in state.hypotheses) <= 0.0
    final = texts[-1][1]
    assert len(final) > 500
    assert all(heard[:n] == final[:n] for n, heard in texts)
    assert len(final) - texts[-1][0] < 50


def test_hypotheses_that_never_agree_are_cut_back():
    """Two labels that the model cannot tell apart, at the first frame; then the same for ever."""
    session = TableSession(6)
    session.table[:] = 0
    encoded = np.full((1, 2 * MAX_PENDING, 6), -9, dtype=np.float32)
    encoded[0, 0, [2, 3]] = 9
    encoded[0, 1:, 4] = 9
    search = BeamSearch(session, BLANKS, 2)
    [certain], [state] = search.advance(encoded, [search.start()])
    assert len(state.pending) <= MAX_PENDING
    assert len(certain) + len(state.pending) == 2 * MAX_PENDING


def test_the_next_segment_counts_from_zero_and_remembers_labels(recognizer):
    search = BeamSearch(recognizer.session, BLANKS, 4)
    encoded = np.random.default_rng(0).standard_normal((1, 40, 16)).astype(np.float32)
    _, [state] = search.advance(encoded, [search.start()])
    assert state.pending or state.num_certain
    after = search.resume(state)
    assert (after.num_frames, after.num_certain, after.pending) == (0, 0, ())
    assert after.num_trailing_blanks == 0 and after.hypotheses[0].log_prob <= 0.0
    contexts = {h.memory[0].tobytes() for h in state.hypotheses}
    assert {h.memory[0].tobytes() for h in after.hypotheses} == contexts


def test_silence_that_nobody_decoded_counts():
    search = BeamSearch(TableSession(6), BLANKS, 4)
    _, [state] = search.advance(noise(2, 1), [search.start()])
    after = search.skip(state, 10)
    assert after.num_frames == state.num_frames + 10
    assert after.num_trailing_blanks == state.num_trailing_blanks + 10
    assert after.pending == state.pending


@pytest.fixture(scope="module")
def beam(bundle):
    return streaming.open_bundle(bundle, "fp32", decoding_method="modified_beam_search")


def test_a_stream_in_company_and_in_pieces(beam, speech):
    """Batched with another and cut anywhere, a stream gives the same tokens."""
    alone = beam.create_stream()
    alone.accept(speech)
    alone.finish()
    streams = [beam.create_stream() for _ in range(2)]
    sounds = [speech, make_speech(32000, 5)]
    for start in range(0, 32000, 5000):
        for stream, sound in zip(streams, sounds, strict=True):
            stream.accept_waveform(16000, sound[start : start + 5000])
        while all(map(beam.is_ready, streams)):
            beam.decode_streams(streams)
    streams[0].finish()
    assert beam.get_result_all(streams[0]).tokens == beam.get_result_all(alone).tokens
    assert len(beam.get_result_all(alone).tokens) > 3


def test_a_paused_beam_goes_on(beam, speech):
    stream = beam.create_stream(hotwords=["a b"])
    stream.accept(speech[:16000])
    other = beam.resume_stream(stream.pause())
    assert other.accept(speech[16000:]) == stream.accept(speech[16000:])
    assert other.finish() == stream.finish()
    assert other.search.hotwords == stream.search.hotwords != ()


def test_reset_in_the_middle_and_the_text_so_far(beam, speech):
    stream = beam.create_stream()
    text = stream.accept(speech)
    assert text == beam.get_result_all(stream).text != ""
    beam.reset(stream)
    assert beam.get_result(stream) == "" and stream.segment == 1
    assert stream.accept(speech) != ""
