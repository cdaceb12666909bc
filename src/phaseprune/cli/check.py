"""``phaseprune check``: whether a run would work and what it would cost, before it is paid for."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
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
    checks, found = _Checks(screen), {"full": full}
    questions = None
    try:
        source, seen = _read(model, screen, device, stream, **trust)
        found |= _model_lines(checks, seen, **where)
        _streaming_line(checks, seen, stream, max_memory, **where)
        if task is not None:
            checks.stage = "task"
            questions = _load_questions(checks, task, limit, settings)
        if full and not checks.refused:
            checks.stage = "readout"
            decoder = load_checked(
                model, screen, **where, **trust, stream=stream, max_memory=max_memory
            )
            found |= _readout_line(checks, decoder)
            if questions is not None:
                checks.stage = "tokens"
                found |= _cost_lines(checks, decoder, questions, calibration, seed)
        elif questions is not None:
            checks.stage = "tokens"
            from phaseprune.decoder.load import load_tokenizer

            tokenizer = load_tokenizer(source, trust_remote_code)
            found |= _task_lines(checks, questions, tokenizer, seen, device, calibration, seed)
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


class _Checks:
    """The lines told so far and, in one sentence each, why a run would be refused."""

    def __init__(self, screen: Screen):
        self.screen, self.stage = screen, "model"
        self.lines: list[dict] = []
        self.refused: list[str] = []

    def tell(self, name: str, text: str, ok: bool = True) -> None:
        self.lines.append({"check": name, "ok": ok, "text": text})
        if not (self.screen.as_json or self.screen.quiet):
            self.screen.out.print(f"{'✓' if ok else '✗'} {name}: {text}", markup=False)

    def refuse(self, name: str, text: str) -> None:
        self.tell(name, text, ok=False)
        self.refused.append(text)


def _finish(screen: Screen, out: Path | None, result: dict) -> None:
    from phaseprune.runs.atomic import write_json

    if out is not None:
        write_json(out / "check.json", result)
    screen.result(result)


def _read(
    model: str, screen: Screen, device: str, stream: bool | None,
    revision: str | None, trust_remote_code: bool, blocks: str | None,
):  # fmt: skip
    """The model's files and what they tell without the weights."""
    with nullcontext() if screen.quiet else screen.err.status(f"reading {model} …"):
        from phaseprune.decoder.device_map import MAP, refuse_unmappable
        from phaseprune.decoder.load import read_config, silence_transformers
        from phaseprune.decoder.preflight import preflight
        from phaseprune.decoder.source import find_source

        silence_transformers()
        source = find_source(model, revision, weights=False)
        config = read_config(source, trust_remote_code)
        if device == MAP:
            refuse_unmappable(source, config, stream)
        return source, preflight(source, config, trust_remote_code, blocks)


def _model_lines(checks: _Checks, seen, device: str, dtype: str) -> dict:
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
    checks: _Checks, seen, stream: bool | None, max_memory: str | None, device: str, dtype: str
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


def _load_questions(checks: _Checks, task: str, limit: int | None, settings: dict):
    from phaseprune.questions.catalog import load_task

    questions = load_task(task, limit=limit, **settings)
    options = "/".join(map(str, sorted(set(questions.options.tolist()))))
    checks.tell("task", f"{len(questions.questions)} questions with {options} options, "
                f"{questions.scoring} scoring, chance {questions.chance:.3f}")  # fmt: skip
    return questions


def _task_lines(
    checks: _Checks, questions, tokenizer, seen, device: str, calibration: int | None, seed: int
) -> dict:  # fmt: skip
    """What is known of the questions by the tokenizer alone."""
    import torch

    from phaseprune.decoder.load import pick_device
    from phaseprune.questions.split import split
    from phaseprune.sweep.measure import encode_inputs
    from phaseprune.sweep.memory import usual_tokens
    from phaseprune.sweep.probe import ANY_LENGTH
    from phaseprune.sweep.rows import make_rows

    inputs = encode_inputs(questions, tokenizer, seen.max_length)
    counts = {"truncated_questions": inputs.truncated, **questions.input_counts}
    _input_lines(checks, questions, inputs.questions[0], tokenizer, counts)
    together = usual_tokens(seen.width, torch.device(pick_device(device)))
    rows, plain = (
        make_rows(inputs.questions, together, "cpu", length, inputs.orders)
        for length in (ANY_LENGTH, 0)
    )
    checks.tell("tokens", f"{rows.tokens:,} if the model runs packed rows, else {plain.tokens:,} "
                f"in {plain.rows:,} plain rows (--full tries it out)")  # fmt: skip
    chosen_on, _ = split(questions, calibration, None, seed)
    return {
        "questions": len(questions.questions),
        **counts,
        "calibration_questions": len(chosen_on.questions),
        "tokens": rows.tokens,
        "plain_rows": plain.rows,
        "plain_tokens": plain.tokens,
    }


def _input_lines(checks: _Checks, questions, first, tokenizer, counts: dict) -> None:
    from phaseprune.report.words import input_lines

    if questions.scoring == "letter":
        ids = [ending[0] for ending in first.continuations]
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
        checks.tell("labels", f"single and distinct tokens, as {shown}")
    for line in input_lines(counts):
        checks.tell("input", line)


def _readout_line(checks: _Checks, decoder) -> dict:
    difference = decoder.readout_difference
    checks.tell("readout", f"equals the model's own logits, max |difference| {difference:.2g}")
    return {"readout_difference": difference}


def _cost_lines(checks: _Checks, decoder, questions, calibration: int | None, seed: int) -> dict:
    """What a run will cost, measured on the loaded model."""
    from phaseprune.questions.encode import encode_task
    from phaseprune.questions.split import split
    from phaseprune.sweep.estimate import estimate
    from phaseprune.sweep.measure import prepare

    prepared = prepare(decoder, questions)
    first = encode_task(questions.head(1), decoder.tokenizer, decoder.max_length)[0]
    _input_lines(checks, questions, first, decoder.tokenizer, prepared.input_counts)
    rows = prepared.rows
    padding = 1 - rows.tokens / rows.padded_tokens
    kind = "packed" if decoder.packed_length else "plain"
    checks.tell("tokens", f"{rows.tokens:,} in {rows.rows:,} {kind} rows ({padding:.0%} padding "
                "besides)")  # fmt: skip
    chosen_on, _ = split(questions, calibration, None, seed)
    cost = estimate(decoder, prepared, prepare(decoder, chosen_on))
    checks.tell("trace", f"{cost.trace_block_passes} block passes, about "
                f"{_duration(cost.trace_seconds)}")  # fmt: skip
    checks.tell("prune", f"{cost.step_block_passes} block passes over {len(chosen_on.questions)} "
                "calibration questions for the first step, about "
                f"{_duration(cost.step_seconds)}; later steps cost less")  # fmt: skip
    return {
        "questions": len(questions.questions),
        **prepared.input_counts,
        "calibration_questions": len(chosen_on.questions),
        "rows": rows.rows,
        "tokens": rows.tokens,
        "padded_tokens": rows.padded_tokens,
        **{name: getattr(cost, name) for name in cost.__dataclass_fields__},
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
