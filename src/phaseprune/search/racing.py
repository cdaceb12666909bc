"""Racing: the candidates of a step on growing chunks of the calibration questions.

The statistics are those of ``decision.racing``. The questions are drawn in random order, one by
one and not by groups: a sample of groups would not be one of questions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phaseprune.decision.racing import Race, looks
from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.search.objectives import OBJECTIVES, by_question
from phaseprune.sweep.kept import Kept, counted_passes
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.memory import kept_budget, stream_bytes
from phaseprune.sweep.walk import sweep_scores

#: Figures a question are kept, and compared, with so many digits behind the point.
DIGITS = 6


@dataclass(frozen=True)
class Chunk:
    """The questions that a look adds, their share of the tokens of all, and their states."""

    prepared: Prepared
    share: float
    kept: Kept


@dataclass
class Racing:
    """What races of one search have in common, and what they hand on.

    Attributes:
        options: of ``method.search_options``.
        objective: a name in ``objectives.OBJECTIVES``.
        chunks: one a look.
        ends: how many questions each look has seen.
        a_stream: bytes of one stream over all calibration questions.
        exact: what the exact search would have kept, for comparison.
        earlier: by block, the figures of the step that saw most questions, the last of these.
    """

    options: dict[str, Any]
    objective: str
    chunks: Sequence[Chunk]
    ends: list[int]
    a_stream: int
    exact: Kept
    earlier: dict[int, np.ndarray] = field(default_factory=dict)

    def race(self, live: Sequence[int]) -> Race:
        """The race of a step."""
        before = np.full((len(live), self.ends[-1]), np.nan)
        for row, block in zip(before, live, strict=True):
            known = self.earlier.get(block, ())
            row[: len(known)] = known
        return Race(before, self.options["alpha"], self.options["tolerance"], self.ends)

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


def make_racing(
    decoder: Decoder, calibration: Prepared, objective: str, options: dict[str, Any], seed: int
) -> Racing:
    """Lay out the chunks of the calibration questions.

    Args:
        decoder: the model.
        calibration: all calibration questions.
        objective: what candidates are judged by.
        options: of ``method.search_options``.
        seed: of the order in which questions are drawn.
    """
    task, rows = calibration.task, calibration.rows
    ends = looks(len(task.questions))
    order = np.random.default_rng([seed, 1]).permutation(len(task.questions))
    parts = [
        prepare(decoder, task.with_questions([task.questions[i] for i in order[begin:end]]))
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    tokens = sum(part.rows.tokens for part in parts)
    chunks = [
        Chunk(
            part,
            part.rows.tokens / rows.tokens,
            Kept(kept_budget(decoder, rows) * part.rows.tokens // tokens),
        )
        for part in parts
    ]
    a_stream = stream_bytes(decoder, rows.padded_tokens)
    return Racing(options, objective, chunks, ends, a_stream, Kept(kept_budget(decoder, rows)))


def race_candidates(
    decoder: Decoder, racing: Racing, live: Sequence[int], number: int, progress: Progress = silent
) -> list[dict[str, Any]]:
    """One line of ``candidates.jsonl`` for each live block: its figures on the questions it saw.

    ``questions`` says how many these are and ``values`` has its objective on each, in the order
    drawn, larger being better; ``dropped`` is the look at which it was given up, None for those
    that were not. The other figures are the whole step's.
    """
    began = time.perf_counter()
    race, passes = racing.race(live), 0.0
    sign = OBJECTIVES[racing.objective][1]
    seen: dict[int, list[dict[str, np.ndarray]]] = {block: [] for block in live}
    while not race.over:
        chunk, end = racing.chunks[race.look], racing.ends[race.look]
        blocks = [live[place] for place in race.alive]
        sweep = sweep_scores(
            decoder,
            chunk.prepared.rows,
            chunk.prepared.needs_vocabulary,
            live,
            candidates=blocks,
            kept=chunk.kept,
            progress=progress,
            label=f"step {number}: race of {len(blocks)} blocks, questions to {end}",
        )
        passes += sweep.block_passes * chunk.share
        for block, scores in zip(blocks, sweep.scores, strict=True):
            seen[block].append(by_question(chunk.prepared.decide(scores[:, None])))
        race.see(
            np.array([sign * np.round(seen[b][-1][racing.objective], DIGITS) for b in blocks])
        )
    block_passes = math.ceil(passes - 1e-9)
    saved = racing.exact_passes(live) - block_passes
    seconds = round(time.perf_counter() - began, 3)
    lines = []
    for block, values, dropped in zip(live, race.values, race.dropped, strict=True):
        known = values[np.isfinite(values)].tolist()
        figures = {
            name: float(np.concatenate([part[name] for part in seen[block]]).mean())
            for name in OBJECTIVES
        }
        lines.append(
            {"step": number, "block": block} | figures
            | {"questions": len(known), "dropped": dropped, "block_passes": block_passes,
               "block_passes_saved": saved, "seconds": seconds, "values": known}
        )  # fmt: skip
    return lines


def race_of_step(options: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What ``steps.jsonl`` says of a race: see ``Step.race``."""
    left = [line for line in lines if line["dropped"] is None]
    return {
        **options,
        "confidence": 1 - options["alpha"],
        "questions": left[0]["questions"],
        "left": len(left),
        "block_passes_saved": left[0]["block_passes_saved"],
    }
