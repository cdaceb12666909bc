"""A trace: where the model makes up its mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from phaseprune.report.view import (
    PAGE,
    TERMINAL,
    Column,
    Figure,
    Line,
    Table,
    Tile,
    View,
    bar_column,
    estimates,
    only,
    phase_cell,
    share_tile,
)
from phaseprune.report.words import (
    DEBIASED_NOTE,
    PHASE_NAMES,
    blocks_in_words,
    decimal,
    ends_with_intervals,
    interval_words,
    percent,
    percent_with_interval,
    plural,
    signed,
    these_questions,
)

#: Shape -> what it is called where there is little room.
SHAPES = {
    "step": "a step",
    "gradual": "a gradual rise",
    "several": "two steps",
    "unclear": "a step or gradual",
}
_LEVELS = "▁▂▃▄▅▆▇█"
#: What the label prior is, where it is named for the first time.
LABEL_PRIOR = "the label prior (how much a letter is preferred whatever the question says)"


def trace_view(trace: Mapping[str, Any]) -> View:
    """Show a trace.

    Args:
        trace: The content of `trace.json`.

    Returns:
        Its view.
    """
    return View(
        [
            trace_table(trace),
            phases_line(trace),
            *only(PAGE, [traced_line(trace)]),
            *([lens_table(trace)] if trace.get("lens") else []),
            *lens_lines(trace),
            frequency_line(trace),
            unequal_options_line(trace),
            groups_line(trace),
            *depth_lines(trace),
        ],
        trace_tiles(trace),
        trace_figures(trace),
    )


def full_model(trace: Mapping[str, Any]) -> list[Line | Table]:
    """What the page of another command says of its trace, beside where the model decides."""
    lines = [*lens_lines(trace), frequency_line(trace), *depth_lines(trace)]
    return only(PAGE, [*lines, trace_table(trace)])


def beside_trace(view: View, trace: Mapping[str, Any] | None) -> View:
    """The view of an experiment, its page with what the trace of its model shows.

    Args:
        view: The view of the experiment alone.
        trace: The content of `trace.json`, or None.

    Returns:
        The view of both.
    """
    if trace is None:
        return view
    return View(
        [*view.body, *only(PAGE, [traced_line(trace)]), *full_model(trace)],
        [*trace_tiles(trace), *view.tiles],
        [*view.figures, *trace_figures(trace)],
    )


def traced_line(trace: Mapping[str, Any]) -> str:
    """Say what was traced, and the accuracy at the output."""
    accuracy, *bounds = (trace["accuracy"][part][-1] for part in ("mean", "ci_low", "ci_high"))
    questions = f" on {plural(trace['questions'], 'question')}" if "questions" in trace else ""
    return (
        f"{plural(trace['blocks'], 'block')} traced{questions}: accuracy "
        f"{percent_with_interval(accuracy, bounds)}, chance is {percent(trace['chance'])} %."
    )


def trace_tiles(trace: Mapping[str, Any]) -> list[Tile]:
    """The accuracy at the output, and the transition."""
    accuracy, *bounds = (trace["accuracy"][part][-1] for part in ("mean", "ci_low", "ci_high"))
    return [share_tile("Accuracy", accuracy, bounds), transition_tile(trace)]


def trace_figures(trace: Mapping[str, Any]) -> list[Figure]:
    """The figures that a trace allows."""
    both = green_line(trace.get("debiased"))
    shown = [
        Figure(
            "margin",
            "decision_margin_figure",
            (trace,),
            f"How sure the full model is of the right option after each block.{both} "
            f"{_phases_caption(trace['transition'])}",
        ),
        Figure(
            "frequency",
            "option_frequency_figure",
            (trace,),
            "Which option each readout picks, beside the share of questions for which it is right "
            "(gold). One option that fills a bar is a readout that picks it whatever the question."
            + frequency_caption(trace),
        ),
        Figure(
            "accuracy",
            "accuracy_by_readout_figure",
            (trace,),
            f"The share of questions that each readout decides rightly, against guessing.{both}",
        ),
    ]
    if trace.get("decision_depth"):
        shown.append(
            Figure(
                "depth",
                "decision_depth_figure",
                (trace,),
                "At which readout the decision of each question becomes right for good. The last "
                "bar is of the questions whose decision at the output is wrong.",
            )
        )
    return shown + [
        Figure(
            name.replace("_", "-"),
            "group_margins_figure",
            (trace[name], of),
            f"The Decision Margin of each {of}, with the questions of each; green readouts "
            "hold the right option. A mark stands where the transition is, if it is "
            "significant after the correction for the number of rows.",
        )
        for name, of in (("by_group", "group"), ("by_option_count", "number of options"))
        if trace.get(name)
    ]


def green_line(debiased: Any) -> str:
    """What the green line of a figure is, where there is one."""
    return " Green: with the label prior taken off." if debiased else ""


def _phases_caption(transition: Mapping[str, Any]) -> str:
    if not transition["found"]:
        return "No two phases can be told apart here."
    if transition.get("shape") in (None, "step"):
        return (
            "Before the transition the readouts show no decision, after it they do; the dashed "
            "levels are the fitted step."
        )
    return "It does not rise in one clear step; the dashed levels are the best split into two."


def trace_table(trace: Mapping[str, Any]) -> Table:
    """Tabulate a trace: a row a readout, the transition as a rule between the phases.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The table. Of letters the terminal shows what stands with the label prior taken off beside
        what the model answers, in place of the accuracy's interval. There the shares of up to four
        options are numbers; for more, the most frequent one is named.
    """
    transition, labels, readouts = trace["transition"], trace["option_labels"], trace["readouts"]
    at = transition["readout"] if transition["found"] else None
    debiased, empty = trace.get("debiased"), [""]
    margin, accuracy = trace["decision_margin"], estimates(trace["accuracy"], 0, percent)
    shown = (debiased or trace)["decision_margin"]
    phases = [None if at is None else "silent" if one < at else "decisive" for one in readouts]
    if debiased:
        less = estimates(debiased["accuracy"], 0, percent)
        pairs = [
            f"{percent(raw.value, 0):>3} {percent(deb.value, 0):>3}"
            for raw, deb in zip(accuracy, less, strict=True)
        ]
        accuracies = [
            Column("Acc. %\n raw deb.", pairs + empty, only=TERMINAL),
            Column("Accuracy %", accuracy + empty, only=PAGE),
            Column("debiased accuracy %", less + empty, only=PAGE),
        ]
    else:
        accuracies = [Column("Acc. % [CI]", accuracy + empty, page="Accuracy %")]
    shares = [*trace["option_frequency"], trace["gold_frequency"]]
    return Table(
        f"{trace['model']} on {trace['task']}",
        [
            Column("ℓ", [*map(str, readouts), "gold"], page="Readout"),
            *([Column("DM", estimates(margin) + empty, narrow=True)] if debiased else []),
            Column(
                "debiased DM\n[95 % CI]" if debiased else "DM [95 % CI]", estimates(shown) + empty
            ),
            bar_column([*shown["mean"], None]),
            *accuracies,
            Column(
                _option_header(labels),
                [_option_shares(one, labels) for one in shares],
                left=True,
                only=TERMINAL,
            ),
            *(
                Column(f"OF {label}, %", [percent(one[option]) for one in shares], only=PAGE)
                for option, label in enumerate(labels)
            ),
            Column(
                "Phase",
                [
                    *(
                        phase_cell(phase, " ◀" * (readout == at))
                        for readout, phase in zip(readouts, phases, strict=True)
                    ),
                    "",
                ],
                left=True,
            ),
        ],
        caption=DEBIASED_NOTE if debiased else "",
        notes=[
            "OF: the share of questions that a readout decides for an option; gold: for which "
            "it is right. Intervals are at 95 %."
        ],
        name="readouts",
        page_title="Readouts",
        rules=[*([at - 1] if at else []), readouts[-1]],
    )


def _option_header(labels: Sequence[str]) -> str:
    if len(labels) > 4:
        return "OF, top option"
    if all(cell_len(label) <= 3 for label in labels):
        return "OF %\n" + " ".join(" " * (3 - cell_len(label)) + label for label in labels)
    return "OF %"


def _option_shares(shares: Sequence[float], labels: Sequence[str]) -> str:
    if len(shares) <= 4:
        return " ".join(f"{100 * share:3.0f}" for share in shares)
    top = max(range(len(shares)), key=lambda option: shares[option])
    most = f"{set_cell_size(labels[top], 3).rstrip()} {percent(shares[top], 0)} %"
    if len(shares) > 6:
        return most
    # A space would hide an option: the lowest bar stands for "almost never".
    bars = "".join(_LEVELS[min(int(8 * share), 7)] for share in shares)
    return f"{bars} {most}"


def lens_table(trace: Mapping[str, Any]) -> Table:
    """Tabulate the Decision Margin under both lenses where they differ significantly.

    Args:
        trace: The content of `trace.json`, with a `lens`.

    Returns:
        The table; without rows where no readout differs.
    """
    lens = trace["lens"]
    rows = lens["differs"]

    def chosen(series: Mapping[str, Sequence[float]]) -> list[Any]:
        every = estimates(series)
        return [every[at] for at in rows]

    return Table(
        "Readouts at which the two lenses differ",
        [
            Column("ℓ", [str(at) for at in rows], page="Readout"),
            Column("DM tuned", chosen(trace["decision_margin"]), narrow=True),
            Column("DM logit", chosen(lens["decision_margin"]), narrow=True),
            Column("difference [95 % CI]", chosen(lens["difference"])),
            Column("KL tuned", [f"{lens['kl_tuned'][at]:.2f}" for at in rows]),
            Column("logit", [f"{lens['kl_logit'][at]:.2f}" for at in rows], page="KL logit"),
        ],
        caption="KL: divergence of the readout from the model's output, nats a token",
        name="lenses",
    )


def phases_line(trace: Mapping[str, Any]) -> str:
    """Say where the model decides, no more than the shape of the rise allows.

    Args:
        trace: The content of `trace.json`.

    Returns:
        The transition with its interval and both phases, or why there is no transition. Of letters
        it is that without the label prior; what the model's own answers show stands beside it where
        it is something else.
    """
    transition, raw = trace["transition"], trace.get("raw_transition")
    differ = raw is not None and _differ(raw, transition)
    if not transition["found"]:
        if not differ:
            return f"No transition was found: {_reason(transition)}."
        return (
            f"No transition was found without {LABEL_PRIOR}: {_reason(transition)}; as the model "
            f"answers, {_clause(raw, trace)}, which the label prior may have made."
        )
    text = _clause(transition, trace)
    text = f"without {LABEL_PRIOR}, {text}" if differ else text
    if transition.get("shape") in ("gradual", "several", "unclear"):
        at = f"readout {transition['readout']}{interval_words(transition['ci'])}"
        text += f". Split into two levels, at {at}"
    text += f": {_phases(transition)}"
    if differ:
        answers = _clause(raw, trace) if raw["found"] else f"none is found ({_reason(raw)})"
        # The second clause speaks of the same model again.
        text += f"; as it answers, {answers.replace('the model decides', 'it decides')}"
    text = f"{text[0].upper()}{text[1:]}."
    return text + _low_level(transition, trace) + _found_on(transition)


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two transitions say different things; ``unclear`` contradicts no other shape."""
    if any(one[part] != other[part] for part in ("found", "readout")):
        return True
    shapes = {one.get("shape"), other.get("shape")} - {"unclear"}
    return len(shapes) > 1


def _reason(transition: Mapping[str, Any]) -> str:
    return (transition["reason"] or "the step is not significant").rstrip(". ")


def _clause(transition: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """Where the Decision Margin rises, by its shape; without the phases."""
    shape, of = transition.get("shape"), f"of {trace['blocks']}"
    at = interval_words(transition["ci"])
    if shape == "step":
        return f"the model decides at readout {transition['readout']} {of}{at}"
    if shape is None:
        return (
            f"the Decision Margin rises at readout {transition['readout']} {of}{at}, by a step or "
            "gradually (an older version did not look)"
        )
    first, last = ends_with_intervals(transition["rise"], transition["rise_ci"])
    if shape == "gradual":
        return f"the Decision Margin rises gradually from readout {first} to {last} {of}"
    if shape == "several":
        return f"the Decision Margin rises in two steps, at readouts {first} and {last} {of}"
    questions = transition.get("questions") or trace.get("questions")
    # How many would is not told: the ends are whole readouts, and their intervals do not shrink
    # with the root of the number of questions.
    return (
        f"the Decision Margin rises between readouts {first} and {last} {of}, where "
        f"{these_questions(questions)} cannot tell a step from a gradual rise"
    )


def _phases(transition: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{PHASE_NAMES[phase]} {blocks_in_words(blocks)}"
        if (blocks := transition[f"{phase}_blocks"])
        else f"no {PHASE_NAMES[phase]} block"
        for phase in ("silent", "decisive")
    )


def _low_level(transition: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """That the upper level is still below 0, and what that means for the decisions."""
    level = transition["decisive_level"]
    if level is None or level >= 0:
        return ""
    accuracy = (trace.get("debiased") or trace)["accuracy"]["mean"][transition["readout"] :]
    right = sum(accuracy) / len(accuracy)
    text = f" Behind it the Decision Margin is still below 0 ({signed(level)} on average)"
    if right < 0.5:
        text += f": most questions are not decided rightly there ({percent(right, 0)} % are)"
    return f"{text}."


def _found_on(transition: Mapping[str, Any]) -> str:
    questions = transition.get("questions")
    return f" Found on {questions} questions of the task." if questions else ""


def transition_tile(trace: Mapping[str, Any]) -> Tile:
    """The transition, no more than the shape of the rise allows."""
    transition, name = trace["transition"], "Transition"
    if not transition["found"]:
        return Tile(name, "none", "not found")
    shape, of = transition.get("shape"), f"of {trace['blocks']}"
    if shape in (None, "step"):
        ci = transition["ci"]
        below = f"{of}, CI {ci[0]} to {ci[1]}" if ci else of
        return Tile(name, f"readout {transition['readout']}", below)
    return Tile(name, ends_in_words(transition["rise"], shape), f"{of}, {SHAPES[shape]}")


def ends_in_words(ends: Sequence[int], shape: str) -> str:
    """The readouts of a rise: ``6 to 10``, of two steps ``6 and 10``."""
    return f"{ends[0]} {'and' if shape == 'several' else 'to'} {ends[1]}"


def lens_lines(trace: Mapping[str, Any]) -> list[str]:
    """Say how the readouts were made, where it matters, and what the plain lens finds.

    Args:
        trace: The content of `trace.json`.

    Returns:
        Sentences; none without a tuned lens.
    """
    lens = trace.get("lens")
    if not lens:
        return []
    where = "no readout"
    if lens["differs"]:
        where = f"{plural(len(lens['differs']), 'readout')} of {trace['blocks'] + 1}"
    other = {name: lens[name] for name in ("transition", "accuracy")}
    plain = phases_line(trace | other | {"raw_transition": None, "debiased": None})
    return [
        "Readouts are by a tuned lens, fitted to "
        f"{plural(lens['calibration_questions'], 'other question')}. Its Decision Margin differs "
        f"from that of the plain logit lens at {where} (paired t-tests, Holm, p < 0.05).",
        f"By the plain logit lens: {plain}",
    ]


def with_bounds(figure: Mapping[str, float]) -> str:
    """Write a distance and its interval: ``0.52 (95 % CI 0.48 to 0.56)``.

    Args:
        figure: Its ``mean``, ``ci_low`` and ``ci_high``.

    Returns:
        The words.
    """
    mean, *bounds = (figure[part] for part in ("mean", "ci_low", "ci_high"))
    return decimal(mean) + interval_words(bounds, decimal)


def frequency_line(trace: Mapping[str, Any]) -> str | None:
    """Say how far Option Frequency is from the gold shares: by phase, else at the output.

    Args:
        trace: The content of `trace.json`.

    Returns:
        A sentence or two; None of a trace that an older version made.
    """
    distance = trace.get("option_frequency_distance")
    if not distance:
        return None
    phases = distance["phases"]
    if not phases:
        last = {name: distance[name][-1] for name in ("mean", "ci_low", "ci_high", "noise")}
        return (
            f"Option Frequency is {with_bounds(last)} from the gold shares at the output (0 is "
            f"equal, 1 is apart). Equal shares would show {last['noise']:.2f} by sampling alone."
        )
    silent, decisive, difference = (phases[n] for n in ("silent", "decisive", "difference"))
    verdict = "significant" if difference["significant"] else "not significant"
    return (
        f"Option Frequency is {with_bounds(silent)} from the gold shares in the Silent Phase and "
        f"{with_bounds(decisive)} in the Decisive Phase (0 is equal, 1 is apart); the difference "
        f"is {verdict}. Equal shares would show {silent['noise']:.2f} and "
        f"{decisive['noise']:.2f} by sampling alone."
    )


def frequency_caption(trace: Mapping[str, Any]) -> str:
    """Say the distance at both ends of the model.

    Args:
        trace: The content of `trace.json`.

    Returns:
        A sentence with a blank before it; nothing of a trace that an older version made.
    """
    distance = trace.get("option_frequency_distance")
    if not distance:
        return ""
    first, last = distance["mean"][0], distance["mean"][-1]
    return (
        f" Half the sum of the differences from gold is {first:.2f} at readout 0 and {last:.2f} at "
        "the output."
    )


def groups_line(trace: Mapping[str, Any]) -> str | None:
    """Say the accuracy over all questions and over groups.

    Args:
        trace: The content of ``trace.json``.

    Returns:
        A sentence; None where the questions are not of several groups.
    """
    groups = trace.get("accuracy_by_group")
    if not groups:
        return None
    return (
        f"accuracy: {percent(trace['accuracy']['mean'][-1])} % of all questions (micro), "
        f"{percent(trace['macro_accuracy'])} % mean of {len(groups)} groups (macro)"
    )


def unequal_options_line(trace: Mapping[str, Any]) -> str | None:
    """Say Option Frequency where questions have different numbers of options.

    Args:
        trace: The content of ``trace.json``.

    Returns:
        A sentence; None where all questions have the same number of options.
    """
    present = trace.get("where_present")
    if not present or len(set(present["questions"])) == 1:
        return None
    parts = [
        f"{label} {percent(decided, 0)} ({percent(gold, 0)}) of {count}"
        for label, decided, gold, count in zip(
            trace["option_labels"],
            present["option_frequency"][-1],
            present["gold_frequency"],
            present["questions"],
            strict=True,
        )
    ]
    return "decided % (gold %) at the output, of the questions with the option: " + ", ".join(parts)


def depth_lines(trace: Mapping[str, Any]) -> list[str]:
    """Say at which readouts questions, and groups of them, are decided.

    Args:
        trace: The content of `trace.json`.

    Returns:
        At most two sentences; none of a trace that an older version wrote.
    """
    if not trace.get("decision_depth"):
        return []
    lines = [depth_line(trace["decision_depth"])]
    groups = [
        part
        for name, of in (("by_group", "groups"), ("by_option_count", "numbers of options"))
        if (part := _groups(trace.get(name) or {}, of))
    ]
    return lines + ([f"Transitions (Holm): {'; '.join(groups)}."] if groups else [])


def depth_line(depth: Mapping[str, Any]) -> str:
    """Say at which readout single questions are decided for good, and how steadily.

    Args:
        depth: `decision_depth` of `trace.json`.

    Returns:
        One sentence; in brackets the quartiles.
    """
    flips = f"{depth['mean_flips']:.1f} flips"
    never = f"{depth['never_right_count']} never right"
    if not depth["quartiles"]:
        return f"By question: none right at the output, {flips}, {never}."
    low, middle, high = depth["quartiles"]
    return f"By question: right for good from readout {middle} [{low}, {high}], {flips}, {never}."


def _groups(groups: Mapping[str, Any], of: str) -> str | None:
    """How many groups have a transition, and where."""
    if not groups:
        return None
    found = [g["transition"]["readout"] for g in groups.values() if g["transition"]["found"]]
    where = ""
    if found:
        low, high = min(found), max(found)
        where = f" (readout {low})" if low == high else f" (readouts {low} to {high})"
    return f"{len(found)} of {len(groups)} {of}{where}"
