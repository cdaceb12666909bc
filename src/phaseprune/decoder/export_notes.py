"""What goes with an exported checkpoint: the model card and a mergekit file of the same slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml

from phaseprune.decision.laco import merged_words
from phaseprune.decoder.items import item_in_words, whole_blocks
from phaseprune.decoder.source import Source


def kept_slices(kept: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of kept blocks as half-open ranges, the form mergekit's ``layer_range`` has."""
    slices: list[tuple[int, int]] = []
    for block in kept:
        if slices and slices[-1][1] == block:
            slices[-1] = (slices[-1][0], block + 1)
        else:
            slices.append((block, block + 1))
    return slices


def mergekit_yaml(source: Source, kept: Sequence[int], dtype: torch.dtype) -> str:
    """A mergekit configuration that cuts the same slices (its ``layer_range`` excludes the end).

    The base is the hub's name, or the directory: mergekit knows no other names of ours.
    """
    base_model = source.name if source.on_hub else str(source.directory)
    return yaml.safe_dump(
        {
            "slices": [
                {"sources": [{"model": base_model, "layer_range": [start, end]}]}
                for start, end in kept_slices(kept)
            ],
            "merge_method": "passthrough",
            "dtype": str(dtype).removeprefix("torch."),
        },
        sort_keys=False,
    )


def model_card(notes: dict[str, Any]) -> str:
    """The README.md of an exported checkpoint, from the content of its ``phaseprune.json``."""
    header = {"library_name": "transformers", "tags": ["phaseprune", "pruned", "depth-pruning"]}
    if notes["base_model"].count("/") == 1 and not notes["base_model"].startswith((".", "/")):
        header = {"base_model": notes["base_model"], **header}
    share = 1 - notes["parameters"] / notes["full_parameters"]
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).strip(),
        "---",
        "",
        f"# {notes['base_model']} without {_what(notes)}",
        "",
        f"Pruned with phaseprune: {_how(notes)}, "
        f"{_change(notes.get('healing'))}. Loads with plain transformers.",
        "",
        f"- removed {_kind(notes)} (0-based, of the original model, in order of removal): "
        f"{', '.join(map(str, notes['removed']))}",
        *([f"- {line}" for line in zeroed_lines(notes.get("zeroed"))]),
        f"- kept blocks: {', '.join(map(str, notes['kept']))}",
        *_merged(notes.get("merged")),
        f"- parameters: {notes['parameters']:,} of {notes['full_parameters']:,} ({share:.1%} less)",
        f"- reloaded from disk, max |Δ logits| to the measured model: "
        f"{notes['max_abs_logit_difference']:.2g}",
        *(f"- **{warning}**" for warning in notes.get("warnings") or ()),
    ]
    figures = notes["figures"]
    if figures:
        for task in figures.get("tasks", [figures]):
            lines += _measured(task)
        lines += [
            "",
            f"{_chosen(figures.get('chosen_by'))} What the figure does not cover "
            f"({'other tasks' if figures.get('guard') else 'other tasks, free generation'}) was "
            "not measured.",
            *_beyond_questions(figures.get("guard")),
        ]
    return "\n".join(lines) + "\n"


def zeroed_lines(zeroed: Mapping[str, Any] | None) -> list[str]:
    """What zeroed halves (``decoder.zeroed.Zeroed``) cost as before, and what they might save."""
    if not zeroed:
        return []
    names = ", ".join(map(item_in_words, zeroed["items"]))
    megabytes = zeroed["bytes"] / 1e6
    size = f"{megabytes:,.0f} MB" if megabytes >= 100 else f"{megabytes:.3g} MB"
    low, high = zeroed["fastness_range"]
    return [
        f"zeroed, not deleted: {names} ({zeroed['parameters']:,} parameters, {size} of zeros). "
        "In plain transformers these save neither bytes nor time, since a checkpoint cannot say "
        "that a block lacks a half",
        f"a runtime that skips them would not need these {size}; skipped in place they made a "
        f"prompt of {zeroed['prompt_tokens']} tokens {zeroed['times_as_fast']:.2f} times as fast "
        f"({low:.2f} to {high:.2f} in {zeroed['repeats']} turns, where this was exported)",
    ]


def _of_halves(notes: Mapping[str, Any]) -> bool:
    return any(isinstance(item, str) for item in notes["removed"])


def _what(notes: Mapping[str, Any]) -> str:
    if not _of_halves(notes):
        return f"{len(notes['removed'])} of {notes['blocks']} blocks"
    count = len(notes["removed"]) + sum(isinstance(item, int) for item in notes["removed"])
    return f"{count} of {2 * notes['blocks']} halves of blocks"


def _how(notes: Mapping[str, Any]) -> str:
    if notes.get("merged"):
        return "blocks merged into others and then removed"
    if not _of_halves(notes):
        return "whole blocks removed"
    gone = len(whole_blocks(notes["removed"]))
    whole = f"{gone} {'block' if gone == 1 else 'blocks'} whole"
    return f"halves of blocks (attention or MLP; {whole}) removed"


def _kind(notes: Mapping[str, Any]) -> str:
    return "halves of blocks" if _of_halves(notes) else "blocks"


def _measured(figures: Mapping[str, Any]) -> list[str]:
    """The accuracy on one task, of both models."""
    full, pruned = figures["full"], figures["pruned"]
    return [
        "",
        f"## Measured on {figures['task']} ({figures['evaluation_questions']} evaluation "
        f"questions, {figures['scoring']} scoring)",
        "",
        "| | accuracy | 95 % interval |",
        "|---|---|---|",
        f"| full model | {full['accuracy']:.3f} | {_interval(full['ci'])} |",
        f"| this model | {pruned['accuracy']:.3f} | {_interval(pruned['ci'])} |",
        *_debiased_rows(figures.get("debiased")),
        *_corrected_lines(figures.get("label_correction")),
    ]


def _debiased_rows(debiased: Mapping[str, Any] | None) -> list[str]:
    """The same accuracy with the label prior taken off."""
    if debiased is None:
        return []
    return [
        f"| {name} without the label prior | {side['accuracy']:.3f} | {_interval(side['ci'])} |"
        for name, side in (("full model", debiased["full"]), ("this model", debiased["pruned"]))
    ]


def _corrected_lines(correction: Mapping[str, Any] | None) -> list[str]:
    """How to take the label prior off."""
    if correction is None:
        return []
    return [
        "",
        "The model prefers some labels whatever the question says. To take that off, with "
        "`logits = model(**inputs).logits` of a prompt in the format of these questions "
        f"({correction['prompt_format']}; from {correction['questions']} of them):",
        "",
        "```python",
        correction["in_python"],
        "```",
    ]


def _beyond_questions(guard: Mapping[str, Any] | None) -> list[str]:
    """What was measured on plain text, against the full model."""
    if guard is None:
        return []
    return [
        "",
        f"On plain text the loss is {guard['text_loss']:.3f} nats a token, which is "
        f"{1 + guard['text_loss_rise']:.2f} times the full model's; of the tokens of short greedy "
        f"continuations {guard['agreement']:.1%} are the full model's, and "
        f"{guard['repetition']:.1%} of their 4-grams are repetitions.",
    ]


def _chosen(chosen_by: str | None) -> str:
    if chosen_by is None:
        return "Blocks were chosen on other questions than these."
    return f"{chosen_by} None of these questions was among what it looked at."


def _merged(merged: Mapping[str, Mapping[str, int]] | None) -> list[str]:
    """Of which original blocks' weights those of each merged block are the sum."""
    if not merged:
        return []
    return [f"- merged: {'; '.join(merged_words(merged))}"]


def _change(healing: Mapping[str, Any] | None) -> str:
    if healing is None:
        return "nothing else changed"
    return (
        f"then fine-tuned ({healing['method']}, objective {healing['objective']}, "
        f"{healing['steps']} steps)"
    )


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"
