"""``phaseprune check``: whether a run would work and what it would cost, before it is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    command_line,
    load_checked,
    prompt_words,
    task_name,
    task_settings,
)
from phaseprune.errors import UserError


def check(
    model: o.Model,
    task: o.TaskName = None,
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
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Preflight: is this model and task supported, and what will a run cost? Exit 2 if refused."""
    screen = Screen(as_json, quiet)
    task = task_name(model, task)
    settings = task_settings(locals())
    lines: list[dict] = []

    def tell(name: str, text: str, ok: bool = True) -> None:
        lines.append({"check": name, "ok": ok, "text": text})
        if not (as_json or quiet):
            screen.out.print(f"{'✓' if ok else '✗'} {name}: {text}", markup=False)

    found: dict = {}
    stage = "task"
    try:
        from phaseprune.questions.catalog import load_task

        questions = load_task(task, limit=limit, **settings)
        options = "/".join(map(str, sorted(set(questions.options.tolist()))))
        tell("task", f"{len(questions.questions)} questions with {options} options, "
             f"{questions.scoring} scoring, chance {questions.chance:.3f}")  # fmt: skip
        stage = "model"
        decoder = load_checked(
            model, screen, device=device, dtype=dtype, revision=revision,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
        found = _model_lines(decoder, tell)
        stage = "tokens"
        found |= _task_lines(decoder, questions, calibration, seed, tell)
    except UserError as error:
        tell(stage, str(error), ok=False)
        _finish(screen, out, {"ok": False, "checks": lines, **found})
        raise UserError(f"{model} on {task} would be refused: {error}") from None
    words = prompt_words(settings, questions.scoring)
    screen.next(command_line("trace", model, "--task", task, *words))
    _finish(screen, out, {"ok": True, "checks": lines, **found})


def _finish(screen: Screen, out: Path | None, result: dict) -> None:
    from phaseprune.runs.atomic import write_json

    if out is not None:
        write_json(out / "check.json", result)
    screen.result(result)


def _model_lines(decoder, tell) -> dict:
    from phaseprune.decoder.export import check_exportable

    blocks = len(decoder.blocks)
    parameters = sum(p.numel() for p in decoder.model.parameters())
    dtype = str(decoder.dtype).removeprefix("torch.")
    tell("family", f"{decoder.family}, {parameters / 1e6:,.1f}M parameters, {dtype} on "
         f"{decoder.device}")  # fmt: skip
    tell("blocks", f"{blocks} at {decoder.blocks_path}, final norm at {decoder.norm_path}")
    tell("readout", "equals the model's own logits, max |difference| "
         f"{decoder.readout_difference:.2g}")  # fmt: skip
    try:
        check_exportable(decoder)
        tell("export", "as a plain checkpoint with fewer blocks")
        exportable = True
    except UserError as error:
        tell("export", f"{error} (trace, and prune --no-export, still work)", ok=False)
        exportable = False
    return {
        "family": decoder.family,
        "blocks": blocks,
        "parameters": parameters,
        "readout_difference": decoder.readout_difference,
        "exportable": exportable,
    }


def _task_lines(decoder, questions, calibration: int | None, seed: int, tell) -> dict:
    from phaseprune.questions.encode import encode_task
    from phaseprune.questions.split import split
    from phaseprune.report.words import input_lines
    from phaseprune.sweep.estimate import estimate
    from phaseprune.sweep.measure import prepare

    prepared = prepare(decoder, questions)
    if questions.scoring == "letter":
        first = encode_task(questions.head(1), decoder.tokenizer, decoder.max_length)[0]
        ids = [ending[0] for ending in first.continuations]
        shown = decoder.tokenizer.convert_ids_to_tokens(ids)
        tell("labels", f"single and distinct tokens, as {', '.join(map(repr, shown))}")
    for line in input_lines(prepared.input_counts):
        tell("input", line)
    rows = prepared.rows
    padding = 1 - rows.tokens / rows.padded_tokens
    tell("tokens", f"{rows.tokens:,} in {rows.rows:,} rows ({padding:.0%} padding besides)")
    chosen_on, _ = split(questions, calibration, None, seed)
    cost = estimate(decoder, prepared, prepare(decoder, chosen_on))
    tell("trace", f"{cost.trace_block_passes} block passes, about {_duration(cost.trace_seconds)}")
    tell("prune", f"{cost.step_block_passes} block passes over {len(chosen_on.questions)} "
         f"calibration questions for the first step, about {_duration(cost.step_seconds)}; later "
         "steps cost less")  # fmt: skip
    tell("memory", f"about {cost.memory_bytes / 1e9:.1f} GB")
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
