"""One task of ``compare``: its rankings made, its choices scored, each kept when it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.comparison.guards import Guarded
from phaseprune.comparison.orders import Wanted, chosen_sets, key_of
from phaseprune.comparison.pruned import Pruned, in_place, of_line
from phaseprune.comparison.result import conclude_task
from phaseprune.comparison.text import Reading
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.methods.rank import rank_blocks
from phaseprune.methods.registry import METHODS, TEXT
from phaseprune.probes.phasewise_result import scored
from phaseprune.progress import Progress
from phaseprune.questions.question import Task
from phaseprune.runs.atomic import append_json_lines, read_json_lines
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.recorded import recorded_trace, run_identity
from phaseprune.sweep.walk import set_scores

#: Sets that are walked together: many share most, but what is walked is lost when a run is killed.
SETS_A_WALK = 64


@dataclass(frozen=True)
class Job:
    """One task of a comparison.

    Attributes:
        decoder: the model.
        run: the task's own run directory.
        task: all its questions,
        calibration: those that are chosen on,
        evaluation: and the others, that are reported on.
        numbers: of removed blocks, rising.
        protect: blocks that no method removes.
        reading: the plain text for the methods that need one.
        seed: of all that is drawn.
        progress: told of each block pass.
    """

    decoder: Decoder
    run: RunDirectory
    task: Task
    calibration: Task
    evaluation: Task
    numbers: tuple[int, ...]
    protect: frozenset[int]
    reading: Reading
    seed: int
    progress: Progress

    @property
    def rankings_path(self) -> Path:
        """A line a ranking."""
        return self.run.path / "rankings.jsonl"


def run_job(
    job: Job,
    whole: RunDirectory,
    folder: str,
    wanted: dict[str, list[Wanted]],
    options: dict[str, Any],
    before: Sequence[Job],
    note: Callable[[str], None],
) -> bool:
    """Rank and score what is missing of a task.

    Args:
        job: the task.
        whole: the run of all tasks, which keeps the reasons of what is left out.
        folder: of the task in it.
        wanted: method -> its rankings.
        options: of the run, for the task's manifest.
        before: the tasks that are done, whose rankings by plain text are this one's too.
        note: told of what is left out.

    Returns:
        Whether anything was.
    """
    traced = prepare(job.decoder, job.calibration, streams=1)
    counts = {
        "calibration_questions": len(job.calibration.questions),
        "evaluation_questions": len(job.evaluation.questions),
    }
    with job.run.open(
        run_identity("compare", job.decoder, job.task, job.seed, options | counts),
        {"arguments": whole.manifest["arguments"], **counts, **traced.input_counts},
        adds=True,
    ):
        job.run.update(status="running")
        recorded_trace(
            job.run,
            job.decoder,
            traced,
            job.seed,
            job.progress,
            f"{job.task.name}: full model, calibration questions",
        )
        shared = [
            line
            for other in before
            for line in read_json_lines(other.rankings_path)
            if TEXT in METHODS[line["method"]].needs
        ]
        ranked = _rank(job, whole, folder, wanted, shared, note)
        added = _score(job)
        job.run.update(status="finished")
    return ranked or added


def _rank(
    job: Job,
    whole: RunDirectory,
    folder: str,
    wanted: dict[str, list[Wanted]],
    shared: Sequence[dict[str, Any]],
    note: Callable[[str], None],
) -> bool:
    """Make the rankings that are missing, keeping each as soon as it is done."""
    done = {key_of(line) for line in read_json_lines(job.rankings_path)}
    known = {key_of(line): line for line in shared}
    left_out, ranked = dict(whole.manifest["left_out"].get(folder, {})), False
    told: dict[str, str] = {}  # reason -> the first method that it keeps out
    for place, (method, rankings) in enumerate(wanted.items(), start=1):
        reasons: dict[str, str] = {}
        lead = f"{job.task.name}: {method} ({place} of {len(wanted)})"

        def listen(label: str, part: float, total: float, lead: str = lead) -> None:
            job.progress(f"{lead}: {label}", part, total)

        for one in rankings:
            if one.key in done:
                continue
            if one.key in known:
                append_json_lines(job.rankings_path, [known[one.key]])
                ranked = True
                continue
            began = time.perf_counter()
            try:
                if one.on_text and job.reading.text is None:
                    raise UserError(job.reading.reason)
                found = rank_blocks(
                    job.decoder,
                    job.reading.text if one.on_text else job.calibration,
                    method=method,
                    remove=one.remove,
                    seed=one.seed,
                    protect=job.protect,
                    progress=listen,
                )
            except UserError as error:
                reasons["all" if one.number is None else str(one.number)] = error.typed
                continue
            seconds = round(time.perf_counter() - began, 3)
            line = found.to_dict() | {"number": one.number, "draw": one.draw, "seconds": seconds}
            append_json_lines(job.rankings_path, [line])
            ranked = True
        left_out.pop(method, None)
        if reasons:
            left_out[method] = reasons
            reason = next(iter(reasons.values()))
            first = told.setdefault(reason, method)
            note(
                f"{job.task.name}: {method} is left out"
                + ("" if "all" in reasons else f" at {', '.join(reasons)}")
                + (f": {reason}" if first == method else f", as {first} is")
            )
    whole.update(left_out=whole.manifest["left_out"] | {folder: left_out})
    return ranked


def _score(job: Job) -> bool:
    """Score the sets that are missing, some in a walk; equal ones are one, and one is empty.

    Models whose weights changed share nothing with others and are walked alone.
    """
    wanted = {Pruned(), *chosen_by_job(job)}
    done = {of_line(line) for line in job.run.candidates()}
    blocks = range(len(job.decoder.blocks))
    # Neighbours in this order share their first blocks, so that a walk of them shares most.
    missing = sorted(wanted - done, key=lambda one: (bool(one.merged), one.without(blocks)))
    if not missing:
        return False
    # Half as many again: a stream that both runs and skips a block is copied.
    streams = 1 + 3 * min(len(missing), SETS_A_WALK) // 2
    rows = prepare(job.decoder, job.evaluation, streams=streams)
    skipping = [one for one in missing if not one.merged]
    walks = [skipping[at : at + SETS_A_WALK] for at in range(0, len(skipping), SETS_A_WALK)]
    walks += [[one] for one in missing if one.merged]
    for number, sets in enumerate(walks, start=1):
        began = time.perf_counter()
        with in_place(job.decoder, sets[0]):
            sweep = set_scores(
                job.decoder,
                rows.rows,
                rows.needs_vocabulary,
                [one.blocks for one in sets],
                progress=job.progress,
                label=f"{job.task.name}: {len(sets)} choices scored, walk {number} of {len(walks)}",
            )
        seconds = time.perf_counter() - began
        job.run.append_candidates(
            [
                {"removed_blocks": len(one.blocks), **one.line(), **scored(rows, scores)}
                for one, scores in zip(sets, sweep.scores, strict=True)
            ]
        )
        job.run.add_timings(scoring=seconds)
        spent = job.run.manifest.get("scored", {})
        now = {"block_passes": sweep.block_passes, "naive_block_passes": sweep.naive_passes}
        job.run.update(scored={name: spent.get(name, 0) + value for name, value in now.items()})
    return True


def chosen_by_job(job: Job) -> set[Pruned]:
    """The models that methods left, as far as they are ranked."""
    chosen = chosen_sets(read_json_lines(job.rankings_path), job.numbers)
    return {one for of in chosen.values() for sets in of.values() for one in sets}


def conclude_job(job: Job, whole: RunDirectory, folder: str, guards: Guarded) -> dict[str, Any]:
    """The task's entry in ``compare.json``, from what stands in its directory and of guards."""
    return conclude_task(
        folder=folder,
        trace=json.loads(job.run.trace_path.read_text(encoding="utf-8")),
        rankings=read_json_lines(job.rankings_path),
        lines=job.run.candidates(),
        evaluation=job.evaluation,
        numbers=job.numbers,
        left_out=whole.manifest["left_out"].get(folder, {}),
        scoring=job.run.manifest.get("scored", {})
        | {"seconds": job.run.manifest["timings"].get("scoring", 0.0)},
        seed=job.seed,
        guards=guards,
    )
