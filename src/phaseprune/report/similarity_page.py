"""What the report of a run of ``similarity`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phaseprune.report.run_files import read_json
from phaseprune.report.similarity import number, shown_model, similarity_lines
from phaseprune.report.similarity_figures import similarity_figure, similarity_matrices_figure
from phaseprune.report.svg import inline_svg
from phaseprune.report.words import blocks_in_words, percent

_KEYS = ("models", "questions", "minibatches", "run", "chosen_step")


def similarity_page(run: Path) -> dict[str, Any] | None:
    """Make the sentences, tiles and figures of the page.

    Args:
        run: The run directory.

    Returns:
        Those by name, or None where the run is not finished.

    Raises:
        UserError: Its result cannot be read.
    """
    found = read_json(run / "similarity.json", _KEYS)
    if found is None:
        return None
    model = shown_model(found)
    return {
        "sentences": similarity_lines(found),
        "tiles": _tiles(model),
        "figures": _figures(found, model),
    }


def _tiles(model: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    retained, interval = model["retained"], model["retained_ci"]
    below = "no interval"
    if interval:
        below = f"95 % CI {percent(interval[0])} to {percent(interval[1])}"
    return [
        ("CKA at the outputs", *_tile(model["cka_output"])),
        ("JS at the outputs", *_tile(model["js_output"])),
        ("JS beyond chance", *_tile(model["js_beyond_chance"])),
        ("Retained", "–" if retained is None else f"{percent(retained)} %", below),
        ("Blocks removed", str(len(model["removed"])), f"of {_blocks(model)}"),
    ]


def _blocks(model: Mapping[str, Any]) -> int:
    return len(model["cka"]) - 1


def _tile(figure: Mapping[str, float | None]) -> tuple[str, str]:
    low, high = figure["ci_low"], figure["ci_high"]
    below = "no interval" if low is None else f"95 % CI {number(low)} to {number(high)}"
    return number(figure["mean"]), below


def _figures(found: Mapping[str, Any], model: Mapping[str, Any]) -> list[dict[str, Any]]:
    drawn = (
        (
            "similarity",
            similarity_figure(found),
            "Hidden states (CKA) and decisions (Jensen-Shannon similarity beyond that of decisions "
            "on different questions) of the full and the pruned models at their outputs: 1 is "
            "equal, 0 unrelated."
            if found["run"]
            else "The full and the pruned model behind the same block. Before the first removed "
            "block they are equal.",
        ),
        (
            "matrices",
            similarity_matrices_figure(model),
            f"Every readout of the full model (rows) with every one of the model without "
            f"{blocks_in_words(model['removed'])} (columns, named by the full model's readout "
            "behind the same block; dots mark these). Grey: the states there do not vary over the "
            "questions.",
        ),
    )
    return [
        {"name": name, "svg": inline_svg(figure, name, caption), "caption": caption}
        for name, figure, caption in drawn
    ]
