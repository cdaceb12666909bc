"""Phase-wise pruning: which phase accuracy hangs on, and whether that is depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.decision.phases import SIGNIFICANCE, SMALL
from phaseprune.report.trace import beside_trace, phases_line
from phaseprune.report.view import Column, Estimate, Figure, Table, Tile, View
from phaseprune.report.words import (
    DASH,
    PHASE_NAMES,
    blocks_in_words,
    interval_words,
    percent,
    plural,
    points,
)

KIND_NAMES = PHASE_NAMES | {"anywhere": "Anywhere"}
DEBIASED = "label prior taken off"
#: The comparisons that control for depth, and windows, which do not.
COMPARISONS = ("plain", "without_first", "near", "jump", "windows")


def phasewise_view(found: Mapping[str, Any]) -> View:
    """Show a finished phasewise run.

    Args:
        found: Its ``trace`` and ``result``.

    Returns:
        Its view.
    """
    result, trace = found["result"], found["trace"]
    figure = Figure(
        "phasewise",
        "phasewise_figure",
        (result,),
        "What is left of the accuracy above chance without so many random blocks of one phase. A "
        "pale point is a set of blocks, on the evaluation questions; large ones are means with "
        "their 95 % intervals, hollow ones are of decisions with the label prior taken off. Below, "
        "on the left, what each block costs alone, with a straight line of depth that may jump at "
        "the transition (dotted); on the right, the difference between the phases with depth "
        "controlled. The figures that follow are of the calibration questions, on which the phases "
        "were found.",
    )
    phases = [phases_line(trace)] if trace else []
    body = [*phases, *phasewise_tables(result), *phasewise_lines(result)]
    return beside_trace(View(body, [difference_tile(result)], [figure]), trace)


def phasewise_tables(result: Mapping[str, Any]) -> list[Table]:
    """All tables: the plain comparison, the same debiased (letters), and the controlled ones.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        The tables.
    """
    debiased = result.get("debiased")
    tables = [phasewise_table(result)]
    if debiased:
        tables.append(phasewise_table(debiased, f"The same, {DEBIASED}"))
    if "controlled" in result:
        tables.append(controls_table(result))
    return tables


def phasewise_table(result: Mapping[str, Any], title: str | None = None) -> Table:
    """Tabulate retained accuracy by number of removed blocks and by where they are from.

    Args:
        result: The result of a finished phasewise run, or its debiased part.
        title: Of the table.

    Returns:
        The table.
    """
    rows = [*result["by_removed"], {"removed_blocks": "all", **result["pooled"]}]
    return Table(
        title or "Retained % of sets of removed blocks [95 % CI], mean over sets",
        [
            Column("m", [str(row["removed_blocks"]) for row in rows], page="Removed blocks"),
            *(
                Column(name, [_mean_of_sets(row[kind]) if kind in row else "" for row in rows])
                for kind, name in KIND_NAMES.items()
            ),
            Column(
                "Decisive - Silent",
                [Estimate(row["difference"], row["difference_ci"]) for row in rows],
            ),
            Column("p", [p_cell(row["p_corrected"]) for row in rows]),
        ],
        "" if title else "p: corrected over the rows (Holm); * all sets there are",
        page_title=title or "Retained % of sets of removed blocks, mean over sets",
    )


def _mean_of_sets(of: Mapping[str, Any]) -> Estimate:
    return Estimate(of["retained"], of["retained_ci"], mark="*" if of["all_sets"] else " ")


def controls_table(result: Mapping[str, Any]) -> Table:
    """Tabulate the difference between the phases with depth controlled, raw and debiased.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        The table.
    """
    measures = {"raw": result} | ({"debiased": result["debiased"]} if result["debiased"] else {})
    names = [name for name in COMPARISONS if comparison(result, name) is not None]
    columns = []
    for title, measure in measures.items():
        found = [comparison(measure, name) for name in names]
        columns += [
            Column(
                title,
                [
                    Estimate(one["difference"], one["difference_ci"]) if one else DASH
                    for one in found
                ],
            ),
            Column("p", [p_cell(one["p_value"]) if one else DASH for one in found]),
        ]
    return Table(
        "Phase or depth? Decisive - Silent, points of retained [95 % CI]",
        [
            Column("Compared", [compared_in_words(result, name) for name in names], left=True),
            Column(
                "m",
                [_span(comparison(result, name)["numbers"]) for name in names],
                page="Removed blocks",
            ),
            *columns,
        ],
        "jump: beyond a straight line of depth, over the nearest blocks",
        page_title="Phase or depth? Decisive - Silent, points of retained",
    )


def comparison(measure: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """One of ``COMPARISONS`` of a result or its debiased part; None where there are no sets."""
    ends = {"plain": measure["pooled"], "windows": measure["windows"]}
    return ends[name] if name in ends else measure["controlled"].get(name)


def compared_in_words(result: Mapping[str, Any], name: str) -> str:
    """Name one of ``COMPARISONS`` in a few words."""
    return {
        "plain": "all blocks",
        "without_first": f"without {blocks_in_words(result['first_blocks'])}",
        "near": f"nearest {plural(_width(result), 'block')} on each side",
        "jump": "jump at the transition",
        "windows": "blocks that follow each other",
    }[name]


def p_cell(p_value: float | None) -> str:
    """Write a p-value: ``0.03``, ``<0.01``, or a dash."""
    if p_value is None:
        return DASH
    return "<0.01" if p_value < 0.01 else f"{p_value:.2f}"


def phasewise_lines(result: Mapping[str, Any]) -> list[str]:
    """Say which phase accuracy hangs on, whether that is depth, and what the walk saved.

    Args:
        result: The result of a finished phasewise run.

    Returns:
        Sentences.
    """
    run, alone = result["block_passes"], result["naive_block_passes"]
    return [
        difference_line(result),
        *verdict_lines(result),
        f"{run:,} block passes, where running each set by itself takes {alone:,}.",
    ]


def difference_line(result: Mapping[str, Any]) -> str:
    """Say the one number: the difference of retained accuracy at equal numbers of blocks."""
    pooled, most = result["pooled"], max(row["removed_blocks"] for row in result["by_removed"])
    difference = pooled["difference"]
    numbers = "1 block" if most == 1 else f"1 to {most} blocks"
    start = f"Of {numbers} removed, those of the Silent Phase cost"
    cost = f"{percent(abs(difference))} points of retained"
    if pooled["difference_ci"]:
        cost += f" (95 % CI of Decisive - Silent {_bounds(pooled)})"
    than = f"{cost} {'more' if difference > 0 else 'less'} than those of the Decisive Phase"
    if not pooled["significant"]:
        as_large = " if it is as large as it looks" if pooled.get("questions_needed") else ""
        return (
            f"{start} {than}: no significant difference at {SIGNIFICANCE:g} "
            f"({undecided_words(pooled)}{as_large})."
        )
    alone = [str(row["removed_blocks"]) for row in result["by_removed"] if row["significant"]]
    return f"{start} {than}; {_numbers(alone, result)} after the correction."


def undecided_words(told: Mapping[str, Any]) -> str:
    """Say how far a difference is from being decided: its p-value, and questions that would do."""
    words = f"p = {told['p_value']:.2f}"
    if told.get("limited_by") == "blocks":
        return f"{words}; more questions would not do, as single blocks differ too much"
    needed = told.get("questions_needed")
    if needed is None:
        return f"{words}; too near to 0 for any sensible number of questions"
    return f"{words}; about {needed:,} questions would do"


def verdict_lines(result: Mapping[str, Any]) -> list[str]:
    """Say whether depth explains the difference, what single blocks cost, and the debiased verdict.

    Args:
        result: The result of a finished phasewise run; of an older version nothing is said.

    Returns:
        Sentences.
    """
    if "controlled" not in result:
        return []
    return [control_line(result, result), *regression_lines(result), *debiased_lines(result)]


def control_line(result: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """Say whether the difference between the phases stands where depth is controlled.

    Args:
        result: The result of a finished phasewise run.
        measure: It, or its debiased part.

    Returns:
        Two sentences in one line.
    """
    start = {
        "agrees": "It is the phase, and not depth alone: the difference stands where depth is "
        "controlled.",
        "partly": "Silent blocks cost more, but that may be their depth.",
        "disagrees": "Decisive blocks cost more in at least one comparison.",
        "undecided": "Which phase costs more is not decided.",
    }[measure["verdict"]]
    said = [_control_words(result, measure, name) for name in COMPARISONS[1:4]]
    return f"{start} Decisive - Silent is {'; '.join(said)}."


def _control_words(result: Mapping[str, Any], measure: Mapping[str, Any], name: str) -> str:
    """What one control says: the difference, and what keeps it from holding."""
    told = measure["controlled"].get(name)
    where = {
        "without_first": f"without {blocks_in_words(result['first_blocks'])}",
        "near": f"among the nearest {plural(_width(result), 'block')} on each side",
        "jump": "at the transition beyond a straight line of depth",
    }[name]
    if told is None:
        return f"not known {where}: there are too few blocks"
    said = f"{points(told['difference'])} points {where}"
    if not told["significant"]:
        return f"{said} (95 % CI {_bounds(told)}; {undecided_words(told)})"
    within = interval_words(told["difference_ci"], percent)
    if told["difference"] > 0 and not told["holds"]:
        return (
            f"{said}{within}, {percent(told['share_of_plain'], 0)} % of the plain difference, "
            f"where less than {percent(SMALL, 0)} % is small"
        )
    return said + within


def regression_lines(measure: Mapping[str, Any]) -> list[str]:
    """Say what the fit to the costs of single blocks says; nothing where blocks are too few."""
    fit = measure["regression"]["fit"]
    if fit is None:
        return []
    slope, jump, count = fit["slope"], fit["jump"], len(fit["blocks"])
    return [
        f"Cost of one block, fitted to the {count} nearest to the transition: "
        f"{points(slope['value'])} points from the first to the last block of the model (95 % CI "
        f"over questions {_pair(slope['ci'])}), and {points(jump['value'])} points for being "
        f"Silent (over questions {_pair(jump['ci'])}, over blocks {_pair(jump['block_ci'])}). "
        f"With {count} blocks only a large jump stands out."
    ]


def debiased_lines(result: Mapping[str, Any]) -> list[str]:
    """Say the same of decisions without the label prior; nothing for texts."""
    debiased = result.get("debiased")
    if not debiased:
        return []
    same = debiased["verdict"] == result["verdict"]
    told = f"With the {DEBIASED}: {_lower(difference_line(debiased))}"
    if same:
        return [f"{told} The verdict is the same."]
    return [told, f"With the {DEBIASED}: {_lower(control_line(result, debiased))}"]


def difference_tile(result: Mapping[str, Any]) -> Tile:
    """The difference between the phases."""
    pooled = result["pooled"]
    below = "points of retained, no interval"
    if pooled["difference_ci"]:
        below = f"points, 95 % CI {_bounds(pooled)}"
    return Tile("Decisive - Silent", percent(pooled["difference"]), below)


def _numbers(significant: Sequence[str], result: Mapping[str, Any]) -> str:
    count = len(result["by_removed"])
    if len(significant) == count:
        return "significant at each number of blocks"
    return f"significant at {len(significant)} of {count} numbers of blocks"


def _bounds(told: Mapping[str, Any]) -> str:
    return _pair(told["difference_ci"])


def _pair(ci: Sequence[float]) -> str:
    return f"{percent(ci[0])} to {percent(ci[1])}"


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _width(result: Mapping[str, Any]) -> int:
    return len(result["drawn_from"].get("near_decisive", ()))


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
