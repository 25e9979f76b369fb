"""Frames of a teacher beside frames of its student: other rates, and which frames count more.

# Letters: B utterances, T student frames, R teacher frames, U labels.

What a method compares is averaged over the teacher's frames that fall into one of the student's.
For a squared distance or a divergence KL(teacher || student) that is no loss of anything: the
distances to each of the r frames add up to r times the distance to their mean, plus a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.targets.kind import Item, Kind
from compress.distill.view import TeacherView, View
from compress.losses.lattice import move_posteriors, score_lattice
from streaming.errors import InputError


def frame_ratio(student: View, teacher: TeacherView | View) -> Fraction:
    """Teacher frames in a student frame: r, or 1/r for a slower teacher.

    Raises InputError where neither is whole.
    """
    ours, theirs = student.model.encoder.subsampling, teacher.model.encoder.subsampling
    ratio = Fraction(ours, theirs)
    if 1 not in (ratio.numerator, ratio.denominator):
        raise InputError(
            f"frames of {10 * theirs} ms (teacher) and of {10 * ours} ms (student) do not fit into "
            "each other: take a teacher whose frames are a whole multiple or part of the student's"
        )
    return ratio


def match_frames(values: Tensor, lengths: Tensor, num_frames: int, ratio: Fraction) -> Tensor:
    """(B, R, ...) at the teacher's rate -> (B, num_frames, ...) at the student's, 0 where padded.

    lengths (B,): valid teacher frames, never more than the student's frames hold. At ratio 2 the
    frames [1, 3, 5] of length 3 become [2, 5], the mean of those that are there; at ratio 1/2
    [1, 3] become [1, 1, 3, 3], and the last may fall away.
    """
    outside = valid_frames(values.shape[1], lengths).logical_not()
    values = values.masked_fill(outside.reshape(*outside.shape, *[1] * (values.dim() - 2)), 0.0)
    values = values.repeat_interleave(ratio.denominator, dim=1)
    per_frame = ratio.numerator
    values = fit_frames(values, num_frames * per_frame)
    if per_frame == 1:
        return values
    grouped = values.unflatten(1, (num_frames, per_frame)).sum(2)
    first = torch.arange(num_frames, device=lengths.device) * per_frame
    count = (lengths[:, None] - first).clamp(1, per_frame)
    return grouped / count.reshape(*count.shape, *[1] * (values.dim() - 2))


def fit_frames(values: Tensor, num_frames: int) -> Tensor:
    """(B, T, ...) cut, or padded with zeros, to num_frames."""
    values = values[:, :num_frames]
    missing = num_frames - values.shape[1]
    return F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))


def at_student_rate(values: Tensor, student: View, teacher: TeacherView | View) -> Tensor:
    """(B, R, ...) of the teacher -> (B, T, ...) beside the student's frames."""
    num_frames = student.encoded.shape[1]
    return match_frames(values, teacher.logit_lengths, num_frames, frame_ratio(student, teacher))


def valid_frames(num_frames: int, lengths: Tensor) -> Tensor:
    """(B, num_frames) bool: t < T_b."""
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def sum_per_label(values: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(B, T) -> the sum over an utterance's frames divided by its labels, mean over the batch."""
    valid = valid_frames(values.shape[1], logit_lengths)
    total = values.masked_fill(~valid, 0.0).sum(1)
    return (total / target_lengths.clamp(min=1)).mean()


def exact(values: Tensor) -> Tensor:
    """Float32 of anything narrower; float64 stays, for gradcheck."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def emission_probability(
    log_blank: Tensor, log_emit: Tensor, logit_lengths: Tensor, target_lengths: Tensor
) -> Tensor:
    """(B, T): how likely the model, arriving at frame t on its way through the labels, emits there.

    1 - P(blank | t, u), u the row in which a path enters frame t, averaged over all paths by their
    posterior: a path leaves every frame by one blank, so the posterior of the blanks of t-1 is the
    distribution of that row. For a posterior of one path it is 1 - P(blank | t, u*(t)).      [ours]
    """
    lengths = (logit_lengths, target_lengths)
    lattice = score_lattice(log_blank, log_emit, *lengths)
    leaving = move_posteriors(lattice, log_blank, log_emit, *lengths).blank
    entering = F.pad(leaving[:, :-1], (0, 0, 1, 0))
    entering[:, 0, 0] = 1.0
    emits = (entering * -torch.expm1(log_blank.double())).sum(2)
    return emits.masked_fill(~valid_frames(emits.shape[1], logit_lengths), 0.0).to(log_blank.dtype)


@dataclass(frozen=True)
class EmittingTargets(Kind):
    """`emitting`: the teacher's emission_probability of every frame, (T,) float16.

    Two bytes a frame, where the lattice that it comes from has 4 U.
    """

    name: ClassVar[str] = "emitting"

    def label(self, teacher: View, batch: Batch) -> list[Item]:
        lengths = teacher.logit_lengths, batch.target_lengths
        emits = emission_probability(teacher.log_blank, teacher.log_emit, *lengths)
        found = emits.cpu().numpy().astype(np.float16)
        return [{"emitting": found[row, :t]} for row, t in enumerate(lengths[0].tolist())]

    def collate(self, items: list[Item], batch: Batch, num_frames: int) -> Tensor:
        """(B, R) float32, zeros where padded."""
        emits = np.zeros((len(items), num_frames), np.float32)
        for row, item in enumerate(items):
            emits[row, : len(item["emitting"])] = item["emitting"]
        return torch.from_numpy(emits)
