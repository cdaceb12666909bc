"""``phaseprune compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import Run, run_path
from phaseprune.cli.screen import block_list, command_line, name_list, number_list
from phaseprune.errors import UserError


@o.command
def compare(
    model: o.ModelOptions,
    questions: o.TasksOptions,
    output: o.RunOptions,
    methods: Annotated[
        str | None,
        o.option(
            "--methods",
            "Of `phaseprune methods`, as decision_margin,tail, or all. Others can be added later.",
            metavar="NAMES",
            default="all but beam, pairwise, evolutionary and laco",
        ),
    ] = None,
    remove: Annotated[
        str,
        o.option(
            "--remove",
            "How many blocks, as 2,4,6, or all: every number that can be.",
            metavar="NUMBERS",
        ),
    ] = "all",
    text: Annotated[
        str | None,
        o.option(
            "--text",
            "Plain text: its first 16 windows of 512 tokens for the methods that "
            "need text, what follows for --guard; none does without. Can be added later.",
            metavar="FILE",
            default="a bundled text, by halves",
        ),
    ] = None,
    guard: Annotated[
        bool,
        o.option(
            "--guard",
            "Look at each choice beyond questions: loss on plain text, greedy "
            "continuations against the full model's, repetition. Can be added later.",
        ),
    ] = False,
    protect: o.Protect = None,
    draws: Annotated[int, o.option("--draws", "Orders that random draws.", o.SEARCH)] = 10,
    calibration: Annotated[
        str | None,
        o.option(
            "--calibration",
            "Questions to choose blocks on, of each task, or a number a task as 64,32.",
            o.QUESTIONS,
            metavar="NUMBERS",
            default="a third, up to 64",
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        o.option(
            "--evaluation",
            "Other questions to report on, likewise.",
            o.QUESTIONS,
            metavar="NUMBERS",
            default="all others",
        ),
    ] = None,
) -> None:
    """Every method of choosing blocks side by side: what it retains, and what it costs.

    All choose on calibration questions (or text) and are scored on other questions. A stopped run
    goes on with the same command; methods, text and guards can be added to a finished one.
    """
    run = Run("compare", model, questions, output)
    names = run.task_names()
    run.path = run_path(output.out, "compare", model.name, names[0])
    asked = None if methods is None else name_list(methods, "--methods")
    how_many = "say how many blocks, as 2,4,6, or all"
    numbers = None if remove == "all" else number_list(remove, "--remove", how_many)
    counts = {
        side: typed
        and number_list(typed, f"--{side}", "say how many questions, as 64, or 64,32 of two tasks")
        for side, typed in (("calibration", calibration), ("evaluation", evaluation))
    }
    protected = block_list(protect)
    from phaseprune.comparison.compare import compare
    from phaseprune.comparison.orders import method_names
    from phaseprune.comparison.text import NO_TEXT
    from phaseprune.probes.phasewise import check_draws

    method_names(asked)
    check_draws(draws, None)
    if text not in (None, NO_TEXT) and not Path(text).is_file():
        raise UserError(f"--text {text}: there is no such file that can be read")
    tasks = [run.load_questions(name) for name in names]
    decoder = run.load_model()
    from phaseprune.probes.guards import Guard
    from phaseprune.report.compare import compare_view

    compared = run.work(
        compare,
        decoder,
        tasks,
        methods=asked,
        remove=numbers,
        text=text,
        guard=Guard() if guard else None,
        protect=protected,
        draws=draws,
        seed=questions.seed,
        note=run.screen.note,
        **counts,
    )
    result = compared.to_dict()
    run.show(compare_view(result))
    first = result["tasks"][0]
    following = [command_line("methods", name) for name in first["front"][-1:]]
    run.end(result, *following, run.like("prune", task=names[0]))
