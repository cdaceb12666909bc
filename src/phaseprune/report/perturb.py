"""Noise at each readout: how much of it the decision stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.trace import beside_trace, phases_line
from phaseprune.report.view import PAGE, WIDTH, Cell, Column, Figure, Table, View
from phaseprune.report.words import DASH, PHASE_NAMES, interval_words, percent, signed

#: Columns for the readout or phase, for the halving noise with its interval, and for a margin.
FIRST, LAST, MARGIN = 8, 23, 4


def perturbation_view(result: Mapping[str, Any], trace: Mapping[str, Any] | None = None) -> View:
    """Show a perturbation.

    Args:
        result: The content of `perturbation.json`.
        trace: The content of `trace.json`, where it is known.

    Returns:
        Its view.
    """
    figures = [
        Figure(
            "perturbation",
            "perturbation_figure",
            (result,),
            "How sure the output is of the right option when noise is added to the state at one "
            "readout. Look for the readouts at which little noise is enough.",
        ),
        Figure(
            "halving",
            "halving_figure",
            (result,),
            "The least noise that takes half of the Decision Margin, by the readout at which it is "
            "put in; bars are intervals, triangles say that no tried level does it.",
        ),
    ]
    phases, cost = phases_line(trace or result), cost_sentence(result)
    body = [perturbation_table(result), phases, *phase_sentences(result), cost]
    return beside_trace(View(body, figures=figures), trace)


def perturbation_table(result: Mapping[str, Any]) -> Table:
    """Tabulate the Decision Margin at the output: a row a readout of the noise, a column a level.

    Args:
        result: The content of `perturbation.json`.

    Returns:
        The table. Where more levels were run than a terminal has room for, it shows some of them,
        evenly spread; the page has them all.
    """
    noise, shown = result["noise"], shown_levels(result["noise"])
    missing, phases = len(noise) - len(shown), result["phases"]
    curves = [
        *result["decision_margin"]["mean"],
        *(phase["decision_margin"]["mean"] for phase in phases.values()),
    ]
    halving = [*result["halving"], *(phase["halving"] for phase in phases.values())]
    transition, last = result["transition"], result["readouts"][-1]
    return Table(
        f"DM of {result['model']} on {result['task']} with noise at readout ℓ",
        [
            Column(
                "ℓ",
                [
                    *map(str, result["readouts"]),
                    *(Cell(PHASE_NAMES[phase], phase) for phase in phases),
                ],
                page="Noise at readout",
                least=FIRST,
            ),
            *(
                Column(
                    f"{level:g}",
                    [
                        Cell(short_margin(curve[number]), page=signed(curve[number]))
                        for curve in curves
                    ],
                    page=f"DM, σ² = {level:g}",
                    only=None if number in shown else PAGE,
                )
                for number, level in enumerate(noise)
            ),
            Column(
                "halves at σ² [CI]",
                [halving_cell(one, noise[-1]) for one in halving],
                page="halves at σ² [95 % CI]",
            ),
        ],
        "σ² in units of the variance of a token's state; 0 is the model itself",
        f"{missing} of {len(noise)} levels are not shown; perturbation.json has them"
        if missing
        else "",
        page_title="Decision Margin at the output with noise",
        rules=[*([transition["readout"] - 1] if transition["found"] else []), last],
    )


def shown_levels(noise: Sequence[float]) -> list[int]:
    """Say which levels fit into a terminal: all, or evenly spread ones with first and last.

    Args:
        noise: The variances.

    Returns:
        Their numbers, ascending.
    """
    room = WIDTH - FIRST - LAST - 2
    count = len(noise)
    while True:
        step = (len(noise) - 1) / max(count - 1, 1)
        numbers = sorted({round(number * step) for number in range(count)})
        widths = [max(MARGIN, len(f"{noise[number]:g}")) + 1 for number in numbers]
        if sum(widths) <= room or count <= 2:
            return numbers
        count -= 1


def short_margin(value: float) -> str:
    """Write a Decision Margin in four characters: ``+.59``.

    Args:
        value: The margin.

    Returns:
        The number, without the zero before the point.
    """
    text = signed(value).replace("+0.", "+.").replace("-0.", "-.")
    return {"+1.00": "1.00", "-1.00": "-1.0"}.get(text, text)


def halving_cell(halving: Mapping[str, Any], largest: float) -> str:
    """Write the noise that halves the margin, and its interval.

    Args:
        halving: One of the result's.
        largest: The largest variance that was tried.

    Returns:
        ``0.034 [0.021, 0.056]``; bounds beyond the largest level as ``>1``; a dash where no half
        is defined.
    """
    value, low, high = (halving[key] for key in ("value", "ci_low", "ci_high"))
    if value is None and low is None and not _beyond(halving):
        return DASH
    beyond = f">{largest:g}"
    if value is None and low is None:
        return beyond
    shown = [beyond if part is None else f"{part:.2g}" for part in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _beyond(halving: Mapping[str, Any]) -> bool:
    """Whether no level halves the margin (else a half is not defined)."""
    return bool(halving["reason"]) and halving["reason"].startswith("no level")


def phase_sentences(result: Mapping[str, Any]) -> list[str]:
    """Say for each phase where its margin halves, beside what the paper says of the phase.

    Args:
        result: The content of `perturbation.json`.

    Returns:
        Sentences; one that says why where there are no phases.
    """
    if not result["phases"]:
        return ["Without a transition there are no phases whose noise could be compared."]
    paper = result["paper"]
    sentences = [_phase_sentence(name, phase, result) for name, phase in result["phases"].items()]
    claims = " and ".join(
        f"the {PHASE_NAMES[name]} Phase {paper[name]['finding']} {paper[name]['noise']:g}"
        for name in PHASE_NAMES
    )
    if result["phase_difference"] and paper["decisive"]["noise"] in result["noise"]:
        sentences.append(_difference_sentence(result, paper["decisive"]["noise"]))
    return [*sentences, f"The paper ({paper['source']}) says that {claims}."]


def _phase_sentence(name: str, phase: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    readouts, halving = phase["readouts"], phase["halving"]
    where = (
        f"readouts {readouts[0]}-{readouts[-1]}" if len(readouts) > 1 else f"readout {readouts[0]}"
    )
    text = f"Noise at the {PHASE_NAMES[name]} {where}: "
    if halving["value"] is None:
        text += halving["reason"]
    else:
        text += f"DM halves at σ² = {halving['value']:.2g}"
    low, high = (
        None if bound is None else f"{bound:.2g}"
        for bound in (halving["ci_low"], halving["ci_high"])
    )
    if low is not None:
        text += f" (95 % CI {low} to " + (high or f"above {result['noise'][-1]:g}") + ")"
    if phase["paper_share"]:
        share, *bounds = phase["paper_share"]
        text += f"; with {phase['paper_noise']:g}, {percent(share, 0)} % of DM is left"
        if bounds[0] is not None:
            text += interval_words(bounds, lambda bound: percent(bound, 0))
    return text + "."


def _difference_sentence(result: Mapping[str, Any], noise: float) -> str:
    at = result["noise"].index(noise)
    mean, *bounds = (result["phase_difference"][part][at] for part in ("mean", "ci_low", "ci_high"))
    return (
        f"Noise of {noise:g}: DM with it at the Decisive readouts less DM with it at the Silent "
        f"ones is {signed(mean)}{interval_words(bounds, signed)}."
    )


def cost_sentence(result: Mapping[str, Any]) -> str:
    """Say what the noise cost.

    Args:
        result: The content of `perturbation.json`.

    Returns:
        One sentence.
    """
    levels, blocks = len(result["noise"]) - 1, result["blocks"]
    return (
        f"{result['block_passes']} block passes for {levels} levels and {result['noise_seeds']} "
        f"draws at {blocks + 1} readouts; one exact pruning step takes "
        f"{blocks * (blocks + 1) // 2}."
    )
