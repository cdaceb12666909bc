"""Similarity of hidden states and of decisions of a model and of pruned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.view import (
    Column,
    Estimate,
    Figure,
    Table,
    Tile,
    View,
    estimates,
    share_tile,
)
from phaseprune.report.words import blocks_in_words, decimal, percent_with_interval, plural

#: What is significantly more alike at the output, as a sign between the two columns.
SIGNS = {"states": ">", "decisions": "<", None: ""}


def similarity_view(found: Mapping[str, Any]) -> View:
    """Show a comparison of a model with pruned ones.

    Args:
        found: The content of `similarity.json`.

    Returns:
        Its view.
    """
    model = shown_model(found)
    tiles = [
        _tile("CKA at the outputs", model["cka_output"]),
        _tile("JS at the outputs", model["js_output"]),
        _tile("JS beyond chance", model["js_beyond_chance"]),
        share_tile("Retained", model["retained"], model["retained_ci"]),
        Tile("Blocks removed", str(len(model["removed"])), f"of {len(model['cka']) - 1}"),
    ]
    body = [similarity_table(found), *similarity_lines(found)]
    return View(body, tiles, _figures(found, model))


def _tile(name: str, figure: Mapping[str, float | None]) -> Tile:
    low, high = figure["ci_low"], figure["ci_high"]
    below = "no interval" if low is None else f"95 % CI {decimal(low)} to {decimal(high)}"
    return Tile(name, decimal(figure["mean"]), below)


def _figures(found: Mapping[str, Any], model: Mapping[str, Any]) -> list[Figure]:
    return [
        Figure(
            "similarity",
            "similarity_figure",
            (found,),
            "Hidden states (CKA) and decisions (Jensen-Shannon similarity beyond that of decisions "
            "on different questions) of the full and the pruned models at their outputs: 1 is "
            "equal, 0 unrelated."
            if found["run"]
            else "The full and the pruned model behind the same block. Before the first removed "
            "block they are equal.",
        ),
        Figure(
            "matrices",
            "similarity_matrices_figure",
            (model,),
            f"Every readout of the full model (rows) with every one of the model without "
            f"{blocks_in_words(model['removed'])} (columns, named by the full model's readout "
            "behind the same block; dots mark these). Grey: the states there do not vary over the "
            "questions.",
        ),
    ]


def with_interval(figure: Mapping[str, float | None]) -> str:
    """Write a similarity and its interval: ``0.93 [0.91, 0.95]``."""
    return _estimate(figure).short(narrow=False).plain


def _estimate(figure: Mapping[str, float | None]) -> Estimate:
    return Estimate(figure["mean"], (figure["ci_low"], figure["ci_high"]), 2, decimal)


def similarity_table(found: Mapping[str, Any]) -> Table:
    """Tabulate pruned models, or of a single one its readouts.

    Args:
        found: The content of `similarity.json`.

    Returns:
        The table.
    """
    return _steps(found) if found["run"] else _readouts(found)


def _steps(found: Mapping[str, Any]) -> Table:
    models = found["models"]

    def shown(name: str) -> list[Estimate]:
        return [_estimate(model[name]) for model in models]

    return Table(
        f"{found['model']} on {found['task']}: the full and the pruned models",
        [
            Column("Step", [str(step) for step in range(1, len(models) + 1)]),
            Column("Block", [str(model["removed"][-1]) for model in models], page="Removed block"),
            Column("diag.", shown("cka_mean"), page="CKA, diag.", narrow=True),
            Column("CKA [95 % CI]", shown("cka_output")),
            Column("", [SIGNS[model["more_alike"]] for model in models], left=True),
            Column("JS beyond chance", shown("js_beyond_chance")),
            Column("JS", shown("js_output"), narrow=True),
            Column(
                "Retained %",
                [Estimate(model["retained"], model["retained_ci"]) for model in models],
            ),
        ],
        "diag.: mean CKA behind the same blocks. The rest is of the two outputs; beyond\n"
        "chance: that of decisions on different questions; >, <: significantly higher",
    )


def _readouts(found: Mapping[str, Any]) -> Table:
    model = found["models"][0]
    readouts = model["readouts"]

    def shown(name: str) -> list[Estimate]:
        return [
            *estimates(model[f"{name}_diagonal"], 2, decimal),
            _estimate(model[f"{name}_output"]),
        ]

    return Table(
        f"{found['model']} on {found['task']}: without {blocks_in_words(model['removed'])}",
        [
            Column("ℓ", [*map(str, readouts), "outputs"], page="Readout"),
            Column("", [*("" if changed else "·" for changed in model["changed"]), ""]),
            Column("CKA [95 % CI]", shown("cka")),
            Column("JS [95 % CI]", shown("js")),
            Column("cosine [95 % CI]", shown("cosine")),
        ],
        "Behind the same block; · before the first removed one",
        rules=[len(readouts) - 1],
    )


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
    )
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
        f"{decimal(model['js_unrelated'])}: beyond chance "
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
