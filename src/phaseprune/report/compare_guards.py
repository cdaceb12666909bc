"""Guards of compared methods, and the text they looked at, as tables and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from phaseprune.report.compare import CELL, number_parts
from phaseprune.report.view import add_row, interval_cell, new_table
from phaseprune.report.words import DASH, percent, plural, signed

#: Figure -> what the table of it is called.
FIGURES = {
    "text_loss_rise": "rise of the loss on plain text, %",
    "agreement": "greedy tokens equal to the full model's, %",
    "repetition": "repeated 4-grams, %",
}
#: A rise of the loss beyond these per cent is a broken model, however large it is.
_MOST = 999


def has_guards(task: Mapping[str, Any]) -> bool:
    """Say whether any choice of a task was looked at by guards.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Whether one was.
    """
    return any(cell.get("guard") for one in task["methods"] for cell in one["cells"])


def knows_text(task: Mapping[str, Any]) -> bool:
    """Say whether the full model does better on the guards' text than by guessing.

    Args:
        task: A task's entry in `compare.json`, with guards.

    Returns:
        Whether it does.
    """
    full = task["full"]["guard"]
    return full["text_loss"] < full["guessing"]


def guarded_tables(task: Mapping[str, Any]) -> list[Table]:
    """Tabulate by how much each choice raises the loss on text.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Tables of at most 80 columns; none without guards.
    """
    if not has_guards(task) or not knows_text(task):
        return []
    tables = []
    for numbers in number_parts(task, 1):
        table = new_table(f"{task['folder']}: {FIGURES['text_loss_rise']}")
        table.add_column("method", no_wrap=True)
        for number in numbers:
            table.add_column(str(number), justify="right", no_wrap=True, min_width=CELL - 1)
        for one in task["methods"]:
            add_row(table, one["method"], *(_rise(cell) for cell in _cells(one, numbers)))
        tables.append(table)
    return tables


def _cells(method: Mapping[str, Any], numbers: Sequence[int]) -> list[Mapping[str, Any] | None]:
    """The guards of a method at some numbers of removed blocks."""
    guards = {cell["removed_blocks"]: cell.get("guard") for cell in method["cells"]}
    return [guards.get(number) for number in numbers]


def _rise(guard: Mapping[str, Any] | None) -> str:
    if guard is None:
        return DASH
    rise = 100 * guard["text_loss_rise"]
    return f">{_MOST}" if rise > _MOST else signed(rise, 0)


def guarded_html_tables(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tabulate the guards of a task, for the page.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A table a figure, as `compare_page.compare_html_table` makes them; none without guards.
    """
    if not has_guards(task):
        return []
    notes = ["95 % intervals by a bootstrap over windows or prompts (of drawn orders, over these "
             "too); not corrected for their number."]  # fmt: skip
    return [
        {
            "name": f"{task['folder']}: {title}",
            "head": ["method", *map(str, task["numbers"])],
            "rows": [
                [
                    {"text": text, "strong": False}
                    for text in (
                        one["method"],
                        *(
                            interval_cell(guard[name], guard[f"{name}_ci"], 0) if guard else DASH
                            for guard in _cells(one, task["numbers"])
                        ),
                    )
                ]
                for one in task["methods"]
            ],
            "notes": notes,
        }
        for name, title in FIGURES.items()
    ]


def guarded_lines(task: Mapping[str, Any]) -> list[str]:
    """Say what guards found: of the choices that are best on questions, and which spare text most.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Sentences; none without guards.
    """
    if not has_guards(task):
        return []
    full = task["full"]["guard"]
    if not knows_text(task):
        return [
            f"Plain text: the full model's loss, {full['text_loss']:.3f} nats a token, is no "
            f"better than guessing among all tokens ({full['guessing']:.3f}), so this text tells "
            "nothing of it; give one that the model knows with --text."
        ]
    lines = [
        f"Plain text: the full model's loss is {full['text_loss']:.3f} nats a token; it repeats "
        f"{percent(full['repetition'])} % of the 4-grams of its continuations."
    ]
    number = task["common_numbers"][-1] if task["common_numbers"] else task["numbers"][0]
    guards = {
        one["method"]: guard for one in task["methods"] if (guard := _cells(one, [number])[0])
    }
    if not guards:
        return lines
    spared = min(guards, key=lambda name: guards[name]["text_loss"])
    stands = {row["removed_blocks"]: row for row in task["by_removed"]}
    best = next((name for name in stands[number]["best"] if name in guards), None)
    line = (
        f"At {plural(number, 'removed block')} the loss on text is lowest with {spared} "
        f"({_told(guards[spared])})"
    )
    if best is None or best == spared:
        return [*lines, line + (", which is also best on the questions." if best else ".")]
    return [*lines, f"{line}; with {best}, best on the questions, {_told(guards[best])}."]


def _told(guard: Mapping[str, Any]) -> str:
    low, high = guard["text_loss_rise_ci"]
    return (
        f"{signed(100 * guard['text_loss_rise'], 1)} %, 95 % CI {signed(100 * low, 1)} to "
        f"{signed(100 * high, 1)}; {percent(guard['agreement'], 0)} % of greedy tokens equal, "
        f"{percent(guard['repetition'], 0)} % repeated"
    )


def text_lines(result: Mapping[str, Any]) -> list[str]:
    """Say which text methods chose by and which guards looked at.

    Args:
        result: The content of `compare.json`.

    Returns:
        Sentences.
    """
    lines = []
    if text := result.get("text"):
        lines.append(
            f"Methods that need plain text chose by {text.get('name', 'the text of --text')}: its "
            f"first {plural(text['text_windows'], 'window')} of "
            f"{plural(text['text_window_tokens'], 'token')}."
        )
    if guard := result.get("guard"):
        behind = guard["guard_text_skipped_tokens"]
        where = f", behind its first {behind:,} tokens" if behind else ""
        lines.append(
            f"Guards look at {guard['name']}{where}: "
            f"{plural(guard['guard_windows'], 'window')} of "
            f"{plural(guard['guard_window_tokens'], 'token')}, and "
            f"{plural(guard['guard_tokens'], 'greedy token')} behind each of "
            f"{plural(guard['guard_prompts'], 'prompt')}."
        )
    return lines
