"""The report of ``paper``: one page that can be held against the paper, figure by figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from phaseprune.errors import UserError
from phaseprune.replication.claims import CLAIMS
from phaseprune.replication.paper import Paper, PaperTask, open_paper
from phaseprune.replication.results import place
from phaseprune.replication.sections import SECTIONS, Section
from phaseprune.replication.words import left_out_lines, shown_name, summary_line
from phaseprune.report.page import drawn, render, write_report
from phaseprune.runs.atomic import write_text
from phaseprune.runs.directory import RunDirectory


def write_paper_report(path: str | Path) -> Path:
    """Write ``report.html`` of a run of ``paper`` and of each experiment in it, and ``claims.md``.

    Args:
        path: the run directory.

    Returns:
        The path of the report.

    Raises:
        UserError: it is no run of paper, or cannot be read or written.
    """
    found = open_paper(path)
    for task in found.tasks:
        for experiment in task.results:
            write_report(place(task.folder, experiment))
    manifest = RunDirectory(found.path).manifest
    report, claims = found.path / "report.html", found.path / "claims.md"
    try:
        write_text(report, paper_page(found, manifest))
        write_text(claims, claims_markdown(found))
    except OSError as error:
        raise UserError(f"Cannot write {report} ({error}); make room or allow writing.") from error
    return report


def paper_copy(path: str | Path) -> str:
    """The page of a run directory alone, without links to the runs' own reports.

    Raises:
        UserError: it is no run of paper, or cannot be read.
    """
    found = open_paper(path)
    return paper_page(found, RunDirectory(found.path).manifest, linked=False)


def paper_page(found: Paper, manifest: dict[str, Any], linked: bool = True) -> str:
    """The page.

    Args:
        found: what was found.
        manifest: of the run.
        linked: whether it links to the reports of the runs beside it.

    Returns:
        HTML that opens offline.
    """
    sections = {name: section.name for section in SECTIONS for name in section.claims}
    return render(
        "replication/page.html.j2",
        title=f"{shown_name(found.model)} held against the paper",
        status=_status(manifest),
        summary=summary_line(found.to_dict()),
        tasks=[{"name": task.name} for task in found.tasks],
        claims=[
            {
                "title": claim.title,
                "paper": claim.paper,
                "section": sections[claim.name],
                "verdicts": [task.findings[claim.name].verdict for task in found.tasks],
            }
            for claim in CLAIMS
        ],
        sections=[_section(section, found, linked) for section in SECTIONS],
        provenance=_provenance(found, manifest),
        command=manifest.get("arguments"),
    )


def claims_markdown(*papers: Paper) -> str:
    """The claims one by one as Markdown: what the paper says, what was seen, agrees or not.

    Args:
        papers: one run, or several to be read side by side.
    """
    each = [(found, task) for found in papers for task in found.tasks]
    tasks = [task for _, task in each]
    names = [
        task.name if len(papers) == 1 else f"{shown_name(found.model)}, {task.name}"
        for found, task in each
    ]
    models = " and ".join(shown_name(found.model) for found in papers)
    lines = [
        f"# {models} held against arXiv 2605.07271",
        "",
        *(f"- {shown_name(found.model)}: {summary_line(found.to_dict())}" for found in papers),
        "",
        "| the paper says | " + " | ".join(names) + " |",
        "|---" * (1 + len(names)) + "|",
    ]
    for claim in CLAIMS:
        verdicts = (task.findings[claim.name].verdict for task in tasks)
        lines.append(f"| {claim.title} | " + " | ".join(verdicts) + " |")
    for claim in CLAIMS:
        lines += ["", f"## {claim.title}", "", f"The paper: {claim.paper}", ""]
        for name, task in zip(names, tasks, strict=True):
            finding = task.findings[claim.name]
            lines.append(f"- **{name}: {finding.verdict}.** {finding.text}")
    return "\n".join(lines) + "\n"


def _status(manifest: dict[str, Any]) -> str | None:
    if manifest["status"] == "finished":
        return None
    return "This run is not finished. The same command again goes on where it was."


def _section(section: Section, found: Paper, linked: bool) -> dict[str, Any]:
    claims = [claim for claim in CLAIMS if claim.name in section.claims]
    return {
        "name": section.name,
        "title": section.title,
        "claims": [
            {
                "paper": claim.paper,
                "findings": [
                    {"task": task.name, **task.findings[claim.name].to_dict()}
                    for task in found.tasks
                ],
            }
            for claim in claims
        ],
        "tasks": [_task(section, task, found.path if linked else None) for task in found.tasks],
    }


def _task(section: Section, task: PaperTask, root: Path | None) -> dict[str, Any]:
    done = [name for name in section.experiments if name in task.results]
    told = {name: how for name, how in task.experiments.items() if name in section.experiments}
    missing = left_out_lines({"tasks": [{"task": task.name, "experiments": told}]})
    link = None
    if done and root is not None:
        link = os.path.relpath(place(task.folder, done[0]) / "report.html", root)
    return {
        "name": task.name,
        "link": link,
        "lines": [*section.lines(task.results), *missing],
        "figures": [
            drawn(one.figure(task.folder.name, task.results[one.experiment]))
            for one in section.drawings
            if one.experiment in task.results
        ],
    }


def _provenance(found: Paper, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    model, versions = manifest["model"], manifest["versions"]
    rows = [
        (
            "Model",
            f"{model['name']}, {model['family']}, {model['blocks']} blocks, {model['dtype']}",
        ),
        ("Fingerprint", model["fingerprint"][:12]),
        ("Seed", str(manifest["seed"])),
        ("Versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)),
    ]
    for task in found.tasks:
        took = ", ".join(
            f"{name} {told['seconds']:.0f} s" for name, told in task.experiments.items()
        )
        rows.append((task.name, took))
    return rows
