"""``phaseprune compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import (
    Screen,
    block_list,
    command_line,
    load_checked,
    load_questions,
    name_list,
    prompt_words,
    run_path,
    task_name,
    task_settings,
    typed_command,
)
from phaseprune.errors import UserError


def compare(
    model: o.Model,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASKS", help="One task or several, as arc_easy,piqa."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="NAMES", help="Of `phaseprune methods`, as "
                     "decision_margin,tail, or all. Others can be added later. [default: all but "
                     "beam, pairwise, evolutionary and laco]"),
    ] = None,
    remove: Annotated[
        str,
        typer.Option("--remove", metavar="NUMBERS", help="How many blocks, as 2,4,6, or all: every "
                     "number that can be."),
    ] = "all",
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE", help="Plain text: its first 16 windows of 512 "
                     "tokens for the methods that need text, what follows for --guard; none does "
                     "without. Can be added later. [default: a bundled text, by halves]"),
    ] = None,
    guard: Annotated[
        bool,
        typer.Option("--guard", help="Look at each choice beyond questions: loss on plain text, "
                     "greedy continuations against the full model's, repetition. Can be added "
                     "later."),
    ] = False,
    protect: Annotated[
        str | None,
        typer.Option("--protect", metavar="BLOCKS", help="Blocks that no method removes, as "
                     "0,1."),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", help="Orders that random draws.")
    ] = 10,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", metavar="NUMBERS", help="Questions to choose blocks on, of "
                     "each task, or a number a task as 64,32. [default: a third, up to 64]"),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option("--evaluation", metavar="NUMBERS", help="Other questions to report on, "
                     "likewise. [default: all others]"),
    ] = None,
    scoring: o.Scoring = None,
    out: o.Out = None,
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
    """Every method of choosing blocks side by side: what it retains, and what it costs.

    All choose on calibration questions (or text) and are scored on other questions. A stopped run
    goes on with the same command; methods, text and guards can be added to a finished one.
    """
    screen = Screen(as_json, quiet)
    names = name_list(task_name(model, task), "--task")
    settings = task_settings(locals())
    asked = None if methods is None else name_list(methods, "--methods")
    numbers = (
        None if remove == "all" else whole_numbers(remove, "--remove", "blocks, as 2,4,6, or all")
    )
    counts = {
        side: typed and whole_numbers(typed, f"--{side}", "questions, as 64, or 64,32 of two tasks")
        for side, typed in (("calibration", calibration), ("evaluation", evaluation))
    }
    kept = [] if protect is None else block_list(protect, "--protect")
    from phaseprune.comparison.compare import compare as compare_methods
    from phaseprune.comparison.orders import method_names
    from phaseprune.comparison.text import NO_TEXT
    from phaseprune.probes.phasewise import check_draws

    method_names(asked)
    check_draws(draws, None)
    if text not in (None, NO_TEXT) and not Path(text).is_file():
        raise UserError(f"--text {text}: there is no such file that can be read")
    questions = [load_questions(screen, name, limit, settings) for name in names]
    decoder = load_checked(
        model, screen, device=device, dtype=dtype, revision=revision,
        trust_remote_code=trust_remote_code, blocks=blocks, stream=stream,
        max_memory=max_memory,
    )  # fmt: skip
    from phaseprune.probes.guards import Guard
    from phaseprune.report.compare_debiased import debiased_lines
    from phaseprune.report.compare_guards import guarded_lines, guarded_tables, text_lines
    from phaseprune.report.compare_words import TABLE_NOTE, compare_lines, compare_tables
    from phaseprune.report.html import write_report

    run = run_path(out, "compare", model, names[0])
    with screen.progress() as progress:
        compared = compare_methods(
            decoder, questions, methods=asked, remove=numbers, text=text,
            guard=Guard() if guard else None, protect=kept, draws=draws, **counts,
            seed=seed, out=run, arguments=typed_command(), note=screen.note, progress=progress,
        )  # fmt: skip
    report = write_report(run)
    result = compared.to_dict()
    if compared.state == "finished":
        screen.note(f"{run} was finished before; this is its result")
    for one in result["tasks"]:
        for table in compare_tables(one):
            screen.say(table)
        screen.say(f"[dim]{TABLE_NOTE}[/]")
        for table in guarded_tables(one):
            screen.say(table)
        for line in [*compare_lines(one), *debiased_lines(one), *guarded_lines(one)]:
            screen.say(line)
    for line in text_lines(result):
        screen.say(line)
    screen.say(f"report: {report}")
    commands = [command_line("methods", one) for one in _front(result)[-1:]]
    prompt = prompt_words(settings, questions[0].scoring)
    commands.append(command_line("prune", model, "--task", names[0], *prompt))
    screen.next(*commands)
    screen.result(result)


def whole_numbers(text: str, option: str, of_what: str) -> list[int]:
    """The numbers in a list with commas.

    Raises:
        UserError: they are no numbers.
    """
    try:
        return [int(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"{option} {text!r} must say how many {of_what}") from None


def _front(result: dict) -> list[str]:
    return [name for task in result["tasks"][:1] for name in task["front"]]
