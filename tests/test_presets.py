"""Which features a model hears: in recipes, in stores, and agreed between teacher and student."""

from __future__ import annotations

import pytest
import yaml

from compress.cli import run_app
from compress.config import ConformerRecipe, LstmRecipe, validate
from compress.data.sets import synthetic_store
from compress.models.config import LstmPredictorConfig, TransducerConfig
from compress.models.transducer import Transducer, check_same_features
from compress.shrink.widths import read_config
from streaming.errors import InputError
from streaming.features import FeatureSettings, preset_settings
from tests.tiny_teacher import RECIPE, build_teacher

CONFORMER = {"num_layers": 1, "width": 16, "num_heads": 2, "feed_forward": 32, "joint_width": 16}


@pytest.mark.parametrize(
    ("asked", "features"),
    [
        ({}, "kaldi"),
        ({"predictor": "lstm"}, "nemo"),
        ({"features": "nemo"}, "nemo"),
        ({"predictor": "lstm", "features": "nemo"}, "nemo"),
    ],
)
def test_a_recipe_s_predictor_chooses_its_features(asked, features):
    lstm = {"num_layers": 1, "width": 16, "joint_width": 16}
    for recipe in (ConformerRecipe(**CONFORMER, **asked), LstmRecipe(**lstm, **asked)):
        config = recipe.build(40)
        assert config.encoder.features == features
        assert config.encoder.feature_settings == preset_settings(features)
        assert config.predictor.kind == asked.get("predictor", "stateless")
        assert read_config(Transducer(config)) == config


def test_an_lstm_predictor_on_kaldi_features_is_refused():
    with pytest.raises(InputError, match="goes with features nemo: leave features out"):
        asked = {**CONFORMER, "predictor": "lstm", "features": "kaldi"}
        validate(ConformerRecipe, asked, "mine.yaml")


def test_a_configuration_from_before_hears_kaldi():
    values = build_teacher().config.model_dump()
    del values["encoder"]["features"]
    assert TransducerConfig.model_validate(values).encoder.feature_settings == FeatureSettings()


def test_stores_of_two_presets_are_two(cache, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    one = synthetic_store(4, "dev", 0)
    other = synthetic_store(4, "dev", 0, features=preset_settings("nemo"))
    again = synthetic_store(4, "dev", 0, features=preset_settings("kaldi"))
    assert one.folder == again.folder != other.folder
    rows = zip(one.rows, other.rows, strict=True)
    assert all(abs(one.features(a) - other.features(b)).mean() > 0.5 for a, b in rows)


def test_teacher_and_student_must_hear_the_same():
    teacher = build_teacher()
    check_same_features(teacher, teacher.config)
    nemo = ConformerRecipe(**CONFORMER, features="nemo").build(48)
    with pytest.raises(InputError, match=r"teacher hears kaldi features .* student nemo"):
        check_same_features(teacher, nemo)


def test_a_recipe_of_other_features_than_the_teacher_s_is_refused_first(
    call, tmp_path, teacher, capsys
):
    student = {**CONFORMER, "predictor": "lstm"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**RECIPE, "student": student}))
    options = ["--pattern", "small", "--recipe", str(tmp_path / "run.yaml"), "--out", "here"]
    assert call(*options) == 2
    assert "give both the same features" in capsys.readouterr().err
    phases = [{"steps": 1, "transducer": 1.0}]
    recipe = {"model": student, "synthetic": RECIPE["synthetic"], "phases": phases}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--student", "mine.yaml", "--teacher", str(teacher), "--out", "there"]
    assert run_app(["train", *options]) == 2
    assert "give both the same features" in capsys.readouterr().err
    assert not (tmp_path / "here").exists()
    assert not (tmp_path / "there").exists()


def test_the_lstm_predictor_is_as_wide_as_the_joiner():
    predictor = ConformerRecipe(**CONFORMER, predictor="lstm").build(40).predictor
    assert predictor == LstmPredictorConfig(embedding=16, width=16, joint_width=16)
