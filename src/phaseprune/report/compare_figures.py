"""Figures of compared methods: retained by number and by cost, and orders of removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from phaseprune.report import style
from phaseprune.report.compare import numbers_in_words

#: What a method is of -> colour; within one, methods differ by line and marker.
COLOURS = {
    "search": style.DECISIVE,
    "hidden states": style.SILENT,
    "text": "#2c8a5a",
    "weights": "#8a4fa3",
    "position": style.UNPHASED,
    "drawn": "#111827",
}
_KINDS = {
    "decision_margin": "search",
    "accuracy": "search",
    "loss": "search",
    "beam": "search",
    "pairwise": "search",
    "evolutionary": "search",
    "sleb": "text",
    "ppl": "text",
    "ppl_plus": "text",
    "taylor": "text",
    "taylor_plus": "text",
    "magnitude": "weights",
    "magnitude_plus": "weights",
    "tail": "position",
    "tail_all": "position",
    "reverse": "position",
    "random": "drawn",
}
_MARKERS = "osD^vP"
_DASHES = ("solid", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (3, 3)))
_PANELS = {
    "text_loss_rise": "Loss on text, rise",
    "agreement": "Greedy tokens equal",
    "repetition": "Repeated 4-grams",
}


def looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dashes and marker of each method, no two alike.

    Args:
        methods: Their names.

    Returns:
        Method -> keywords of matplotlib.
    """
    seen: dict[str, int] = {}
    found = {}
    for method in methods:
        kind = _KINDS.get(method, "hidden states")
        place = seen.setdefault(kind, 0)
        seen[kind] += 1
        found[method] = {
            "color": COLOURS[kind],
            "linestyle": _DASHES[place % len(_DASHES)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
    return found


def _retained(cell: Mapping[str, Any]) -> float:
    return cell["accuracy"] if cell["retained"] is None else cell["retained"]


def _standing(one: Mapping[str, Any]) -> tuple[bool, float]:
    """Sorts methods by what they retain, those last that cannot remove so many blocks."""
    mean = one["mean_retained"]["value"]
    return mean is None, -(
        np.mean([_retained(cell) for cell in one["cells"]]) if mean is None else mean
    )


def compare_figure(task: Mapping[str, Any]) -> Figure:
    """Draw what each method retains against the number of removed blocks.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        The figure: a line a method, named at the side from the best to the worst (last those
        that cannot remove so many); the interval of
        drawn orders as a band.
    """
    methods = task["methods"]
    figure, axes = style.new_figure(max(4.2, 1.2 + 0.21 * len(methods)), 8.6)
    drawn = looks([one["method"] for one in methods])
    for one in methods:
        numbers = [cell["removed_blocks"] for cell in one["cells"]]
        bounds = [cell["retained_ci"] for cell in one["cells"]]
        look = drawn[one["method"]]
        if len(one["orders"]) > 1 and len(one["cells"][0]["sets"]) > 1 and all(bounds):
            low, high = zip(*bounds, strict=True)
            axes.fill_between(
                numbers,
                low,
                high,
                color=look["color"],
                alpha=0.08,
                linewidth=0,
                label=f"{one['method']} interval",
            )
        axes.plot(
            numbers,
            [_retained(cell) for cell in one["cells"]],
            label=one["method"],
            **look,
            linewidth=2.0 if look["color"] == COLOURS["search"] else 1.2,
            markersize=4.2,
        )
    defined = task["full"]["accuracy"] > task["chance"]
    for level in (0, 1) if defined else (task["chance"],):
        axes.axhline(level, color=style.RULE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    axes.xaxis.set_major_locator(style.integer_ticks(max(task["numbers"])))
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    style.set_labels(
        axes, f"Removed blocks (of {task['blocks']})", "Retained" if defined else "Accuracy"
    )
    style.set_title(axes, "Retained accuracy by method")
    lines = {line.get_label(): line for line in axes.lines}
    ranked = sorted(methods, key=_standing)
    names = [one["method"] for one in ranked]
    axes.legend(
        [lines[name] for name in names],
        names,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=style.NOTE_SIZE,
        handlelength=3.4,
        labelspacing=0.35,
    )
    return figure


def orders_figure(task: Mapping[str, Any]) -> Figure:
    """Draw the order of removal of each method as a strip over the blocks.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        The figure: in each strip the position at which a block is removed (of a window, the
        smallest number at which it is in it; of drawn orders, the first draw), the phases behind.
    """
    methods, blocks = task["methods"], task["blocks"]
    figure, axes = style.new_figure(1.1 + 0.27 * len(methods), 8.6)
    transition = task["transition"]
    for row, one in enumerate(methods):
        for block, place in removal_places(one).items():
            share = place / max(task["numbers"])
            axes.add_patch(
                Rectangle(
                    (block - 0.4, row - 0.38),
                    0.8,
                    0.76,
                    color=style.INK,
                    linewidth=0,
                    alpha=0.92 - 0.72 * share,
                )
            )
            axes.text(
                block,
                row,
                str(place),
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if share < 0.55 else style.INK,
            )
    for phase, colour in (("silent", style.SILENT), ("decisive", style.DECISIVE)):
        own = transition[f"{phase}_blocks"] if transition["found"] else []
        if own:
            axes.axvspan(
                own[0] - 0.5, own[-1] + 0.5, color=colour, alpha=0.16, linewidth=0, zorder=0
            )
            axes.text(
                (own[0] + own[-1]) / 2,
                -0.62,
                phase.title(),
                ha="center",
                va="bottom",
                color=colour,
                fontsize=style.NOTE_SIZE,
            )
    axes.set_xlim(-0.5, blocks - 0.5)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_yticks(range(len(methods)), [one["method"] for one in methods])
    axes.xaxis.set_major_locator(style.integer_ticks(blocks - 1))
    axes.tick_params(axis="y", length=0)
    style.set_labels(axes, "Block", "")
    style.set_title(axes, "Order of removal", pad=20)
    return figure


def removal_places(method: Mapping[str, Any]) -> dict[int, int]:
    """At which place a method removes each block, 1 for the first.

    Args:
        method: An entry of `methods` in `compare.json`.

    Returns:
        Block -> place, of the first order alone where several are drawn; of windows, which go at
        once, the smallest number at which the block is in it.
    """
    first = method["orders"][0]
    if first["number"] is None:
        return {block: place for place, block in enumerate(first["order"], start=1)}
    found: dict[int, int] = {}
    for order in sorted(method["orders"], key=lambda one: one["number"]):
        for block in order["order"]:
            found.setdefault(block, order["number"])
    return found


def cost_figure(task: Mapping[str, Any]) -> Figure:
    """Draw mean retained accuracy against the block passes of the choice.

    Args:
        task: A task's entry in `compare.json`.

    Returns:
        The figure, with a logarithmic axis on which methods that run nothing stand at 0, and the
        front as a line.
    """
    figure, axes = style.new_figure(4.6, 8.6)
    shown = [one for one in task["methods"] if one["mean_retained"]["value"] is not None]
    drawn = looks([one["method"] for one in task["methods"]])
    axes.set_xscale("symlog", linthresh=1)
    values = {one["method"]: one["mean_retained"]["value"] for one in shown}
    costs = {one["method"]: one["block_passes"] for one in shown}
    for one in shown:
        name, look = one["method"], drawn[one["method"]]
        if one["mean_retained"]["ci"]:
            axes.vlines(
                costs[name],
                *one["mean_retained"]["ci"],
                color=look["color"],
                linewidth=0.8,
                alpha=0.45,
            )
        axes.plot(
            [costs[name]],
            [values[name]],
            marker=look["marker"],
            color=look["color"],
            linestyle="none",
            markersize=6,
            label=name,
        )
    if task["front"]:
        axes.plot(
            [costs[name] for name in task["front"]],
            [values[name] for name in task["front"]],
            color=style.INK,
            linewidth=1,
            drawstyle="steps-post",
            zorder=0,
            label="front",
        )
    low, high = style.padded(list(values.values()) or [0.0, 1.0], [0.0, 1.0])
    axes.set_ylim(low, high)
    right = max([*costs.values(), 10])
    axes.set_xlim(-0.6, right * 14)
    ticks = [0, *(10**power for power in range(int(np.log10(right)) + 1))]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.minorticks_off()
    for near in _neighbours(costs):
        names = sorted(near, key=values.get)
        places = _apart([values[name] for name in names], 0.047 * (high - low), low, high)
        for name, place in zip(names, places, strict=True):
            axes.annotate(
                name,
                (costs[name], values[name]),
                xytext=(9, place),
                fontsize=style.TICK_SIZE,
                textcoords=("offset points", "data"),
                va="center",
                color=drawn[name]["color"],
                arrowprops={
                    "arrowstyle": "-",
                    "color": style.RULE,
                    "linewidth": 0.6,
                    "shrinkA": 0,
                    "shrinkB": 3,
                },
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                zorder=1,
            )
    axes.grid(axis="y", color=style.GRID, linewidth=0.7)
    style.percent_axis(axes)
    common = numbers_in_words(task["common_numbers"])
    style.set_labels(axes, "Block passes of the choice", "Mean retained")
    style.set_title(axes, f"Retained (mean over {common} removed) against cost")
    return figure


def _neighbours(costs: Mapping[str, int]) -> list[list[str]]:
    """Methods whose labels can meet: those without cost, and chains within a factor of ten."""
    groups: list[list[str]] = []
    for name in sorted(costs, key=costs.get):
        last = costs[groups[-1][-1]] if groups else None
        if last is not None and (costs[name] == last or 0 < costs[name] <= 10 * last):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels near rising values, at least a gap apart and inside of the limits."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else max(value, low))
    over = (places[-1] if places else high) - high
    if over > 0:
        limit = high
        for at in reversed(range(len(places))):
            places[at] = min(places[at], limit)
            limit = places[at] - gap
    return places


def guarded_figure(task: Mapping[str, Any]) -> Figure:
    """Draw what guards found of each method against the number of removed blocks.

    Args:
        task: A task's entry in `compare.json`, with guards.

    Returns:
        The figure: a panel a figure, a line a method as in the figure of retained accuracy; the
        rise on an axis that is linear up to a doubling and logarithmic beyond.
    """
    methods = task["methods"]
    rows = -(-len(methods) // 4)
    figure = Figure(figsize=(8.6, 3.3 + 0.18 * rows), layout="constrained", facecolor="white")
    drawn = looks([one["method"] for one in methods])
    for axes, (name, title) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        style.plain_axes(axes)
        for one in methods:
            points = [
                (cell["removed_blocks"], cell["guard"][name])
                for cell in one["cells"]
                if cell.get("guard")
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    label=one["method"],
                    **drawn[one["method"]],
                    linewidth=1.2,
                    markersize=3.6,
                )
        if name == "text_loss_rise":
            axes.set_yscale("symlog", linthresh=1)
        else:
            axes.set_ylim(-0.03, 1.03)
        axes.axhline(
            task["full"]["guard"][name],
            color=style.RULE,
            linewidth=0.9,
            linestyle=(0, (1, 2)),
            zorder=0,
        )
        axes.xaxis.set_major_locator(style.integer_ticks(2 * max(task["numbers"])))
        axes.grid(axis="y", color=style.GRID, linewidth=0.7)
        style.percent_axis(axes)
        style.set_labels(axes, "Removed blocks", "")
        style.set_title(axes, title)
    lines = {
        line.get_label(): line
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() in drawn
    }
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=style.NOTE_SIZE,
        handlelength=3.4,
        labelspacing=0.35,
    )
    return figure
