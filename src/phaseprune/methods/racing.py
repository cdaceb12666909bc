"""Racing: the candidates of a step on growing chunks of the questions (or windows of plain text).

The statistics are those of ``decision.racing``. Questions are drawn in random order, one by one and
not by groups: a sample of groups would not be one of questions. Where that is faster, a race is run
in reduced precision; the best two are then measured again in full precision, and
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
from phaseprune.methods.judge import (
    Chunk,
    Figures,
    Judge,
    chunk_figures,
    make_chunks,
    on_each,
)
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept, counted_passes
from phaseprune.sweep.memory import kept_budget, stream_bytes

#: New units of a look, at least: a window of text says more than a question.
LEAST_OF = {"questions": LEAST, "windows": 4}
#: Chunks may repeat so much of what their questions share, else all are run at once.
REPEATED = 0.1
#: Share of the tolerance that is kept back in reduced precision; the race itself saves
#: hardly less with little of it.
KEPT_BACK = 0.75


@dataclass
class Racing:
    """What races of one search have in common, and what they hand on.

    Attributes:
        options: of ``choice.search_options``.
        objective: a name in ``objectives.SIGNS``.
        chunks: one a look.
        again: more and more questions on which the best two are measured in full precision.
        ends: how many questions each look has seen.
        a_stream: bytes of one stream over all questions.
        exact: what the exact search would have kept, for comparison.
        matmul_dtype: dtype of the matrix products, None for the model's own.
        protect: blocks that are no candidates.
        earlier: by block, the figures of the step that saw most questions, the last of these.
    """

    options: dict[str, Any]
    objective: str
    chunks: Sequence[Chunk]
    again: Sequence[Chunk]
    ends: list[int]
    a_stream: int
    exact: Kept
    matmul_dtype: torch.dtype | None = None
    protect: frozenset[int] = frozenset()
    earlier: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What is seen: ``questions`` or ``windows``."""
        return self.chunks[0].judge.unit

    @property
    def for_drift(self) -> float:
        """What reduced precision may change."""
        return KEPT_BACK * self.options["tolerance"]

    @property
    def tolerance(self) -> float:
        """What the race itself may lose."""
        whole = self.options["tolerance"]
        return whole if self.matmul_dtype is None else whole - self.for_drift

    def candidates(self, live: Sequence[int]) -> list[int]:
        """The live blocks that may be removed."""
        return [block for block in live if block not in self.protect]

    def race(self, live: Sequence[int]) -> Race:
        """The race of a step."""
        candidates = self.candidates(live)
        before = np.full((len(candidates), self.ends[-1]), np.nan)
        for row, block in zip(before, candidates, strict=True):
            known = self.earlier.get(block, ())
            row[: len(known)] = known
        return Race(before, self.options["alpha"], self.tolerance, self.ends)

    def exact_passes(self, live: Sequence[int]) -> int:
        """Block passes that the exact search would take for a step."""
        return counted_passes(self.exact, live, self.candidates(live), self.a_stream)

    def learn(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take what a step's lines of ``candidates.jsonl`` say, for the next one.

        Figures of two steps are never mixed in one candidate: what is known would then differ
        between questions that are seen and questions that are not by more than chance.
        """
        lines = sorted(lines, key=lambda line: line["block"])
        self.exact_passes(sorted({line["block"] for line in lines} | self.protect))
        for line in lines:
            values = np.array(line["values"])
            if len(values) >= len(self.earlier.get(line["block"], ())):
                self.earlier[line["block"]] = values
            if line["products"] is None:
                self.in_full_precision()

    def in_full_precision(self) -> None:
        """From now on, matrix products as the model has them."""
        if self.matmul_dtype is not None:
            self.matmul_dtype = None
            for chunk in self.chunks:
                chunk.kept = Kept(chunk.kept.budget)


def make_racing(
    decoder: Decoder,
    judge: Judge,
    objective: str,
    options: dict[str, Any],
    seed: int,
    matmul_dtype: torch.dtype | None = None,
    protect: frozenset[int] = frozenset(),
) -> Racing:
    """Lay out the chunks.

    Args:
        decoder: the model.
        judge: of all questions, or windows.
        objective: what candidates are judged by.
        options: of ``choice.search_options``.
        seed: of the order in which questions are drawn.
        matmul_dtype: dtype of the matrix products, None for the model's own.
        protect: blocks that are no candidates.
    """
    rows, least = judge.rows, LEAST_OF[judge.unit]
    order = np.random.default_rng([seed, 1]).permutation(judge.count)
    ends = looks(judge.count, least)
    budget = kept_budget(decoder, rows)
    chunks = make_chunks(judge, order, ends, budget)
    if sum(chunk.share for chunk in chunks) > 1 + REPEATED:
        ends = [judge.count]
        chunks = make_chunks(judge, order, ends, budget)
    again = []
    if matmul_dtype is not None:
        doubled = [least * 2**n for n in range(8) if 2 * least * 2**n <= judge.count]
        again = make_chunks(judge, order, [*doubled, judge.count], 0)
    return Racing(
        options,
        objective,
        chunks,
        again,
        ends,
        stream_bytes(decoder, rows.padded_tokens),
        Kept(budget),
        matmul_dtype,
        protect,
    )


def race_candidates(
    decoder: Decoder, racing: Racing, live: Sequence[int], number: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each candidate: its figures on the questions it saw.

    ``questions`` (or ``windows``) says how many these are and ``values`` has its objective on each,
    in the order drawn, larger being better; ``dropped`` is the look at which it was given up, None
    for those that were not. The other figures are the whole step's: ``products`` is the dtype of
    the matrix products if it is not the model's, and ``drift`` bounds what that changed between the
    best two candidates.
    """
    began, drift = time.perf_counter(), None
    race, figures, passes = _race(decoder, racing, live, number, progress)
    if racing.matmul_dtype is not None:
        drift, more = bound_drift(
            decoder,
            racing.again,
            racing.objective,
            live,
            racing.candidates(live),
            race,
            racing.for_drift,
            progress,
            f"step {number}",
        )
        passes += more
        if drift > racing.for_drift:
            racing.in_full_precision()
            race, figures, more = _race(decoder, racing, live, number, progress)
            passes += more
    block_passes, dtype = math.ceil(passes - 1e-9), racing.matmul_dtype
    of_step = {
        "block_passes": block_passes,
        "block_passes_saved": racing.exact_passes(live) - block_passes,
        "seconds": round(time.perf_counter() - began, 3),
        "products": dtype and str(dtype).removeprefix("torch."),
        "drift": drift,
    }
    unit, lines, candidates = racing.unit, [], racing.candidates(live)
    for block, values, dropped in zip(candidates, race.values, race.dropped, strict=True):
        known = values[np.isfinite(values)].tolist()
        lines.append(
            {"step": number, "block": block}
            | figures[block]
            | {unit: len(known), "dropped": dropped, **of_step, "values": known}
        )
    return lines


def _race(
    decoder: Decoder, racing: Racing, live: Sequence[int], number: int, progress: Progress
) -> tuple[Race, dict[int, dict[str, float]], float]:
    """A race from its beginning to its end: with it, each block's figures, and block passes."""
    race, passes, candidates = racing.race(live), 0.0, racing.candidates(live)
    seen: dict[int, list[Figures]] = {block: [] for block in candidates}
    while not race.over:
        chunk, end = racing.chunks[race.look], racing.ends[race.look]
        blocks = [candidates[place] for place in race.alive]
        label = f"step {number}: race of {len(blocks)} blocks, {chunk.judge.unit} to {end}"
        found, more = chunk_figures(
            decoder, chunk, live, blocks, racing.matmul_dtype, progress, label
        )
        passes += more
        for block, figures in zip(blocks, found, strict=True):
            seen[block].append(figures)
        race.see(on_each(found, racing.objective))
    means = {
        block: {
            name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]
        }
        for block, parts in seen.items()
    }
    return race, means, passes


def bound_drift(
    decoder: Decoder,
    chunks: Sequence[Chunk],
    objective: str,
    live: Sequence[int],
    candidates: Sequence[int],
    race: Race,
    enough: float,
    progress: Progress,
    label: str,
) -> tuple[float, float]:
    """Bound what reduced precision changed in how much better the best is than the second best.

    More questions are looked at until that is little enough, or all have been.

    Args:
        decoder: the model.
        chunks: the questions in the order drawn.
        objective: what candidates are judged by.
        live: the blocks not removed yet.
        candidates: those of the race.
        race: ended.
        enough: a bound that is little enough.
        progress: told of each block pass.
        label: for ``progress``.

    Returns:
        The upper bound of the change's size on all questions, and block passes.
    """
    means = np.where(race.left, np.nanmean(race.values, axis=1), -np.inf)
    places = sorted(np.argsort(-means, kind="stable")[: min(2, race.left.sum())].tolist())
    blocks = [candidates[place] for place in places]
    label = f"{label}: blocks {', '.join(map(str, blocks))} in full precision"
    seen, bound, passes = np.zeros((len(blocks), 0)), np.inf, 0.0
    for chunk in chunks:
        found, more = chunk_figures(decoder, chunk, live, blocks, None, progress, label)
        passes += more
        seen = np.concatenate([seen, on_each(found, objective)], axis=1)
        change = (seen - race.values[places, : seen.shape[1]])[:, : race.seen]
        difference = change[0] - change[-1] if len(blocks) > 1 else change[0]
        bound = mean_bound(difference, race.ends[-1], race.alpha / len(chunks))
        if bound <= enough or seen.shape[1] >= race.seen:
            break
    return bound, passes


def race_of_step(racing: Racing, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What ``steps.jsonl`` says of a race: see ``Step.race``."""
    left = [line for line in lines if line["dropped"] is None]
    unit, first = racing.unit, left[0]
    return {
        **racing.options,
        "confidence": 1 - racing.options["alpha"],
        unit: first[unit],
        "left": len(left),
        **{name: first[name] for name in ("block_passes_saved", "products", "drift")},
    }
