"""``similarity``: how alike a full and pruned models are, in their states and in their decisions.

The third experiment of arXiv 2605.07271: whether features (CKA of hidden states) stay alike in a
collapsed model while decision representations do not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import check_removal
from phaseprune.errors import UserError
from phaseprune.probes.compared import Similarity, summarize
from phaseprune.probes.ladder import read_ladder
from phaseprune.probes.minibatches import Seen, draw_minibatches, prepare_minibatch, see_minibatch
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.runs.arrays import read_arrays, write_arrays
from phaseprune.runs.atomic import write_json
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.recorded import run_identity
from phaseprune.sweep.walk import block_passes


def similarity(
    decoder: Decoder,
    task: Task,
    *,
    remove: Sequence[int] | None = None,
    run: str | Path | None = None,
    minibatch: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    arguments: str | None = None,
    progress: Progress = silent,
) -> Similarity:
    """Compare the hidden states and the decisions of a model with those of pruned ones.

    Args:
        decoder: from ``load_model``.
        task: from ``load_task``.
        remove: the blocks of one pruned model, original indices;
        run: or a run of ``prune`` on this model and task: all of its steps are compared, on its
            evaluation questions.
        minibatch: questions of a minibatch; by default a tenth of them, 8 to 64.
        seed: of the minibatches, the drawn states and the bootstrap.
        out: run directory; an unfinished run in it goes on, a finished one is read. None keeps
            nothing on disk.
        arguments: the command line, for the manifest.
        progress: told of each block pass.

    Raises:
        UserError: options or questions that do not do, a run of another model, or a directory with
            another run.
    """
    check_pruned_models(remove, run)
    chosen_step = None
    if run is None:
        check_removal(remove, len(decoder.blocks))
        removals, asked = [tuple(remove)], task
    else:
        ladder = read_ladder(run, decoder, task)
        removals = [ladder.removed[:step] for step in range(1, len(ladder.removed) + 1)]
        asked, chosen_step = ladder.evaluation, ladder.chosen_step
    members = draw_minibatches(len(asked.questions), minibatch, seed)
    models = [(), *removals]
    prepared = [prepare_minibatch(decoder, asked, of, len(models)) for of in members]
    inputs = {
        name: sum(one.input_counts[name] for one in prepared) for name in prepared[0].input_counts
    }
    options = {"remove": [list(removed) for removed in removals], "minibatches": len(members)}
    with tempfile.TemporaryDirectory() as scratch:
        directory = RunDirectory(Path(scratch if out is None else out))
        began = time.perf_counter()
        with directory.open(
            run_identity("similarity", decoder, asked, seed, options),
            {
                "arguments": arguments,
                "evaluation_questions": len(asked.questions),
                **inputs,
                "of_run": run and str(run),
            },
        ) as state:
            seen = _see_all(directory, decoder, prepared, members, models, seed, progress)
            found = replace(
                summarize(decoder, asked, prepared, members, seen, removals, seed),
                run=run and str(run),
                chosen_step=chosen_step,
                state=state,
                block_passes=block_passes(len(decoder.blocks), models),
            )
            if state != "finished":
                write_json(directory.path / "similarity.json", found.to_dict())
                directory.add_timings(similarity=time.perf_counter() - began)
                directory.update(status="finished")
        return found


def check_pruned_models(remove: Sequence[int] | None, run: str | Path | None) -> None:
    """Refuse what says of no pruned model or of too many, before anything is loaded.

    Raises:
        UserError: says what to give.
    """
    if (remove is None) == (run is None):
        raise UserError("say which pruned models: either --remove 3,7 or --run RUN (of prune)")
    if remove is not None and not remove:
        raise UserError("--remove names no block, and the full model is like itself; name some")


def _see_all(
    run: RunDirectory,
    decoder: Decoder,
    prepared: Sequence[Prepared],
    members: Sequence[np.ndarray],
    models: Sequence[Sequence[int]],
    seed: int,
    progress: Progress,
) -> list[Seen]:
    """What is taken of each minibatch; read back where the run has it."""
    passes = block_passes(len(decoder.blocks), models)
    batches = [passes * len(one.rows.batches) for one in prepared]
    done, found = 0, []
    for number, (one, of) in enumerate(zip(prepared, members, strict=True)):
        path = run.path / "minibatches" / f"{number:04d}.safetensors"
        if not path.exists():
            here = [done]

            def tell(streams: int, here: list[int] = here) -> None:
                here[0] += streams
                progress("similarity", here[0], sum(batches))

            seen = see_minibatch(decoder, one, of, models, seed, tell)
            write_arrays(
                path,
                {
                    f"{name}.{model}": array
                    for name in ("cross", "own", "scores")
                    for model, array in enumerate(getattr(seen, name))
                },
            )
        arrays = read_arrays(path)
        found.append(
            Seen(
                *(
                    tuple(arrays[f"{name}.{model}"] for model in range(count))
                    for name, count in (
                        ("cross", len(models) - 1),
                        ("own", len(models)),
                        ("scores", len(models)),
                    )
                )
            )
        )
        done += batches[number]
    return found
