"""ARPA files by hand: what is read, and what is refused in one line."""

import gzip

import numpy as np
import pytest

import streaming
from streaming import InputError
from streaming.search.arpa import MAX_LINE_BYTES, read_arpa
from streaming.search.fusion import NEVER
from streaming.search.ngram import MAX_ANSWERS, BackoffTables, NgramLm
from tests.streaming.tiny_bundle import make_speech

SYMBOLS = ["<blk>", "<unk>", " a", " b", "c"]
TEXT = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.5
-1.0\t</s>
-0.5\t▁a\t-0.25
-0.75\t▁b\t-0.1
-0.8\tc

\\2-grams:
-0.1\t<s> ▁a
-0.2\t▁a ▁b
-0.4\t▁b </s>

\\end\\
"""
TEN = np.log(10)


@pytest.fixture
def file(tmp_path):
    def write(text, name="lm.arpa"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def test_what_is_listed_and_what_is_backed_off_to(file):
    events = BackoffTables(read_arpa(file(TEXT), SYMBOLS, 0), 5)
    np.testing.assert_allclose(events(())[2:] / TEN, [-0.5, -0.75, -0.8], atol=1e-6)
    assert events(())[0] / TEN == pytest.approx(-1.0), "the end, not the start"
    np.testing.assert_allclose(events((0,))[2:] / TEN, [-0.1, -1.25, -1.3], atol=1e-6)
    np.testing.assert_allclose(events((2,))[2:] / TEN, [-0.75, -0.2, -1.05], atol=1e-6)
    np.testing.assert_allclose(events((4,))[2:] / TEN, [-0.5, -0.75, -0.8], atol=1e-6)
    assert events((3,))[0] / TEN == pytest.approx(-0.4)


def test_a_piece_that_is_not_listed_is_as_likely_as_an_unknown_one(file):
    text = TEXT.replace("-0.8\tc\n", "").replace("ngram 1=6", "ngram 1=5")
    events = BackoffTables(read_arpa(file(text), SYMBOLS, 0), 5)
    assert events(())[4] / TEN == pytest.approx(-2.0)


def test_labels_alone_and_answers_kept(file):
    lm = NgramLm(BackoffTables(read_arpa(file(TEXT), SYMBOLS, 0), 5), SYMBOLS, 0)
    answer = lm.next_labels(lm.start())
    assert np.exp(answer[2:]).sum() == pytest.approx(1, abs=1e-6)
    assert answer[:2].tolist() == [NEVER, NEVER]
    assert lm.next_labels(lm.start()) is answer
    assert lm.advance(lm.start(), 3) == (3,)
    for number in range(MAX_ANSWERS + 5):
        lm.next_labels((number,))
    assert len(lm._answers) <= MAX_ANSWERS


def test_gz_and_spaces_for_tabs(file, tmp_path):
    plain = read_arpa(file(TEXT.replace("\t", " ")), SYMBOLS, 0)
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    for one, other in zip(plain, read_arpa(packed, SYMBOLS, 0), strict=True):
        for column, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(column, same)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "no ARPA file"),
        ("▁a ▁b", "▁a ▁dog", "the token '▁dog' is not in the bundle's vocabulary"),
        ("ngram 2=3", "ngram 2=4", "3 2-grams where .data. counts 4"),
        ("ngram 2=3", "ngram 2=2", "more than the 2 2-grams"),
        ("ngram 2=3", "ngram 3=3", "expected the count of 2-grams"),
        ("ngram 1=6", "ngram 1=999999999", "up to 20000000"),
        ("\\2-grams:", "\\3-grams:", "expected .2-grams"),
        ("\\end\\", "", "cut short"),
        ("-0.2\t▁a ▁b", "0.2\t▁a ▁b", "probability above 1"),
        ("-0.2\t▁a ▁b", "nan\t▁a ▁b", "no log10"),
        ("-0.2\t▁a ▁b", "x\t▁a ▁b", "is no number"),
        ("-0.2\t▁a ▁b", "-0.2\t▁a ▁b c c", "fields in a 2-gram"),
        ("-0.2\t▁a ▁b", "-0.1\t<s> ▁a", "there twice"),
        ("-0.8\tc", "-0.8\t▁b", "there twice"),
        ("-0.2\t▁a ▁b", "-0.2\t</s> ▁b", "</s> last"),
        ("▁a ▁b", "▁a " + "b" * MAX_LINE_BYTES, "too long a line"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(file, old, new, message):
    assert old in TEXT
    with pytest.raises(InputError, match=message) as raised:
        read_arpa(file(TEXT.replace(old, new)), SYMBOLS, 0)
    assert "\n" not in str(raised.value) and "lm.arpa" in str(raised.value)


def test_every_truncation_is_refused(file):
    for length in range(0, len(TEXT) - len("\\\n"), 7):
        with pytest.raises(InputError):
            read_arpa(file(TEXT[:length]), SYMBOLS, 0)


def test_damaged_gz(tmp_path):
    path = tmp_path / "lm.arpa.gz"
    whole = gzip.compress(TEXT.encode())
    for content in (b"", b"no gzip", whole[: len(whole) // 2], whole[:30] + b"\xff" * 20):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_arpa(path, SYMBOLS, 0)


def test_missing_file(bundle):
    with pytest.raises(InputError, match="is no file"):
        streaming.open_bundle(bundle, "fp32", lm="missing.arpa")


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_a_language_model_has_its_say(bundle, tmp_path, method):
    """One that knows nothing but ▁j: of the labels it is then heard, and blank stays as it is."""
    lines = ["\\data\\", "ngram 1=3", "\\1-grams:", "-9 <unk>", "-1 </s>", "-0.1 ▁j", "\\end\\"]
    (tmp_path / "j.arpa").write_text("\n".join(lines), encoding="utf-8")
    options = {"decoding_method": method, "lm": tmp_path / "j.arpa", "lm_weight": 3.0}
    recognizer = streaming.open_bundle(bundle, "fp32", **options)
    stream = recognizer.create_stream()
    stream.accept(make_speech(32000))
    assert set(recognizer.get_result_all(stream).tokens) == {" j"}
