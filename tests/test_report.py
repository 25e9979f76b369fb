import copy
import json
import math
import re
import shlex
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pydantic import ValidationError

from compress.report.curves import draw_curves, loss_names, running_mean
from compress.report.pages import Code, Page, Picture, Section, Table, Text, to_html, to_markdown
from compress.report.pictures import (
    STYLE,
    draw_latency,
    draw_sizes,
    draw_word_error_rates,
    render_picture,
    student_sizes,
)
from compress.report.quantities import (
    format_bytes,
    format_count,
    format_duration,
    format_ms,
    format_times,
)
from compress.report.render import rerender, write_report
from compress.report.sections import command_line
from streaming.errors import InputError

RATE = {"wer": 0.031, "low": 0.02, "high": 0.045, "words": 700}
WORSE = {"wer": 0.05, "low": 0.035, "high": 0.068, "words": 700}
REPORT = {
    "schema": 1,
    "seed": 7,
    "command": ["compress", "run", "--sparsity", "0.9", "--data", "a <b> & c"],
    "teacher": {"parameters": 5_000_000, "bytes": 10_000_000, "wer": {"synthetic/test": RATE}},
    "student": {
        "parameters": 500_000,
        "prunable_sparsity": 0.91,
        "total_sparsity": 0.9,
        "wer": {"synthetic/test": WORSE},
        "layers": [
            {
                "name": f"encoder.layers.{number}.attention.query",
                "pattern": pattern,
                "shape": [192, 192],
                "sparsity": sparsity,
                "bits": 8,
                "form": form,
                "stored": "int8",
                "why": "",
            }
            for number, (pattern, sparsity, form) in enumerate(
                [("block:16", 0.9, "blocks"), ("2:4", 0.5, "zeros"), ("dense", 0.0, "dense")]
            )
        ],
    },
    "student_without_distillation": {"wer": {"synthetic/test": WORSE}},
    "student_with_rounding": None,
    "bundle": {
        "path": "runs/x/bundle",
        "onnx_bytes": 800_000,
        "packed_bytes": 600_000,
        "wer": {"synthetic/test": WORSE},
        "rtf": 0.02,
        "chunk_ms": {"p50": 6.0, "p95": 9.0},
        "load_ms": 120.0,
        "peak_rss_mb": 90.0,
    },
    "chunks": [
        {"size_ms": 80, "wer": {"synthetic/test": WORSE}, "onnx_bytes": 800_100, "rtf": 0.03}
    ],
    "parity": [
        {
            "from": "torch",
            "to": "onnxruntime",
            "max_error": 1e-6,
            "token_agreement": 1.0,
            "passed": True,
        }
    ],
    "seconds": {"prepare": 40.0, "shrink": 300.0},
}
CURVES = {
    "shrink": [
        {"step": 20 * n, "seconds": n, "loss": 3.0 / n, "lattice": 2.0 / n, "sparsity": 0.01 * n}
        for n in range(1, 60)
    ]
}
CHUNK_MS = [5.0, 6.0, 7.0, 6.5, 20.0]
FILES = {"curves.json", "report.json", "report.md", "report.html"}
PICTURES = {f"report_{name}.png" for name in ("wer", "size", "loss", "latency")}


@pytest.fixture
def report():
    return copy.deepcopy(REPORT)


def names(folder):
    return {path.name for path in folder.iterdir()}


class Reader(HTMLParser):
    """Checks that tags close in order; keeps the addresses and the text."""

    def __init__(self, content):
        super().__init__()
        self.open, self.addresses, self.text = [], [], ""
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "br", "meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_everything_is_written(report, tmp_path):
    assert write_report(tmp_path, report, CURVES, CHUNK_MS) == tmp_path / "report.html"
    assert names(tmp_path) == FILES | PICTURES
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT
    for name in PICTURES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_html_needs_no_other_file(report, tmp_path):
    page = Reader(write_report(tmp_path, report, CURVES, CHUNK_MS).read_text())
    assert len(page.addresses) == 4
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    for words in ("5,000,000", "3.10 %", "5.00 %", "2.00 to 4.50", "+1.90", "800 kB", "passed"):
        assert words in page.text
    assert "a <b> & c" in page.text
    assert "Not verified" not in page.text


def test_the_markdown_shows_the_same(report, tmp_path):
    write_report(tmp_path, report, CURVES, CHUNK_MS)
    text = (tmp_path / "report.md").read_text()
    assert "| teacher | 3.10 %<br>2.00 to 4.50 |" in text
    assert "| bundle − teacher | +1.90 |" in text
    assert set(re.findall(r"\]\((\S+\.png)\)", text)) == PICTURES
    assert "| together | 5 min 40 s |" in text


def test_a_failed_rung_heads_both_pages(report, tmp_path):
    report["parity"][0]["passed"] = False
    page = write_report(tmp_path, report, CURVES, CHUNK_MS).read_text()
    for text in (page, (tmp_path / "report.md").read_text()):
        assert text.index("Not verified: torch → onnxruntime") < text.index("fewer parameters")
        assert "FAILED" in text


def test_what_is_missing_is_left_out(report, tmp_path):
    report["student_without_distillation"] = None
    report["teacher"]["wer"]["silence/test"] = {
        "wer": math.nan,
        "low": math.nan,
        "high": 0.0,
        "words": 0,
    }
    report["bundle"]["packed_bytes"] = None
    report["bundle"]["chunk_ms"] = {"p50": None, "p95": None}
    report["parity"] = []
    page = Reader(write_report(tmp_path, report, {"shrink": []}, []).read_text())
    assert names(tmp_path) == FILES | {"report_wer.png", "report_size.png"}
    assert "no distillation" not in page.text
    assert "Parity" not in page.text and "Training" not in page.text
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["student_without_distillation"] is None
    assert written["teacher"]["wer"]["silence/test"]["wer"] is None
    assert "silence/test<br>0 words |\n" in (tmp_path / "report.md").read_text()


def test_no_set_at_all(report, tmp_path):
    for model in ("teacher", "student", "student_without_distillation", "bundle"):
        report[model]["wer"] = {}
    assert "No set was decoded." in write_report(tmp_path, report, {}, []).read_text()


def test_json_has_the_schema_and_nothing_else(report, tmp_path):
    del report["schema"]
    report["bundle"]["extra"] = 1
    report["parity"][0] |= {"mean_error": 1e-8}
    write_report(tmp_path, report, {}, [])
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT


def test_a_missing_key_writes_nothing(report, tmp_path):
    del report["bundle"]["rtf"]
    with pytest.raises(ValidationError, match=r"bundle\.rtf"):
        write_report(tmp_path, report, CURVES, CHUNK_MS)
    assert not names(tmp_path)


def test_rerender_makes_the_same_files(report, tmp_path):
    curves = {"shrink": [*CURVES["shrink"], {"step": 1200, "loss": math.inf}]}
    write_report(tmp_path, report, curves, CHUNK_MS)
    before = {name: (tmp_path / name).read_bytes() for name in FILES | PICTURES}
    for name in PICTURES | {"report.html", "report.md"}:
        (tmp_path / name).unlink()
    assert rerender(tmp_path) == tmp_path / "report.html"
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_rerender_without_curves_drops_their_pictures(report, tmp_path):
    write_report(tmp_path, report, CURVES, CHUNK_MS)
    (tmp_path / "curves.json").unlink()
    rerender(tmp_path)
    assert not names(tmp_path) & {"report_loss.png", "report_latency.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no report.json.*--resume"),
        ("{", "not valid JSON"),
        ('{"schema": 2}', "schema: Input should be 1"),
        ("[]", "report.json: .*another version wrote it"),
    ],
)
def test_rerender_of_no_report(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match=message):
        rerender(tmp_path)


def test_odd_names_are_text(report, tmp_path):
    odd = "$x_1$ | <script>alert(1)</script> 語"
    report["teacher"]["wer"] = {odd: RATE}
    page = Reader(write_report(tmp_path, report, {"<i>": CURVES["shrink"]}, []).read_text())
    assert odd in page.text
    assert "| x" not in (tmp_path / "report.md").read_text()


def test_pictures_of_nothing():
    assert draw_latency([]) is None
    assert draw_latency([math.nan]) is None
    assert draw_curves({}) is None
    assert draw_curves({"shrink": [{"step": 20, "loss": math.nan, "norm": 1.0}]}) is None
    empty = {"wer": None, "low": None, "high": None, "words": 0}
    assert draw_word_error_rates({"teacher": {"wer": {"silence": empty}}}) is None
    assert render_picture(lambda: None) is None


def perfect(report):
    for model in ("teacher", "student", "student_without_distillation", "bundle"):
        report[model]["wer"]["synthetic/test"] = {"wer": 0.0, "low": 0.0, "high": 0.0, "words": 9}
    return report


@pytest.mark.parametrize(
    "draw",
    [
        lambda report: draw_word_error_rates(perfect(report)),
        lambda report: draw_sizes(report),
        lambda report: draw_latency([0.0]),
        lambda report: draw_latency([6.0] * 100),
        lambda report: draw_curves({"shrink": [{"step": 20, "loss": 1.0, "sparsity": 0.0}]}),
        lambda report: draw_curves({"a" * 80: CURVES["shrink"], "b": CURVES["shrink"]}),
    ],
)
def test_corner_cases_are_drawn(report, draw):
    assert render_picture(lambda: draw(report))


def visible_texts(axes):
    """Titles, labels, notes, and the tick labels inside the view."""
    yield from (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if low <= tick.get_loc() <= high:
                yield from (label for label in (tick.label1, tick.label2) if label.get_visible())


def boxes(figure):
    """Of every text that shows, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in figure.axes for text in visible_texts(axes) if text.get_text()]
    return [text.get_window_extent(canvas.get_renderer()) for text in texts]


@pytest.mark.parametrize("picture", ["wer", "size", "loss", "latency"])
def test_letters_neither_overlap_nor_leave_the_picture(report, picture):
    report["teacher"]["wer"]["speech_commands/test"] = RATE | {"wer": 0.31, "high": 0.4}
    report["bundle"]["wer"]["speech_commands/test"] = RATE | {"wer": 0.003, "high": 0.009}
    with matplotlib.rc_context(STYLE):
        figure = {
            "wer": lambda: draw_word_error_rates(report),
            "size": lambda: draw_sizes(report),
            "loss": lambda: draw_curves(CURVES),
            "latency": lambda: draw_latency(CHUNK_MS),
        }[picture]()
        found = boxes(figure)
    assert len(found) > 5
    for n, box in enumerate(found):
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1
        for other in found[:n]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert wide <= 1 or high <= 1


def test_loss_names():
    rows = [{"step": 1, "loss": 1.0, "transducer": 1.0, "rate": 0.1, "norm": 2.0}]
    assert loss_names(rows) == ["transducer"]
    assert loss_names([*rows, {"step": 2, "loss": 2.0, "lattice": 1.0}]) == [
        "loss",
        "transducer",
        "lattice",
    ]
    assert loss_names([]) == []


def test_running_mean():
    assert running_mean(np.array([1.0, 2.0, 6.0])).tolist() == [1.5, 3.0, 4.0]
    assert running_mean(np.array([5.0])).tolist() == [5.0]


def test_quantities():
    assert [format_count(n) for n in (0, 812, 999_600, 5_470_000)] == ["0", "812", "1 M", "5.47 M"]
    assert [format_bytes(n) for n in (640_000, 10_940_000)] == ["640 kB", "10.9 MB"]
    assert [format_ms(t) for t in (0.0123, 6.1, 143.2, None)] == [
        "0.0123 ms",
        "6.1 ms",
        "143 ms",
        "–",
    ]
    assert format_times(10.04) == "10 ×"
    durations = [format_duration(t) for t in (3.27, 59.97, 192, 7500)]
    assert durations == ["3.3 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"]


def test_a_long_command_can_be_pasted():
    words = ["compress", "run", "--data", "a folder with --seed in its name", "--sparsity", "0.9"]
    lines = ["compress run", "--data 'a folder with --seed in its name'", "--sparsity 0.9"]
    assert command_line(words) == " \\\n    ".join(lines)
    assert shlex.split(command_line(words).replace("\\\n", "")) == words
    assert command_line(words[:2]) == "compress run"


def test_pages_escape(tmp_path):
    (tmp_path / "a.png").write_bytes(b"png")
    blocks = [Table(["a|b"], [["<x>\nsmall"]]), Text("*no*"), Code("a\nb")]
    page = Page(
        "<t>", [("1", "a_b _c_")], [Section("s", [*blocks, Picture(tmp_path / "a.png", '"')])]
    )
    text = to_markdown(page)
    assert r"| a\|b |" in text and r"| \<x\><br>small |" in text
    assert r"a_b \_c\_" in text and r"\*no\*" in text and "    a\n    b" in text
    page_text = to_html(page)
    assert "<td>&lt;x&gt;<br><small>small</small></td>" in page_text
    assert 'alt="&quot;"' in page_text
    Reader(page_text)


def test_a_bundle_that_is_not_packed_has_one_size(report):
    assert [size for _, size in student_sizes(report)] == [2_000_000, 800_000, 600_000]
    report["bundle"]["packed_bytes"] = 800_000
    assert [size for _, size in student_sizes(report)] == [2_000_000, 800_000]


def test_zeros_that_are_no_speed_are_counted(tmp_path):
    write_report(tmp_path, REPORT, CURVES, CHUNK_MS)
    text = (tmp_path / "report.md").read_text()
    assert "18,432 zeros (1 matrices) are stored and multiplied like any other value" in text
    assert "encoder.layers.attention.query" in text
    assert "computed without its zeros" in text
