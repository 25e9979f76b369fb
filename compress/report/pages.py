"""A page of sections, written as Markdown and as one HTML file that needs nothing beside it.

Section(title, [Table | Picture | Code | Text, ...])      facts: figures that head the page
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Cells are plain text; a line break in one begins its small print."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG beside the page; `words` say what it shows to who cannot see it."""

    path: Path
    words: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Text:
    text: str


Block = Table | Picture | Code | Text


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """facts: (figure, what it is). warning: one sentence that no reader may miss, or None."""

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    warning: str | None = field(default=None)


def to_markdown(page: Page) -> str:
    parts = [f"# {_escape_markdown(page.title)}"]
    if page.warning:
        parts.append(f"> **{_escape_markdown(page.warning)}**")
    facts = [f"- **{_escape_markdown(n)}** {_escape_markdown(what)}" for n, what in page.facts]
    parts.append("\n".join(facts))
    for section in page.sections:
        parts.append(f"## {_escape_markdown(section.title)}")
        parts += [_block_markdown(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(page: Page) -> str:
    title = html.escape(page.title)
    warning = f'<p class="warning">{html.escape(page.warning)}</p>' if page.warning else ""
    facts = "".join(
        f"<div><b>{html.escape(number)}</b><span>{_breakable(what)}</span></div>"
        for number, what in page.facts
    )
    sections = "".join(
        f"<section><h2>{html.escape(section.title)}</h2>"
        + "".join(_block_html(block) for block in section.blocks)
        + "</section>\n"
        for section in page.sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style></head>\n"
        f'<body><main><h1>{title}</h1>\n{warning}<div class="facts">{facts}</div>\n'
        f"{sections}</main></body></html>\n"
    )


def _block_markdown(block: Block) -> str:
    if isinstance(block, Table):
        cells = [
            [_escape_markdown(cell).replace("\n", "<br>") for cell in row]
            for row in [block.header, *block.rows]
        ]
        cells.insert(1, ["---"] + ["--:"] * (len(block.header) - 1))
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    if isinstance(block, Picture):
        return f"![{_escape_markdown(block.words)}]({block.path.name})"
    if isinstance(block, Code):
        return "\n".join(f"    {line}" for line in block.text.splitlines())
    return _escape_markdown(block.text)


def _block_html(block: Block) -> str:
    if isinstance(block, Table):
        head = "".join(_cell_html(cell, "th") for cell in block.header)
        rows = "".join(
            f"<tr>{''.join(_cell_html(cell, 'td') for cell in row)}</tr>\n" for row in block.rows
        )
        return (
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>\n{rows}</tbody></table></div>"
        )
    if isinstance(block, Picture):
        content = base64.b64encode(block.path.read_bytes()).decode()
        return f'<img alt="{html.escape(block.words)}" src="data:image/png;base64,{content}">'
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    return f"<p>{html.escape(block.text)}</p>"


def _cell_html(cell: str, tag: str) -> str:
    first, _, rest = _breakable(cell).partition("\n")
    small = f"<br><small>{rest}</small>" if rest else ""
    return f"<{tag}>{first}{small}</{tag}>"


def _breakable(text: str) -> str:
    """Escaped; a long name such as speech_commands/test may go on in the next line."""
    return re.sub(r"([_/])(?=\w)", r"\1<wbr>", html.escape(text))


def _escape_markdown(text: str) -> str:
    """An underscore inside a word, as in speech_commands, means nothing and stays readable."""
    return re.sub(r"([\\`*\[\]<>|$#&]|(?<!\w)_|_(?!\w))", r"\\\1", text)


CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #222; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid #ddd; }
p { max-width: 42rem; margin: .6rem 0; color: #444; }
.warning { max-width: none; padding: .7rem .9rem; color: #7a1f00; background: #fff1ea;
  border-left: 4px solid #d55e00; font-weight: 600; }
.facts { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(9.8rem, 1fr)); }
.facts div { padding: .6rem .8rem; background: #f5f7f9; border-radius: .5rem; min-width: 0; }
.facts b { display: block; font-size: 1.1rem; line-height: 1.4; white-space: nowrap; }
.facts span { display: block; font-size: .85rem; color: #444; overflow-wrap: anywhere; }
section { display: flex; flex-wrap: wrap; column-gap: 2.5rem; align-items: flex-start; }
section > h2, section > p, section > pre { width: 100%; }
img { width: 100%; max-width: 31rem; height: auto; margin: .6rem 0; }
.wide { max-width: 100%; overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 0 .35rem 1rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; }
td { white-space: nowrap; }
th { font-weight: 600; border-bottom: 2px solid #bbb; vertical-align: bottom;
  overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
small { color: #666; font-size: .78rem; font-weight: 400; }
pre { padding: .7rem .9rem; background: #f5f7f9; border-radius: .5rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 30rem) { th, td { padding-left: .6rem; } table { font-size: .82rem; } }
"""
