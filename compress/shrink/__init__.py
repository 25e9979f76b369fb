"""Shrinking: what is removed, when, and how the optimiser follows."""

from compress.shrink.channel import ChannelPruner, carry_optimizer_state
from compress.shrink.schedule import check_sparsity, pruning_steps, sparsity_at

PATTERNS = {"channel": ChannelPruner}

__all__ = [
    "PATTERNS",
    "ChannelPruner",
    "carry_optimizer_state",
    "check_sparsity",
    "pruning_steps",
    "sparsity_at",
]
