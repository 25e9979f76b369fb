"""Shallow fusion of a transducer's distributions with a language model's (arXiv 2110.03334).

# Letters: V tokens incl. blank (0) and unknown (1).

    p'(blank) = p(blank),   p'(y) = (1 - p(blank)) * softmax_y( log p(y) + lm_weight * log p_LM(y) )

Blank keeps its probability and the labels share the rest anew. The usual sum of logarithms takes a
nat or so from every label and nothing from blank, and so swallows words.                   [ours]
"""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.tokenizer import UNKNOWN_ID

NO_PART = -6e4  # a bonus that leaves the unknown token no probability, finite in float16


def fuse(log_probs: Tensor, lm_log_probs: Tensor, lm_weight: float) -> Tensor:
    """log P of two (.., V), normalised -> (.., V)."""
    bonus = lm_log_probs.clone()
    bonus[..., UNKNOWN_ID] = NO_PART
    log_blank = log_probs[..., :1]
    labels = (log_probs + lm_weight * bonus)[..., 1:].log_softmax(-1)
    not_blank = log_probs[..., 1:].logsumexp(-1, keepdim=True)
    return torch.cat([log_blank, not_blank + labels], -1)
