"""sherpa-onnx through its C API: another client than Python, the same tokens and times."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export.sherpa import pad_samples
from streaming import open_bundle
from streaming.tokens import WORD_START
from tests.export.form_bundles import SOURCES
from tests.export.sherpa_build import compile_client


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("client") / "sherpa_client"
    return compile_client(Path(__file__).with_name("sherpa_client.c"), program)


@pytest.mark.parametrize(
    ("precision", "form"),
    [("fp32", "onnx"), ("int8", "onnx"), ("fp32", "ort"), ("int8", "ort"), ("int8", "external")],
)
@pytest.mark.parametrize("target", SOURCES)
def test_same_tokens_and_times_in_c(target, precision, form, client, forms, speech):
    folder = forms[target, form]
    recognizer = open_bundle(folder, precision)
    info = recognizer.info
    padded = [pad_samples(info, samples) for samples in speech]
    graphs = [str(info.graph_path(graph, precision)) for graph in ("encoder", "decoder", "joiner")]
    settings = [str(info.features.sample_rate), str(info.features.num_mel_bins)]
    done = subprocess.run(
        [str(client), str(folder / "tokens.txt"), *graphs, *settings],
        input=b"".join(struct.pack("<i", len(s)) + s.tobytes() for s in padded),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(rows) == len(speech)
    assert sum(len(row["tokens"]) for row in rows) > 10
    for samples, row in zip(speech, rows, strict=True):
        stream = recognizer.create_stream()
        stream.accept(samples)
        stream.finish()
        ours = recognizer.get_result_all(stream)
        assert [token.replace(WORD_START, " ") for token in ours.tokens] == row["tokens"]
        np.testing.assert_allclose(ours.timestamps, row["timestamps"], atol=1e-3)
