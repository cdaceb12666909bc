"""``phaseprune check``: whether a run would work and what it would cost, before it is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
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
        o.option(
            "--full",
            "Load the weights too: the readout check and, with --task, what a run "
            "will cost in time.",
        ),
    ] = False,
    calibration: Annotated[
        int | None,
        o.option(
            "--calibration",
            "Questions a pruning step would run.",
            o.QUESTIONS,
            default="a third, up to 64",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        o.option("--out -o", "Write RUN/check.json too.", o.OUTPUT, metavar="RUN"),
    ] = None,
) -> None:
    """Preflight: is this model (and task) supported? In seconds, without its weights.

    Reads the configuration and the headers of the weights' files alone; of a hub id the weights are
    not downloaded. Exit 2 if a run would be refused.
    """
    from phaseprune.questions.encode import refuse_ended

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
            asked = _task_line(checks, task, questions.keywords())
        if full and not checks.refused:
            checks.stage = "readout"
            decoder = load_model(screen, name, model.keywords())
            found |= _readout_line(checks, decoder)
            if asked is not None:
                checks.stage = "tokens"
                found |= _cost_lines(checks, decoder, seen, asked, *split)
        elif asked is not None:
            checks.stage = "tokens"
            if tokenizer is None:
                raise UserError(f"{name}: the directory has no tokenizer; give a full checkpoint")
            found |= _token_lines(checks, asked, tokenizer, seen, model.device, *split)
        elif tokenizer is not None:
            checks.stage = "tokens"
            refuse_ended(tokenizer)
    except UserError as error:
        checks.refuse(checks.stage, error.typed)
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


class Checks:
    """The lines told so far and, in one sentence each, why a run would be refused."""

    def __init__(self, screen: Screen):
        self.screen, self.stage = screen, "model"
        self.lines: list[dict] = []
        self.refused: list[str] = []

    def tell(self, name: str, text: str, ok: bool = True) -> None:
        """Tell a line, and keep it for ``--json``."""
        self.lines.append({"check": name, "ok": ok, "text": text})
        if not (self.screen.as_json or self.screen.quiet):
            self.screen.out.print(f"{'✓' if ok else '✗'} {name}: {text}", markup=False)

    def detail(self, text: str) -> None:
        """Say more of the line before, in the terminal alone."""
        if not (self.screen.as_json or self.screen.quiet):
            self.screen.out.print(f"  {text}", markup=False, highlight=False)

    def refuse(self, name: str, text: str) -> None:
        """Tell a line that a run would be refused for."""
        self.tell(name, text, ok=False)
        self.refused.append(text)


def _finish(screen: Screen, out: Path | None, result: dict) -> None:
    from phaseprune.runs.atomic import write_json

    if out is not None:
        write_json(out / "check.json", result)
    screen.result(result)


def _read(screen: Screen, model: o.ModelOptions):
    """What the model's files tell without the weights, and its tokenizer (None: none is there)."""
    with screen.status(f"reading {model.name} …"):
        from phaseprune.decoder.load import load_tokenizer, read_config, silence_transformers
        from phaseprune.decoder.mapped import MAP, refuse_unmappable
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
    from phaseprune.decoder.load import pick_device, pick_dtype
    from phaseprune.decoder.mapped import MAP

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


def _task_line(checks: Checks, task: str, keywords: dict):
    """The task's questions, with a line about them."""
    from phaseprune.questions.catalog import load_task

    questions = load_task(task, **keywords)
    options = "/".join(map(str, sorted(set(questions.options.tolist()))))
    checks.tell(
        "task",
        f"{len(questions.questions)} questions with {options} options, "
        f"{questions.scoring} scoring, chance {questions.chance:.3f}",
    )
    if questions.recognised:
        checks.detail(f"read as {questions.recognised}")
    for note in questions.notes:
        checks.tell("input", note)
    return questions


def _token_lines(
    checks: Checks, questions, tokenizer, seen, device: str, calibration: int | None, seed: int
) -> dict:
    """What is known of the questions by the tokenizer alone."""
    import torch

    from phaseprune.decoder.load import pick_device
    from phaseprune.questions.split import split
    from phaseprune.sweep.measure import encode_inputs, refuse_unknown_ids
    from phaseprune.sweep.memory import usual_tokens
    from phaseprune.sweep.probe import ANY_LENGTH
    from phaseprune.sweep.rows import make_rows

    inputs = encode_inputs(questions, tokenizer, seen.max_length)
    refuse_unknown_ids(questions, inputs, seen.embeddings)
    counts = {"truncated_questions": inputs.truncated, **questions.input_counts}
    _input_lines(checks, questions, inputs.questions[0], tokenizer, counts)
    together = usual_tokens(seen.width, torch.device(pick_device(device)))
    rows, plain = (
        make_rows(inputs.questions, together, "cpu", length, inputs.orders)
        for length in (ANY_LENGTH, 0)
    )
    checks.tell(
        "tokens",
        f"{rows.tokens:,} if the model runs packed rows, else {plain.tokens:,} "
        f"in {plain.rows:,} plain rows (--full tries it out)",
    )
    chosen_on, _ = split(questions, calibration, None, seed)
    return {
        "questions": len(questions.questions),
        "recognised": questions.recognised,
        "notes": list(questions.notes),
        **counts,
        "calibration_questions": len(chosen_on.questions),
        "tokens": rows.tokens,
        "plain_rows": plain.rows,
        "plain_tokens": plain.tokens,
        **_paper_lines(
            checks, seen, questions, calibration, seed, (inputs, rows, together, ANY_LENGTH)
        ),
    }


def _input_lines(checks: Checks, questions, first, tokenizer, counts: dict) -> None:
    from phaseprune.report.words import input_lines

    if questions.scoring == "letter":
        ids = [ending[0] for ending in first.continuations]
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
        checks.tell("labels", f"single and distinct tokens, as {shown}")
    for line in input_lines(counts):
        checks.tell("input", line)


def _cost_lines(
    checks: Checks, decoder, seen, questions, calibration: int | None, seed: int
) -> dict:
    """What a run will cost, measured on the loaded model."""
    from phaseprune.cli.check_words import duration
    from phaseprune.questions.split import split
    from phaseprune.sweep.estimate import estimate, measure_rates
    from phaseprune.sweep.measure import encode_inputs, prepare
    from phaseprune.sweep.memory import batch_tokens

    prepared = prepare(decoder, questions)
    inputs = encode_inputs(questions, decoder.tokenizer, decoder.max_length)
    _input_lines(checks, questions, inputs.questions[0], decoder.tokenizer, prepared.input_counts)
    rows = prepared.rows
    padding = 1 - rows.tokens / rows.padded_tokens
    kind = "packed" if decoder.packed_length else "plain"
    checks.tell(
        "tokens", f"{rows.tokens:,} in {rows.rows:,} {kind} rows ({padding:.0%} padding besides)"
    )
    chosen_on, _ = split(questions, calibration, None, seed)
    rates = measure_rates(decoder, prepared)
    cost = estimate(decoder, prepared, prepare(decoder, chosen_on), rates)
    checks.tell(
        "trace", f"{cost.trace_block_passes} block passes, about {duration(cost.trace_seconds)}"
    )
    checks.tell(
        "prune",
        f"{cost.step_block_passes} block passes over {len(chosen_on.questions)} "
        "calibration questions for the first step, about "
        f"{duration(cost.step_seconds)}; later steps cost less",
    )
    papers = _paper_lines(
        checks,
        seen,
        questions,
        calibration,
        seed,
        (inputs, rows, batch_tokens(decoder), decoder.packed_length),
        rates,
    )
    return {
        "questions": len(questions.questions),
        "recognised": questions.recognised,
        "notes": list(questions.notes),
        **prepared.input_counts,
        "calibration_questions": len(chosen_on.questions),
        "rows": rows.rows,
        "tokens": rows.tokens,
        "padded_tokens": rows.padded_tokens,
        **{name: getattr(cost, name) for name in cost.__dataclass_fields__},
        **papers,
    }


def _paper_lines(
    checks: Checks,
    seen,
    questions,
    calibration: int | None,
    seed: int,
    laid_out: tuple,
    rates=None,
) -> dict:
    """What ``paper`` will cost with its defaults.

    Args:
        checks: told.
        seen: of ``decoder.preflight``.
        questions: the task.
        calibration: questions to choose blocks on.
        seed: of the split.
        laid_out: of ``paper.sides.measure_sides``, from the inputs on.
        rates: measured; None without the weights, and then nothing is said of seconds.
    """
    from phaseprune.cli.check_words import experiment_lines, paper_line
    from phaseprune.replication.cost import Shape, costs
    from phaseprune.replication.settings import Settings, resolve
    from phaseprune.replication.sides import measure_sides

    try:
        settings = resolve(Settings(calibration=calibration), seen.blocks)
    except UserError as error:  # which other commands do not mind
        checks.tell("paper", f"not with its defaults: {error.typed}", ok=False)
        return {"experiments": []}
    needed = seen.vocabulary if questions.needs_vocabulary else int(questions.options.max())
    parameters = sum(seen.block_parameters) / seen.blocks
    shape = Shape(seen.blocks, parameters, seen.width, seen.vocabulary, needed)
    found = costs(settings, measure_sides(questions, settings, seed, *laid_out), shape)
    rows = [one.to_dict() | {"seconds": rates and one.seconds(rates, shape)} for one in found]
    checks.tell("paper", paper_line(rows))
    for line in experiment_lines(rows):
        checks.detail(line)
    return {"experiments": rows}
