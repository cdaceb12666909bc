"""What is found of pruned models beside a full one, and how it follows from the minibatches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from phaseprune.decision.collapse import Retained, retained
from phaseprune.decision.decisions import Decisions, decision_representation
from phaseprune.decision.intervals import Interval, bootstrap_mean, wilson
from phaseprune.decision.similarity import Alike, Minibatches, compare
from phaseprune.decision.tests import holm
from phaseprune.decoder.decoder import Decoder
from phaseprune.probes.minibatches import Seen
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import read_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.runs.plain import rebuilt
from phaseprune.runs.result import Result, draw, named, number, of_interval, with_bounds
from phaseprune.sweep.measure import Prepared

#: Level of the test of the gap, after Holm's correction over the pruned models.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model beside the full one.

    ``removed`` is in order of removal. ``gap_p_holm`` is the p-value of "CKA and the decisions'
    similarity beyond chance do not differ at the output", adjusted for the number of models.
    """

    removed: tuple[int, ...]
    alike: Alike
    accuracy: float
    accuracy_ci: tuple[float, float]
    decision_margin: float
    decision_margin_ci: tuple[float, float]
    retained: Retained
    gap_p_holm: float

    @property
    def more_alike(self) -> str | None:
        """``states`` or ``decisions``, whichever are significantly more alike; None for neither."""
        if not self.gap_p_holm < SIGNIFICANCE:
            return None
        return "states" if self.alike.gap.mean > 0 else "decisions"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {f.name: _plain(getattr(self.alike, f.name)) for f in fields(Alike)}
        return {
            "removed": list(self.removed),
            "accuracy": self.accuracy,
            "accuracy_ci": list(self.accuracy_ci),
            "decision_margin": self.decision_margin,
            "decision_margin_ci": list(self.decision_margin_ci),
            "retained": self.retained.value,
            "retained_ci": list(self.retained.ci) if self.retained.ci else None,
            "collapsed": self.retained.collapsed,
            **found,
            "gap_p_holm": _plain(np.float64(self.gap_p_holm)),
            "more_alike": self.more_alike,
        }


@dataclass(frozen=True, repr=False)
class Similarity(Result):
    """Pruned models beside the full one, on the same questions.

    ``minibatch`` is the number of questions of the smallest minibatch, ``full`` the full model's
    accuracy and Decision Margin, ``run`` the run of ``prune`` whose steps ``models`` are.
    """

    model: str
    task: str
    scoring: str
    questions: int
    blocks: int
    minibatches: int
    minibatch: int
    chance: float
    full: dict[str, Any]
    models: tuple[PrunedModel, ...]
    run: str | None = None
    chosen_step: int | None = None
    block_passes: int = 0
    state: str = field(default="new", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``similarity.json``: plain JSON values."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "state"}
        return own | {"models": [model.to_dict() for model in self.models]}

    def plot(self):
        """A matplotlib figure: similarity by removed blocks, or by readout of a single model."""
        return draw("similarity_figure", self.to_dict())

    def _lines(self) -> list[str]:
        last = self.models[-1]
        alike = last.alike
        telling = {
            "states": "states are the more alike",
            "decisions": "decisions are the more alike",
            None: "neither is significantly more alike",
        }
        return [
            f"{self.model} on {self.task} ({self.questions} questions, {self.scoring}), "
            f"{len(self.models)} pruned {'model' if len(self.models) == 1 else 'models'}",
            f"without {named(last.removed)}: CKA at the output {number(alike.cka_output.mean)}, "
            f"decisions beyond chance {number(alike.js_beyond_chance.mean)} "
            f"({telling[last.more_alike]})",
            f"retained {with_bounds(last.retained.value, last.retained.ci)}",
        ]

    def _rows(self) -> list[dict[str, Any]]:
        """A row a pruned model."""
        return [
            {
                "removed_blocks": len(one.removed),
                "removed": list(one.removed),
                "accuracy": one.accuracy,
                "retained": one.retained.value,
                **of_interval("cka_output", one.alike.cka_output, ()),
                **of_interval("js_beyond_chance", one.alike.js_beyond_chance, ()),
                **of_interval("gap", one.alike.gap, ()),
                "gap_p_holm": one.gap_p_holm,
                "more_alike": one.more_alike,
                "decision_margin": one.decision_margin,
            }
            for one in self.models
        ]


def read_similarity(run: RunDirectory) -> Similarity:
    """What a finished run holds."""
    content = read_json(run.path / "similarity.json")
    models = tuple(_read_model(one) for one in content["models"])
    full = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["full"].items()
    }
    return Similarity(**content | {"models": models, "full": full, "state": "finished"})


def _read_model(content: dict[str, Any]) -> PrunedModel:
    left = {"value": content["retained"], "ci": content["retained_ci"]}
    return rebuilt(PrunedModel, content | {"alike": content, "retained": left})


def summarize(
    decoder: Decoder,
    task: Task,
    prepared: Sequence[Prepared],
    members: Sequence[np.ndarray],
    seen: Sequence[Seen],
    removals: Sequence[Sequence[int]],
    seed: int,
) -> Similarity:
    """What the minibatches come to.

    Args:
        decoder: the full model.
        task: all questions.
        prepared: of each minibatch,
        members: positions of its questions,
        seen: and what was taken of it.
        removals: the blocks that each pruned model leaves out.
        seed: of the bootstrap over questions.
    """
    decided = [
        _together(
            task, [p.decide(s.scores[model]) for p, s in zip(prepared, seen, strict=True)], members
        )
        for model in range(1 + len(removals))
    ]
    full, chances = decided[0], 1 / task.options
    alike = [
        _compare(task, members, seen, number, removed, full, decided[number], seed)
        for number, removed in enumerate(removals, start=1)
    ]
    adjusted = np.array([one.gap_p_value for one in alike])
    defined = ~np.isnan(adjusted)
    adjusted[defined] = holm(adjusted[defined])
    models = [
        PrunedModel(
            removed=tuple(removed),
            alike=one,
            **_output(own, seed),
            retained=retained(own.correct[:, -1], full.correct[:, -1], chances),
            gap_p_holm=float(p_value),
        )
        for removed, one, own, p_value in zip(removals, alike, decided[1:], adjusted, strict=True)
    ]
    return Similarity(
        model=decoder.name,
        task=task.name,
        scoring=task.scoring,
        questions=len(task.questions),
        blocks=len(decoder.blocks),
        minibatches=len(members),
        minibatch=min(map(len, members)),
        chance=float(chances.mean()),
        full=_output(full, seed),
        models=tuple(models),
    )


def _compare(
    task: Task,
    members: Sequence[np.ndarray],
    seen: Sequence[Seen],
    number: int,
    removed: Sequence[int],
    full: Decisions,
    own: Decisions,
    seed: int,
) -> Alike:
    """Pruned model ``number`` (from 1) beside the full one."""
    hsic = Minibatches(
        np.stack([one.cross[number - 1] for one in seen]),
        np.stack([one.own[0] for one in seen]),
        np.stack([one.own[number] for one in seen]),
        tuple(members),
    )
    blocks = hsic.full.shape[1] - 1
    readouts = np.array([0, *(block + 1 for block in range(blocks) if block not in removed)])
    # Over the options also where label probabilities have the vocabulary as support.
    p, q = (decision_representation(decisions.scores) for decisions in (full, own))
    return compare(hsic, p, q, task.options, readouts, min(removed), seed)


def _together(task: Task, parts: Sequence[Decisions], members: Sequence[np.ndarray]) -> Decisions:
    """Decisions of all questions, in the task's order, from those of the minibatches."""
    readouts = parts[0].scores.shape[1]
    scores = np.full((len(task.questions), readouts, int(task.options.max())), -np.inf)
    given = None if parts[0].given_probabilities is None else np.zeros_like(scores)
    for of, part in zip(members, parts, strict=True):
        width = part.scores.shape[-1]
        scores[of, :, :width] = part.scores
        if given is not None:
            given[of, :, :width] = part.given_probabilities
    return Decisions(scores, task.gold, task.options, given, parts[0].letters, task.exchangeable)


def _output(decisions: Decisions, seed: int) -> dict[str, Any]:
    """Accuracy and Decision Margin at the output, with their intervals."""
    correct, margins = decisions.correct[:, -1], decisions.margins[:, -1]
    return {
        "accuracy": float(correct.mean()),
        "accuracy_ci": tuple(wilson(correct.sum(), len(correct)).tolist()),
        "decision_margin": float(margins.mean()),
        "decision_margin_ci": tuple(bootstrap_mean(margins, seed).tolist()),
    }


def _plain(value: Any) -> Any:
    """Plain JSON values of arrays and intervals; None for NaN."""
    if isinstance(value, Interval):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(Interval)}
    if np.isnan(value).any():
        return np.where(np.isnan(value), None, value).tolist()
    return np.asarray(value).tolist()
