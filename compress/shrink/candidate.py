"""An untrained student of the final layout: as large and as fast as the trained one will be."""

from __future__ import annotations

from copy import deepcopy

import torch

from compress.models.config import TransducerConfig
from compress.models.transducer import Transducer
from compress.shrink.pruner import Cut, build_pruner
from compress.shrink.small import small_config


def small_student(teacher: Transducer, config: TransducerConfig, seed: int) -> Transducer:
    """A network of `config` with fresh weights and the teacher's normalisation of features."""
    torch.manual_seed(seed)
    student = Transducer(config)
    front = teacher.encoder.front
    student.encoder.front.mean.copy_(front.mean)
    student.encoder.front.scale.copy_(front.scale)
    return student


def cut_at_once(
    teacher: Transducer,
    cut: Cut,
    sparsity: float,
    config: TransducerConfig | None = None,
    seed: int = 0,
) -> Transducer:
    """The teacher pruned to `sparsity` in one go; for pattern small a network with fresh weights.

    config: of a small student that a recipe describes; seed: of its weights. Raises InputError for
    a sparsity that cannot be reached.
    """
    if cut.pattern == "small":
        config = config or small_config(teacher.config, sparsity)
        return small_student(teacher, config, seed).eval()
    student = deepcopy(teacher).requires_grad_(False)
    pruner = build_pruner(student, teacher.config, cut)
    pruner.check(sparsity)
    pruner.prune_to(sparsity)
    return student.eval()
