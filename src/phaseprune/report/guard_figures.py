"""Figure of the guards: loss on text and continuations beside accuracy, by removed blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phaseprune.report import style

#: Name of a line -> its colour and dashes.
LINES = {
    "accuracy on questions": (style.INK, "-"),
    "tokens equal to the full model's": (style.SILENT, (0, (4, 2))),
    "repeated 4-grams": (style.DECISIVE, (0, (1, 1.5))),
}


def guards_figure(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw text loss, agreement and repetition beside accuracy, by the number of removed blocks.

    Args:
        steps: The lines of `steps.jsonl`; those without guards are left out.

    Returns:
        The figure: on the left the loss on plain text with the full model's as a level, on the
        right shares; bands are 95 % intervals.
    """
    steps = [step for step in steps if step.get("guard")]
    figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    numbers = [step["step"] for step in steps]
    guards = [step["guard"] for step in steps]
    for axes in (left, right):
        style.plain_axes(axes)
        last = max(numbers[-1], 1)
        axes.set_xlim(-0.3, last + 0.3)
        axes.xaxis.set_major_locator(style.integer_ticks(2 * last if last > 12 else last))
        axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    losses = [guard["text_loss"] for guard in guards]
    _line(left, numbers, losses, [guard["text_loss_ci"] for guard in guards], "text loss",
          style.INK, "-")  # fmt: skip
    left.axhline(losses[0], color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)),
                 label="full model")  # fmt: skip
    left.annotate("full model", (0.98, losses[0]), xycoords=left.get_yaxis_transform(),
                  xytext=(0, -3), textcoords="offset points", ha="right",
                  va="top", fontsize=style.NOTE_SIZE,
                  color=style.MUTED)  # fmt: skip
    style.set_labels(left, "Removed blocks", "Loss, nats a token")
    style.set_title(left, "Loss on plain text")
    evaluations = [step["evaluation"] for step in steps]
    shares = (
        [(one["accuracy"], one.get("ci")) for one in evaluations],
        [(guard["agreement"], guard["agreement_ci"]) for guard in guards],
        [(guard["repetition"], guard["repetition_ci"]) for guard in guards],
    )
    for (name, (colour, dashes)), line in zip(LINES.items(), shares, strict=True):
        values, bounds = zip(*line, strict=True)
        _line(right, numbers, values, bounds, name, colour, dashes)
    right.set_ylim(-0.02, 1.03)
    style.percent_axis(right)
    style.set_labels(right, "Removed blocks", "")
    style.set_title(right, "Questions and continuations")
    right.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1, frameon=False,
        fontsize=style.NOTE_SIZE,
        handles=[line for line in right.lines if line.get_label() in LINES],
    )  # fmt: skip
    return figure


def _line(
    axes: Axes,
    numbers: Sequence[int],
    values: Sequence[float],
    bounds: Sequence[Sequence[float] | None],
    name: str,
    colour: str,
    dashes: Any,
) -> None:
    both = [pair or (value, value) for value, pair in zip(values, bounds, strict=True)]
    low, high = zip(*both, strict=True)
    axes.fill_between(numbers, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(numbers, values, color=colour, linestyle=dashes, linewidth=1.4, marker=".",
              markersize=5, label=name)  # fmt: skip
