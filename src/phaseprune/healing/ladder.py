"""A ladder: several depths of one pruning run healed alike, and the recovery curve they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phaseprune.decision.recovery import (
    Levelling,
    RecoveryCurve,
    find_levelling,
    retained_curve,
    trend,
)
from phaseprune.decision.tests import holm
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.healing.heal import check_name, heal_step
from phaseprune.healing.recipe import Recipe
from phaseprune.healing.result import Healing, read_healing
from phaseprune.healing.sources import Sources, prepare_sources
from phaseprune.progress import Progress, silent
from phaseprune.runs.atomic import read_json, write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.result import Result, bounds, draw, number


@dataclass(frozen=True, repr=False)
class Ladder(Result):
    """Several depths of one pruning run, healed alike.

    Attributes:
        healed: ``[D][S]`` the healed models, a row a depth in the order asked for, a column a seed.
        blocks: L, of the full model.
        path: where its summary is.
        state: ``new``, ``resumed`` or ``finished`` before.
    """

    healed: tuple[tuple[Healing, ...], ...]
    blocks: int
    path: str
    state: str = "new"

    @property
    def first(self) -> list[Healing]:
        """One model a depth, of the first seed."""
        return [row[0] for row in self.healed]

    @property
    def depths(self) -> np.ndarray:
        """``[D]`` blocks that remain."""
        return np.array([len(healing.kept) for healing in self.first])

    @cached_property
    def before(self) -> RecoveryCurve | None:
        """Retained before healing."""
        return self._curve([[row[0].before.correct] for row in self.healed])

    @cached_property
    def after(self) -> RecoveryCurve | None:
        """Retained after it."""
        return self._curve([[healing.after.correct for healing in row] for row in self.healed])

    def _curve(self, correct: list[list[np.ndarray]]) -> RecoveryCurve | None:
        one = self.first[0]
        return retained_curve(np.array(correct), one.full_correct, one.chances, one.seed)

    @cached_property
    def p_values(self) -> np.ndarray:
        """``[D]`` of the change of accuracy at each depth, adjusted over the depths (Holm).

        McNemar's; of several seeds the largest, so that each of them must show the change.
        """
        return holm([max(healing.change.p_value for healing in row) for row in self.healed])

    @cached_property
    def levelling(self) -> Levelling:
        """The remaining depth at which the curve after healing levels off."""
        if self.after is None:
            return Levelling(
                found=False,
                reason="the full model is not above chance, so there is no retained accuracy",
            )
        return find_levelling(self.depths.tolist(), self.after)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        one = self.first[0]
        rows = [self._row(number, row) for number, row in enumerate(self.healed)]
        slope, bounds = trend(self.depths, self.after) if self.after else (None, None)
        return {
            "blocks": self.blocks,
            "questions": len(one.full_correct),
            "chance": float(one.chances.mean()),
            "full_accuracy": float(one.full_correct.mean()),
            "seeds": [healing.recipe["seed"] for healing in self.healed[0]],
            "recipe": one.recipe,
            "depths": rows,
            "trend": {"slope": slope, "ci": list(bounds) if bounds else None},
            "levelling": self.levelling.to_dict(),
            "path": self.path,
        }

    def _row(self, number: int, row: tuple[Healing, ...]) -> dict[str, Any]:
        one = row[0]
        return {
            "step": one.step,
            "remaining": len(one.kept),
            "pruned_share": len(one.removed) / self.blocks,
            "removed": one.removed,
            "accuracy_before": float(one.before.correct.mean()),
            "accuracy_after": float(np.mean([h.after.correct.mean() for h in row])),
            "decision_margin_before": float(one.before.margins[:, -1].mean()),
            "decision_margin_after": float(np.mean([h.after.margins[:, -1].mean() for h in row])),
            "readouts": one.before.margins.shape[1],
            "readouts_higher": len(one.margin_change.higher),
            "readouts_lower": len(one.margin_change.lower),
            "retained_before": _point(self.before, number),
            "retained_after": _point(self.after, number),
            "p_value": float(self.p_values[number]),
            "best_steps": [h.training["best_step"] for h in row],
            "max_abs_logit_difference": max(h.export["max_abs_logit_difference"] for h in row),
            "paths": [h.path for h in row],
        }

    def plot(self):
        """A matplotlib figure of retained accuracy against remaining depth."""
        return draw("recovery_figure", self.to_dict())

    def _lines(self) -> list[str]:
        one, levelling = self.first[0], self.levelling
        lines = [
            f"{len(self.healed)} depths of {self.blocks} blocks, {len(self.healed[0])} "
            f"{'seed' if len(self.healed[0]) == 1 else 'seeds'} "
            f"({len(one.full_correct)} questions; {one.recipe['method']}, "
            f"{one.recipe['objective']})"
        ]
        if self.before is not None and self.after is not None:
            lines += [
                f"{len(healing.kept)} blocks remain: retained {number(before)} -> {number(after)}"
                for healing, before, after in zip(
                    self.first, self.before.values, self.after.values, strict=True
                )
            ]
        at = "levels off" if levelling.found else f"no levelling off: {levelling.reason}"
        return [*lines, at]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a depth."""
        rows = []
        for place, row in enumerate(self.healed):
            told = self._row(place, row)
            before, after = told.pop("retained_before"), told.pop("retained_after")
            left = {
                "remaining": told.pop("remaining"),
                "retained_before": before["value"],
                "retained_after": after["value"],
                **bounds("retained_after", after["ci"]),
                "p_value": told.pop("p_value"),
            }
            rows.append(left | {k: v for k, v in told.items() if not isinstance(v, list)})
        return rows


def read_healing_ladder(run: RunDirectory) -> Ladder:
    """What a finished directory of ``heal --ladder`` holds, beside the healings that it names."""
    content = read_json(run.path / "ladder.json")
    beside = run.path.resolve().parent
    healed = tuple(
        tuple(read_healing(RunDirectory(beside / Path(path).name)) for path in depth["paths"])
        for depth in content["depths"]
    )
    return Ladder(healed, content["blocks"], content["path"], "finished")


def heal_ladder(
    run: str | Path,
    ladder: Sequence[int],
    *,
    seeds: int = 1,
    train: str | Path | None = None,
    text: str | Path | None = None,
    drop_overlap: bool = False,
    name: str | None = None,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    blocks: str | None = None,
    full: Decoder | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
    **recipe: Any,
) -> Ladder:
    """Heal several depths of a pruning run alike.

    Args:
        run: the directory of a finished ``prune``.
        ladder: steps of the run; 0 is the full model, fine-tuned likewise for comparison.
        seeds: how many seeds each depth is healed with, from ``seed`` on.
        train: as of ``heal``, like all that follow.
        text: see there.
        drop_overlap: see there.
        name: of the directory of the summary, RUN/heal/NAME.
        model: see there.
        device: see there.
        dtype: see there.
        revision: see there.
        trust_remote_code: see there.
        blocks: see there.
        full: the run's base model where it is loaded already, whole in memory; by default it is
            loaded, as named by the run.
        arguments: see there.
        progress: told of each step of all models together.
        **recipe: see there.

    Raises:
        UserError: as ``heal``, or a ladder that does not do.
    """
    sources = prepare_sources(
        run,
        Recipe(**recipe),
        train=train,
        text=text,
        drop_overlap=drop_overlap,
        model=model,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        blocks=blocks,
    )
    steps = list(ladder)
    _check_ladder(sources, steps, seeds)
    check_name(name)
    identity = _identity(sources, steps, seeds)
    folder = sources.run.directory.path / "heal" / (name or _default_name(identity))
    directory = RunDirectory(folder)
    loaded = [] if full is None else [full]
    with directory.open(identity, {"arguments": arguments}) as state:
        members = len(steps) * seeds
        rows = []
        for number, step in enumerate(steps):
            row = []
            for seed in range(seeds):
                place = number * seeds + seed
                one = replace(sources, recipe=replace(sources.recipe, seed=_seed(sources, seed)))
                row.append(
                    heal_step(
                        one,
                        step,
                        arguments=arguments,
                        full=loaded,
                        progress=_among(progress, place, members),
                        label=f"healing {members} models",
                    )
                )
            rows.append(tuple(row))
        result = Ladder(tuple(rows), sources.run.blocks, str(folder), state)
        write_json(folder / "ladder.json", result.to_dict())
        directory.update(status="finished")
    return result


def _check_ladder(sources: Sources, steps: list[int], seeds: int) -> None:
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1 and is {seeds}")
    if len(steps) < 2:
        raise UserError("--ladder needs at least two steps, as 2,4,6; for one give --step")
    if len(set(steps)) < len(steps):
        raise UserError(f"--ladder names a step twice: {', '.join(map(str, steps))}")
    for step in steps:
        sources.run.check_step(step)


def _seed(sources: Sources, number: int) -> int:
    return sources.recipe.seed + number


def _among(progress: Progress, place: int, members: int) -> Callable[[str, float, float], None]:
    """Progress of one model as that of all; what early stopping saves is skipped at once."""

    def tell(label: str, done: float, total: float) -> None:
        progress(label, place * total + done, members * total)

    return tell


def _identity(sources: Sources, steps: list[int], seeds: int) -> dict[str, Any]:
    manifest = sources.run.manifest
    return {
        "command": "heal --ladder",
        "model": manifest["model"],
        "task": manifest["task"],
        "prompt_format": manifest["prompt_format"],
        "seed": sources.recipe.seed,
        "options": {"ladder": steps, "seeds": seeds} | sources.identity,
    }


def _default_name(identity: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    return f"ladder-{identity['options']['method']}-{identity['options']['objective']}-{digest}"


def _point(curve: RecoveryCurve | None, number: int) -> dict[str, Any]:
    if curve is None:
        return {"value": None, "ci": None}
    return {"value": float(curve.values[number]), "ci": curve.ci[:, number].tolist()}
