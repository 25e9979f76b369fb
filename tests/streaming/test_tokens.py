import pytest

from streaming.errors import BundleError
from streaming.tokens import pieces_to_text, read_tokens


def test_pieces_to_text():
    assert pieces_to_text([" turn", " o", "n"]) == "turn on"
    assert pieces_to_text([" ", "a", " "]) == "a"
    assert pieces_to_text([]) == ""


def test_bytes_make_characters():
    assert pieces_to_text([" caf", "<0xC3>", "<0xA9>", "s"]) == "cafés"
    assert pieces_to_text([" caf", "<0xC3>"]) == "caf\N{REPLACEMENT CHARACTER}"


def test_reads_tokens(tmp_path):
    path = tmp_path / "tokens.txt"
    path.write_text("<blk> 0\n<unk> 1\n▁ 2\n", encoding="utf-8")
    assert read_tokens(path, 3) == ["<blk>", "<unk>", " "]


@pytest.mark.parametrize(
    "text",
    [
        "<blk> 0\n<unk> 1\n",
        "<unk> 0\n<blk> 1\na 2\n",
        "<blk> 0\n<unk> 1\na 1\n",
        "<blk> 0\n<unk> 1\na 3\n",
        "<blk> 0\n<unk> 1\na b 2\n",
        "<blk> 0\n<unk> 1\n 2\n",
        "<blk> 0\n<unk> 1\na ²\n",
    ],
)
def test_wrong_tokens_are_refused(tmp_path, text):
    path = tmp_path / "tokens.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokens\.txt.*export"):
        read_tokens(path, 3)
