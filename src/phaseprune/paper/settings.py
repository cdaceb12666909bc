"""How large the experiments of ``paper`` are: defaults, checks, and configurations in YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.errors import UserError, near_matches
from phaseprune.heal.recipe import Recipe, check_recipe
from phaseprune.probes.ablation import check_kind
from phaseprune.probes.perturbation import (
    DEFAULT_NOISE,
    DEFAULT_SEEDS,
    check_seeds,
    noise_levels,
)
from phaseprune.search.method import search_options
from phaseprune.search.objectives import check_objective
from phaseprune.search.phasewise import check_draws
from phaseprune.search.stopping import stop_rule

#: In the order in which they are run: the order of the paper, heal last as it is the longest.
EXPERIMENTS = ("trace", "lens", "prune", "similarity", "perturb", "ablate", "phasewise", "heal")
#: What an experiment needs to have been run before: the phases, or the pruned models.
NEEDS = {
    "prune": "trace", "perturb": "trace", "ablate": "trace", "phasewise": "trace",
    "similarity": "prune", "heal": "prune",
}  # fmt: skip
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


def resolve(settings: Settings, blocks: int) -> Settings:
    """Settings with the defaults that depend on the number of blocks, checked.

    Raises:
        UserError: a value that no experiment takes.
    """
    for name in settings.skip:
        if name not in EXPERIMENTS:
            raise UserError(
                f"--skip {name!r} is no experiment; there are {', '.join(EXPERIMENTS)}."
                + near_matches(name, EXPERIMENTS)
            )
    for name, needed in NEEDS.items():
        if needed in settings.skip and name not in settings.skip:
            raise UserError(f"--skip {needed}: {name} needs its run; skip {name} too")
    if not settings.experiments:
        raise UserError("--skip names every experiment, and none is left to run")
    if settings.probe < 2:
        raise UserError(f"--probe {settings.probe}: an interval over questions needs at least 2")
    check_objective(settings.objective)
    if settings.objective == "text_loss":
        raise UserError("--objective text_loss chooses by plain text; paper chooses by questions")
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


def read_configuration(path: Path, known: Sequence[str], of_tasks: Sequence[str]) -> Configuration:
    """Read a configuration: ``model``, ``tasks`` and any of the command's options.

    Args:
        path: the YAML file.
        known: names of options that may stand in it.
        of_tasks: those of them that a single task may have.

    Raises:
        UserError: it cannot be read, or says something that the command does not know.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path}: cannot be read as YAML ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `model:`, `tasks:` and options by name")
    given = {str(name).replace("-", "_"): value for name, value in content.items()}
    tasks = given.pop("tasks", {})
    model = given.pop("model", None)
    if isinstance(tasks, list):
        tasks = dict.fromkeys(tasks)
    if not isinstance(tasks, dict):
        raise UserError(f"--config {path}: `tasks:` must be a list of tasks, or tasks with options")
    tasks = {
        str(task): {str(k).replace("-", "_"): v for k, v in (own or {}).items()}
        for task, own in tasks.items()
    }
    for where, names, allowed in (
        ("", given, known),
        *((f" of {task}", own, of_tasks) for task, own in tasks.items()),
    ):
        for name in names:
            if name not in allowed:
                raise UserError(
                    f"--config {path}: unknown option {name!r}{where}."
                    + near_matches(name, allowed)
                )
    return Configuration(model, tasks, given)


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The settings among options; those that are None are left at their defaults.

    Raises:
        UserError: a value of another kind than the setting's.
    """
    found: dict[str, Any] = {}
    for one in fields(Settings):
        value = options.get(one.name)
        if value is not None:
            found[one.name] = _checked(one.name, str(one.type), value)
    return Settings(**found)


def _checked(name: str, kind: str, value: Any) -> Any:
    """A value of a configuration as the setting takes it; lists may be written ``a,b`` too."""
    option = "--" + name.replace("_", "-")
    if kind.startswith("tuple"):
        parts = value if isinstance(value, list | tuple) else str(value).split(",")
        of = {"int": int, "float": float, "str": str}[kind.removeprefix("tuple[").split(",")[0]]
        try:
            return tuple(of(part.strip() if isinstance(part, str) else part) for part in parts)
        except (TypeError, ValueError):
            raise UserError(f"{option} must be a list such as 2,4,6 and is {value!r}") from None
    if kind.startswith("int"):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{option} must be a whole number and is {value!r}")
        return value
    return str(value)
