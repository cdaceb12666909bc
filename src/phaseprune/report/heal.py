"""Healing: what fine-tuning a pruned model brings back, of one model and of a ladder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phaseprune.report.view import (
    Column,
    Estimate,
    Figure,
    Table,
    Tile,
    View,
    bar_column,
    estimates,
    share_tile,
)
from phaseprune.report.words import (
    blocks_in_words,
    exported_line,
    interval_words,
    p_in_words,
    percent,
    percent_with_interval,
    plural,
    points,
    signed,
)

#: A change is called one below this.
SIGNIFICANCE = 0.01
OBJECTIVES = {
    "task": "the gold option of training questions",
    "text": "plain text",
    "distill": "the full model's output distribution",
}


def healing_view(healing: Mapping[str, Any]) -> View:
    """Show one healed model.

    Args:
        healing: The content of `heal.json`.

    Returns:
        Its view.
    """
    before, after, change = healing["before"], healing["after"], healing["change"]
    return View(
        [healing_table(healing), *healing_lines(healing)],
        [
            share_tile("Before", before["accuracy"], before["ci"]),
            share_tile("After", after["accuracy"], after["ci"]),
            share_tile("Retained after", after["retained"]["value"], after["retained"]["ci"]),
            Tile("Gained, lost", f"{change['gained']}, {change['lost']}", "questions"),
        ],
        [
            Figure(
                "margin",
                "margin_change_figure",
                (healing,),
                "How sure the pruned model is of the right option after each of its blocks, "
                "before and after healing. Look for the readouts at which the bands part.",
            ),
            Figure(
                "loss",
                "loss_figure",
                (healing,),
                "The loss on training batches and on the validation split; the dashed line is "
                "the step whose weights were kept.",
            ),
        ],
    )


def ladder_view(ladder: Mapping[str, Any]) -> View:
    """Show a ladder of healed models.

    Args:
        ladder: The content of `ladder.json`.

    Returns:
        Its view.
    """
    levelling = ladder["levelling"]
    shown, below = "none", "not claimed"
    if levelling["found"]:
        low, high = levelling["ci"]
        shown, below = f"{levelling['depth']:.1f} blocks", f"95 % CI {low:.1f} to {high:.1f}"
    return View(
        [ladder_table(ladder), *ladder_lines(ladder)],
        [
            Tile("Depths healed", str(len(ladder["depths"])), f"{len(ladder['seeds'])} a depth"),
            Tile("Full model", f"{percent(ladder['full_accuracy'])} %", "accuracy"),
            Tile("Levels off at", shown, below),
        ],
        [
            Figure(
                "recovery",
                "recovery_figure",
                (ladder,),
                "What is retained of the full model's accuracy above chance, before and after "
                "healing, by the number of blocks that remain; bars are 95 % intervals.",
            ),
        ],
    )


def healing_table(healing: Mapping[str, Any]) -> Table:
    """Tabulate the Decision Margin by readout before and after healing.

    Args:
        healing: The content of `heal.json`.

    Returns:
        The table.
    """
    change = healing["decision_margin_change"]
    before, after = (
        estimates(healing[when]["decision_margin_by_readout"]) for when in ("before", "after")
    )
    return Table(
        "Decision Margin before and after healing",
        [
            Column("ℓ", [str(at) for at in range(len(before))], page="Readout"),
            Column(
                "behind",
                ["embeddings", *(f"block {block}" for block in healing["kept"])],
                left=True,
            ),
            Column("before", before, narrow=True),
            Column("after", after, narrow=True),
            bar_column([one.value for one in after]),
            Column("change [95 % CI]", estimates(change)),
            Column("", ["*" if one < SIGNIFICANCE else "" for one in change["p_value"]], left=True),
        ],
        "* p < 0.01: paired t test, Holm over the readouts",
    )


def ladder_table(ladder: Mapping[str, Any]) -> Table:
    """Tabulate a ladder: a row a depth.

    Args:
        ladder: The content of `ladder.json`.

    Returns:
        The table.
    """
    rows, seeds = ladder["depths"], len(ladder["seeds"])

    def retained(when: str) -> list[Estimate]:
        return [Estimate(row[when]["value"], row[when]["ci"]) for row in rows]

    return Table(
        "Recovery by remaining depth",
        [
            Column("Step", [str(row["step"]) for row in rows]),
            Column("Left", [str(row["remaining"]) for row in rows], page="Blocks left"),
            Column("Pruned %", [percent(row["pruned_share"], 0) for row in rows]),
            Column("Retained before %", retained("retained_before")),
            Column("and after %", retained("retained_after"), page="Retained after %"),
            Column("", ["*" if row["p_value"] < SIGNIFICANCE else "" for row in rows], left=True),
            Column(
                "DM",
                [
                    f"{signed(row['decision_margin_before'])} → "
                    f"{signed(row['decision_margin_after'])}"
                    for row in rows
                ],
            ),
            Column(
                "DM ↑ ↓",
                [
                    f"{row['readouts_higher']} {row['readouts_lower']} of {row['readouts']}"
                    for row in rows
                ],
            ),
        ],
        "* accuracy differs after healing (p < 0.01, adjusted). DM ↑ ↓: at how many "
        "readouts it is higher and lower"
        + ("" if seeds == 1 else f". Means over {seeds} seeds; ↑ ↓ of the first"),
    )


def healing_lines(healing: Mapping[str, Any]) -> list[str]:
    """Say what healing one model came to.

    Args:
        healing: The content of `heal.json`.

    Returns:
        Sentences.
    """
    lines = [
        training_line(healing),
        change_line(healing),
        retained_line(healing),
        margin_line(healing),
    ]
    differ = healing["training"]["decided_otherwise_than_the_run"]
    if differ:
        lines.append(
            f"Before healing {plural(differ, 'question')} of {healing['questions']} "
            f"{'is' if differ == 1 else 'are'} decided otherwise than in the run (another device, "
            "dtype or batch size rounds otherwise)."
        )
    return [*lines, exported_line(healing["export"])]


def training_line(healing: Mapping[str, Any]) -> str:
    """Say what was trained, on what, and why it ended."""
    recipe, training = healing["recipe"], healing["training"]
    total, left = healing["blocks"], len(healing["kept"])
    gone = blocks_in_words(healing["removed"])
    noun = "training question" if training["on_questions"] else "window"
    what = plural(training["examples"], noun) + ("" if training["on_questions"] else " of text")
    return (
        f"{left} of {total} blocks (without {gone}), {recipe['method']} on "
        f"{OBJECTIVES[recipe['objective']]}: {what}, a part of them held out. Trained "
        f"{plural(training['steps'], 'step')} in {training['seconds']:.0f} s: "
        f"{training['stopped_by']}; the weights of step {training['best_step']} are kept."
    )


def change_line(healing: Mapping[str, Any]) -> str:
    """Compare accuracy before and after, in pairs."""
    change, before, after = healing["change"], healing["before"], healing["after"]
    verdict = (
        "a significant change" if change["p_value"] < SIGNIFICANCE else "no significant change"
    )
    return (
        f"Accuracy on {plural(healing['questions'], 'evaluation question')}: "
        f"{percent_with_interval(before['accuracy'], before['ci'])} before, "
        f"{percent_with_interval(after['accuracy'], after['ci'])} after; "
        f"{change['gained']} gained, {change['lost']} lost, difference "
        f"{points(change['difference'])} points{interval_words(change['ci'], points)}, {verdict} "
        f"(McNemar, {p_in_words(change['p_value'])})."
    )


def retained_line(healing: Mapping[str, Any]) -> str:
    """Say what is retained before and after."""
    before, after = (
        percent_with_interval(healing[when]["retained"]["value"], healing[when]["retained"]["ci"])
        for when in ("before", "after")
    )
    return f"Retained of the full model's accuracy above chance: {before} before, {after} after."


def margin_line(healing: Mapping[str, Any]) -> str:
    """Say at how many readouts the Decision Margin is higher."""
    change = healing["decision_margin_change"]
    higher, lower, count = change["higher"], change["lower"], len(change["mean"])
    words = f"DM after healing is higher at {len(higher)} of {count} readouts"
    words += f" ({', '.join(map(str, higher))})" if 0 < len(higher) < count else ""
    if lower:
        words += f", lower at {len(lower)} ({', '.join(map(str, lower))})"
    return (
        f"{words}; at the output {signed(healing['before']['decision_margin'])} before, "
        f"{signed(healing['after']['decision_margin'])} after (paired t tests, Holm over the "
        f"readouts, p < {SIGNIFICANCE:g})."
    )


def ladder_lines(ladder: Mapping[str, Any]) -> list[str]:
    """Say what a ladder of healed models came to.

    Args:
        ladder: The content of `ladder.json`.

    Returns:
        Sentences.
    """
    return [gains_line(ladder), trend_line(ladder), levelling_line(ladder), scope_line(ladder)]


def gains_line(ladder: Mapping[str, Any]) -> str:
    """Say at which depths accuracy changed."""
    up, down = [], []
    for row in ladder["depths"]:
        if row["p_value"] < SIGNIFICANCE:
            better = row["accuracy_after"] > row["accuracy_before"]
            (up if better else down).append(str(row["remaining"]))
    words = f"Healing raises accuracy significantly at {len(up)} of {len(ladder['depths'])} depths"
    words += f" ({', '.join(up)} blocks left)" if up else ""
    words += f" and lowers it at {', '.join(down)} blocks left" if down else ""
    return f"{words} (McNemar, Holm over the depths, p < {SIGNIFICANCE:g})."


def trend_line(ladder: Mapping[str, Any]) -> str:
    """Say whether recovery depends on the depth that remains."""
    slope, bounds = ladder["trend"]["slope"], ladder["trend"]["ci"]
    if slope is None:
        return "There is no retained accuracy, as the full model is not above chance."
    per_block = f"{points(slope)} points of retained a block"
    if not bounds:
        return f"Straight line after healing: {per_block}; it has no interval."
    bound = (
        "rises with the depth that remains"
        if bounds[0] > 0
        else (
            "falls with the depth that remains"
            if bounds[1] < 0
            else "shows no dependence on the depth that remains"
        )
    )
    return f"Recovery {bound}: {per_block}{interval_words(bounds, points)}."


def levelling_line(ladder: Mapping[str, Any]) -> str:
    """Say where the curve levels off, or why that cannot be said."""
    levelling = ladder["levelling"]
    if not levelling["found"]:
        return f"No depth is claimed at which the curve levels off: {levelling['reason']}."
    depth, (low, high) = levelling["depth"], levelling["ci"]
    total = ladder["blocks"]
    share, shares = 1 - depth / total, (1 - high / total, 1 - low / total)
    sides = ("below", "above") if levelling["flat"] == "above" else ("above", "below")
    steep, flat = (
        f"{points(levelling[f'slope_{side}'])} points of retained"
        + interval_words(levelling[f"slope_{side}_ci"], points)
        for side in sides
    )
    return (
        f"The curve levels off at {depth:.1f} of {total} remaining blocks (95 % CI {low:.1f} to "
        f"{high:.1f}), that is {percent(share)} % pruned ({percent(shares[0])} to "
        f"{percent(shares[1])}): {sides[0]} that a block is worth {steep}, {sides[1]} it {flat} "
        f"(broken against straight line, {p_in_words(levelling['p_value'])})."
    )


def scope_line(ladder: Mapping[str, Any]) -> str:
    """Say what the intervals are over."""
    seeds = len(ladder["seeds"])
    if seeds == 1:
        return (
            "Intervals are over the questions alone; what another seed of the training would have "
            "changed is not in them (--seeds)."
        )
    return f"Intervals are over the questions and over {seeds} seeds of the training."
