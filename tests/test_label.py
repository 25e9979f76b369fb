"""`compress label`: pseudo-labels that training reads again, filters, kills and refusals."""

from __future__ import annotations

import gzip
import json
import math
import shutil

import numpy as np
import pytest
import soundfile
import torch

from compress import label as labelling
from compress.checkpoint import save_model
from compress.cli import DEMO_TEACHER
from compress.data.batches import BatchSampler, BatchSettings, Source
from compress.data.cuts import read_data, read_samples
from compress.data.sets import real_cuts, real_store
from compress.data.synthetic import make_synthetic
from compress.data.tokenizer import train_tokenizer
from compress.distill.targets import store
from compress.distill.targets.nbest import NBestTargets
from compress.evaluate import word_error_rate
from compress.label import label_data
from compress.lm import NgramModel, fingerprint, save_lm
from compress.lm.config import NgramConfig
from compress.models.config import LstmPredictorConfig
from streaming.errors import InputError
from tests.distill.small_views import build_model
from tests.streaming.tiny_bundle import make_speech
from tests.tiny_teacher import build_teacher, build_tokenizer, save_teacher


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """The folder of a random teacher that finds tokens in two frames of five."""
    model = build_teacher(seed=2)
    with torch.no_grad():
        model.joiner.output.weight.mul_(20)
        model.joiner.output.bias[0] = 18.0
    folder = tmp_path_factory.mktemp("talker")
    save_model(model, folder, build_tokenizer(), {})
    return folder


def write_pack(folder, sounds, **fields):
    """sounds: id -> samples at 16 kHz."""
    folder.mkdir()
    lines = []
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, 16_000)
        lines.append(json.dumps({"id": name, "audio_filepath": f"{name}.wav", **fields}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return str(folder)


@pytest.fixture(autouse=True)
def cached(cache, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))


@pytest.fixture
def packs(tmp_path):
    """Two sets of three sounds each, without transcripts; the second names its splits."""
    sounds = {f"u{seed}": make_speech(9_000 + 3_000 * seed, seed=seed) for seed in range(6)}
    half = {name: sounds.pop(name) for name in ("u0", "u1", "u2")}
    return [
        write_pack(tmp_path / "first", half),
        write_pack(tmp_path / "second", sounds, split="train", speaker="ann"),
    ]


@pytest.fixture
def no_teacher(monkeypatch):
    """From here on, running the teacher fails."""

    def fail(*arguments):
        raise AssertionError("the teacher ran")

    return lambda: monkeypatch.setattr(store, "view_batch", fail)


def test_labels_are_training_data(packs, talker, tmp_path, no_teacher):
    out = tmp_path / "labels"
    record = label_data(talker, packs, out)
    cuts = list(read_data(out))
    assert sorted(cut.id for cut in cuts) == [f"u{number}" for number in range(6)]
    assert {cut.custom["data"] for cut in cuts} == {"first", "second"}
    assert {cut.supervisions[0].speaker for cut in cuts} == {None, "ann"}
    for cut in cuts:
        assert cut.supervisions[0].text
        assert cut.custom["teacher"] == record["teacher_hash"]
        assert len(read_samples(cut)) == 9_000 + 3_000 * int(cut.id[1:])
    assert len(real_cuts(str(out), "train")) == 6
    assert record["kept"] == 6
    assert record["hours_kept"] == pytest.approx(record["hours"])
    assert record["wer"] == {"kept": None, "all": None}
    assert json.loads((out / "record.json").read_text()) == record

    no_teacher()
    features = real_store(str(out), "train")
    settings = BatchSettings(seconds=6.0)
    sampler = BatchSampler([Source(features)], build_tokenizer(), settings, augment=False)
    teacher, _ = labelling.load_model(talker)
    found = store.store_targets(out / "targets", [NBestTargets()], teacher, sampler)
    batch = sampler.collate(features, features.rows)
    keys = [store.key_of(row) for row in features.rows]
    nbest = found.view(batch, keys, 40).stored["nbest"]
    for row, cut in enumerate(real_cuts(str(out), "train")):
        score, length = nbest.scores[row, 0].item(), int(nbest.hypotheses.lengths[row, 0])
        assert cut.custom["score"] == pytest.approx(score, abs=1e-3)
        assert cut.custom["confidence"] == pytest.approx(math.exp(score / length), abs=1e-5)
        assert 0 < cut.custom["confidence"] < 1


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Synthetic speech with its transcripts, as a pack."""
    folder = tmp_path_factory.mktemp("speech")
    cuts = list(make_synthetic(folder / "made", 8, "test", 0, num_workers=1))
    pack = folder / "spoken"
    write_pack(pack, {cut.id: read_samples(cut) for cut in cuts})
    texts = {cut.id: cut.supervisions[0].text for cut in cuts}
    lines = [json.loads(line) for line in (pack / "manifest.jsonl").read_text().splitlines()]
    told = [json.dumps({**line, "text": texts[line["id"]]}) + "\n" for line in lines]
    (pack / "manifest.jsonl").write_text("".join(told))
    return str(pack), texts


def test_transcripts_judge_but_do_not_teach(speech, talker, tmp_path, capsys):
    pack, texts = speech
    record = label_data(talker, [pack], tmp_path / "labels")
    cuts = read_data(tmp_path / "labels")
    assert all(cut.supervisions[0].text != texts[cut.id] for cut in cuts)
    heard = [cut.supervisions[0].text for cut in cuts]
    wanted = word_error_rate([texts[cut.id] for cut in cuts], heard)
    assert record["wer"]["kept"]["wer"] == pytest.approx(wanted.wer)
    assert "has transcripts, which are not used" in capsys.readouterr().err


def test_a_good_teacher_is_right_and_sure(speech, tmp_path):
    pack, texts = speech
    record = label_data(DEMO_TEACHER, [pack], tmp_path / "labels", min_confidence=0.9)
    cuts = read_data(tmp_path / "labels")
    right = sum(cut.supervisions[0].text == texts[cut.id] for cut in cuts)
    assert right >= 5
    assert record["wer"]["kept"]["wer"] <= record["wer"]["all"]["wer"] < 0.1


def test_min_confidence_chooses_again_without_the_teacher(packs, talker, tmp_path, no_teacher):
    out = tmp_path / "labels"
    label_data(talker, packs, out)
    sure = {cut.id: cut.custom["confidence"] for cut in read_data(out)}
    threshold = sorted(sure.values())[3]
    no_teacher()
    record = label_data(talker, packs, out, min_confidence=threshold, resume=True)
    assert {cut.id for cut in read_data(out)} == {
        name for name, confidence in sure.items() if confidence >= threshold
    }
    assert (record["kept"], record["below_min_confidence"]) == (3, 3)
    with pytest.raises(InputError, match="lower --min-confidence"):
        label_data(talker, packs, out, min_confidence=1.0, resume=True)


def test_resumed_equals_uninterrupted(packs, talker, tmp_path, monkeypatch):
    label_data(talker, packs, tmp_path / "whole")
    original, calls = NBestTargets.label, []

    def dying(self, teacher, batch):
        calls.append(len(batch.rows))
        if len(calls) == 2:
            raise SystemExit("killed")
        return original(self, teacher, batch)

    monkeypatch.setattr(NBestTargets, "label", dying)
    with pytest.raises(SystemExit):
        label_data(talker, packs, tmp_path / "killed")
    assert not (tmp_path / "killed" / "cuts.jsonl.gz").exists()
    with pytest.raises(InputError, match="add --resume"):
        label_data(talker, packs, tmp_path / "killed")
    label_data(talker, packs, tmp_path / "killed", resume=True)
    assert calls == [3, 3, 3], "what was stored before the kill is not stored again"
    for name in ("cuts.jsonl.gz", "targets/nbest.bin"):
        whole, killed = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_utterances_without_a_frame_or_without_words(talker, tmp_path, capsys):
    sounds = {"short": np.zeros(40, np.float32), "long": make_speech(9_000, seed=1)}
    pack = write_pack(tmp_path / "pack", sounds)
    record = label_data(talker, [pack], tmp_path / "labels")
    assert (record["kept"], record["too_short"], record["empty"]) == (1, 1, 0)
    silent = save_teacher(tmp_path / "silent")
    with pytest.raises(InputError, match="no utterance is left"):
        label_data(silent, [pack], tmp_path / "nothing")
    assert "kept 0 utterances (0.00 of 0.00 hours); left out: 0" in capsys.readouterr().err
    assert not (tmp_path / "nothing" / "cuts.jsonl.gz").exists()


def test_ids_that_two_sets_share(talker, tmp_path):
    sounds = {"u": make_speech(9_000, seed=1)}
    packs = [write_pack(tmp_path / name, sounds) for name in ("one", "two")]
    label_data(talker, packs, tmp_path / "labels")
    assert [cut.id for cut in read_data(tmp_path / "labels")] == ["one/u", "two/u"]
    with pytest.raises(InputError, match="2 utterances are called one/u"):
        label_data(talker, [packs[0]] * 2, tmp_path / "twice")


def test_cuts_without_supervision(packs, talker, tmp_path):
    lines = []
    for cut in read_data(packs[0], labelled=False):
        cut.supervisions = []
        lines.append(json.dumps(cut.to_dict()) + "\n")
    (tmp_path / "bare").mkdir()
    with gzip.open(tmp_path / "bare" / "cuts.jsonl.gz", "wt") as file:
        file.writelines(lines)
    label_data(talker, [str(tmp_path / "bare")], tmp_path / "labels")
    assert len(read_data(tmp_path / "labels")) == 3


def tiny_lm(folder, tokenizer, vocab_size=48):
    """It has read one text, and so often that nothing else will do."""
    tokens = np.array([0, *[*tokenizer.encode("one two three four"), 0] * 50], np.int32)
    config = NgramConfig(vocab_size=vocab_size, order=3)
    save_lm(NgramModel.train([tokens], config, fingerprint(tokenizer)), folder)
    return folder


def test_a_language_model_has_a_say(packs, talker, tmp_path):
    label_data(talker, packs, tmp_path / "without")
    lm = tiny_lm(tmp_path / "lm", build_tokenizer())
    record = label_data(talker, packs, tmp_path / "with", lm=lm, lm_weight=3.0)
    assert record["lm_weight"] == 3.0
    without, fused = (
        " ".join(cut.supervisions[0].text for cut in read_data(tmp_path / run)).split()
        for run in ("without", "with")
    )
    known = {"one", "two", "three", "four"}
    assert sum(word in known for word in fused) > 2 * sum(word in known for word in without)
    with pytest.raises(InputError, match=r"made with lm_weight 3\.0, now it is 1\.0"):
        label_data(talker, packs, tmp_path / "with", lm=lm, lm_weight=1.0, resume=True)
    with pytest.raises(InputError, match="is no language model folder"):
        label_data(talker, packs, tmp_path / "other", lm=tmp_path / "nowhere")
    foreign = tiny_lm(tmp_path / "foreign", train_tokenizer(["one two three four five"], 48))
    with pytest.raises(InputError, match="over another vocabulary"):
        label_data(talker, packs, tmp_path / "other", lm=foreign)


def test_nan_names_the_utterance(packs, talker, tmp_path, monkeypatch):
    teacher, tokenizer = labelling.load_model(talker)
    with torch.no_grad():
        teacher.joiner.output.bias[3] = torch.nan
    monkeypatch.setattr(labelling, "load_model", lambda folder: (teacher, tokenizer))
    with pytest.raises(InputError, match=r"NaN or infinity of utterance first/u0 \(scores\)"):
        label_data(talker, packs, tmp_path / "labels")


def test_folders_of_others_are_refused(packs, talker, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        label_data(talker, packs, tmp_path / "mine")
    teacher = tmp_path / "teacher"
    shutil.copytree(talker, teacher)
    label_data(teacher, packs, tmp_path / "labels")
    with pytest.raises(InputError, match="made with beam 4, now it is 2"):
        label_data(teacher, packs, tmp_path / "labels", beam=2, nbest=2, resume=True)
    save_model(build_teacher(seed=3), teacher, build_tokenizer(), {})
    with pytest.raises(InputError, match="holds targets of another teacher"):
        label_data(teacher, packs, tmp_path / "labels", resume=True)


@pytest.mark.parametrize("confidence", [-0.1, 1.5, float("nan")])
def test_confidence_is_a_share(packs, talker, tmp_path, confidence):
    with pytest.raises(InputError, match="--min-confidence is a share, 0 to 1"):
        label_data(talker, packs, tmp_path / "labels", min_confidence=confidence)


def test_what_cannot_be_labelled(packs, talker, tmp_path):
    out = tmp_path / "labels"
    with pytest.raises(InputError, match=r"lacks config.json, model.safetensors, bpe.model"):
        label_data(tmp_path, packs, out)
    with pytest.raises(InputError, match="does not exist: check the spelling"):
        label_data(talker, ["nowhere"], out)
    with pytest.raises(InputError, match="no split 'test': use one of train"):
        label_data(talker, packs, out, split="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no utterances"):
        label_data(talker, [str(tmp_path / "empty")], out)
    with pytest.raises(InputError, match="as many as are kept"):
        label_data(talker, packs, out, beam=2)
    lstm = build_model(0, 48, LstmPredictorConfig, embedding=8)
    save_model(lstm, tmp_path / "lstm", build_tokenizer(), {})
    with pytest.raises(InputError, match="predictor is an LSTM"):
        label_data(tmp_path / "lstm", packs, out)
    assert not out.exists()
