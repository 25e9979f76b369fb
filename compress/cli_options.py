"""Options that several commands share, and the configuration of a run that they add up to.

Nothing heavy is imported here, see cli.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming.errors import InputError

if TYPE_CHECKING:
    from compress.config import RunConfig

DEMO_TEACHER = Path(__file__).parent / "assets" / "demo-teacher"

Data = Annotated[
    list[str] | None,
    typer.Option(help="Training and test data: folder or manifest. Repeat for several sets."),
]
Noise = Annotated[
    Path | None, typer.Option(help="Folder of noises to mix in; without it noise is made.")
]
Out = Annotated[Path | None, typer.Option(help="Where to write; a new folder by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier call stopped.")]
Sparsity = Annotated[
    float | None,
    typer.Option(help="Share of all parameters to remove, 0 to 1; the recipe's 0.9."),
]
Pattern = Annotated[
    str,
    typer.Option(help="What is removed: channel, block, unstructured, 2:4, layers; or small."),
]
Teacher = Annotated[Path, typer.Option(help="Model folder; the built-in teacher by default.")]
TargetSize = Annotated[
    str | None, typer.Option(help="Bytes of the bundle instead of a sparsity, as in 800KB.")
]
TargetRtf = Annotated[
    float | None, typer.Option(help="Real-time factor of the bundle instead of a sparsity.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Part of the names of modules that stay dense. Repeat for several."),
]
Quantize = Annotated[
    str, typer.Option(help="int8, static, qat, int4, none; or auto, a form for every layer.")
]
MaxWerIncrease = Annotated[
    float, typer.Option(min=0, help="Points of WER that auto may lose on development speech.")
]
ChunkMs = Annotated[
    str | None,
    typer.Option(help="Milliseconds of a chunk, as in 80,160,320,640: a bundle for each."),
]
RecipeName = Annotated[str, typer.Option(help="Name or YAML file of the run's settings.")]
Steps = Annotated[int | None, typer.Option(help="Training steps; the recipe's by default.")]
Vad = Annotated[
    bool, typer.Option("--vad/--no-vad", help="Leave silence undecoded (streaming/gate.py).")
]
Seed = Annotated[int | None, typer.Option(help="The recipe's by default.")]
DecodingMethod = Annotated[
    str, typer.Option(help="greedy_search, or modified_beam_search of several hypotheses.")
]
MaxActivePaths = Annotated[int, typer.Option(help="Hypotheses that a beam search keeps.")]
HotwordsFile = Annotated[
    Path | None,
    typer.Option(help="Phrases to expect, one a line; a score may follow, as in PHRASE :2.0"),
]
HotwordsScore = Annotated[float, typer.Option(help="Nats a token of phrases without a score.")]
Lm = Annotated[
    Path | None,
    typer.Option(help="n-gram model over the bundle's pieces: lm.arpa of compress train-lm."),
]
LmWeight = Annotated[float, typer.Option(help="How much of a say --lm has.")]
BlankPenalty = Annotated[float, typer.Option(help="Nats off blank: more words, also wrong ones.")]
Distill = Annotated[
    str | None, typer.Option(help="Methods and weights, as in lattice=1.0; none for none.")
]


def build_run_config(
    teacher: Path,
    recipe: str,
    data: list[str] | None = None,
    noise: Path | None = None,
    exclude: list[str] | None = None,
    target_size: str | None = None,
    changes: dict[str, Any] | None = None,
    **settings: Any,
) -> RunConfig:
    """What a run does: the recipe, with what the command line says on top.

    changes: of the recipe, None for what was not said. settings: RunConfig's own.
    Raises InputError for anything that cannot be asked for.
    """
    from compress.config import RunConfig, RunRecipe, read_recipe, validate
    from compress.shrink.schedule import check_sparsity
    from compress.sizing import parse_size

    changes = {name: value for name, value in (changes or {}).items() if value is not None}
    if "sparsity" in changes:
        check_sparsity(changes["sparsity"])
    if "sparsity" in changes and (target_size or settings.get("target_rtf")):
        raise InputError("--sparsity and a target are two budgets: give one of them")
    if exclude:
        changes["exclude"] = exclude
    config = validate(
        RunConfig,
        {
            "teacher": str(teacher.resolve()),
            "data": [str(Path(spec).resolve()) for spec in data or []],
            "noise": str(noise.resolve()) if noise else None,
            "target_size": parse_size(target_size) if target_size else None,
            "recipe": read_recipe(recipe, RunRecipe).model_dump() | changes,
            **settings,
        },
        "compress run",
    )
    check_sparsity(config.sparsity)
    _ = config.recipe.lessons  # refuses what cannot be asked for before anything is written
    return config


def name_run(config: RunConfig) -> str:
    """channel-0.9, block-800000-bytes, unstructured-rtf-0.02."""
    budget = f"{config.sparsity:g}"
    if config.target_size:
        budget = f"{config.target_size}-bytes"
    if config.target_rtf:
        budget = f"rtf-{config.target_rtf:g}"
    return f"{config.pattern.replace(':', '-')}-{budget}"


def choose_folder(name: str, resume: bool) -> Path:
    """runs/NAME, or NAME-2, NAME-3, ...: the first free one, or with `resume` the last taken."""
    runs = Path("runs")
    number = 1
    while (runs / numbered(name, number)).exists():
        number += 1
    return runs / numbered(name, max(1, number - 1) if resume else number)


def numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def takes_decoding(command: Callable[..., None]) -> Callable[..., None]:
    """A command with **decoding, the options that DecodingSettings are made of."""

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        command(**given)

    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in DECODING.items()
    ]
    wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
    return wrapped


DECODING: dict[str, tuple[Any, Any]] = {
    "decoding_method": (DecodingMethod, "greedy_search"),
    "max_active_paths": (MaxActivePaths, 4),
    "hotwords_file": (HotwordsFile, None),
    "hotwords_score": (HotwordsScore, 1.5),
    "lm": (Lm, None),
    "lm_weight": (LmWeight, 0.3),
    "blank_penalty": (BlankPenalty, 0.0),
}
