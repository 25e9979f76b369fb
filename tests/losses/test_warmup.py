"""The two losses on the encoder alone, on examples small enough to write out."""

from __future__ import annotations

import pytest
import torch

from compress.data.store import NO_PHONE
from compress.losses.warmup import PHONE_DELAY, ctc_loss, encoder_logits, phone_loss
from compress.models.joiner import Joiner


@pytest.fixture
def joiner():
    torch.manual_seed(0)
    return Joiner(joint_width=6, vocab_size=4)


def test_ctc_is_the_sum_over_its_paths(joiner):
    """One label in two frames: label twice, blank first, or blank last."""
    encoded = torch.randn(1, 2, 6)
    p = encoder_logits(joiner, encoded)[0].softmax(-1)
    expected = -torch.log(p[0, 3] * p[1, 3] + p[0, 0] * p[1, 3] + p[0, 3] * p[1, 0])
    loss = ctc_loss(joiner, encoded, torch.tensor([2]), torch.tensor([[3]]), torch.tensor([1]))
    torch.testing.assert_close(loss, expected)


def test_ctc_is_a_mean_over_labels_and_utterances(joiner):
    encoded, targets = torch.randn(2, 9, 6), torch.tensor([[1, 2, 3], [2, 0, 0]])
    lengths, target_lengths = torch.tensor([9, 5]), torch.tensor([3, 1])
    both = ctc_loss(joiner, encoded, lengths, targets, target_lengths)
    first = ctc_loss(joiner, encoded[:1], lengths[:1], targets[:1], target_lengths[:1])
    second = ctc_loss(joiner, encoded[1:, :5], lengths[1:], targets[1:, :1], target_lengths[1:])
    torch.testing.assert_close(both, (first + second) / 2)


def test_ctc_of_more_labels_than_frames_is_zero(joiner):
    encoded = torch.randn(1, 2, 6, requires_grad=True)
    targets = torch.tensor([[1, 2, 3]])
    loss = ctc_loss(joiner, encoded, torch.tensor([2]), targets, torch.tensor([3]))
    loss.backward()
    assert loss == 0
    assert not encoded.grad.any()


def test_phones_are_asked_for_two_frames_late():
    """Four frames a step: phone s of the input belongs to output s + 2."""
    phones = torch.tensor([7, 8, 9]).repeat_interleave(4)[None].to(torch.uint8)
    logits = torch.full((1, 5, 12), -50.0)
    for step, phone in enumerate((7, 8, 9)):
        if step + PHONE_DELAY < 5:
            logits[0, step + PHONE_DELAY, phone] = 50.0
    assert phone_loss(logits, phones, 4) == pytest.approx(0, abs=1e-6)
    assert phone_loss(logits.roll(1, dims=1), phones, 4) > 10


def test_frames_without_a_phone_do_not_count():
    torch.manual_seed(0)
    phones = torch.randint(0, 12, (2, 24), dtype=torch.uint8)
    phones[1] = NO_PHONE
    logits = torch.randn(2, 6, 12, requires_grad=True)
    loss = phone_loss(logits, phones, 4)
    torch.testing.assert_close(loss, phone_loss(logits[:1], phones[:1], 4))
    loss.backward()
    assert not logits.grad[1].any()
    assert not logits.grad[0, :PHONE_DELAY].any()
    assert logits.grad[0, PHONE_DELAY:].any()


def test_no_phones_at_all_is_zero_not_nan():
    """A batch of real speech in a phase that teaches phones."""
    logits = torch.randn(2, 6, 12, requires_grad=True)
    loss = phone_loss(logits, torch.full((2, 24), NO_PHONE, dtype=torch.uint8), 4)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()
