"""Similarity of hidden states and of decisions in words, and as tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from phaseprune.report.view import add_row, interval_cell, new_table
from phaseprune.report.words import DASH, blocks_in_words, percent_with_interval, plural

#: What is significantly more alike at the output, as a sign between the two columns.
SIGNS = {"states": ">", "decisions": "<", None: ""}


def number(value: float | None) -> str:
    """Write a similarity: ``0.93``, ``-0.02``, or a dash where it is not defined."""
    return DASH if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def with_interval(figure: Mapping[str, float | None]) -> str:
    """Write a similarity and its interval: ``0.93 [0.91, 0.95]``."""
    value, low, high = (figure[part] for part in ("mean", "ci_low", "ci_high"))
    if value is None or low is None:
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def similarity_table(found: Mapping[str, Any]) -> Table:
    """Tabulate pruned models, or of a single one its readouts.

    Args:
        found: The content of `similarity.json`.

    Returns:
        A table of at most 80 columns.
    """
    return _steps(found) if found["run"] else _readouts(found)


def _steps(found: Mapping[str, Any]) -> Table:
    table = new_table(
        f"{found['model']} on {found['task']}: the full and the pruned models",
        "diag.: mean CKA behind the same blocks. The rest is of the two outputs; beyond\n"
        "chance: that of decisions on different questions; >, <: significantly higher",
    )
    for name, align in (("Step", "right"), ("Block", "right"), ("diag.", "right"),
                        ("CKA [95 % CI]", "right"), ("", "left"), ("JS beyond chance", "right"),
                        ("JS", "right"), ("Retained %", "right")):  # fmt: skip
        table.add_column(name, justify=align, no_wrap=True)
    for step, model in enumerate(found["models"], start=1):
        add_row(
            table,
            str(step),
            str(model["removed"][-1]),
            number(model["cka_mean"]["mean"]),
            with_interval(model["cka_output"]),
            SIGNS[model["more_alike"]],
            with_interval(model["js_beyond_chance"]),
            number(model["js_output"]["mean"]),
            interval_cell(model["retained"], model["retained_ci"], 0),
        )
    return table


def _readouts(found: Mapping[str, Any]) -> Table:
    model = found["models"][0]
    table = new_table(
        f"{found['model']} on {found['task']}: without {blocks_in_words(model['removed'])}",
        "Behind the same block; · before the first removed one",
    )
    for name in ("ℓ", "", "CKA [95 % CI]", "JS [95 % CI]", "cosine [95 % CI]"):
        table.add_column(name, justify="right", no_wrap=True)
    for at, readout in enumerate(model["readouts"]):
        cells = [
            with_interval({part: model[name][part][at] for part in model[name]})
            for name in ("cka_diagonal", "js_diagonal", "cosine_diagonal")
        ]
        add_row(table, str(readout), "" if model["changed"][at] else "·", *cells)
    table.add_section()
    outputs = (model[name] for name in ("cka_output", "js_output", "cosine_output"))
    add_row(table, "outputs", "", *map(with_interval, outputs))
    return table


def similarity_lines(found: Mapping[str, Any]) -> list[str]:
    """Say what was compared, and what is more alike.

    Args:
        found: The content of `similarity.json`.

    Returns:
        Sentences: of a single pruned model on it; of a run on its chosen and its collapsed steps.
    """
    where = (
        f"Compared on {plural(found['questions'], 'question')} in {found['minibatches']} "
        f"minibatches of {found['minibatch']} or a few more; CKA has jackknife intervals over "
        "minibatches, JS bootstrap ones over questions."
    )  # fmt: skip
    return [where, *(_verdict(found, model, name) for model, name in _told(found))]


def shown_model(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pick the pruned model that is shown in detail: the first collapsed one, else the last.

    Args:
        found: The content of `similarity.json`.

    Returns:
        One of its `models`.
    """
    models = found["models"]
    return next((model for model in models if model["collapsed"]), models[-1])


def _told(found: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """Which models are told of, and what they are called."""
    models: Sequence[Mapping[str, Any]] = found["models"]
    if not found["run"]:
        return [(models[0], "The pruned model")]
    shown = shown_model(found)
    steps = {found["chosen_step"]: "the chosen one"} if found["chosen_step"] else {}
    name = "the first collapsed one" if shown["collapsed"] else "the last one"
    steps.setdefault(len(shown["removed"]), name)
    return [(models[step - 1], f"Step {step}, {name},") for step, name in steps.items()]


def _verdict(found: Mapping[str, Any], model: Mapping[str, Any], name: str) -> str:
    left = percent_with_interval(model["retained"], model["retained_ci"])
    retained = f"retains {left} of the accuracy above chance"
    if model["retained"] is None:
        retained = "has no defined retained accuracy (the full model is not better than chance)"
    same = ""
    if model["cka_mean"]["mean"] is not None:
        same = (
            f"Behind the same blocks its hidden states have CKA {with_interval(model['cka_mean'])} "
            f"on average, its decisions JS {with_interval(model['js_mean'])}. "
        )
    return (
        f"{name} {retained}{' and has collapsed' if model['collapsed'] else ''}. {same}"
        f"At the outputs CKA is {with_interval(model['cka_output'])}, JS "
        f"{with_interval(model['js_output'])}, where decisions on different questions have "
        f"{number(model['js_unrelated'])}: beyond chance "
        f"{with_interval(model['js_beyond_chance'])}. {_gap(model)}"
    )


def _gap(model: Mapping[str, Any]) -> str:
    gap, p_value = model["gap"], model["gap_p_holm"]
    if p_value is None:
        return "The two cannot be compared, as one of them does not vary over the questions."
    told = f"difference {with_interval(gap)}, p = {p_value:.2g} after Holm's correction"
    if model["more_alike"] == "states":
        return f"Hidden states stay more alike than decisions ({told})."
    if model["more_alike"] == "decisions":
        return f"Decisions stay more alike than hidden states ({told})."
    return f"Neither is significantly more alike than the other ({told})."
