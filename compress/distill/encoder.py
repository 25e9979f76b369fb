"""Distillation of encoder logits, CoDERT (arXiv 2106.07734): `encoder`.

# Letters: B utterances, T encoder frames, U labels, V tokens incl. blank, J joint width.

    h_t  = W_o tanh(W_e e_t + b_e) + b_o        the joiner without its predictor    [ours, for tanh]
    L_ED = sum_t KL( sg[softmax h^T_t] || softmax h^S_t )                                   [paper]

An encoder alone hesitates between pieces that sound alike; the joiner's softmax, which has heard
the predictor too, no longer says so. That hesitation is what is taught: `figures` logs the
entropies of both, and the paper's premise is that the encoder's is the higher one.

The teacher gets no gradient, also where it learns too. The student's own W_o does, because in the
paper the logits are the encoder's output; a W_o that both share does not (2106.07734, "shared
decoder"), or the teacher would move towards its student.                                   [ours]
"""

from __future__ import annotations

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
from compress.losses.warmup import encoder_logits

# The joint entropy needs all V logits of every node: few utterances, few frames at once.
UTTERANCES_IN_FIGURES = 4
FRAMES_PER_SLICE = 16


@dataclass(frozen=True)
class Encoder(Distiller):
    """L_ED a label; it has no settings. A teacher of another frame rate is pooled."""

    same_frames: ClassVar[bool] = False
    live: ClassVar[bool] = True

    def needs(self) -> list[Kind]:
        return [EncodedTargets()]

    def loss(self, student: View, teacher: TeacherView | View, batch: Batch) -> Tensor:
        ours = student_logits(student, teacher).log_softmax(-1)
        theirs = teacher_probabilities(student, teacher)
        divergence = F.kl_div(ours, theirs, reduction="none").sum(-1)
        return sum_per_label(divergence, student.logit_lengths, batch.target_lengths)

    def figures(self, student: View, teacher: TeacherView | View, batch: Batch) -> dict[str, float]:
        """Mean entropies in nats: of an encoder's frames, of a joiner's lattice nodes."""
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
def teacher_probabilities(student: View, teacher: TeacherView | View) -> Tensor:
    """softmax h^T (B, T, V) at the student's rate, zeros where padded."""
    logits = exact(encoder_logits(teacher.joiner, teacher.encoded))
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
    """Mean entropy of the joiner's softmax over the lattice nodes of the first utterances."""
    total, num_nodes = 0.0, 0
    for row in range(min(UTTERANCES_IN_FIGURES, len(batch.targets))):
        labels = batch.targets[row : row + 1, : int(batch.target_lengths[row])]
        encoded = view.encoded[row : row + 1, : int(view.logit_lengths[row])]
        # Not view.predicted: first asked for here, without gradient, it would stay without.
        predicted = view.model.predictor.forward_sequence(labels)
        for part in encoded.split(FRAMES_PER_SLICE, 1):
            found = entropy(view.joiner(part.unsqueeze(2), predicted.unsqueeze(1)))
            total += found.sum().item()
            num_nodes += found.numel()
    return total / num_nodes
