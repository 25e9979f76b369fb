"""tokens.txt, one `symbol id` a line, and pieces to text as SentencePiece spells them."""

import re
from collections.abc import Sequence
from pathlib import Path

from streaming.errors import BundleError

BLANK = "<blk>"
UNKNOWN = "<unk>"
WORD_START = " "
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")


def read_tokens(path: Path, vocab_size: int, blank_id: int = 0) -> list[str]:
    """The symbol of every id, `▁` as a space, as in the tokens of sherpa-onnx's results.

    Ids must be 0..vocab_size-1, each once, and `<blk>` must be blank_id.
    """
    symbols: list[str | None] = [None] * vocab_size
    text = path.read_text("utf-8", errors="replace").removesuffix("\n")
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would cut at U+2028 too
        symbol, _, index = line.rpartition(" ")
        right = index.isascii() and index.isdigit() and len(index) < 10 and int(index) < vocab_size
        if not symbol or " " in symbol or not right or symbols[int(index)] is not None:
            raise BundleError(f"{path}:{number}: not 'symbol id', ids once: export it again")
        symbols[int(index)] = symbol.replace("▁", WORD_START)
    found = [symbol for symbol in symbols if symbol is not None]
    if len(found) != vocab_size or found[blank_id] != BLANK:
        raise BundleError(
            f"{path}: {len(found)} symbols for a vocabulary of {vocab_size}, or {blank_id} is not "
            f"{BLANK}: export the bundle again"
        )
    return found


def pieces_to_text(pieces: Sequence[str]) -> str:
    """Joins pieces: a space starts a word, runs of `<0xNN>` are UTF-8 bytes.

    Example: [" turn", " o", "n"] -> "turn on". Bytes that are no whole character yet become "�".
    """
    return _BYTES.sub(_decode_bytes, "".join(pieces)).strip()


def _decode_bytes(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("<0x", "").replace(">", "")).decode("utf-8", "replace")
