"""What ``phaseprune check`` says of a task, and what runs of it will cost."""

from __future__ import annotations

from phaseprune.cli.console import Screen
from phaseprune.errors import UserError


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


def check_questions(checks: Checks, task: str, limit: int | None, settings: dict):
    """The task's questions, with a line about them."""
    from phaseprune.questions.catalog import load_task

    questions = load_task(task, limit=limit, **settings)
    options = "/".join(map(str, sorted(set(questions.options.tolist()))))
    checks.tell("task", f"{len(questions.questions)} questions with {options} options, "
                f"{questions.scoring} scoring, chance {questions.chance:.3f}")  # fmt: skip
    if questions.recognised:
        checks.detail(f"read as {questions.recognised}")
    for note in questions.notes:
        checks.tell("input", note)
    return questions


def task_lines(
    checks: Checks, questions, tokenizer, seen, device: str, calibration: int | None, seed: int
) -> dict:  # fmt: skip
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
    checks.tell("tokens", f"{rows.tokens:,} if the model runs packed rows, else {plain.tokens:,} "
                f"in {plain.rows:,} plain rows (--full tries it out)")  # fmt: skip
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
    }  # fmt: skip


def _input_lines(checks: Checks, questions, first, tokenizer, counts: dict) -> None:
    from phaseprune.report.words import input_lines

    if questions.scoring == "letter":
        ids = [ending[0] for ending in first.continuations]
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
        checks.tell("labels", f"single and distinct tokens, as {shown}")
    for line in input_lines(counts):
        checks.tell("input", line)


def cost_lines(
    checks: Checks, decoder, seen, questions, calibration: int | None, seed: int
) -> dict:  # fmt: skip
    """What a run will cost, measured on the loaded model."""
    from phaseprune.cli.check_words import duration
    from phaseprune.questions.split import split
    from phaseprune.sweep.estimate import estimate, measure_rates
    from phaseprune.sweep.measure import encode_inputs, prepare
    from phaseprune.sweep.memory import batch_tokens

    prepared = prepare(decoder, questions)
    inputs = encode_inputs(questions, decoder.tokenizer, decoder.max_length)
    _input_lines(
        checks, questions, inputs.questions[0], decoder.tokenizer, prepared.input_counts
    )  # fmt: skip
    rows = prepared.rows
    padding = 1 - rows.tokens / rows.padded_tokens
    kind = "packed" if decoder.packed_length else "plain"
    checks.tell("tokens", f"{rows.tokens:,} in {rows.rows:,} {kind} rows ({padding:.0%} padding "
                "besides)")  # fmt: skip
    chosen_on, _ = split(questions, calibration, None, seed)
    rates = measure_rates(decoder, prepared)
    cost = estimate(decoder, prepared, prepare(decoder, chosen_on), rates)
    checks.tell("trace", f"{cost.trace_block_passes} block passes, about "
                f"{duration(cost.trace_seconds)}")  # fmt: skip
    checks.tell("prune", f"{cost.step_block_passes} block passes over {len(chosen_on.questions)} "
                "calibration questions for the first step, about "
                f"{duration(cost.step_seconds)}; later steps cost less")  # fmt: skip
    papers = _paper_lines(
        checks, seen, questions, calibration, seed,
        (inputs, rows, batch_tokens(decoder), decoder.packed_length), rates,
    )  # fmt: skip
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
    checks: Checks, seen, questions, calibration: int | None, seed: int, laid_out: tuple,
    rates=None,
) -> dict:  # fmt: skip
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
        checks.tell("paper", f"not with its defaults: {error}", ok=False)
        return {"experiments": []}
    needed = seen.vocabulary if questions.needs_vocabulary else int(questions.options.max())
    parameters = sum(seen.block_parameters) / seen.blocks
    shape = Shape(seen.blocks, parameters, seen.width, seen.vocabulary, needed)
    found = costs(settings, measure_sides(questions, settings, seed, *laid_out), shape)
    rows = [
        one.to_dict() | {"seconds": rates and one.seconds(rates, shape)} for one in found
    ]  # fmt: skip
    checks.tell("paper", paper_line(rows))
    for line in experiment_lines(rows):
        checks.detail(line)
    return {"experiments": rows}


