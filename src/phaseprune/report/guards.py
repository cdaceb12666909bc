"""Guards in words and as a table: what accuracy on questions does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.view import Column, Estimate, Table
from phaseprune.report.words import (
    DASH,
    decimal,
    interval_words,
    nouns_of,
    percent,
    percent_with_interval,
    plural,
    points,
)

#: Beyond this p-value no difference in accuracy is spoken of.
SIGNIFICANT = 0.05


def guard_lines(result: Mapping[str, Any]) -> list[str]:
    """Say what the guards found of the chosen step, and whether accuracy hides it.

    Args:
        result: The result of a prune run.

    Returns:
        Sentences; none where there are no guards or no block is removed.
    """
    guards = result.get("guard")
    if not guards or not result["removed"]:
        return []
    full, pruned = guards["full"], guards["pruned"]
    if unknown := guessing_line(full):
        return [unknown]
    rise, bounds = pruned["text_loss_rise"], pruned["text_loss_rise_ci"]
    lines = [
        f"Plain text: the loss is {full['text_loss']:.3f} nats a token in the full model and "
        f"{pruned['text_loss']:.3f} in the pruned one: {points(rise)} %"
        f"{interval_words(bounds, points)}{_verdict(bounds)}.",
        "Greedy continuations: "
        f"{percent_with_interval(pruned['agreement'], pruned['agreement_ci'])} of the tokens are "
        f"the full model's, the first {pruned['common_prefix']:.1f} on average; repeated "
        f"4-grams: {percent(pruned['repetition'])} %, in the full model "
        f"{percent(full['repetition'])} %{_verdict(pruned['repetition_rise_ci'])}.",
    ]
    return [*lines, *_warning(result, pruned)]


def _warning(result: Mapping[str, Any], pruned: Mapping[str, Any]) -> list[str]:
    """What is worse without accuracy showing it; nothing where accuracy falls or all is well."""
    if result["against_full"]["p_value"] < SIGNIFICANT:
        return []
    worse = []
    if pruned["text_loss_rise_ci"][0] > 0:
        worse.append(f"the text loss {times(1 + pruned['text_loss_rise'])}")
    if pruned["repetition_rise_ci"][0] > 0:
        worse.append("continuations repeat themselves more")
    if not worse:
        return []
    return [f"No loss of accuracy on the questions can be told, but {' and '.join(worse)}."]


def times(ratio: float) -> str:
    """Say how a loss has grown: ``has risen by 12 %``, ``has doubled``, ``is 3.4 times as high``.

    Args:
        ratio: The loss over the full model's, above 1.

    Returns:
        The words.
    """
    if ratio < 1.95:
        return f"has risen by {percent(ratio - 1)} %"
    return "has doubled" if ratio < 2.05 else f"is {ratio:.1f} times as high"


def guards_table(steps: Sequence[Mapping[str, Any]]) -> Table | None:
    """Tabulate the guards of the steps of a pruning run.

    Args:
        steps: The lines of `steps.jsonl`.

    Returns:
        The table; None where no step has guards.
    """
    if not any(step.get("guard") for step in steps):
        return None
    guards = [step.get("guard") for step in steps]

    def shown(name: str, digits: int = 0, write: Any = percent) -> list[Estimate]:
        return [
            Estimate(of[name], of[f"{name}_ci"], digits, write) if of else Estimate(None)
            for of in guards
        ]

    what = "Block" if nouns_of(steps, None) == "blocks" else "Half"
    return Table(
        "Guards",
        [
            Column("Step", [str(step["step"]) for step in steps]),
            Column(
                what,
                ["full" if step["removed"] is None else str(step["removed"]) for step in steps],
                page=f"Removed {what.lower()}",
            ),
            Column("Loss", shown("text_loss", 2, decimal), page="Text loss", narrow=True),
            Column(
                "Rise % [CI]",
                [
                    Estimate(
                        of["text_loss_rise"],
                        of["text_loss_rise_ci"],
                        1 if abs(of["text_loss_rise"]) < 1 else 0,
                    )
                    if of
                    else Estimate(None)
                    for of in guards
                ],
                page="Text loss, rise %",
            ),
            Column("Equal % [CI]", shown("agreement"), page="Equal tokens %"),
            Column("From start", [f"{of['common_prefix']:.1f}" if of else DASH for of in guards]),
            Column("Repeated % [CI]", shown("repetition")),
        ],
        caption="Loss on plain text, nats a token, and its rise; tokens of greedy continuations "
        "equal to the full model's, and how many are so from the start; repeated 4-grams",
        notes=["Intervals are of the plain text, at 95 %."],
        name="guard-steps",
    )


def guessing_line(guard: Mapping[str, Any]) -> str | None:
    """Say that the full model does not know the text; None where it does."""
    if guard["text_loss"] < guard["guessing"]:
        return None
    return (
        f"Plain text: the full model's loss, {guard['text_loss']:.3f} nats a token, is no better "
        f"than guessing among all tokens ({guard['guessing']:.3f}), so this text tells nothing of "
        "it; give one that the model knows with --text."
    )


def saving_lines(saving: Mapping[str, Any]) -> list[str]:
    """Say what an exported model saves (``Saving.to_dict``)."""
    full, exported = saving["full"], saving["exported"]
    stored = {cost["stored_as"] for cost in (full, exported)}
    note = f" (the full model as {full['stored_as']})" if len(stored) > 1 else ""
    conditions = (
        f"{saving['device']}, {saving['dtype']}, {plural(saving['threads'], 'thread')}, "
        f"{plural(saving['repeats'], 'repeat')} by turns"
    )
    return [
        f"weights on disk: {full['disk_bytes'] / 1e6:,.1f} MB in the full model{note}, "
        f"{exported['disk_bytes'] / 1e6:,.1f} MB in the exported one",
        *(
            f"{name}: {full[part]:,.1f} tokens/s in the full model, {exported[part]:,.1f} in the "
            f"exported one, {saving[part]['median']:.2f} times as fast (lowest "
            f"{saving[part]['lowest']:.2f}, highest {saving[part]['highest']:.2f})"
            for name, part in (
                (f"prompt of {plural(saving['prompt_tokens'], 'token')}", "prefill"),
                (f"{plural(saving['new_tokens'], 'new token')}", "decode"),
            )
        ),
        f"measured on {conditions}",
    ]


def _verdict(bounds: Sequence[float]) -> str:
    """What an interval of a difference that holds 0 must not be taken for."""
    low, high = bounds
    return ", no significant difference" if low <= 0 <= high else ""
