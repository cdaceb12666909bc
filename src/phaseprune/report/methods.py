"""The ways to choose blocks, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phaseprune.report.view import Column, Table, View
from phaseprune.report.words import DASH


def methods_view(methods: Sequence[Mapping[str, Any]], blocks: int, removed: int) -> View:
    """Show the ways to choose blocks, a row a method.

    Args:
        methods: Entries of `methods --json`.
        blocks: Of the model that costs are stated for.
        removed: How many of them are removed.

    Returns:
        The view.
    """
    table = Table(
        "Which blocks to remove",
        [
            Column("method", [one["name"] for one in methods], left=True),
            Column("looks at", [", ".join(one["needs"]) or DASH for one in methods], left=True),
            Column("block passes", [one["cost"] for one in methods], left=True),
            Column("passes", [f"{one['block_passes']:,}" for one in methods]),
            Column("arXiv", [one["arxiv"] or DASH for one in methods], left=True),
        ],
        f"passes: to remove {removed} of {blocks} blocks",
    )
    return View([table, "prune --method NAME removes blocks by any of them; n: blocks left"])
