"""Methods of choosing blocks, compared: what they retain, what they cost, what guards see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.collapse import fall_sentence, removed_blocks
from phaseprune.report.guards import guessing_line
from phaseprune.report.view import PAGE, TERMINAL, Column, Estimate, Figure, Item, Line, Table, View
from phaseprune.report.words import (
    DASH,
    PHASE_NAMES,
    blocks_in_words,
    interval_words,
    percent,
    percent_with_interval,
    plural,
    points,
    signed,
)

BEST, NOT_WORSE = "*", "~"
TABLE_NOTE = (
    "columns: numbers of removed blocks; passes: block passes of the choice; "
    f"{BEST} best, {NOT_WORSE} not significantly worse (McNemar, Holm)"
)
#: Columns that a number of removed blocks takes at least: minus, three digits, a mark.
_LEAST = 5
#: A rise of the loss beyond these per cent is a broken model, however large it is.
_MOST = 999
#: Kind of a collapse -> what it means.
KINDS = {
    "calibration": "Collapsed in calibration alone, as without the label prior more is retained",
    "knowledge": "Collapsed in knowledge, without the label prior as well",
    "unclear": "Collapsed in calibration or in knowledge, which these questions cannot tell",
}


def compare_view(found: Mapping[str, Any]) -> View:
    """Show a comparison.

    Args:
        found: The content of `compare.json`.

    Returns:
        Its view: one task after the other.
    """
    tasks = found["tasks"]
    return View(
        [*(item for task in tasks for item in _task_items(task)), *text_lines(found)],
        figures=[figure for task in tasks if task["methods"] for figure in _figures(task)],
    )


def _task_items(task: Mapping[str, Any]) -> list[Item]:
    return [
        retained_table(task),
        Line(TABLE_NOTE, TERMINAL, dim=True),
        debiased_table(task),
        *guarded_tables(task),
        *compare_lines(task),
        *debiased_lines(task),
        *guarded_lines(task),
    ]


def retained_table(task: Mapping[str, Any]) -> Table:
    """Tabulate what every method retains at every number of removed blocks.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        The table, a row a method; accuracy stands in place of retained where the full model is at
        chance.
    """
    methods = task["methods"]
    what = "retained %" if task["full"]["accuracy"] > task["chance"] else "accuracy %"
    rows = [retained_cells(task, one) for one in methods]
    return Table(
        f"{task['folder']}: {what}",
        [
            Column("method", [one["method"] for one in methods], left=True),
            Column("passes", [f"{one['block_passes']:,}" for one in methods], page="block passes"),
            *_number_columns(task, rows, " "),
        ],
        notes=[
            f"{BEST} best, {NOT_WORSE} not significantly worse than the best: exact McNemar tests "
            "on the evaluation questions, corrected over all pairs at all numbers (Holm).",
            *standing_lines(task),
        ],
        name=f"{task['folder']}-methods",
        page_title=f"{task['folder']}: {what} by number of removed blocks",
    )


def _number_columns(
    task: Mapping[str, Any], rows: Sequence[Sequence[Estimate]], mark: str = ""
) -> list[Column]:
    """A column a number of removed blocks; the rows' last character may be a mark."""
    return [
        Column(f"{number}{mark}", [row[at] for row in rows], narrow=True, part=True, least=_LEAST)
        for at, number in enumerate(task["numbers"])
    ]


def _cells(task: Mapping[str, Any], method: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is known of a method at each number of removed blocks; nothing for no choice."""
    cells = {cell["removed_blocks"]: cell for cell in method["cells"]}
    return [cells.get(number, {}) for number in task["numbers"]]


def retained_cells(task: Mapping[str, Any], method: Mapping[str, Any]) -> list[Estimate]:
    """What a method retains at each number of removed blocks, marked as it stands to the best.

    Args:
        task: A task's entry in `compare.json`.
        method: One of its methods.

    Returns:
        A dash where it has no choice; accuracy where retained is not defined.
    """
    stands = {row["removed_blocks"]: row for row in task["by_removed"]}
    shown = []
    for number, cell in zip(task["numbers"], _cells(task, method), strict=True):
        what = "accuracy" if cell.get("retained") is None else "retained"
        mark = _mark(method["method"], stands[number]) if cell else ""
        kind = "strong" if mark == BEST else ""
        ci = cell.get(f"{what}_ci")
        shown.append(Estimate(cell.get(what), ci, mark=mark or " ", kind=kind))
    return shown


def _mark(method: str, stand: Mapping[str, Any]) -> str:
    if method in stand["best"]:
        return BEST
    return NOT_WORSE if method in stand["not_worse"] else ""


def debiased_table(task: Mapping[str, Any]) -> Table | None:
    """Tabulate what is retained with the label prior taken off.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A table for the page; None for texts and for entries of older versions.
    """
    if not has_debiased(task):
        return None
    rows = [
        [
            Estimate(
                cell.get("retained_debiased"),
                cell.get("retained_debiased_ci"),
                kind="strong" if cell.get("collapse") == "calibration" else "",
            )
            for cell in _cells(task, one)
        ]
        for one in task["methods"]
    ]
    return Table(
        f"{task['folder']}: retained % without the label prior",
        [
            Column("method", [one["method"] for one in task["methods"]], left=True),
            *_number_columns(task, rows),
        ],
        notes=[
            "The label prior is how much a letter is preferred whatever the question says; it is "
            "taken off the scores of the full and of the pruned model. Bold: as it answers the "
            "model has collapsed, and without the label prior it has not.",
        ],
        name=f"{task['folder']}-debiased",
        only=PAGE,
    )


def guarded_tables(task: Mapping[str, Any]) -> list[Table]:
    """Tabulate what guards found of each choice.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A table a figure; in the terminal the rise of the loss alone, and nothing where the full
        model does not know the text. None without guards.
    """
    if not has_guards(task):
        return []
    unknown = guessing_line(task["full"]["guard"])
    titles = (
        ("text_loss_rise", "rise of the loss on plain text, %", _rise),
        ("agreement", "greedy tokens equal to the full model's, %", percent),
        ("repetition", "repeated 4-grams, %", percent),
    )
    return [
        Table(
            f"{task['folder']}: {title}",
            [
                Column("method", [one["method"] for one in task["methods"]], left=True),
                *_number_columns(
                    task,
                    [
                        [
                            Estimate(of.get(name), of.get(f"{name}_ci"), write=write)
                            for cell in _cells(task, one)
                            for of in [cell.get("guard") or {}]
                        ]
                        for one in task["methods"]
                    ],
                ),
            ],
            notes=[
                "95 % intervals by a bootstrap over windows or prompts (of drawn orders, over "
                "these too); not corrected for their number."
            ],
            name=f"{task['folder']}-{name.replace('_', '-')}",
            only=None if name == "text_loss_rise" and not unknown else PAGE,
        )
        for name, title, write in titles
    ]


def _rise(rise: float | None, digits: int) -> str:
    """A rise in per cent; one that is too large for a terminal, which has no digits, is cut."""
    if rise is None:
        return DASH
    return f">{_MOST}" if not digits and 100 * rise > _MOST else signed(100 * rise, digits)


def numbers_in_words(numbers: Sequence[int]) -> str:
    """Numbers of removed blocks: ``1 to 9`` when they follow each other, else ``2, 4, 6``."""
    following = list(range(numbers[0], numbers[0] + len(numbers)))
    if len(numbers) > 2 and list(numbers) == following:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def compare_lines(task: Mapping[str, Any]) -> list[str]:
    """Say what a comparison comes to, no more than its tests allow.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Sentences.
    """
    lines = [_full_line(task)]
    if task["methods"]:
        lines += [_cliff_line(task), *_never_worse_lines(task), *_front_lines(task)]
    return lines + _left_out_lines(task["left_out"])


def _full_line(task: Mapping[str, Any]) -> str:
    full = task["full"]
    return (
        f"{task['folder']}: {plural(len(task['methods']), 'method')} chose on "
        f"{plural(task['calibration_questions'], 'calibration question')}; on "
        f"{task['evaluation_questions']} others the full model's accuracy is "
        f"{percent_with_interval(full['accuracy'], full['ci'])}, chance is "
        f"{percent(task['chance'])} %."
    )


def _cliff_line(task: Mapping[str, Any]) -> str:
    if task["full"]["accuracy"] <= task["chance"]:
        return "The full model is not above chance, so that nothing can be retained."
    common, cliff = numbers_in_words(task["common_numbers"]), task["cliff"]
    follows = f" What follows is of {common} removed."
    if cliff is None or "found" not in cliff:  # of an older version: a largest one-step loss
        return follows.strip()
    subject = "What the best method at each number retains"
    return fall_sentence(cliff, subject, removed_blocks) + follows


def _never_worse_lines(task: Mapping[str, Any]) -> list[str]:
    """Which methods cannot be told from the best one at any number before the cliff."""
    common, worse = task["common_numbers"], set()
    for row in task["by_removed"]:
        if row["removed_blocks"] in common:
            worse |= set(row["worse"])
    full = [
        one
        for one in task["methods"]
        if {cell["removed_blocks"] for cell in one["cells"]} >= set(common)
    ]
    if len(full) < 2:  # nothing to compare with
        return []
    never = sorted((one for one in full if one["method"] not in worse), key=_cost)
    if not never:
        return [
            "Every method is significantly worse than the best at one of these numbers at least."
        ]
    if len(never) == len(full):
        return [
            "No significant difference from the best at any of these numbers for any of the "
            f"{len(full)} methods: these questions do not tell them apart."
        ]
    named = ", ".join(f"{one['method']} ({_passes(one)})" for one in never)
    others = len(full) - len(never)
    rest = len(task["methods"]) - len(full)
    short = f" {plural(rest, 'method')} cannot remove so many: not judged here." if rest else ""
    return [
        "Best, or with no significant difference from the best, at each of these numbers: "
        f"{named}. "
        + ("The other one is" if others == 1 else f"The other {others} are")
        + " significantly worse at one of them at least."
        + short
    ]


def _cost(one: Mapping[str, Any]) -> tuple[int, float]:
    return one["block_passes"], -(one["mean_retained"]["value"] or 0.0)


def _passes(one: Mapping[str, Any]) -> str:
    return f"{one['block_passes']:,} block passes" if one["block_passes"] else "free"


def _front_lines(task: Mapping[str, Any]) -> list[str]:
    """The front of mean retained against cost, and what its steps are worth."""
    by = {one["method"]: one for one in task["methods"]}
    if not task["front"]:
        return []
    told = ", ".join(
        f"{name} {percent(by[name]['mean_retained']['value'])} % ({_passes(by[name])})"
        for name in task["front"]
    )
    lines = [f"Front of mean retained against cost: {told}."]
    for gain in task["gains"]:
        interval = interval_words(gain["ci"], percent)
        verdict = "a significant" if gain["significant"] else "no significant"
        lines.append(
            f"{gain['method']} retains {percent(gain['value'])} points{interval} more than the "
            f"cheaper {gain['than']}: {verdict} difference."
        )
    predicted = [one for one in task["methods"] if one["budget"]]
    told = dict.fromkeys([*task["front"], *(one["method"] for one in predicted)])
    lines += [_fit_line(name, by[name]["cliff_fit"]) for name in told]
    return lines + [_budget_line(one, task["transition"]) for one in predicted]


def _budget_line(one: Mapping[str, Any], transition: Mapping[str, Any]) -> str:
    method, budget = one["method"], one["budget"]
    if budget["blocks"] is None:
        return f"{method} predicted no budget: the calibration questions are answered by chance."
    of = f"{plural(budget['blocks'], 'block')} ({budget['low']} to {budget['high']})"
    more = "; its order goes no further" if budget["bound_by"] == "order" else ""
    doubt = "" if transition["found"] else " No transition was found there that would support it."
    return f"{method} predicted from the calibration questions that {of} can go{more}.{doubt}"


def _fit_line(method: str, fit: Mapping[str, Any] | None) -> str:
    if fit is None:
        return f"No fall is fitted to {method}, which is drawn."
    return fall_sentence(fit, f"What {method} retains", removed_blocks)


def _left_out_lines(left_out: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence a reason, with all methods that it keeps out."""
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        at = "" if one["at"] == "all" else f" at {one['at']}"
        by_reason.setdefault(one["reason"], []).append(one["method"] + at)
    return [f"Left out: {', '.join(of)} ({reason})." for reason, of in by_reason.items()]


def standing_lines(task: Mapping[str, Any]) -> list[str]:
    """Say for each number which method is best and which others are not significantly worse.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence a number.
    """
    lines = []
    for row in task["by_removed"]:
        if not row["best"]:
            continue
        parts = [f"{row['removed_blocks']} removed: best {', '.join(row['best'])}"]
        for name, key in (("not significantly worse", "not_worse"), ("worse", "worse")):
            if row[key]:
                parts.append(f"{name}: {', '.join(row[key])}")
        lines.append("; ".join(parts) + ".")
    return lines


def phases_words(task: Mapping[str, Any]) -> str:
    """Say which phases stand behind the orders of removal.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence.
    """
    transition = task["transition"]
    if not transition["found"]:
        return "No transition is found on the calibration questions, so no phases are drawn."
    named = " and ".join(
        f"{PHASE_NAMES[phase]} ({blocks_in_words(transition[f'{phase}_blocks'])})"
        for phase in ("silent", "decisive")
    )
    return f"Behind them the phases of the full model on the calibration questions: {named}."


def has_debiased(task: Mapping[str, Any]) -> bool:
    """Whether a task's entry in `compare.json` has figures with the label prior taken off."""
    return any("retained_debiased" in cell for one in task["methods"] for cell in one["cells"])


def debiased_lines(task: Mapping[str, Any]) -> list[str]:
    """Say which choices lose the knowledge, and which the calibration alone.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        A sentence a kind of collapse; none for texts and for entries of older versions.
    """
    collapsed: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for one in task["methods"]:
        for kind, of in collapsed.items():
            at = [c["removed_blocks"] for c in one["cells"] if c.get("collapse") == kind]
            if at:
                of.append(f"{one['method']} at {numbers_in_words(at)}")
    return [
        f"{KINDS[kind]} (at numbers of removed blocks): {', '.join(of)}."
        for kind, of in collapsed.items()
        if of
    ]


def has_guards(task: Mapping[str, Any]) -> bool:
    """Say whether any choice of a task was looked at by guards.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        Whether one was.
    """
    return any(cell.get("guard") for one in task["methods"] for cell in one["cells"])


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
    if unknown := guessing_line(full):
        return [unknown]
    lines = [
        f"Plain text: the full model's loss is {full['text_loss']:.3f} nats a token; it repeats "
        f"{percent(full['repetition'])} % of the 4-grams of its continuations."
    ]
    number = task["common_numbers"][-1] if task["common_numbers"] else task["numbers"][0]
    guards = {
        one["method"]: cell["guard"]
        for one in task["methods"]
        for cell in one["cells"]
        if cell["removed_blocks"] == number and cell.get("guard")
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
    low, high = map(points, guard["text_loss_rise_ci"])
    return (
        f"{points(guard['text_loss_rise'])} %, 95 % CI {low} to {high}; "
        f"{percent(guard['agreement'], 0)} % of greedy tokens equal, "
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


def _figures(task: Mapping[str, Any]) -> list[Figure]:
    drawn = (
        (
            "retained",
            "compare_figure",
            f"{task['folder']}: what is left of the accuracy above chance, on evaluation questions "
            "that no method saw. Names stand in the order of the mean, last those that cannot "
            "remove so many.",
        ),
        (
            "orders",
            "orders_figure",
            f"{task['folder']}: which block each method removes first (1), second, and so on. "
            + phases_words(task),
        ),
        (
            "cost",
            "cost_figure",
            f"{task['folder']}: what the choice cost and what it retains, with 95 % intervals; the "
            "line is the front. One pass is one block run over all calibration questions, or over "
            "the text.",
        ),
    )
    if has_guards(task):
        drawn += (
            (
                "guards",
                "guarded_figure",
                f"{task['folder']}: what each choice does to the model beyond the questions. Loss "
                "on plain text over the full model's, tokens of greedy continuations equal to the "
                "full model's, repeated 4-grams; the dotted line is the full model.",
            ),
        )
    return [
        Figure(f"{task['folder']}-{key}", drawing, (task,), caption)
        for key, drawing, caption in drawn
    ]
