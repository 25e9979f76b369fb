"""Beam search over a transducer's lattice, batched over utterances and hypotheses.

# Letters: B utterances, T encoder frames, K hypotheses kept, V tokens incl. blank, J joint width.

Time-synchronous with at most one label a frame, the "modified beam search" of k2 and icefall:
every hypothesis takes either blank or a label and moves to the next frame, so that all have seen
the same frames and their scores compare. Two hypotheses that become the same labels are one, and
their probabilities add up. icefall adds them up among the K that survive; here they are added up
before the K best are chosen, which never leaves fewer than K.                              [ours]

<unk> counts as blank, as in every search of this project: the better of both is blank's score.

A language model may join in, fused as in one_best's targets: lm/fusion.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from compress.data.tokenizer import UNKNOWN_ID
from compress.lm.fusion import fuse
from compress.models.predictors import BLANK, StatelessPredictor
from compress.models.transducer import Transducer
from streaming.errors import InputError

if TYPE_CHECKING:
    from compress.lm import LanguageModel

FIRST_LABEL = UNKNOWN_ID + 1
# An odd multiplier modulo 2^64 (Knuth's): equal hashes of different hypotheses need 2^32 of them.
MULTIPLIER = 6364136223846793005


class Hypothesis(NamedTuple):
    """Labels, and the log probability of the paths that the search followed, in nats.

    Not log P(labels|x), which sums over all paths, also those with two labels in a frame:
    losses/hypotheses.py.
    """

    tokens: list[int]
    score: float


class Beam(NamedTuple):
    """scores (B, K), best first, -inf where there is no hypothesis, and what their labels are.

    labels: a hash of them, without_last: the hash without the last; context (B, K, C).
    """

    scores: Tensor
    labels: Tensor
    without_last: Tensor
    context: Tensor


class Opinion(NamedTuple):
    """A language model on N = B * K hypotheses: its state, and log P of the next label (N, V)."""

    state: Any
    log_probs: Tensor


class Choice(NamedTuple):
    """What became of the beam at a frame, (B, K) each: from which hypothesis, with which token."""

    parent: Tensor
    token: Tensor


@torch.no_grad()
def beam_search(
    model: Transducer,
    encoded: Tensor,
    logit_lengths: Tensor,
    beam: int = 4,
    nbest: int = 4,
    lm: LanguageModel | None = None,
    lm_weight: float = 0.3,
) -> list[list[Hypothesis]]:
    """The best hypotheses of each utterance, best first, at most `nbest` and all different.

    encoded (B, T, J), logit_lengths (B,). With beam=1 and no language model it is the greedy
    search of evaluate.py. Raises InputError for a predictor with a memory of its own (an LSTM).
    """
    check_beam(beam, nbest)
    predictor = stateless_predictor(model)
    device = encoded.device.type
    with torch.autocast(device, enabled=False):
        frames = encoded.float().unbind(1)
        now = first_beam(predictor, len(encoded), beam, encoded.device)
        opinion = first_opinion(lm, now.labels) if lm else None
        choices = []
        for t, frame in enumerate(frames):
            log_probs = score_frame(model, frame, now.context)
            if opinion:
                log_probs = fuse(log_probs, opinion.log_probs.view_as(log_probs), lm_weight)
            now, choice = advance(now, log_probs, logit_lengths > t)
            choices.append(choice)
            if lm and opinion:
                opinion = next_opinion(lm, opinion, choice)
    tokens = trace_back(choices)[:, :nbest].tolist()
    scores = now.scores[:, :nbest].tolist()
    return [
        [
            Hypothesis([token for token in path if token != BLANK], score)
            for path, score in zip(paths, row, strict=True)
            if score != -torch.inf  # NaN stays, for the caller to name the utterance
        ]
        for paths, row in zip(tokens, scores, strict=True)
    ]


def check_beam(beam: int, nbest: int) -> None:
    """Raises InputError for a beam without hypotheses, or one that cannot hold `nbest`."""
    if beam < 1 or not 1 <= nbest <= beam:
        raise InputError(
            f"beam {beam} and nbest {nbest}: keep one hypothesis or more, and ask for at most "
            "as many as are kept"
        )


def stateless_predictor(model: Transducer) -> StatelessPredictor:
    if not isinstance(model.predictor, StatelessPredictor):
        raise InputError("the model's predictor is an LSTM: a beam search takes a stateless one")
    return model.predictor


def first_beam(predictor: StatelessPredictor, num: int, beam: int, device: torch.device) -> Beam:
    """One hypothesis without labels, the others dead."""
    scores = torch.full((num, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0
    labels = torch.ones(num, beam, dtype=torch.long, device=device)
    context = predictor.initial_context(num * beam, device).view(num, beam, -1)
    return Beam(scores, labels, torch.zeros_like(labels), context)


def score_frame(model: Transducer, frame: Tensor, context: Tensor) -> Tensor:
    """frame (B, J), context (B, K, C) -> log P of what comes next, (B, K, V)."""
    predicted = model.predictor(context)
    logits: Tensor = model.joiner(frame[:, None], predicted)
    return logits.log_softmax(-1)


def advance(now: Beam, log_probs: Tensor, active: Tensor) -> tuple[Beam, Choice]:
    """The K best continuations of each utterance; utterances that ended stay as they are."""
    stay, grow = merge(now, *extend(now.scores, log_probs))
    candidates = torch.cat([stay.unsqueeze(-1), grow], -1)
    width = candidates.shape[-1]
    scores, chosen = candidates.flatten(1).topk(now.scores.shape[1])
    parent, token = chosen // width, chosen % width
    token = torch.where(token > 0, token - 1 + FIRST_LABEL, BLANK)
    ended = ~active[:, None]
    parent = torch.where(ended, torch.arange(parent.shape[1], device=parent.device), parent)
    token = token.masked_fill(ended, BLANK)
    scores = torch.where(ended, now.scores, scores)
    return follow(now, scores, Choice(parent, token)), Choice(parent, token)


def extend(scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Scores without a new label (B, K) and with each one (B, K, V - 2)."""
    stay = torch.maximum(log_probs[..., BLANK], log_probs[..., UNKNOWN_ID])
    return scores + stay, scores.unsqueeze(-1) + log_probs[..., FIRST_LABEL:]


def merge(now: Beam, stay: Tensor, grow: Tensor) -> tuple[Tensor, Tensor]:
    """Where hypothesis j and a label make hypothesis i, add that to i staying as it is.

    No other two candidates have the same labels, because the hypotheses of a beam differ.
    """
    alive = now.scores > -torch.inf
    grows_into = (now.without_last.unsqueeze(2) == now.labels.unsqueeze(1)) & alive.unsqueeze(2)
    grows_into &= alive.unsqueeze(1)
    last = (now.context[..., -1] - FIRST_LABEL).clamp(min=0)
    index = last.unsqueeze(1).expand_as(grows_into)  # (B, j, i): the label that i ends with
    grows_into = grows_into.transpose(1, 2)
    arriving = grow.gather(2, index).masked_fill(~grows_into, -torch.inf)
    stay = torch.logaddexp(stay, arriving.logsumexp(1))
    taken = torch.zeros_like(grow).scatter_reduce_(2, index, grows_into.to(grow.dtype), "amax")
    return stay, grow.masked_fill(taken > 0, -torch.inf)


def follow(now: Beam, scores: Tensor, choice: Choice) -> Beam:
    """The beam after every hypothesis took its token."""
    labels = now.labels.gather(1, choice.parent)
    without_last = now.without_last.gather(1, choice.parent)
    context = now.context.gather(1, choice.parent.unsqueeze(-1).expand_as(now.context))
    grown = choice.token != BLANK
    longer = torch.cat([context[..., 1:], choice.token.unsqueeze(-1)], -1)
    return Beam(
        scores,
        torch.where(grown, labels * MULTIPLIER + choice.token, labels),
        torch.where(grown, labels, without_last),
        torch.where(grown.unsqueeze(-1), longer, context),
    )


def first_opinion(lm: LanguageModel, labels: Tensor) -> Opinion:
    state = lm.start(labels.numel(), labels.device)
    return Opinion(state, lm.first(state))


def next_opinion(lm: LanguageModel, opinion: Opinion, choice: Choice) -> Opinion:
    """Only the hypotheses that took a label ask again: one frame in five, or so."""
    num, beam = choice.parent.shape
    index = torch.arange(num, device=choice.parent.device)[:, None] * beam + choice.parent
    index, token = index.flatten(), choice.token.flatten()
    grown = (token != BLANK).nonzero().squeeze(1)
    log_probs, moved = lm.step(lm.select(opinion.state, index[grown]), token[grown])
    index[grown] = len(opinion.log_probs) + torch.arange(len(grown), device=index.device)
    return Opinion(
        lm.select(lm.join([opinion.state, moved]), index),
        torch.cat([opinion.log_probs, log_probs])[index],
    )


def trace_back(choices: list[Choice]) -> Tensor:
    """(B, K, T): the token of each frame, blanks included, of the hypotheses kept at the end."""
    index = torch.arange(choices[-1].parent.shape[1], device=choices[-1].parent.device)
    index = index.expand_as(choices[-1].parent)
    tokens = []
    for choice in reversed(choices):
        tokens.append(choice.token.gather(1, index))
        index = choice.parent.gather(1, index)
    return torch.stack(tokens[::-1], 2)
