"""``phaseprune report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaseprune.cli import options as o
from phaseprune.cli.console import Screen


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)
    ],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write RUN/report.html again from the run's files: one page that opens offline."""
    screen = Screen(as_json, quiet)
    from phaseprune.report.html import write_report
    from phaseprune.report.run_files import read_json

    manifest = read_json(run / "manifest.json", ()) or {}
    if manifest.get("command") == "paper":
        from phaseprune.paper.page import write_paper_report as write_report
    path = write_report(run)
    screen.say(f"report: {path}")
    screen.result({"report": str(path)})
