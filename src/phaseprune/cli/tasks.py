"""``phaseprune tasks``."""

from __future__ import annotations

from typing import Annotated

from rich.markup import escape

from phaseprune.cli import options as o
from phaseprune.cli.screen import Screen, command_line


@o.command
def tasks(
    prompt: o.PromptOptions,
    output: o.OutputOptions,
    name: Annotated[str | None, o.argument("TASK", "Show a question of this task.")] = None,
    model: Annotated[
        str,
        o.option(
            "--model",
            "Whose tokenizer shows the tokens (its weights are not read).",
            metavar="MODEL",
        ),
    ] = "demo",
    trust_remote_code: o.TrustRemoteCode = False,
) -> None:
    """List the tasks, or show a task's first question as it is put, token by token."""
    screen = Screen(output.as_json, output.quiet)
    if name is None:
        _list(screen)
        return
    from phaseprune.decoder.load import load_tokenizer, silence_transformers
    from phaseprune.decoder.source import find_source
    from phaseprune.questions.catalog import load_task
    from phaseprune.questions.encode import encode_task, option_pairs, option_tokens

    task = load_task(name, **prompt.keywords())
    silence_transformers()
    tokenizer = load_tokenizer(find_source(model, weights=False), trust_remote_code)
    question = task.questions[0]
    contexts, continuations = zip(*option_pairs(question, task, tokenizer), strict=True)
    tokens = option_tokens(encode_task(task.head(1), tokenizer)[0], tokenizer)
    groups: dict[str, int] = {}
    for item in task.questions:
        groups[item.group or "all"] = groups.get(item.group or "all", 0) + 1
    shown = {
        "task": name,
        "recognised": task.recognised,
        "notes": list(task.notes),
        "questions": len(task.questions),
        "options": sorted(set(task.options.tolist())),
        "chance": task.chance,
        "scoring": task.scoring,
        "prompt_format": task.prompt_format,
        "groups": groups,
        "example": {
            "id": question.id,
            "context": contexts[0],
            "contexts": list(contexts),
            "continuations": list(continuations),
            "answer": question.answer,
            "tokenizer": model,
            "tokens": [vars(option) for option in tokens],
        },
    }
    options = "/".join(map(str, shown["options"]))
    screen.say(
        escape(
            f"{name}: {len(task.questions)} questions with {options} options, "
            f"chance {task.chance:.3f}"
        )
    )
    if task.recognised:
        screen.say(escape(f"read as {task.recognised}"))
    for note in task.notes:
        screen.say(escape(f"note: {note}"))
    counted = ", ".join(f"{group} {count}" for group, count in groups.items())
    screen.say(escape(f"groups: {_printable(counted)}"))
    screen.say(
        f"prompt ({shown['prompt_format']}) of question {escape(_printable(question.id))}:\n"
    )
    for number, continuation in enumerate(continuations):
        if number == 0 or contexts[number] != contexts[0]:
            lines = map(_printable, contexts[number].split("\n"))
            screen.say(escape("\n".join(lines)), whole=True)
        mark = "  <- right" if number == question.answer else ""
        screen.say(escape(f"    scored: {continuation!r}{mark}"), whole=True)
    screen.say(f"\ntokens of {model}, parted by |; a space is ·, a line's end ⏎:")
    for number, option in enumerate(tokens):
        if number == 0 or option.before_pieces != tokens[0].before_pieces:
            count = len(option.before)
            ending = _parted(option.before_pieces)
            screen.say(f"  {count} tokens of context, ending in  {ending}", whole=True)
        mark = "  [dim]<- right[/]" if number == question.answer else ""
        screen.say(f"    scored: [bold]{_parted(option.scored_pieces)}[/]{mark}", whole=True)
    words = prompt.words(prompt.scoring)
    screen.end(shown, command_line("check", model, "--task", name, *words))


def _printable(text: str) -> str:
    """A text of the data on one line, without what a terminal takes for a command."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _parted(pieces: tuple[str, ...]) -> str:
    return escape("|".join(pieces).replace(" ", "·").replace("\n", "⏎"))


def _list(screen: Screen) -> None:
    from dataclasses import asdict

    from phaseprune.questions.benchmarks import BENCHMARKS
    from phaseprune.questions.catalog import BUNDLED
    from phaseprune.questions.formats import SUFFIXES

    bundled = {task: about for task, (_, about, _) in BUNDLED.items()}
    for task, about in bundled.items():
        screen.say(f"{task}: {about}")
    screen.say(f"FILE: questions in {', '.join(SUFFIXES)}; see docs/questions.md")
    screen.say("\nof the hub (needs pip install 'phaseprune\\[tasks]'):")
    for task, entry in BENCHMARKS.items():
        screen.say(f"{task:<16}{entry.scoring:<8}{entry.about}")
    screen.say("\nmmlu_stem, mmlu_anatomy, ceval_law, mmlu_pro_math, …: one group or subject of")
    screen.say(f"mmlu (groups {', '.join(BENCHMARKS['mmlu'].groups)}), ceval, mmlu_pro")
    hidden = ("schema", "prompt", "groups", "subjects")
    entries = {
        task: {key: value for key, value in vars(entry).items() if key not in hidden}
        | {"schema": entry.schema.name, "one_place": entry.one_place}
        | {"groups": list(entry.groups), "subjects": list(entry.subjects)}
        | {"prompt": {k: v for k, v in asdict(entry.prompt).items() if k != "groups"}}
        for task, entry in BENCHMARKS.items()
    }
    listed = {"tasks": bundled, "benchmarks": entries, "files": list(SUFFIXES)}
    screen.end(listed, command_line("tasks", "demo"))
