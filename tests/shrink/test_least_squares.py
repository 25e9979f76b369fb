"""Blocks by least squares: as the slow twin chooses, nearer to the dense layer than magnitude."""

from __future__ import annotations

import copy

import pytest
import torch

from compress.distill.view import task_loss, view_batch
from compress.shrink.evidence import MOMENT_FRAMES_APART, Evidence
from compress.shrink.layouts import Block, parse_layout
from compress.shrink.least_squares import ROUNDS, fit_blocks, with_ridge
from compress.shrink.masks import MaskPruner, cut_weight, matrix_shape
from compress.shrink.pruner import Cut, matrices
from compress.shrink.stage import ShrinkStage
from compress.trainer import TrainSettings, train
from tests.reference.least_squares import fit_block
from tests.shrink.random_batches import RandomBatches, random_batch


def correlated(num_inputs, seed=0):
    """E[x x'] of inputs that go together, some nearly silent."""
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(400, num_inputs // 3, generator=generator, dtype=torch.float64)
    loud = torch.rand(num_inputs, generator=generator, dtype=torch.float64)
    x = few @ torch.randn(num_inputs // 3, num_inputs, generator=generator, dtype=torch.float64)
    x = (x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)) * loud
    return x.T @ x / len(x)


def weights(num_rows, num_inputs):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_rows, num_inputs, generator=generator, dtype=torch.float64)


def left_of(weight, pruned, moments):
    """E|W x - V x|^2 relative to E|W x|^2."""
    missing = weight - pruned
    return float(((missing @ moments) * missing).sum() / ((weight @ moments) * weight).sum())


@pytest.mark.parametrize(("num_inputs", "num_columns"), [(40, 7), (40, 25), (80, 2 * ROUNDS + 1)])
def test_columns_and_weights_are_the_slow_twins(num_inputs, num_columns):
    moments, weight = correlated(num_inputs), weights(8, num_inputs)
    mask, fitted = fit_blocks(weight, moments, 4, num_columns)
    picks = max(1, num_columns // ROUNDS)
    for block in range(2):
        rows = slice(4 * block, 4 * block + 4)
        twin = fit_block(weight[rows], with_ridge(moments), num_columns, picks)
        assert torch.equal(mask[rows], (twin != 0).any(0).expand(4, -1))
        torch.testing.assert_close(fitted[rows], twin, atol=1e-7, rtol=1e-6)


def test_inputs_that_say_the_same_need_not_both_be_read():
    """Inputs in pairs of equal ones: half of them compute the layer."""
    half = 0.7 * torch.eye(20, dtype=torch.float64) + 0.3
    moments, weight = half.repeat_interleave(2, 0).repeat_interleave(2, 1), weights(8, 40)
    mask, fitted = fit_blocks(weight, moments, 8, 20)
    assert mask[0].reshape(20, 2).sum(1).tolist() == [1] * 20
    assert left_of(weight, fitted, moments) < 1e-3
    largest = Block(8).mask(weight.square(), 160)
    assert left_of(weight, torch.where(largest, weight, 0.0), moments) > 0.1


def test_silent_inputs_and_silent_layers():
    moments = torch.zeros(12, 12)
    mask, fitted = fit_blocks(torch.ones(4, 12), moments, 4, 5)
    assert mask.sum().item() == 20
    assert fitted.isfinite().all()
    moments[3, 3] = 2.0
    mask, fitted = fit_blocks(torch.ones(4, 12), moments, 4, 1)
    assert mask.nonzero()[:, 1].tolist() == [3] * 4
    torch.testing.assert_close(fitted[:, 3], torch.ones(4))


def test_whole_blocks_stay_as_they_are():
    weight = weights(8, 12)
    mask, fitted = fit_blocks(weight, correlated(12), 4, 12)
    assert mask.all()
    assert torch.equal(fitted, weight)


def heard(model, score, steps=3):
    evidence = Evidence(model, score)
    model.train()
    for step in range(steps):
        batch = random_batch(step)
        task_loss(view_batch(model, batch), batch)
    model.eval()
    evidence.close()
    return evidence


@pytest.mark.parametrize("bfloat16", [False, True])
def test_moments_are_those_of_the_inputs(conformer, bfloat16):
    name = "encoder.layers.0.feed_forward_in.up"
    layer = conformer.get_submodule(name)
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().float()))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        evidence = heard(conformer, "least_squares")
    total, count = torch.zeros(48, 48), 0
    for x in seen:
        for frame in x.reshape(-1, 48)[::MOMENT_FRAMES_APART]:
            total += torch.outer(frame, frame)
            count += 1
    moments = evidence.moments(f"{name}.weight")
    torch.testing.assert_close(moments, total / count)


def test_moments_of_what_no_matrix_reads_alone_are_unknown(conformer):
    evidence = heard(conformer, "least_squares")
    assert evidence.moments("encoder.front.second.weight") is None  # reads several frames
    assert evidence.moments("predictor.embedding.weight") is None
    assert evidence.moments("joiner.output.weight").shape == (40, 40)
    assert heard(conformer, "activation").moments("joiner.output.weight") is None


def pruner_of(model, score, evidence):
    layouts = {name: parse_layout("block:8") for name in matrices(model) if "joiner" not in name}
    return MaskPruner(model, layouts, model.num_parameters, score, evidence)


def test_a_pruned_network_is_nearer_to_the_dense_one_than_by_magnitude(model, outputs):
    dense, far = outputs(model), {}
    for score in ("magnitude", "least_squares"):
        student = copy.deepcopy(model)
        pruner = pruner_of(student, score, heard(student, score))
        pruner.prune_to(0.5)
        far[score] = float((outputs(student) - dense).square().mean())
        assert 0.5 <= pruner.sparsity < 0.52
    assert far["least_squares"] < 0.8 * far["magnitude"]


def test_blocks_keep_equally_many_columns_and_the_rest_waits(model):
    pruner = pruner_of(model, "least_squares", heard(model, "least_squares"))
    before = {name: hidden.clone() for name, hidden in pruner.hidden.items()}
    pruner.prune_to(0.5)
    for name, mask in pruner.masks.items():
        kept = mask.reshape(-1, 8, matrix_shape(mask)[1])
        assert torch.equal(kept, kept[:, :1].expand_as(kept))
        assert len(set(kept[:, 0].sum(1).tolist())) == 1
        assert torch.equal(pruner.hidden[name][~mask], before[name][~mask])
        weight = model.get_parameter(name).detach()
        assert torch.equal(weight, torch.where(mask, pruner.hidden[name], 0.0))


def test_a_level_begins_where_the_one_before_ended(conformer):
    """With other shares too: one step of evidence is no reason to move columns."""
    pruner = pruner_of(conformer, "least_squares", heard(conformer, "least_squares"))
    pruner.prune_to(0.5)
    before = copy.deepcopy(conformer.state_dict())
    pruner.shares = dict.fromkeys(pruner.shares, 1.0) | {"encoder.project.weight": 0.1}
    pruner.prune_to(pruner.sparsity)
    assert all(torch.equal(before[name], value) for name, value in conformer.state_dict().items())
    pruner.prune_to(0.6)
    assert pruner.sparsity >= 0.6


@pytest.mark.parametrize("spec", ["unstructured", "2:4"])
def test_other_zeros_go_by_magnitude(conformer, spec):
    evidence, name = heard(conformer, "least_squares"), "encoder.project.weight"
    weight, layout = conformer.get_parameter(name).detach(), parse_layout(spec)
    kept = weight.numel() // 2
    mask, hidden = cut_weight(name, weight, weight, layout, kept, "least_squares", evidence)
    assert torch.equal(mask, layout.mask(weight.square(), kept))
    assert hidden is weight


def test_it_is_the_default_where_blocks_are_lost():
    assert Cut("block").importance == "least_squares"
    assert Cut("channel", mix={"attention": "block:32"}).importance == "least_squares"
    assert Cut("unstructured").importance == Cut("channel").importance == "magnitude"
    assert Cut("block:8", score="taylor").importance == "taylor"


class Dying(RandomBatches):
    def from_step(self, step):
        for number in range(step, 7):
            yield random_batch(number)
        raise SystemExit("killed")


def test_a_killed_run_prunes_by_the_moments_it_had(conformer, tmp_path):
    settings = TrainSettings(10, warmup_steps=1, checkpoint_every=3, bfloat16=False)
    whole, killed = (
        ShrinkStage(conformer, 0.5, (0, 8, 4), cut=Cut("block:8", exclude=["joiner"]))
        for _ in range(2)
    )
    train(whole, RandomBatches(), settings, tmp_path / "whole", "whole", resume=False)
    with pytest.raises(SystemExit):
        train(killed, Dying(), settings, tmp_path / "killed", "killed", resume=False)
    again = ShrinkStage(conformer, 0.5, (0, 8, 4), cut=Cut("block:8", exclude=["joiner"]))
    train(again, RandomBatches(), settings, tmp_path / "killed", "again", resume=True)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[name]), name
    assert whole.reached >= 0.5
