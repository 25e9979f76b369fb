"""Recipes: what a training needs to know, read from YAML and checked at the door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from compress.curriculum import Phase
from compress.data.batches import BatchSettings
from compress.distill.lessons import Lesson, parse_distill
from compress.models.chunks import ChunkDraw, check_chunks
from compress.models.config import (
    SUBSAMPLING,
    ConformerConfig,
    LstmConfig,
    LstmPredictorConfig,
    PredictorConfig,
    StatelessPredictorConfig,
    TransducerConfig,
    uniform_conformer,
)
from compress.precision import Bfloat16
from compress.shrink.pruner import Cut, check_pattern
from compress.sizing import Target
from compress.trainer import TrainSettings
from export.quantize import Method
from export.stopwatch import Precision
from streaming.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SyntheticRecipe(Strict):
    """Utterances of each split of the synthetic speech, and its share of the steps."""

    train: PositiveInt
    dev: PositiveInt
    test: PositiveInt
    share: float = Field(1.0, gt=0)


class RealRecipe(Strict):
    """How real clips are heard: `copies` augmented differently, `joined` strings of clips."""

    copies: PositiveInt = 1
    joined: NonNegativeInt = 0
    words_range: tuple[PositiveInt, PositiveInt] = (2, 6)
    share: float = Field(0.2, gt=0)
    from_step: NonNegativeInt = 0


class NetworkRecipe(Strict):
    """What every network has: a predictor as wide as the joiner, and the features it hears.

    features: a preset of streaming/features.py; by default what the predictor's bundle needs,
    nemo for an LSTM, kaldi for a stateless one.
    """

    joint_width: PositiveInt
    predictor: Literal["stateless", "lstm"] = "stateless"
    features: Literal["kaldi", "nemo"] | None = None

    @model_validator(mode="after")
    def a_bundle_is_possible(self) -> NetworkRecipe:
        if self.predictor == "lstm" and self.features == "kaldi":
            raise ValueError("an LSTM predictor goes with features nemo: leave features out")
        return self

    @property
    def preset(self) -> Literal["kaldi", "nemo"]:
        return self.features or ("nemo" if self.predictor == "lstm" else "kaldi")

    def with_predictor(
        self, encoder: ConformerConfig | LstmConfig, vocab_size: int
    ) -> TransducerConfig:
        width = encoder.joint_width
        predictor: PredictorConfig = StatelessPredictorConfig(width=width, joint_width=width)
        if self.predictor == "lstm":
            predictor = LstmPredictorConfig(embedding=width, width=width, joint_width=width)
        return TransducerConfig(vocab_size=vocab_size, encoder=encoder, predictor=predictor)


class ConformerRecipe(NetworkRecipe):
    """A uniform Conformer."""

    kind: Literal["conformer"] = "conformer"
    num_layers: PositiveInt
    width: PositiveInt
    num_heads: PositiveInt
    feed_forward: PositiveInt
    kernel_size: int = Field(15, ge=2)
    chunk_frames: int = Field(32, gt=0, multiple_of=SUBSAMPLING)
    left_context: PositiveInt = 32
    full_context: bool = False

    def build(self, vocab_size: int) -> TransducerConfig:
        widths = self.model_dump(exclude={"kind", "predictor", "features"})
        encoder = uniform_conformer(features=self.preset, **widths)
        return self.with_predictor(encoder, vocab_size)


class LstmRecipe(NetworkRecipe):
    """LSTM layers of one width."""

    kind: Literal["lstm"] = "lstm"
    num_layers: PositiveInt
    width: PositiveInt
    chunk_frames: int = Field(32, gt=0, multiple_of=SUBSAMPLING)

    def build(self, vocab_size: int) -> TransducerConfig:
        encoder = LstmConfig(
            features=self.preset,
            chunk_frames=self.chunk_frames,
            subsampling_width=self.width,
            width=self.width,
            joint_width=self.joint_width,
            hidden=[self.width] * self.num_layers,
        )
        return self.with_predictor(encoder, vocab_size)


def kind_of(model: Any) -> str:
    """Recipes need not say that they mean a Conformer."""
    return str(model.get("kind", "conformer") if isinstance(model, dict) else model.kind)


ModelRecipe = Annotated[
    Annotated[ConformerRecipe, Tag("conformer")] | Annotated[LstmRecipe, Tag("lstm")],
    Discriminator(kind_of),
]


class OptimiserRecipe(Strict):
    """TrainSettings but for the steps, which the phases add up to, and the seed.

    bfloat16: auto takes it where it is faster (docs/decisions/0029-bfloat16-where-it-is-faster.md).
    """

    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: NonNegativeInt = 300
    decay_from: float = Field(0.3, ge=0, le=1)
    bfloat16: Bfloat16 = "auto"

    @field_validator("bfloat16", mode="before")
    @classmethod
    def bfloat16_exists(cls, bfloat16: object) -> object:
        if bfloat16 not in (True, False, "auto"):
            raise ValueError("give auto, true or false")
        return bfloat16


class BatchRecipe(Strict):
    seconds: float = Field(60.0, gt=0)


class AugmentRecipe(Strict):
    """How often an utterance is heard in noise and in a room; the rest is AugmentSettings'."""

    noise_probability: float = Field(0.8, ge=0, le=1)
    room_probability: float = Field(0.5, ge=0, le=1)


class DistillRecipe(Strict):
    """What a student learns from its teacher; see docs/distillation.md.

    methods: settings of single methods, by name. tandem: whether the teacher learns along.
    """

    distill: str = "none"
    methods: dict[str, dict[str, Any]] = {}
    tandem: Literal["none", "colearn", "shared"] = "none"

    @property
    def lessons(self) -> list[Lesson]:
        """Raises InputError for what cannot be asked for."""
        return parse_distill(self.distill, self.methods)


class DrawnRecipe(Strict):
    """What is drawn at random. chunks_ms: sizes of a chunk that the batches are heard at, one each,
    besides the network's own, so that one network is good at all of them.
    """

    seed: NonNegativeInt = 0
    chunks_ms: list[int] = []

    @field_validator("chunks_ms")
    @classmethod
    def chunks_exist(cls, chunks_ms: list[int]) -> list[int]:
        return check_chunks(chunks_ms)

    @property
    def chunk_draw(self) -> ChunkDraw:
        return ChunkDraw(self.chunks_ms, self.seed)


class TrainRecipe(DistillRecipe, DrawnRecipe):
    """`compress train --recipe NAME` a network from nothing; `--student NAME` from a teacher.

    vocab_size: of a tokenizer of its own; a student takes its teacher's.
    """

    vocab_size: PositiveInt | None = None
    model: ModelRecipe
    synthetic: SyntheticRecipe | None = None
    real: RealRecipe = RealRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    phases: list[Phase] = Field(min_length=1)
    batch: BatchRecipe = BatchRecipe()
    train: OptimiserRecipe = OptimiserRecipe()

    @model_validator(mode="after")
    def something_counts_in_every_phase(self) -> TrainRecipe:
        first = 0
        for number, phase in enumerate(self.phases):
            taught = any(
                lesson.first < first + phase.steps and lesson.end > first for lesson in self.lessons
            )
            if not (phase.phone + phase.ctc + phase.transducer or taught):
                raise ValueError(
                    f"phase {number}: give phone, ctc or transducer a weight above 0, or a method "
                    "of distill these steps"
                )
            first += phase.steps
        return self

    @model_validator(mode="after")
    def chunks_are_heard(self) -> TrainRecipe:
        if self.chunks_ms and getattr(self.model, "full_context", False):
            raise ValueError("chunks_ms is for a network that streams: leave out full_context")
        return self

    @property
    def settings(self) -> TrainSettings:
        steps = sum(phase.steps for phase in self.phases)
        return TrainSettings(steps=steps, seed=self.seed, **self.train.model_dump())

    @property
    def batches(self) -> BatchSettings:
        return BatchSettings(**self.batch.model_dump())


class RampRecipe(Strict):
    """Where in the run the pruning ramp begins and ends, and the steps between prunings."""

    begin_share: float = Field(0.0, ge=0, le=1)
    end_share: float = Field(0.5, ge=0, le=1)
    every: PositiveInt = 10

    def steps(self, total: int) -> tuple[int, int, int]:
        return round(self.begin_share * total), round(self.end_share * total), self.every


class GuardRecipe(Strict):
    """Look at development speech while pruning: GuardSettings of shrink/guard.py."""

    every: PositiveInt = 100
    max_increase: float | None = Field(None, ge=0, lt=1)
    num_utterances: PositiveInt = 100
    stretch: float = Field(1.5, ge=1)
    latest_end: float = Field(0.8, gt=0, le=1)


class QatRecipe(Strict):
    """Training with rounding after the steps of a run, `share` times as many (--quantize qat)."""

    share: float = Field(0.25, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_steps: NonNegativeInt = 20

    def settings(self, steps: int, seed: int) -> TrainSettings:
        """steps: of the run. The rate falls from the beginning on."""
        steps = max(1, round(self.share * steps))
        rates = self.model_dump(include={"learning_rate", "warmup_steps"})
        return TrainSettings(steps, decay_from=0.0, bfloat16=False, seed=seed, **rates)


class WarmUpRecipe(Strict):
    """Shares of the steps in which a new, small network learns phones and CTC alone."""

    phone: float = Field(0.2, ge=0, lt=1)
    ctc: float = Field(0.2, ge=0, lt=1)

    def phases(self, steps: int) -> list[Phase]:
        phone, ctc = round(self.phone * steps), round(self.ctc * steps)
        phases = [
            (phone, {"phone": 1.0}),
            (ctc, {"phone": 0.3, "ctc": 1.0}),
            (steps - phone - ctc, {"ctc": 0.1, "transducer": 1.0}),
        ]
        return [Phase(steps=count, **weights) for count, weights in phases if count > 0]

    def steps(self, total: int) -> int:
        return round(self.phone * total) + round(self.ctc * total)


class RunRecipe(DistillRecipe, DrawnRecipe):
    """How `compress run` shrinks; the command line overrides single values.

    mix, exclude, score: see shrink/pruner.py's Cut. allocation: whether layers lose alike, or by
    what the teacher's loss says of each; by default channels alike and zeros by the loss. guard:
    keeps the best student and goes back. student: a network for pattern small, instead of one that
    is sized by the sparsity. qat: what --quantize qat adds.
    """

    sparsity: float = 0.9
    mix: dict[str, str] = {}
    exclude: list[str] = []
    score: Literal["magnitude", "taylor", "activation", "least_squares"] | None = None
    allocation: Literal["uniform", "sensitivity"] | None = None
    guard: GuardRecipe | None = None
    student: ModelRecipe | None = None
    warm_up: WarmUpRecipe = WarmUpRecipe()
    synthetic: SyntheticRecipe
    real: RealRecipe = RealRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    steps: PositiveInt
    ramp: RampRecipe = RampRecipe()
    schedule: Literal["cubic", "linear", "one-shot"] = "cubic"
    distill: str = "lattice=1.0"
    tandem: Literal["none", "colearn"] = "none"
    batch: BatchRecipe = BatchRecipe()
    train: OptimiserRecipe = OptimiserRecipe()
    qat: QatRecipe = QatRecipe()

    @property
    def settings(self) -> TrainSettings:
        return TrainSettings(steps=self.steps, seed=self.seed, **self.train.model_dump())

    @property
    def batches(self) -> BatchSettings:
        return BatchSettings(**self.batch.model_dump())


class RunConfig(Strict):
    """Everything that determines a run's result; stored as config.yaml in its folder.

    chunk_ms: sizes of a chunk that bundles are written for; by default those of the recipe's
    training, if it names any. start: model folder of a student to go on from. target_size (bytes
    of the bundle's graphs), target_rtf: what the sparsity is fitted to, instead of the recipe's.
    max_wer_increase: points of WER that quantize auto may lose on development speech.
    """

    teacher: str
    data: list[str] = []
    noise: str | None = None
    pattern: str = "channel"
    quantize: Method = "int8"
    chunk_ms: list[int] = []
    max_wer_increase: float = Field(0.3, ge=0)
    compare: bool = False
    start: str | None = None
    target_size: PositiveInt | None = None
    target_rtf: float | None = Field(None, gt=0)
    recipe: RunRecipe

    @model_validator(mode="after")
    def one_target(self) -> RunConfig:
        if self.target_size and self.target_rtf:
            raise ValueError("target_size and target_rtf are two budgets: give one of them")
        if self.start and self.pattern == "small":
            raise ValueError("pattern small trains a new network: it goes on from no student")
        return self

    @field_validator("pattern")
    @classmethod
    def pattern_exists(cls, pattern: str) -> str:
        return check_pattern(pattern)

    @field_validator("chunk_ms")
    @classmethod
    def chunks_exist(cls, chunk_ms: list[int]) -> list[int]:
        return check_chunks(chunk_ms)

    @property
    def bundles_ms(self) -> list[int]:
        """Sizes of a chunk that bundles are written for besides the student's own bundle."""
        return self.chunk_ms or self.recipe.chunks_ms

    @property
    def sensitive(self) -> bool:
        """Whether layers lose by what it costs (docs/decisions/0020-sensitivity-first.md)."""
        if self.pattern in ("layers", "small"):
            return False
        default = "uniform" if self.pattern == "channel" else "sensitivity"
        return (self.recipe.allocation or default) == "sensitivity"

    @property
    def target(self) -> Target | None:
        """What the sparsity is fitted to, if anything."""
        if not (self.target_size or self.target_rtf):
            return None
        return Target(self.target_size, self.target_rtf)

    def cut(self, shares: dict[str, float] | None = None) -> Cut:
        recipe = self.recipe
        # No table has times of static, qat or int4; blocks are int8 in all of them.
        precision: Precision = "fp32" if self.quantize == "none" else "int8"
        return Cut(self.pattern, recipe.mix, recipe.exclude, recipe.score, shares or {}, precision)

    @property
    def sparsity(self) -> float:
        return self.recipe.sparsity

    @property
    def trial_method(self) -> Method:
        """How an untrained student is exported to be measured: auto has no words to judge by, and
        most of its layers are int8."""
        return "int8" if self.quantize == "auto" else self.quantize


Recipe = TypeVar("Recipe", bound=BaseModel)


def read_recipe(name: str | Path, kind: type[Recipe]) -> Recipe:
    """A recipe of compress/recipes by name, or any YAML file by path. Raises InputError."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise InputError(f"no recipe {name}: give a YAML file or one of {known}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    return validate(kind, content, str(path))


def validate(kind: type[Recipe], content: object, origin: str) -> Recipe:
    """`content` as `kind`. Raises InputError that names origin, place and fault in one line."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join([origin, ".".join(map(str, first["loc"]))] if first["loc"] else [origin])
        message = first["msg"].removeprefix("Value error, ")
        whole = first["type"] == "missing" or isinstance(first["input"], dict)
        got = "" if whole else f", got {first['input']!r}"
        raise InputError(f"{place}: {message}{got}") from error
