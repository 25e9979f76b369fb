"""Two losses on the encoder alone that get a transducer off its plateau.

# Letters: B utterances, T encoder frames, U labels, V tokens, D width, P phones.

From scratch the transducer loss teaches the predictor a language model and the encoder nothing
(docs/decisions/0007-curriculum.md): frame cross-entropy on phones comes first, then CTC.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.data.store import NO_PHONE
from compress.models.joiner import Joiner
from compress.models.predictors import BLANK

PHONE_DELAY = 2  # encoder frames; a causal encoder has not heard the phone while it begins


def encoder_logits(joiner: Joiner, encoded: Tensor) -> Tensor:
    """(B, T, J) -> (B, T, V): the joiner with the predictor's part set to zero (2106.07734)."""
    logits: Tensor = joiner.output(torch.tanh(encoded))
    return logits


def ctc_loss(
    joiner: Joiner,
    encoded: Tensor,
    logit_lengths: Tensor,
    targets: Tensor,
    target_lengths: Tensor,
) -> Tensor:
    """CTC on the encoder logits, nats a label, mean over the batch.

    An utterance with fewer frames than labels has no CTC path and counts zero.
    """
    log_probs = encoder_logits(joiner, encoded).float().log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(
        log_probs,
        targets,
        logit_lengths,
        target_lengths,
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return (losses / target_lengths.clamp(min=1)).mean()


def phone_loss(phone_logits: Tensor, phones: Tensor, subsampling: int) -> Tensor:
    """Cross-entropy of phone_logits (B, T, P) with phones (B, 4T) seen PHONE_DELAY frames ago.

    Mean over the frames whose phone is known, 0 where none is: real speech has no alignment.
    """
    delayed = F.pad(phones, (PHONE_DELAY * subsampling, 0), value=NO_PHONE)
    classes = delayed[:, ::subsampling][:, : phone_logits.shape[1]].long()
    classes = F.pad(classes, (0, phone_logits.shape[1] - classes.shape[1]), value=NO_PHONE)
    total = F.cross_entropy(
        phone_logits.float().flatten(0, 1),
        classes.flatten(),
        ignore_index=NO_PHONE,
        reduction="sum",
    )
    return total / (classes != NO_PHONE).sum().clamp(min=1)
