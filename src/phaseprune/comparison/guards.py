"""Guards of a comparison: each model that methods left over, looked at once beyond questions."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from phaseprune.comparison.pruned import Pruned, in_place, of_line
from phaseprune.probes.guards import TextGuard
from phaseprune.progress import Progress
from phaseprune.runs.atomic import append_json_lines, read_json_lines
from phaseprune.runs.directory import RunDirectory

#: Pruned model -> the figures of ``TextGuard.figures``; of no removed block the full model's.
Guarded = dict[Pruned, dict[str, Any]]


def read_guards(run: RunDirectory) -> Guarded:
    """What guards have found so far, of all tasks: a text knows no task."""
    return {of_line(line): line["guard"] for line in read_json_lines(_path(run))}


def guard_sets(
    run: RunDirectory,
    opened: TextGuard,
    sets: Collection[Pruned],
    progress: Progress,
) -> bool:
    """Look at the pruned models that are missing, keeping each when it is done.

    Args:
        run: of the comparison.
        opened: what to look at.
        sets: the pruned models.
        progress: told of block passes and tokens.

    Returns:
        Whether any was missing.
    """
    done = read_guards(run)
    blocks = range(len(opened.decoder.blocks))
    # The full model first; then neighbours are alike, and continuations are guessed from the last.
    missing = sorted({Pruned(), *sets} - done.keys(), key=lambda one: one.without(blocks))
    for number, one in enumerate(missing, start=1):
        began = time.perf_counter()
        near = min(done, key=lambda other: len({*other.blocks} ^ {*one.blocks}), default=None)
        with in_place(opened.decoder, one):
            done[one] = opened.figures(
                one.blocks,
                done.get(Pruned()),
                done.get(near),
                progress,
                f"guards of {number} of {len(missing)} choices",
            )
        append_json_lines(_path(run), [one.line() | {"guard": done[one]}])
        run.add_timings(guards=time.perf_counter() - began)
    return bool(missing)


def _path(run: RunDirectory) -> Path:
    return run.path / "guards.jsonl"
