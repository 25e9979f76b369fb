"""Distillation of encoder logits, CoDERT (arXiv 2106.07734): `encoder`.

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.

    h_t  = W_o tanh(W_e e_t + b_e) + b_o        the joiner without its predictor    [ours, for tanh]
    L_ED = sum_t KL( sg[softmax h^T_t] || softmax h^S_t )                                   [paper]

An encoder alone hesitates between pieces that sound alike; the joiner's softmax, which has heard
the predictor too, no longer says so. That hesitation is what is taught, and the paper's premise is
that the encoder's entropy is the higher one: `figures` logs both. Of the built-in teacher it holds:
0.031 against 0.018 nats on digits, 0.045 against 0.033 on commands, 0.7 against 0.4 where it emits.
Both are low, because that teacher's encoder logits had a CTC loss of their own (curriculum.py).

The teacher gets no gradient, also where it learns too. The student's own W_o does, because in the
paper the logits are the encoder's output; a W_o that both share does not (2106.07734, "shared
decoder"), or the teacher would move towards its student.                                   [ours]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.data.batches import Batch
from compress.distill.distiller import Distiller
from compress.distill.frames import at_student_rate, exact, sum_per_label, valid_frames
from compress.distill.targets.encoded import EncodedTargets
from compress.distill.targets.kind import Kind
from compress.distill.view import TeacherView, View
from compress.losses.joint import joint_log_probs
from compress.losses.lattice import node_posteriors, score_lattice
from compress.losses.warmup import encoder_logits
from streaming.errors import InputError

# The joint entropy needs all V logits of every node: few utterances, few frames at once.
UTTERANCES_IN_FIGURES = 4
FRAMES_PER_SLICE = 16


@dataclass(frozen=True)
class Encoder(Distiller):
    """L_ED a label. A teacher of another frame rate is pooled.

    temperature: divides both logits, and its square multiplies the loss; above 1 a sure teacher
    says more about the pieces that it did not choose. 1 in the paper. Raises InputError for
    anything but a positive number.
    """

    temperature: float = 1.0
    same_frames: ClassVar[bool] = False
    live: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise InputError(
                f"encoder: temperature is {self.temperature:g}: use a positive number, 1 for the "
                "teacher's own probabilities"
            )

    def needs(self) -> list[Kind]:
        return [EncodedTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        ours = (student_logits(student, teacher) / self.temperature).log_softmax(-1)
        theirs = teacher_probabilities(student, teacher, self.temperature)
        divergence = F.kl_div(ours, theirs, reduction="none").sum(-1) * self.temperature**2
        return sum_per_label(divergence, student.logit_lengths, batch.target_lengths)

    def figures(self, student: View, teacher: TeacherView | View, batch: Batch) -> dict[str, float]:
        """Mean entropies in nats: of an encoder's frames, of the joint on the way through them."""
        return {
            "encoder_entropy": encoder_entropy(student),
            "joint_entropy": joint_entropy(student, batch),
            "teacher_encoder_entropy": encoder_entropy(teacher),
            "teacher_joint_entropy": joint_entropy(teacher, batch),
        }


def student_logits(student: View, teacher: TeacherView | View) -> Tensor:
    """h^S (B, T, V); a joiner that is the teacher's too is held still."""
    if student.joiner is not teacher.joiner:
        return exact(encoder_logits(student.joiner, student.encoded))
    output = student.joiner.output
    hidden = torch.tanh(student.encoded)
    return exact(F.linear(hidden, output.weight.detach(), output.bias.detach()))


@torch.no_grad()
def teacher_probabilities(
    student: View, teacher: TeacherView | View, temperature: float = 1.0
) -> Tensor:
    """softmax(h^T / temperature) (B, T, V) at the student's rate, zeros where padded."""
    logits = exact(encoder_logits(teacher.joiner, teacher.encoded)) / temperature
    return at_student_rate(logits.softmax(-1), student, teacher)


def entropy(logits: Tensor) -> Tensor:
    """(.., V) -> (..) nats. Four equal logits have ln 4."""
    log_probs = exact(logits).log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def encoder_entropy(view: TeacherView | View) -> float:
    """Mean entropy of softmax(h_t) over all valid frames of the batch."""
    found = entropy(encoder_logits(view.joiner, view.encoded))
    return found[valid_frames(found.shape[1], view.logit_lengths)].mean().item()


def joint_entropy(view: TeacherView | View, batch: Batch) -> float:
    """Mean entropy of the joiner's softmax over the nodes on a path through the first utterances.

    Nodes count by the model's posterior: of all nodes alike most are corners that no path visits,
    and those decide (digits, the built-in teacher: 0.037 nats instead of 0.018).
    """
    total, length = 0.0, 0.0
    for row in range(min(UTTERANCES_IN_FIGURES, len(batch.targets))):
        lengths = view.logit_lengths[row : row + 1], batch.target_lengths[row : row + 1]
        labels = batch.targets[row : row + 1, : int(lengths[1])]
        encoded = view.encoded[row : row + 1, : int(lengths[0])]
        # Not view.predicted: first asked for here, without gradient, it would stay without.
        predicted = view.model.predictor.forward_sequence(labels)
        moves = joint_log_probs(encoded, predicted, view.joiner.output, labels)
        gamma = node_posteriors(score_lattice(*moves, *lengths))
        for frames, share in zip(
            encoded.split(FRAMES_PER_SLICE, 1), gamma.split(FRAMES_PER_SLICE, 1), strict=True
        ):
            found = entropy(view.joiner(frames.unsqueeze(2), predicted.unsqueeze(1)))
            total += (share * found).sum().item()
        length += float(sum(lengths))
    return total / length
