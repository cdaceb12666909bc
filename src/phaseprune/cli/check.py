"""``phaseprune check``: whether a run would work and what it would cost, before it is paid for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.check_task import Checks, check_questions, cost_lines, task_lines
from phaseprune.cli.console import (
    Screen,
    command_line,
    load_checked,
    prompt_words,
    task_settings,
)
from phaseprune.errors import UserError


def check(
    model: o.Model,
    task: o.TaskName = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Load the weights too: the readout check and, with --task, "
                     "what a run will cost in time."),
    ] = False,
    scoring: o.Scoring = None,
    calibration: Annotated[
        int | None, typer.Option("--calibration", help="Questions a pruning step would run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Write RUN/check.json too.")
    ] = None,
    limit: o.Limit = None,
    seed: o.Seed = 0,
    length_norm: o.LengthNorm = "none",
    probability: o.Probability = "options",
    labels: o.Labels = None,
    shots: o.Shots = None,
    shots_from: o.ShotsFrom = None,
    shot_order: o.ShotOrder = "first",
    shuffle: o.Shuffle = False,
    permute: o.Permute = False,
    chat: o.Chat = False,
    columns: o.Columns = None,
    data_dir: o.DataDir = None,
    lm_eval_path: o.LmEvalPath = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    stream: o.Stream = None,
    max_memory: o.MaxMemory = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Preflight: is this model (and task) supported? In seconds, without its weights.

    Reads the configuration and the headers of the weights' files alone; of a hub id the weights are
    not downloaded. Exit 2 if a run would be refused.
    """
    screen = Screen(as_json, quiet)
    task = task or ("demo" if model == "demo" else None)
    settings = task_settings(locals())
    where = {"device": device, "dtype": dtype}
    trust = {"revision": revision, "trust_remote_code": trust_remote_code, "blocks": blocks}
    checks, found = Checks(screen), {"full": full}
    questions = None
    try:
        seen, tokenizer = _read(model, screen, device, stream, **trust)
        found |= _model_lines(checks, seen, **where)
        _streaming_line(checks, seen, stream, max_memory, **where)
        if task is not None:
            checks.stage = "task"
            questions = check_questions(checks, task, limit, settings)
        if full and not checks.refused:
            checks.stage = "readout"
            decoder = load_checked(
                model, screen, **where, **trust, stream=stream, max_memory=max_memory
            )
            found |= _readout_line(checks, decoder)
            if questions is not None:
                checks.stage = "tokens"
                found |= cost_lines(checks, decoder, seen, questions, calibration, seed)
        elif questions is not None:
            checks.stage = "tokens"
            if tokenizer is None:
                raise UserError(f"{model}: the directory has no tokenizer; give a full checkpoint")
            found |= task_lines(checks, questions, tokenizer, seen, device, calibration, seed)
    except UserError as error:
        checks.refuse(checks.stage, str(error))
    _finish(screen, out, {"ok": not checks.refused, "checks": checks.lines, **found})
    if checks.refused:
        what = model if task is None else f"{model} on {task}"
        raise UserError(f"{what} would be refused: {checks.refused[0]}")
    same = ["--revision", revision] if revision else []
    same += ["--trust-remote-code"] if trust_remote_code else []
    same += ["--blocks", blocks] if blocks else []
    if questions is None:
        screen.next(command_line("check", model, "--task", "TASK", *same))
    else:
        words = prompt_words(settings, questions.scoring)
        screen.next(command_line("trace", model, "--task", task, *words, *same))


def _finish(screen: Screen, out: Path | None, result: dict) -> None:
    from phaseprune.runs.atomic import write_json

    if out is not None:
        write_json(out / "check.json", result)
    screen.result(result)


def _read(
    model: str, screen: Screen, device: str, stream: bool | None,
    revision: str | None, trust_remote_code: bool, blocks: str | None,
):  # fmt: skip
    """What the model's files tell without the weights, and its tokenizer (None: none is there)."""
    with nullcontext() if screen.quiet else screen.err.status(f"reading {model} …"):
        from phaseprune.decoder.device_map import MAP, refuse_unmappable
        from phaseprune.decoder.load import load_tokenizer, read_config, silence_transformers
        from phaseprune.decoder.preflight import preflight
        from phaseprune.decoder.source import find_source

        silence_transformers()
        source = find_source(model, revision, weights=False)
        config = read_config(source, trust_remote_code)
        if device == MAP:
            refuse_unmappable(source, config, stream)
        tokenizer = load_tokenizer(source, trust_remote_code) if source.has_tokenizer else None
        return preflight(source, config, trust_remote_code, blocks, tokenizer), tokenizer


def _model_lines(checks: Checks, seen, device: str, dtype: str) -> dict:
    """What is known without the weights."""
    from phaseprune.cli import check_words as words
    from phaseprune.decoder.load import pick_device, pick_dtype
    from phaseprune.sweep.estimate import WORKING_BYTES

    device = pick_device(device)
    chosen = pick_dtype(dtype, device)
    memory = seen.weight_bytes(chosen) + WORKING_BYTES
    checks.tell("family", words.family(seen))
    checks.tell("blocks", words.blocks(seen))
    checks.tell("head", words.head(seen))
    checks.tell("size", words.size(seen))
    if seen.names.problem is None:
        checks.tell("weights", words.weights(seen.names))
    else:
        checks.refuse("weights", seen.names.problem)
    checks.tell("inputs", words.inputs(seen))
    if seen.quantisation is not None:
        tell = checks.tell if seen.quantisation.problem is None else checks.refuse
        tell("quantisation", words.quantisation(seen.quantisation))
    checks.tell("memory", words.memory(seen, chosen, device, WORKING_BYTES))
    if seen.export_problem is None:
        checks.tell("export", words.exportable(seen))
    else:
        text = f"{seen.export_problem} (trace, and prune --no-export, still work)"
        checks.tell("export", text, ok=False)
    return words.numbers(seen) | {"memory_bytes": memory}


def _streaming_line(
    checks: Checks, seen, stream: bool | None, max_memory: str | None, device: str, dtype: str
) -> None:
    from phaseprune.cli import check_words as words
    from phaseprune.decoder.budget import parse_bytes
    from phaseprune.decoder.device_map import MAP
    from phaseprune.decoder.load import pick_device, pick_dtype

    chosen = pick_dtype(dtype, pick_device(device))
    budget = None if max_memory is None else parse_bytes(max_memory)
    told = None if device == MAP else words.streaming(seen, chosen, stream, budget)
    if told is not None:
        (checks.tell if told[0] else checks.refuse)("streaming", told[1])


def _readout_line(checks: Checks, decoder) -> dict:
    from phaseprune.cli import check_words as words

    difference = decoder.readout_difference
    checks.tell("readout", f"equals the model's own logits, max |difference| {difference:.2g}")
    pipeline = decoder.pipeline
    checks.tell("pipeline", words.pipeline(pipeline), ok=not pipeline.remarks)
    return {"readout_difference": difference, "pipeline": asdict(pipeline)}
