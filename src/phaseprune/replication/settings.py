"""How large the experiments of ``paper`` are: defaults, checks, and configurations in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.errors import UserError, near_matches
from phaseprune.healing.recipe import Recipe, check_recipe
from phaseprune.methods.choice import search_options
from phaseprune.methods.objectives import check_objective
from phaseprune.option_types import check_options, checked, option_types
from phaseprune.probes.ablation import check_kind
from phaseprune.probes.perturbation import (
    DEFAULT_NOISE,
    DEFAULT_SEEDS,
    check_seeds,
    noise_levels,
)
from phaseprune.probes.phasewise import check_draws
from phaseprune.pruning.stopping import stop_rule
from phaseprune.questions.catalog import load_task
from phaseprune.questions.schemas import parse_columns

#: In the order in which they are run: the order of the paper, heal last as it is the longest.
EXPERIMENTS = ("trace", "lens", "prune", "similarity", "perturb", "ablate", "phasewise", "heal")
#: What an experiment needs to have been run before: the phases, or the pruned models.
NEEDS = {
    "prune": "trace",
    "perturb": "trace",
    "ablate": "trace",
    "phasewise": "trace",
    "similarity": "prune",
    "heal": "prune",
}
#: Share of the blocks that Iterative Pruning removes: far enough to see a model collapse.
REMOVED_SHARE = 0.8
#: Depths that are healed: a knot in the recovery curve needs at least five.
DEPTHS = 6


@dataclass(frozen=True)
class Settings:
    """How large the experiments are, of one task.

    Attributes:
        calibration: questions that blocks are chosen on; by default a third, at most 64.
        evaluation: other questions that pruning and healing report on; by default all others.
        probe: how many of these ``perturb`` and ``ablate`` use.
        remove: blocks that Iterative Pruning removes; by default 0.8 of them.
        objective: that it chooses by.
        search: ``exact`` or ``racing``.
        noise: variances of ``perturb``.
        noise_seeds: its draws.
        ablation: kind of ``ablate``.
        draws: sets of ``phasewise`` of each kind and number of blocks.
        most: its largest number of blocks removed at once; at most the smaller phase's, which is
            the default.
        ladder: steps of the pruning run that are healed; None for six depths, evenly spread.
        heal_steps: optimiser steps of each.
        heal_batch: questions a step.
        heal_seeds: seeds of each depth.
        train: a file of training questions; by default the task's own.
        skip: experiments that are left out.
    """

    calibration: int | None = None
    evaluation: int | None = None
    probe: int = 100
    remove: int | None = None
    objective: str = "decision_margin"
    search: str = "exact"
    noise: tuple[float, ...] = DEFAULT_NOISE
    noise_seeds: int = DEFAULT_SEEDS
    ablation: str = "mean"
    draws: int = 10
    most: int | None = None
    ladder: tuple[int, ...] | None = None
    heal_steps: int = 200
    heal_batch: int = 32
    heal_seeds: int = 1
    train: str | None = None
    skip: tuple[str, ...] = ()

    @property
    def experiments(self) -> tuple[str, ...]:
        """Those that are run, in order."""
        return tuple(name for name in EXPERIMENTS if name not in self.skip)

    @property
    def recipe(self) -> dict[str, Any]:
        """Of healing, for ``heal_ladder``."""
        return {"steps": self.heal_steps, "batch": self.heal_batch}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def resolve(settings: Settings, blocks: int) -> Settings:  # noqa: C901
    """Settings with the defaults that depend on the number of blocks, checked.

    Raises:
        UserError: a value that no experiment takes.
    """
    check_options(Settings, vars(settings))
    for name in settings.skip:
        if name not in EXPERIMENTS:
            raise UserError(
                f"--skip={name!r} is no experiment; there are {', '.join(EXPERIMENTS)}."
                + near_matches(name, EXPERIMENTS)
            )
    for name, needed in NEEDS.items():
        if needed in settings.skip and name not in settings.skip:
            raise UserError(f"--skip={needed}: {name} needs its run; skip {name} too")
    if not settings.experiments:
        raise UserError("--skip names every experiment, and none is left to run")
    if settings.probe < 2:
        raise UserError(f"--probe={settings.probe}: an interval over questions needs at least 2")
    check_objective(settings.objective)
    if settings.objective == "text_loss":
        raise UserError("--objective=text_loss chooses by plain text; paper chooses by questions")
    search_options(settings.search)
    check_seeds(settings.noise_seeds)
    check_kind(settings.ablation)
    check_draws(settings.draws, settings.most)
    check_recipe(Recipe(**settings.recipe))
    if settings.heal_seeds < 1:
        raise UserError(f"--heal-seeds must be at least 1 and is {settings.heal_seeds}")
    remove = settings.remove
    if remove is None:
        remove = min(blocks - 1, max(1, round(REMOVED_SHARE * blocks)))
    remove = stop_rule(blocks, remove).most
    ladder = settings.ladder or _spread(remove)
    if "heal" in settings.experiments:
        _check_ladder(ladder, remove)
    return replace(
        settings, remove=remove, ladder=tuple(ladder), noise=noise_levels(settings.noise)
    )


def _spread(remove: int) -> tuple[int, ...]:
    """Steps whose depths are evenly spread, the last one among them."""
    steps = np.linspace(remove / DEPTHS, remove, DEPTHS).round().astype(int)
    return tuple(sorted({*steps.tolist()} - {0}))


def _check_ladder(ladder: Sequence[int], remove: int) -> None:
    if len(ladder) < 2 or len(set(ladder)) < len(ladder):
        raise UserError("--ladder needs at least two steps, no step twice, as 2,4,6")
    for step in ladder:
        if not 0 <= step <= remove:
            raise UserError(
                f"--ladder names step {step}, and the search has steps 0 to {remove}; name others "
                "or raise --remove"
            )


@dataclass(frozen=True)
class Configuration:
    """What a YAML file says: a model, tasks, and settings of all or of single tasks.

    ``tasks`` is task -> its own options; ``options`` are those of all tasks and of the model.
    """

    model: str | None = None
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def configured_types() -> dict[str, Any]:
    """Every option that a configuration may hold with its type, from the functions that take it.

    Settings may be left open, as on the command line.
    """
    from phaseprune.decoder.load import load_model

    settings = {name: kind | None for name, kind in option_types(Settings).items()}
    whole = {"out": str | Path, "seed": int}  # as of ``paper``
    return whole | option_types(load_model) | option_types(load_task) | settings


def read_configuration(path: Path, known: Sequence[str], of_tasks: Sequence[str]) -> Configuration:
    """Read a configuration: ``model``, ``tasks`` and any of the command's options.

    Args:
        path: the YAML file.
        known: names of options that may stand in it.
        of_tasks: those of them that a single task may have.

    Raises:
        UserError: it cannot be read, says something that the command does not know, or gives an
            option a value of another type than it takes.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {path}: there is no such file") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path}: cannot be read as YAML ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `model:`, `tasks:` and options by name")
    given = _by_name(path, "", content)
    tasks = given.pop("tasks", {})
    model = checked(f"--config {path}: `model`", str | None, given.pop("model", None))
    if not isinstance(tasks, list | dict):
        raise UserError(f"--config {path}: `tasks:` must be a list of tasks, or tasks with options")
    for task in tasks:
        checked(f"--config {path}: a name in `tasks:`", str, task)
    if len(set(tasks)) < len(tasks):
        twice = next(task for task in tasks if tasks.count(task) > 1)
        raise UserError(f"--config {path} names the task {twice} twice; name each task once")
    if isinstance(tasks, list):
        tasks = dict.fromkeys(tasks)
    kinds = configured_types()
    given = _checked_options(path, "", given, known, kinds)
    own = {
        task: _checked_options(
            path, f" of {task}", _by_name(path, f" of {task}", options), of_tasks, kinds
        )
        for task, options in tasks.items()
    }
    return Configuration(model, own, given)


def _by_name(path: Path, where: str, options: Any) -> dict[str, Any]:
    """Options by their names in Python; YAML has ``heal-steps`` or ``heal_steps``."""
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise UserError(
            f"--config {path}: the options{where} must be names with values, as "
            f"{{limit: 100}}, and are {options!r}"
        )
    found: dict[str, Any] = {}
    for written, value in options.items():
        name = str(written).replace("-", "_")
        if name in found:
            raise UserError(f"--config {path}: the option {name!r}{where} stands there twice")
        found[name] = value
    return found


def _checked_options(
    path: Path,
    where: str,
    given: Mapping[str, Any],
    allowed: Sequence[str],
    kinds: Mapping[str, Any],
) -> dict[str, Any]:
    """Options as their functions take them."""
    for name in given:
        if name not in allowed:
            raise UserError(
                f"--config {path}: unknown option {name!r}{where}." + near_matches(name, allowed)
            )
    found = {
        name: checked(f"--config {path}: `{name}`{where}", kinds[name], value)
        for name, value in given.items()
    }
    try:
        parse_columns(found.get("columns"))
    except UserError as error:
        raise UserError(f"--config {path}: `columns`{where}: {error.typed}") from None
    return found


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The settings among options; those that are None are left at their defaults.

    Raises:
        UserError: a value of another type than the setting's.
    """
    return Settings(
        **{
            name: checked("--" + name.replace("_", "-"), kind, options[name])
            for name, kind in option_types(Settings).items()
            if options.get(name) is not None
        }
    )
