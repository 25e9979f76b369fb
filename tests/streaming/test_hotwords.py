"""The trie against phrases compared one by one, and what hotwords do to a search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming import InputError
from streaming.search import BeamSearch, Fusion, GreedySearch, SearchState
from streaming.search.hotwords import ROOT, HotwordTrie
from tests.reference.contexts import score_labels
from tests.streaming.table_session import TableSession
from tests.streaming.test_beam import BLANKS, noise, search_chunks

phrase = st.lists(st.integers(2, 4), min_size=1, max_size=4).map(tuple)


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(phrase, min_size=1, max_size=6, unique=True),
    labels=st.lists(st.integers(2, 5), max_size=12),
)
def test_earns_what_the_definition_says(tokens, labels):
    phrases = tuple((t, 1.5) for t in tokens)
    trie, node, total = HotwordTrie(phrases), ROOT, 0.0
    for label in labels:
        node, earned = trie.step(node, label)
        total += earned
    assert total == pytest.approx(score_labels(phrases, labels))


def test_a_broken_match_gives_back_and_a_whole_one_keeps():
    trie = HotwordTrie((((2, 3, 4), 1.0), ((3, 5), 2.0)))
    node, earned = trie.step(ROOT, 2)
    assert earned == 1.0
    node, earned = trie.step(node, 3)
    assert earned == 1.0
    assert trie.gains(node, 7).tolist() == [0, 0, 1, 2, 1, 2, 0]  # 5 ends the match of 3 alone
    assert trie.step(node, 5) == (ROOT, 2.0)  # 2 3 5: gives 2 back, keeps the 4 of 3 5
    assert trie.step(node, 6) == (ROOT, -2.0)
    assert trie.step(node, 4) == (ROOT, 1.0)


def test_without_phrases_nothing_is_earned():
    trie = HotwordTrie(())
    assert trie.step(ROOT, 3) == (ROOT, 0.0)
    assert not trie.gains(ROOT, 5).any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(1, 23), max_size=3).map(sorted))
def test_greedy_gains_are_those_of_the_loop_over_frames(seed, cuts):
    session, encoded = TableSession(6, seed=seed), noise(seed, 1, blank=3.0)
    fusion = Fusion(0, phrases=(((2, 3), 2.0), ((4,), 1.0)))
    found, _ = search_chunks(GreedySearch(session, BLANKS, 1, fusion), encoded, cuts)
    labels, state = [], fusion.start()
    predicted, memory = session.predict(np.array([0]), session.empty_memory())
    for t, frame in enumerate(encoded[0]):
        logits = session.join(frame[None], predicted)
        scores = fusion.scores(logits, [state]) + fusion.gains([state], 6)
        if (best := int(scores.argmax())) not in BLANKS:
            labels.append((best, t))
            predicted, memory = session.predict(np.array([best]), memory)
            state, _ = fusion.follow(state, best)
    assert [(t.index, t.frame) for t in found[0]] == labels


@pytest.mark.parametrize("search", [GreedySearch, BeamSearch])
def test_a_stream_has_hotwords_of_its_own(search):
    """Two streams with the same sound; one of them is told to hear 5 where 3 is likelier."""
    session = TableSession(6)
    session.table[:] = 0
    encoded = np.full((2, 8, 6), -5, dtype=np.float32)
    encoded[..., 0] = 4
    encoded[:, 3] = [0, 0, 0, 4, 0, 3]
    searcher = search(session, BLANKS, 1 if search is GreedySearch else 4)
    states: list[SearchState] = [searcher.start((((5,), 3.0),)), searcher.start()]
    tokens, states = searcher.advance(encoded, states)
    heard = [[t.index for t in (*ts, *s.pending)] for ts, s in zip(tokens, states, strict=True)]
    assert heard == [[5], [3]]
    assert states[0].hotwords and not states[1].hotwords
    assert tokens[0][0].log_prob < -1 if tokens[0] else True, "the model's own opinion is kept"


def test_create_stream_takes_phrases_and_reset_keeps_them(bundle, speech):
    recognizer = streaming.open_bundle(bundle, "fp32", hotwords_score=20.0)
    plain, boosted = recognizer.create_stream(), recognizer.create_stream(hotwords="coz/a lynx")
    plain.accept(speech)
    boosted.accept(speech)
    assert "coz" in recognizer.get_result(boosted)
    assert "coz" not in recognizer.get_result(plain)
    hotwords = boosted.search.hotwords
    recognizer.reset(boosted)
    assert boosted.search.hotwords == hotwords != ()
    assert "coz" in boosted.accept(speech)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hotwords": ["a :x"]}, "'x' is no score"),
        ({"hotwords": ["a :0"]}, "more than 0"),
        ({"hotwords": ["a :nan"]}, "more than 0"),
        ({"hotwords": ["Ä"]}, "hotword 'Ä': 'Ä' is not in the vocabulary"),
        ({"hotwords_file": "missing.txt"}, "missing.txt: No such file"),
        ({"hotwords_score": -1.0}, "hotwords_score is -1"),
        ({"decoding_method": "beam"}, "greedy_search, modified_beam_search"),
        ({"max_active_paths": 0}, "max_active_paths is 0"),
        ({"blank_penalty": float("nan")}, "blank_penalty is nan"),
        ({"temperature_scale": 0.0}, "temperature_scale is 0"),
        ({"lm_weight": -0.1}, "lm_weight is -0.1"),
        ({"max_symbols_per_frame": 0}, "max_symbols_per_frame is 0"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(bundle, options, message):
    with pytest.raises(InputError, match=message) as raised:
        streaming.open_bundle(bundle, "fp32", **options)
    assert "\n" not in str(raised.value)


def test_a_hotwords_file(bundle, tmp_path):
    file = tmp_path / "hotwords.txt"
    file.write_text("a box :2.5\n\n c \n", encoding="utf-8")
    recognizer = streaming.open_bundle(bundle, "fp32", hotwords_file=file)
    assert [score for _, score in recognizer.search.fusion.phrases] == [2.5, 1.5]
    file.write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        streaming.open_bundle(bundle, "fp32", hotwords_file=file)
