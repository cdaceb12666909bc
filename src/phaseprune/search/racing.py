"""Racing: the candidates of a step on growing chunks of the questions (or windows of plain text).

The statistics are those of ``decision.racing``. Questions are drawn in random order, one by one and
not by groups: a sample of groups would not be one of questions. Where that is faster, a race is run
with matrix products of fewer digits; the best two are then looked at again with all digits, and
most of the tolerance is kept back for what that shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from phaseprune.decision.racing import LEAST, Race, looks, mean_bound
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.search.judge import Judge
from phaseprune.search.objectives import SIGNS
from phaseprune.sweep.kept import Kept, counted_passes
from phaseprune.sweep.memory import kept_budget, stream_bytes
from phaseprune.sweep.walk import sweep_scores

#: Figures of a question are kept, and compared, with so many digits behind the point.
DIGITS = 6
#: New units of a look, at least: a window of text says more than a question.
LEAST_OF = {"questions": LEAST, "windows": 4}
#: Chunks may repeat so much of what their questions share, else all are run at once.
REPEATED = 0.1
#: Share of the tolerance that is kept back where products have fewer digits; the race itself saves
#: hardly less with little of it.
KEPT_BACK = 0.75


@dataclass
class Chunk:
    """The questions that a look adds, their share of the tokens of all, and their states."""

    judge: Judge
    share: float
    kept: Kept


@dataclass
class Racing:
    """What races of one search have in common, and what they hand on.

    Attributes:
        options: of ``method.search_options``.
        objective: a name in ``objectives.SIGNS``.
        chunks: one a look.
        again: the questions on which the best two are looked at with all digits.
        ends: how many questions each look has seen.
        a_stream: bytes of one stream over all questions.
        exact: what the exact search would have kept, for comparison.
        products: dtype of the matrix products, None for the model's own.
        earlier: by block, the figures of the step that saw most questions, the last of these.
    """

    options: dict[str, Any]
    objective: str
    chunks: Sequence[Chunk]
    again: Chunk
    ends: list[int]
    a_stream: int
    exact: Kept
    products: torch.dtype | None = None
    earlier: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """What the race itself may lose."""
        whole = self.options["tolerance"]
        return whole if self.products is None else (1 - KEPT_BACK) * whole

    def race(self, live: Sequence[int]) -> Race:
        """The race of a step."""
        before = np.full((len(live), self.ends[-1]), np.nan)
        for row, block in zip(before, live, strict=True):
            known = self.earlier.get(block, ())
            row[: len(known)] = known
        return Race(before, self.options["alpha"], self.tolerance, self.ends)

    def exact_passes(self, live: Sequence[int]) -> int:
        """Block passes that the exact search would take for a step."""
        return counted_passes(self.exact, live, live, self.a_stream)

    def learn(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take what a step's lines of ``candidates.jsonl`` say, for the next one.

        Figures of two steps are never mixed in one candidate: what is known would then differ
        between questions that are seen and questions that are not by more than chance.
        """
        lines = sorted(lines, key=lambda line: line["block"])
        self.exact_passes([line["block"] for line in lines])
        for line in lines:
            values = np.array(line["values"])
            if len(values) >= len(self.earlier.get(line["block"], ())):
                self.earlier[line["block"]] = values
            if line["products"] is None:
                self.with_all_digits()

    def with_all_digits(self) -> None:
        """From now on, matrix products as the model has them."""
        if self.products is not None:
            self.products = None
            for chunk in self.chunks:
                chunk.kept = Kept(chunk.kept.budget)


def make_racing(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    options: dict[str, Any],
    seed: int,
    products: torch.dtype | None = None,
) -> Racing:
    """Lay out the chunks.

    Args:
        decoder: the model.
        judge: of all questions, or windows.
        objective: what candidates are judged by.
        options: of ``method.search_options``.
        seed: of the order in which questions are drawn.
        products: dtype of the matrix products, None for the model's own.
    """
    rows, least = judge.rows, LEAST_OF[judge.unit]
    order = np.random.default_rng([seed, 1]).permutation(judge.count)
    ends = looks(judge.count, least)
    parts = _parts(judge, order, ends)
    if sum(part.rows.tokens for part in parts) > (1 + REPEATED) * rows.tokens:
        ends = [judge.count]
        parts = _parts(judge, order, ends)
    tokens, budget = sum(part.rows.tokens for part in parts), kept_budget(decoder, rows)
    chunks = [
        Chunk(part, part.rows.tokens / rows.tokens, Kept(budget * part.rows.tokens // tokens))
        for part in parts
    ]
    again = judge.part(order[:least])
    return Racing(
        options, objective, chunks, Chunk(again, again.rows.tokens / rows.tokens, Kept(0)), ends,
        stream_bytes(decoder, rows.padded_tokens), Kept(budget), products,
    )  # fmt: skip


def _parts(judge: Judge, order: np.ndarray, ends: Sequence[int]) -> list[Judge]:
    pairs = zip([0, *ends], ends, strict=False)
    return [judge.part(order[begin:end]) for begin, end in pairs]


def race_candidates(
    decoder: Decoder, racing: Racing, live: Sequence[int], number: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each live block: its figures on the questions it saw.

    ``questions`` (or ``windows``) says how many these are and ``values`` has its objective on each,
    in the order drawn, larger being better; ``dropped`` is the look at which it was given up, None
    for those that were not. The other figures are the whole step's: ``products`` is the dtype of
    the matrix products if it is not the model's, and ``drift`` bounds what that changed between the
    best two candidates.
    """
    began, drift = time.perf_counter(), None
    race, figures, passes = _race(decoder, racing, live, number, progress)
    if racing.products is not None:
        drift, more = _drift(decoder, racing, live, race, number, progress)
        passes += more
        if drift > KEPT_BACK * racing.options["tolerance"]:
            racing.with_all_digits()
            race, figures, more = _race(decoder, racing, live, number, progress)
            passes += more
    block_passes = math.ceil(passes - 1e-9)
    of_step = {
        "block_passes": block_passes,
        "block_passes_saved": racing.exact_passes(live) - block_passes,
        "seconds": round(time.perf_counter() - began, 3),
        "products": str(racing.products).removeprefix("torch.") if racing.products else None,
        "drift": drift,
    }
    unit, lines = racing.again.judge.unit, []
    for block, values, dropped in zip(live, race.values, race.dropped, strict=True):
        known = values[np.isfinite(values)].tolist()
        lines.append(
            {"step": number, "block": block} | figures[block]
            | {unit: len(known), "dropped": dropped, **of_step, "values": known}
        )  # fmt: skip
    return lines


def _race(
    decoder: Decoder, racing: Racing, live: Sequence[int], number: int, progress: Progress
) -> tuple[Race, dict[int, dict[str, float]], float]:
    """A race from its beginning to its end: with it, each block's figures, and block passes."""
    race, passes = racing.race(live), 0.0
    seen: dict[int, list[dict[str, np.ndarray]]] = {block: [] for block in live}
    while not race.over:
        chunk, end = racing.chunks[race.look], racing.ends[race.look]
        blocks = [live[place] for place in race.alive]
        label = f"step {number}: race of {len(blocks)} blocks, {chunk.judge.unit} to {end}"
        found, more = _values(decoder, chunk, live, blocks, racing.products, progress, label)
        passes += more
        for block, figures in zip(blocks, found, strict=True):
            seen[block].append(figures)
        race.see(_objective(racing, found))
    means = {
        block: {name: float(np.concatenate([part[name] for part in parts]).mean())
                for name in parts[0]}
        for block, parts in seen.items()
    }  # fmt: skip
    return race, means, passes


def _values(decoder, chunk: Chunk, live, blocks, products, progress, label):
    """Figures of some candidates on each question of a chunk, and block passes."""
    judge = chunk.judge
    # The head's rounding averages out over a window's hundreds of tokens, not over an option's few.
    head = products if judge.unit == "windows" else None
    sweep = sweep_scores(
        decoder, judge.rows, judge.needs_vocabulary, live, candidates=blocks, kept=chunk.kept,
        products=products, head_products=head, progress=progress, label=label,
    )  # fmt: skip
    found = [judge.by_unit(scores) for scores in sweep.scores]
    return found, sweep.block_passes * chunk.share


def _objective(racing: Racing, figures: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """``[C, n]`` the objective of each candidate on each question, larger is better."""
    sign = SIGNS[racing.objective]
    return np.array([sign * np.round(one[racing.objective], DIGITS) for one in figures])


def _drift(
    decoder: Decoder, racing: Racing, live: Sequence[int], race: Race, number: int,
    progress: Progress,
) -> tuple[float, float]:  # fmt: skip
    """Bound what fewer digits changed in how much better the best is than the second best.

    Returns:
        The upper bound of the change's size on all questions, and block passes.
    """
    means = np.nanmean(race.values, axis=1)
    means[[place for place in range(len(live)) if race.dropped[place] is not None]] -= np.inf
    places = sorted(np.argsort(-means, kind="stable")[:2].tolist())
    blocks = [live[place] for place in places]
    label = f"step {number}: blocks {', '.join(map(str, blocks))} with all digits"
    found, passes = _values(decoder, racing.again, live, blocks, None, progress, label)
    exact = _objective(racing, found)
    change = exact - race.values[places, : exact.shape[1]]
    difference = change[0] - change[-1] if len(blocks) > 1 else change[0]
    return mean_bound(difference, racing.ends[-1], racing.options["alpha"]), passes


def race_of_step(racing: Racing, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What ``steps.jsonl`` says of a race: see ``Step.race``."""
    left = [line for line in lines if line["dropped"] is None]
    unit, first = racing.again.judge.unit, left[0]
    return {
        **racing.options,
        "confidence": 1 - racing.options["alpha"],
        unit: first[unit],
        "left": len(left),
        **{name: first[name] for name in ("block_passes_saved", "products", "drift")},
    }
