"""The batched beam search against plain loops, all alignments and the greedy search."""

from __future__ import annotations

import pytest
import torch

from compress.checkpoint import load_model
from compress.cli import DEMO_TEACHER
from compress.data.batches import BatchSampler, BatchSettings
from compress.data.store import build_store
from compress.data.synthetic import make_synthetic
from compress.evaluate import greedy_search
from compress.models.config import LstmPredictorConfig
from compress.search import beam_search
from streaming.errors import InputError
from tests.distill.small_views import build_model
from tests.lm.tiny_models import MODELS
from tests.reference.beam import search_beam, sum_alignments


def random_frames(seed, num=3, num_frames=9):
    """encoded (B, T, J) and lengths that differ."""
    generator = torch.Generator().manual_seed(seed)
    encoded = torch.randn(num, num_frames, 8, generator=generator)
    return encoded, torch.arange(num_frames, num_frames - num, -1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_equals_the_loop(seed, beam):
    model = build_model(seed)
    encoded, lengths = random_frames(seed)
    found = beam_search(model, encoded, lengths, beam, beam)
    for hypotheses, frames, length in zip(found, encoded, lengths, strict=True):
        wanted = search_beam(model, frames[:length], beam)
        assert [tuple(one.tokens) for one in hypotheses] == [labels for labels, _ in wanted]
        scores = [one.score for one in hypotheses]
        assert scores == pytest.approx([score for _, score in wanted], abs=1e-4)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beam", [1, 4])
def test_fused_with_a_language_model_equals_the_loop(kind, seed, beam):
    model, lm = build_model(seed), MODELS[kind]()
    encoded, lengths = random_frames(seed)

    def after(labels):
        targets = torch.tensor([labels], dtype=torch.long)
        return lm.log_probs(targets, torch.tensor([len(labels)]))[0, -1].tolist()

    found = beam_search(model, encoded, lengths, beam, beam, lm, lm_weight=0.8)
    plain = beam_search(model, encoded, lengths, beam, beam)
    assert found != plain
    for hypotheses, frames, length in zip(found, encoded, lengths, strict=True):
        wanted = search_beam(model, frames[:length], beam, after, 0.8)
        assert [tuple(one.tokens) for one in hypotheses] == [labels for labels, _ in wanted]
        scores = [one.score for one in hypotheses]
        assert scores == pytest.approx([score for _, score in wanted], abs=1e-4)


def test_a_beam_that_holds_all_sums_all_alignments():
    """4 tokens, 4 frames: 81 alignments without <unk> make 31 label sequences."""
    model = build_model(0, vocab_size=4)
    encoded, _ = random_frames(1, num=1, num_frames=4)
    (found,) = beam_search(model, encoded, torch.tensor([4]), beam=64, nbest=64)
    wanted = sum_alignments(model, encoded[0])
    assert len(found) == len(wanted) == 31
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(wanted[tuple(hypothesis.tokens)], abs=1e-5)


def test_hypotheses_differ_and_fall():
    model = build_model(3)
    for hypotheses in beam_search(model, *random_frames(2, num=8), beam=6, nbest=6):
        assert len({tuple(one.tokens) for one in hypotheses}) == 6
        scores = [one.score for one in hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_batch_order_and_padding_change_nothing():
    model = build_model(4)
    encoded, lengths = random_frames(5)
    together = beam_search(model, encoded, lengths)
    backwards = beam_search(model, encoded.flip(0), lengths.flip(0))[::-1]
    alone = [
        beam_search(model, frames[None, :length], length[None])[0]
        for frames, length in zip(encoded, lengths, strict=True)
    ]
    for one, other, third in zip(together, backwards, alone, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other] == [h.tokens for h in third]


def test_unknown_counts_as_blank():
    model = build_model(6)
    with torch.no_grad():
        model.joiner.output.bias[1] = 40.0
    found = beam_search(model, *random_frames(6))
    assert [hypotheses[0].tokens for hypotheses in found] == [[], [], []]
    assert all(1 not in one.tokens for hypotheses in found for one in hypotheses)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """The built-in teacher and a batch of synthetic speech."""
    folder = tmp_path_factory.mktemp("cache")
    cuts = list(make_synthetic(folder, 6, "test", 0, num_workers=1))
    model, tokenizer = load_model(DEMO_TEACHER)
    store = build_store(folder, "speech", cuts, num_workers=1)
    sampler = BatchSampler([], tokenizer, BatchSettings(), augment=False)
    return model, tokenizer, sampler.collate(store, store.rows)


def test_beam_of_one_is_greedy(speech):
    model, _, batch = speech
    with torch.no_grad():
        encoded, lengths = model.encoder(batch.features, batch.feature_lengths)
    greedy = greedy_search(model, batch.features, batch.feature_lengths)
    found = beam_search(model, encoded, lengths, beam=1, nbest=1)
    assert [hypotheses[0].tokens for hypotheses in found] == greedy
    assert all(greedy)


def test_a_wider_beam_finds_no_worse(speech):
    model, tokenizer, batch = speech
    with torch.no_grad():
        encoded, lengths = model.encoder(batch.features, batch.feature_lengths)
    narrow = beam_search(model, encoded, lengths, beam=1, nbest=1)
    wide = beam_search(model, encoded, lengths)
    for one, other in zip(narrow, wide, strict=True):
        assert other[0].score >= one[0].score - 1e-4
    right = sum(
        tokenizer.decode(hypotheses[0].tokens) == row.text
        for hypotheses, row in zip(wide, batch.rows, strict=True)
    )
    assert right >= 4


def test_lstm_predictor_is_refused():
    model = build_model(0, predictor=LstmPredictorConfig, embedding=8)
    with pytest.raises(InputError, match="predictor is an LSTM"):
        beam_search(model, *random_frames(0))


@pytest.mark.parametrize(("beam", "nbest"), [(0, 1), (4, 5), (4, 0)])
def test_wrong_beam_is_refused(beam, nbest):
    with pytest.raises(InputError, match=f"beam {beam} and nbest {nbest}"):
        beam_search(build_model(0), *random_frames(0), beam=beam, nbest=nbest)
