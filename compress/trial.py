"""What a layout takes on the device, known before any training: export it untrained, and measure.

Weights change neither bytes nor time. Labels do: a student that says nothing saves the predictor's
calls, 3 % of the time of speech with four labels a second, and one that was pruned at once says
anything; so here all are silent.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np

from compress.bundle import export_model
from compress.checkpoint import save_model
from compress.data.batches import BatchSettings
from compress.data.tokenizer import Tokenizer
from compress.measure import decode_samples
from compress.models.predictors import BLANK
from compress.models.transducer import Transducer
from export.quantize import Method
from streaming import open_bundle
from streaming.features import FloatArray

SILENT = 30.0  # added to the logit of blank
# As long as a command: the tail of silence after it is work, and 4 s take 12 % less a second. With
# 2 s the real-time factor is within 2 % of that of the synthetic test speech.
NOISE_SECONDS = 2.0
PASSES = 15  # what disturbs one only adds to its time, so the quickest counts


@contextmanager
def exported(
    model: Transducer,
    tokenizer: Tokenizer,
    quantize: Method = "int8",
    tail_frames: int = BatchSettings.tail_frames,
    silent: bool = True,
) -> Iterator[Path]:
    """The model's bundle, silent or as it is, in a folder that goes afterwards.

    An untrained student has learned no ranges: instead of qat it is static, of the same size and
    time.
    """
    copy = deepcopy(model).requires_grad_(False)
    copy.joiner.output.bias[BLANK] += SILENT * silent
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        save_model(copy, Path(folder) / "model", tokenizer, {})
        bundle = Path(folder) / "bundle"
        method: Method = "static" if quantize == "qat" else quantize
        export_model(Path(folder) / "model", bundle, method, {}, tail_frames)
        yield bundle


def measure_labels(
    model: Transducer,
    tokenizer: Tokenizer,
    quantize: Method,
    tail_frames: int,
    utterances: Sequence[FloatArray],
) -> float:
    """What the labels of `utterances` add to the real-time factor; nearly the same for a student,
    because small calls of the predictor and the joiner cost the same whatever their widths."""
    settings = tokenizer, quantize, tail_frames
    with exported(model, *settings) as silent, exported(model, *settings, False) as speaking:
        found = measure_rtf({"silent": silent, "speaking": speaking}, utterances)
    return max(0.0, found["speaking"] - found["silent"])


def make_noise(seconds: float = NOISE_SECONDS, sample_rate: int = 16000) -> FloatArray:
    """White noise at -26 dB: encoders take as long for it as for speech."""
    random = np.random.default_rng(0)
    return (0.05 * random.standard_normal(round(seconds * sample_rate))).astype(np.float32)


def time_chunks(bundles: Mapping[str, Path], passes: int = PASSES) -> dict[str, float]:
    """bundle -> milliseconds of a chunk, features included: the median one, at its quickest.

    Passes alternate between the bundles, so that ratios stay true on a busy machine.
    """
    recognizers = {name: open_bundle(path) for name, path in bundles.items()}
    times_ms: dict[str, list[list[float]]] = {name: [] for name in bundles}
    for _ in range(passes):
        for name, recognizer in recognizers.items():
            times_ms[name].append(decode_samples(recognizer, make_noise())[1])
    quickest = {name: np.min(times, axis=0) for name, times in times_ms.items()}
    return {name: float(np.median(chunks)) for name, chunks in quickest.items()}


def measure_rtf(
    bundles: Mapping[str, Path], utterances: Sequence[FloatArray] = (), passes: int = PASSES
) -> dict[str, float]:
    """bundle -> seconds of work for a second of audio, one thread; noise without `utterances`.

    Of every utterance the quickest pass counts, and passes alternate between the bundles. A tail
    of silence follows each utterance and is work too, so short ones cost more a second.
    """
    recognizers = {name: open_bundle(path) for name, path in bundles.items()}
    utterances = utterances or [make_noise()]
    seconds = {name: [math.inf] * len(utterances) for name in bundles}
    for _ in range(passes):
        for index, samples in enumerate(utterances):
            for name, recognizer in recognizers.items():
                took = decode_samples(recognizer, samples)[2]
                seconds[name][index] = min(seconds[name][index], took)
    audio = {
        name: sum(map(len, utterances)) / r.info.features.sample_rate
        for name, r in recognizers.items()
    }
    return {name: sum(seconds[name]) / audio[name] for name in bundles}
