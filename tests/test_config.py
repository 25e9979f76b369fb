"""Recipes: those that ship, and one line for each way to get one wrong."""

from __future__ import annotations

import pytest
import yaml

from compress.config import RECIPES, RunRecipe, TrainRecipe, read_recipe
from compress.models.transducer import Transducer
from streaming.errors import InputError

TRAIN = {
    "vocab_size": 60,
    "model": {
        "num_layers": 1,
        "width": 16,
        "num_heads": 2,
        "feed_forward": 16,
        "joint_width": 16,
    },
    "synthetic": {"train": 8, "dev": 4, "test": 4},
    "phases": [{"steps": 3, "ctc": 1.0}, {"steps": 4, "ctc": 0.1, "transducer": 1.0}],
}


def changed(place, value):
    """TRAIN with one value, at a dotted place, set or (None) left out."""
    recipe = yaml.safe_load(yaml.safe_dump(TRAIN))
    *way, last = place.split(".")
    part = recipe
    for name in way:
        part = part.setdefault(name, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return recipe


@pytest.fixture
def read(tmp_path):
    def read(content, kind=TrainRecipe):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / "mine.yaml").write_text(text)
        return read_recipe(tmp_path / "mine.yaml", kind)

    return read


def test_steps_are_those_of_the_phases(read):
    recipe = read({**TRAIN, "seed": 3, "train": {"learning_rate": 0.01}})
    assert (recipe.settings.steps, recipe.settings.seed) == (7, 3)
    assert recipe.settings.learning_rate == 0.01
    assert Transducer(recipe.model.build(recipe.vocab_size)).config.vocab_size == 60


def test_recipes_that_ship_are_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "lm").mkdir(parents=True)  # the language model that one-best-lm names
    (tmp_path / "runs" / "lm" / "config.json").write_text("{}")
    kinds = dict.fromkeys(("run", "sparse-60", "sparse-90"), RunRecipe)
    for path in RECIPES.glob("*.yaml"):
        recipe = read_recipe(path.stem, kinds.get(path.stem, TrainRecipe))
        assert recipe.settings.steps > 0


def test_the_demo_teacher_has_at_most_six_million_parameters():
    recipe = read_recipe("demo-teacher", TrainRecipe)
    model = Transducer(recipe.model.build(recipe.vocab_size))
    assert model.num_parameters <= 6e6


def test_a_ramp_in_steps():
    recipe = read_recipe("run", RunRecipe)
    begin, end, every = recipe.ramp.steps(1000)
    assert 0 <= begin < end <= 1000
    assert every >= 1


def test_unknown_name():
    with pytest.raises(InputError, match=r"no recipe fast: give a YAML file or one of .*run"):
        read_recipe("fast", RunRecipe)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"mine\.yaml is not YAML: "),
        ("", r"mine\.yaml: Input should be a valid dictionary"),
        ([1, 2], r"mine\.yaml: Input should be a valid dictionary"),
        (changed("colour", "red"), r"mine\.yaml: colour: Extra inputs are not permitted"),
        (changed("phases", None), r"mine\.yaml: phases: Field required$"),
        (changed("phases", []), "phases: List should have at least 1 item"),
        (changed("phases", [{"steps": 5}]), "phase 0: give phone, ctc or transducer a weight"),
        (changed("phases", [{"steps": 5, "ctc": -1}]), r"phases\.0\.ctc: .*greater than or equal"),
        (changed("vocab_size", "many"), "vocab_size: .*valid integer.*got 'many'"),
        (changed("synthetic.train", 0), r"synthetic\.train: .*greater than 0, got 0"),
        (
            changed("model.chunk_frames", 30),
            r"model\.conformer\.chunk_frames: .*multiple of 4, got 30",
        ),
        (
            changed("model.kernel_size", 1),
            r"model\.conformer\.kernel_size: .*greater than or equal to 2",
        ),
        (changed("chunks_ms", [80, 100]), r"chunks_ms: a chunk is a multiple of 40 ms.*got 100"),
        (
            changed("chunks_ms", [80]) | {"model": TRAIN["model"] | {"full_context": True}},
            "chunks_ms is for a network that streams: leave out full_context",
        ),
        (changed("seed", -1), "seed: .*greater than or equal to 0, got -1"),
        (changed("train.learning_rate", 0), r"train\.learning_rate: .*greater than 0"),
        (changed("batch.seconds", -3), r"batch\.seconds: .*greater than 0"),
    ],
)
def test_each_fault_is_one_line(read, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_training_recipe_is_not_one_of_a_run(read):
    with pytest.raises(InputError, match="steps: Field required"):
        read(TRAIN, RunRecipe)
