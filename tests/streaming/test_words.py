"""Words of pieces, and the beginning of the text that stays."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming
from streaming import Result, Word
from streaming.tokens import pieces_to_text
from streaming.words import build_words, count_stable
from tests.streaming.cutting import cut, cuts
from tests.streaming.tiny_bundle import make_speech

OPTIONS = {
    "greedy": {},
    "greedy, hotwords": {"hotwords": "coz/qu/a lynx"},
    "greedy, lm": {"lm": True},
    "beam": {"decoding_method": "modified_beam_search"},
    "beam, hotwords": {"decoding_method": "modified_beam_search", "hotwords": "coz/qu/a lynx"},
    "beam, lm": {"decoding_method": "modified_beam_search", "lm": True},
}


def test_times_and_confidences():
    pieces = [" turn", " o", "n", " it"]
    words = build_words(pieces, [0.2, 0.4, 0.48, 2.0], [-0.1, -0.2, -0.7, 0.0])
    assert words == [
        Word("turn", 0.2, 0.4, round(math.exp(-0.1), 4)),
        Word("on", 0.4, 0.88, round(math.exp(-0.45), 4)),
        Word("it", 2.0, 2.4, 1.0),
    ]


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ([], []),
        (["n", "o"], ["no"]),
        ([" ", "a", " ", " b"], ["a", "b"]),
        (["你", "好"], ["你好"]),
        ([" ", "<0xC3>", "<0xA9>", " e"], ["é", "e"]),
    ],
)
def test_any_script(pieces, texts):
    words = build_words(pieces, np.arange(len(pieces)) * 0.04, [])
    assert [word.text for word in words] == texts
    assert all(word.confidence == 1.0 for word in words)


@given(st.lists(st.sampled_from([" a", "b", " ", "<0xC3>", "<0xA9>", "'"]), max_size=12))
def test_words_are_the_text_and_the_prefix_is_of_it(pieces):
    words = build_words(pieces, [0.0] * len(pieces), [])
    assert " ".join(" ".join(word.text for word in words).split()) == " ".join(
        pieces_to_text(pieces).split()
    )
    prefixes = [pieces_to_text(pieces[: count_stable(pieces[:n])]) for n in range(len(pieces) + 1)]
    for before, after in zip(prefixes, [*prefixes[1:], pieces_to_text(pieces)], strict=True):
        assert after.startswith(before)


def test_of_a_result(recognizer, speech):
    stream = recognizer.create_stream()
    stream.accept(speech)
    result = recognizer.get_result_all(stream)
    assert len(result.log_probs) == len(result.tokens) > 5
    assert max(result.log_probs) <= 0
    assert " ".join(word.text for word in result.words) == result.text
    assert all(0 < word.confidence <= 1 for word in result.words)
    assert Result("", [], [], 0.0).words == []


@pytest.fixture(scope="module", params=sorted(OPTIONS))
def any_recognizer(request, bundle, tmp_path_factory):
    options = dict(OPTIONS[request.param])
    if options.get("lm"):
        options["lm"] = tmp_path_factory.mktemp("lm") / "lm.arpa"
        lines = ["\\data\\", "ngram 1=4", "ngram 2=1", "\\1-grams:", "-2 <unk>", "-1 </s>"]
        lines += ["-0.3 ▁b -0.2", "-0.5 q", "\\2-grams:", "-0.1 ▁b q", "\\end\\"]
        options["lm"].write_text("\n".join(lines), encoding="utf-8")
    return streaming.open_bundle(bundle, "fp32", **options)


@settings(max_examples=4, deadline=None)
@given(points=cuts(24000, 6), seed=st.integers(0, 30))
def test_the_stable_prefix_only_grows_and_is_of_the_final_text(any_recognizer, points, seed):
    stream, found = any_recognizer.create_stream(), [""]
    for samples in cut(make_speech(24000, seed), points):
        stream.accept(samples)
        found.append(any_recognizer.get_stable_prefix(stream))
        assert any_recognizer.get_result(stream).startswith(found[-1])
    final = stream.finish()
    found.append(any_recognizer.get_result_all(stream).stable_prefix)
    for before, after in zip(found, [*found[1:], final], strict=True):
        assert after.startswith(before)
    assert found[-1] == final, "what is over does not change"


def test_all_words_but_the_last_are_stable_in_greedy_search(recognizer, speech):
    stream = recognizer.create_stream()
    text = stream.accept(speech)
    words = [word.text for word in recognizer.get_result_all(stream).words]
    assert recognizer.get_stable_prefix(stream) == " ".join(words[:-1]) != ""
    assert text.startswith(recognizer.get_stable_prefix(stream))
