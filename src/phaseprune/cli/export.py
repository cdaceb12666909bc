"""``phaseprune export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from phaseprune.cli import options as o
from phaseprune.cli.execute import load_model
from phaseprune.cli.screen import Screen, command_line
from phaseprune.decoder.items import item_list
from phaseprune.errors import UserError


@o.command
def export(  # noqa: C901
    loading: o.LoadingOptions,
    output: o.OutputOptions,
    source: Annotated[str, o.argument("RUN|MODEL", "A run of prune; or a model, with --remove.")],
    remove: Annotated[
        str | None,
        o.option(
            "--remove",
            "Blocks to remove from a model: original 0-based indices, as 20,26,7, "
            "or halves, as 7.attention,7.mlp.",
            metavar="BLOCKS",
        ),
    ] = None,
    step: Annotated[
        int | None, o.option("--step", "Which step of the run.", default="the chosen one")
    ] = None,
    out: Annotated[
        Path | None,
        o.option("--out -o", "Where to.", o.OUTPUT, metavar="DIRECTORY", default="RUN/model"),
    ] = None,
    measure: Annotated[
        bool,
        o.option(
            "--measure",
            "Measure what is saved: bytes on disk, and the speed of both models "
            "by turns, on this machine as it is now.",
        ),
    ] = False,
    repair_labels: o.RepairLabels = False,
) -> None:
    """Write a pruned checkpoint that plain transformers loads, and prove it by reloading."""
    screen = Screen(output.as_json, output.quiet)
    is_run = (Path(source) / "manifest.json").is_file()
    if is_run and remove is not None:
        raise UserError("--remove is for a model; a run already says which blocks: use --step")
    if not is_run and step is not None:
        raise UserError(f"--step is for a run of prune, and {source} has no manifest.json")
    if not is_run and repair_labels:
        raise UserError(
            "--repair-labels is for a run of prune, whose questions say what the label prior is; "
            f"{source} has no manifest.json"
        )
    if not is_run and remove is None:
        raise UserError(
            f"{source} is not a run directory; name the blocks to remove from a model with --remove"
        )
    if not is_run and out is None:
        raise UserError("say where to write the checkpoint with --out DIRECTORY")
    removed = item_list(remove) if remove is not None else []
    name, keywords = source, loading.keywords()
    if is_run:
        from phaseprune.pruning.export_run import (
            export_run,
            removed_up_to,
            run_to_export,
            step_to_export,
        )

        run = run_to_export(source)
        removed = removed_up_to(run, step_to_export(run, step))
        name = run.manifest["model"]["name"]
        if loading.dtype == "auto":
            keywords["dtype"] = run.manifest["model"]["dtype"]
    told = []
    if loading.blocks is None:  # else the configuration may not say how many there are
        from phaseprune.decoder.export import warnings_beforehand
        from phaseprune.decoder.load import silence_transformers

        silence_transformers()
        told = warnings_beforehand(name, removed, loading.revision, loading.trust_remote_code)
        for warning in told:
            screen.note(warning)
    decoder = load_model(screen, name, keywords)
    if is_run:
        exported = export_run(decoder, run, step=step, out=out, repair_labels=repair_labels)
    else:
        from phaseprune.decoder.export import export as write

        exported = write(decoder, removed, out)
    for warning in exported.warnings or ():
        if warning not in told:
            screen.note(warning)
    from phaseprune.decoder.export_notes import zeroed_lines

    saved = 1 - exported.parameters / exported.full_parameters
    screen.say(f"exported: {exported.path}")
    what = "halves of blocks" if exported.zeroed else "blocks"
    screen.say(f"removed {what}: {', '.join(map(str, exported.removed))}")
    screen.say(
        f"parameters: {exported.parameters:,} of {exported.full_parameters:,} ({saved:.1%} less), "
        f"{exported.weight_bytes / 1e6:,.1f} MB"
    )
    screen.say(f"reloaded from disk: max |Δ logits| {exported.max_abs_logit_difference:.2g}")
    screen.say(f"generated {exported.generated_tokens} tokens alike with and without the KV cache")
    screen.show(zeroed_lines(exported.zeroed))
    if repair_labels:
        say_correction(screen, exported.path)
    saving = _measured(screen, decoder, exported.path) if measure else {}
    screen.end(exported.to_dict() | saving, command_line("trace", exported.path, "--task", "TASK"))


def say_correction(screen: Screen, path: str | Path) -> None:
    """Print what takes the label prior off, as the exported model says it."""
    notes = Path(path) / "phaseprune.json"
    if not notes.is_file():
        screen.note("no block was removed, so that nothing was exported: no label prior is written")
        return
    figures = json.loads(notes.read_text(encoding="utf-8"))["figures"]
    for task in figures.get("tasks", [figures]):
        correction = task.get("label_correction")
        if correction is None:
            screen.note(
                f"{path} was exported before, without the label prior; phaseprune export RUN "
                "--repair-labels --out DIRECTORY writes a copy that has it"
            )
            return
        screen.say(f"label prior, from {correction['questions']} questions: {path}/phaseprune.json")
        screen.say(f"  {correction['in_python']}")


def _measured(screen: Screen, decoder, path: str) -> dict:
    """The saving, shown and written into the exported model's ``phaseprune.json``."""
    from phaseprune.decoder.saving import measure_saving, record_saving
    from phaseprune.report.guards import saving_lines

    with screen.progress() as progress:
        saving = measure_saving(decoder, path, progress=progress)
    record_saving(path, saving)
    screen.show(saving_lines(saving.to_dict()))
    return {"saving": saving.to_dict()}
