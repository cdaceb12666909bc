"""``phaseprune check``: whether a run would work and what it would cost, before it is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.check_task import Checks, cost_lines, load_questions, task_lines
from phaseprune.cli.execute import load_model
from phaseprune.cli.screen import Screen, command_line
from phaseprune.errors import UserError


@o.command
def check(
    model: o.ModelOptions,
    questions: o.QuestionOptions,
    output: o.OutputOptions,
    full: Annotated[
        bool,
        o.option("--full", "Load the weights too: the readout check and, with --task, what a run "
                 "will cost in time."),
    ] = False,
    calibration: Annotated[
        int | None,
        o.option("--calibration", "Questions a pruning step would run.", o.QUESTIONS,
                 default="a third, up to 64"),
    ] = None,
    out: Annotated[
        Path | None,
        o.option("--out -o", "Write RUN/check.json too.", o.OUTPUT, metavar="RUN"),
    ] = None,
) -> None:  # fmt: skip
    """Preflight: is this model (and task) supported? In seconds, without its weights.

    Reads the configuration and the headers of the weights' files alone; of a hub id the weights are
    not downloaded. Exit 2 if a run would be refused.
    """
    screen = Screen(output.as_json, output.quiet)
    name, task = model.name, questions.task or ("demo" if model.name == "demo" else None)
    checks, found = Checks(screen), {"full": full}
    asked, split = None, (calibration, questions.seed)
    try:
        seen, tokenizer = _read(screen, model)
        found |= _model_lines(checks, seen, model)
        _streaming_line(checks, seen, model)
        if task is not None:
            checks.stage = "task"
            asked = load_questions(checks, task, questions.keywords())
        if full and not checks.refused:
            checks.stage = "readout"
            decoder = load_model(screen, name, model.keywords())
            found |= _readout_line(checks, decoder)
            if asked is not None:
                checks.stage = "tokens"
                found |= cost_lines(checks, decoder, seen, asked, *split)
        elif asked is not None:
            checks.stage = "tokens"
            if tokenizer is None:
                raise UserError(f"{name}: the directory has no tokenizer; give a full checkpoint")
            found |= task_lines(checks, asked, tokenizer, seen, model.device, *split)
    except UserError as error:
        checks.refuse(checks.stage, str(error))
    _finish(screen, out, {"ok": not checks.refused, "checks": checks.lines, **found})
    if checks.refused:
        what = name if task is None else f"{name} on {task}"
        raise UserError(f"{what} would be refused: {checks.refused[0]}")
    same = ["--revision", model.revision] if model.revision else []
    same += ["--trust-remote-code"] if model.trust_remote_code else []
    same += ["--blocks", model.blocks] if model.blocks else []
    if asked is None:
        screen.next(command_line("check", name, "--task", "TASK", *same))
    else:
        words = questions.words(asked.scoring)
        screen.next(command_line("trace", name, "--task", task, *words, *same))


def _finish(screen: Screen, out: Path | None, result: dict) -> None:
    from phaseprune.runs.atomic import write_json

    if out is not None:
        write_json(out / "check.json", result)
    screen.result(result)


def _read(screen: Screen, model: o.ModelOptions):
    """What the model's files tell without the weights, and its tokenizer (None: none is there)."""
    with screen.status(f"reading {model.name} …"):
        from phaseprune.decoder.device_map import MAP, refuse_unmappable
        from phaseprune.decoder.load import load_tokenizer, read_config, silence_transformers
        from phaseprune.decoder.preflight import preflight
        from phaseprune.decoder.source import find_source

        silence_transformers()
        trust = model.trust_remote_code
        source = find_source(model.name, model.revision, weights=False)
        config = read_config(source, trust)
        if model.device == MAP:
            refuse_unmappable(source, config, model.stream)
        tokenizer = load_tokenizer(source, trust) if source.has_tokenizer else None
        return preflight(source, config, trust, model.blocks, tokenizer), tokenizer


def _model_lines(checks: Checks, seen, model: o.ModelOptions) -> dict:
    """What is known without the weights."""
    from phaseprune.cli import check_words as words
    from phaseprune.decoder.load import pick_device, pick_dtype
    from phaseprune.sweep.estimate import WORKING_BYTES

    device = pick_device(model.device)
    chosen = pick_dtype(model.dtype, device)
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


def _streaming_line(checks: Checks, seen, model: o.ModelOptions) -> None:
    from phaseprune.cli import check_words as words
    from phaseprune.decoder.budget import parse_bytes
    from phaseprune.decoder.device_map import MAP
    from phaseprune.decoder.load import pick_device, pick_dtype

    chosen = pick_dtype(model.dtype, pick_device(model.device))
    budget = None if model.max_memory is None else parse_bytes(model.max_memory)
    told = None if model.device == MAP else words.streaming(seen, chosen, model.stream, budget)
    if told is not None:
        (checks.tell if told[0] else checks.refuse)("streaming", told[1])


def _readout_line(checks: Checks, decoder) -> dict:
    from phaseprune.cli import check_words as words

    difference = decoder.readout_difference
    checks.tell("readout", f"equals the model's own logits, max |difference| {difference:.2g}")
    pipeline = decoder.pipeline
    checks.tell("pipeline", words.pipeline(pipeline), ok=not pipeline.remarks)
    return {"readout_difference": difference, "pipeline": asdict(pipeline)}
