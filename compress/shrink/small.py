"""A new, smaller network in the teacher's proportions, for a budget of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compress.models.config import (
    ConformerConfig,
    LstmConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.models.transducer import outline
from compress.shrink.schedule import check_sparsity
from streaming.errors import InputError

WIDTH_STEP = 8
HEAD_DIM = 16
FEED_FORWARD = 4  # times the width, as in arXiv 2005.08100
SMALLEST_WIDTH = 16


def small_config(teacher: TransducerConfig, sparsity: float) -> TransducerConfig:
    """The largest uniform network of the teacher's family with (1 - sparsity) of its parameters.

    Same depth, chunk, kernel and vocabulary; widths are multiples of 8, and the feed-forward
    layers take what the width leaves over. Raises InputError when even the narrowest is too large.
    """
    dense = count_parameters(teacher)
    budget = int((1 - check_sparsity(sparsity)) * dense)
    make = MAKERS[type(teacher.encoder)]
    best = None
    for config in make(teacher):
        if count_parameters(config) > budget:
            break
        best = config
    if best is None:
        most = 1 - count_parameters(next(make(teacher))) / dense
        raise InputError(
            f"no network of this family is as small as sparsity {sparsity:g}: the narrowest, of "
            f"width {SMALLEST_WIDTH}, is {int(most * 1e4) / 1e4:g}: use at most that"
        )
    return fill_feed_forward(best, budget)


def count_parameters(config: TransducerConfig) -> int:
    return outline(config).num_parameters


def conformers(teacher: TransducerConfig) -> Iterator[TransducerConfig]:
    """Ever wider Conformers."""
    encoder = teacher.encoder
    assert isinstance(encoder, ConformerConfig)
    for width in range(SMALLEST_WIDTH, encoder.width + 1, WIDTH_STEP):
        wanted = min(encoder.layers[0].num_heads, max(1, width // HEAD_DIM))
        heads = max(count for count in range(1, wanted + 1) if width % count == 0)
        small = uniform_conformer(
            num_layers=len(encoder.layers),
            width=width,
            num_heads=heads,
            feed_forward=FEED_FORWARD * width,
            joint_width=min(width, encoder.joint_width),
            features=encoder.features,
            num_mel_bins=encoder.num_mel_bins,
            chunk_frames=encoder.chunk_frames,
            left_context=encoder.left_context,
            kernel_size=encoder.kernel_size,
        )
        yield with_predictor(teacher, small)


def lstms(teacher: TransducerConfig) -> Iterator[TransducerConfig]:
    """Ever wider LSTM encoders."""
    encoder = teacher.encoder
    assert isinstance(encoder, LstmConfig)
    for width in range(SMALLEST_WIDTH, encoder.width + 1, WIDTH_STEP):
        changes = {
            "subsampling_width": width,
            "width": width,
            "joint_width": min(width, encoder.joint_width),
            "hidden": [width] * len(encoder.hidden),
        }
        yield with_predictor(teacher, encoder.model_copy(update=changes))


MAKERS: dict[type, Callable[[TransducerConfig], Iterator[TransducerConfig]]] = {
    ConformerConfig: conformers,
    LstmConfig: lstms,
}


def with_predictor(
    teacher: TransducerConfig, encoder: ConformerConfig | LstmConfig
) -> TransducerConfig:
    width = encoder.joint_width
    predictor = StatelessPredictorConfig(
        context=getattr(teacher.predictor, "context", 2), width=width, joint_width=width
    )
    return TransducerConfig(vocab_size=teacher.vocab_size, encoder=encoder, predictor=predictor)


def fill_feed_forward(config: TransducerConfig, budget: int) -> TransducerConfig:
    """Widen the feed-forward layers by steps until the budget is used."""
    encoder = config.encoder
    if not isinstance(encoder, ConformerConfig):
        return config
    each = 2 * (2 * encoder.width + 1) * len(encoder.layers)  # parameters of one more unit
    more = (budget - count_parameters(config)) // each // WIDTH_STEP * WIDTH_STEP
    hidden = encoder.layers[0].feed_forward_in + more
    update = {"feed_forward_in": hidden, "feed_forward_out": hidden}
    layers = [layer.model_copy(update=update) for layer in encoder.layers]
    return config.model_copy(update={"encoder": encoder.model_copy(update={"layers": layers})})
