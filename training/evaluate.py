"""What the demo model shows: by readout, with single blocks skipped, under iterative pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from forward import head, readouts
from world import KINDS, LETTERS, Question

CALIBRATION = 200


@dataclass(frozen=True)
class Batch:
    """Questions as tensors: padded token ids, the last prompt position, the gold option."""

    ids: Tensor
    last: Tensor
    gold: Tensor


def encode(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question], length: int | None = None
) -> Batch:
    """Tokenises prompts, each followed by its answer letter, and pads them on the right."""
    texts = [f"{q.prompt} {LETTERS[q.answer]}" for q in questions]
    rows = tokenizer(texts)["input_ids"]
    length = length or max(map(len, rows))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    last = torch.tensor([len(tokens) - 2 for tokens in rows])
    return Batch(ids, last, torch.tensor([q.answer for q in questions]))


def label_ids(tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Returns the token ids of the four labels as they follow a prompt."""
    prompt = "Answer:"
    known = len(tokenizer(prompt)["input_ids"])
    rows = [tokenizer(f"{prompt} {letter}")["input_ids"][known:] for letter in LETTERS]
    if any(len(row) != 1 for row in rows):
        raise RuntimeError(f"the labels are not single tokens: {rows}")
    return torch.tensor([row[0] for row in rows])


@torch.no_grad()
def option_probabilities(
    model: LlamaForCausalLM,
    labels: Tensor,
    batch: Batch,
    kept: Sequence[int] | None = None,
    last_only: bool = False,
) -> np.ndarray:
    """Returns the softmax over the four labels, of shape (readouts, questions, 4)."""
    states = list(readouts(model, batch.ids, kept))
    rows = torch.arange(len(batch.ids))
    chosen = states[-1:] if last_only else states
    logits = [head(model, s[rows, batch.last])[:, labels] for s in chosen]
    return torch.stack(logits).softmax(-1).numpy()


def margins(probabilities: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Returns the Decision Margin of each question: p[gold] − max of the other options."""
    index = np.arange(len(gold))
    others = probabilities.copy()
    others[..., index, gold] = -1.0
    return probabilities[..., index, gold] - others.max(-1)


def step_position(curve: np.ndarray) -> tuple[int, float, float, float]:
    """Fits two levels to a curve by least squares, rise only.

    Returns:
        The first readout of the upper level, the two levels, and R².
    """
    best = None
    for cut in range(1, len(curve)):
        low, high = curve[:cut].mean(), curve[cut:].mean()
        error = ((curve[:cut] - low) ** 2).sum() + ((curve[cut:] - high) ** 2).sum()
        if high > low and (best is None or error < best[0]):
            best = (error, cut, low, high)
    if best is None:
        raise RuntimeError("the curve never rises")
    error, cut, low, high = best
    return cut, float(low), float(high), float(1 - error / ((curve - curve.mean()) ** 2).sum())


def iterative_pruning(
    model: LlamaForCausalLM, labels: Tensor, calibration: Batch, evaluation: Batch
) -> list[tuple[int, float, float, float]]:
    """Removes one block after the other, always the one whose loss leaves the best mean DM.

    Returns:
        For each step the removed block, the mean DM on the calibration questions, and accuracy
        and mean DM on the evaluation questions.
    """
    kept, steps = list(range(len(model.model.layers))), []

    def measure(blocks: Sequence[int], batch: Batch) -> tuple[float, float]:
        probabilities = option_probabilities(model, labels, batch, blocks, last_only=True)[0]
        margin = margins(probabilities, batch.gold.numpy())
        return float((probabilities.argmax(-1) == batch.gold.numpy()).mean()), float(margin.mean())

    while len(kept) > 1:
        scores = [measure([b for b in kept if b != gone], calibration)[1] for gone in kept]
        gone = kept[int(np.argmax(scores))]
        kept.remove(gone)
        steps.append((gone, max(scores), *measure(kept, evaluation)))
    return steps


def results(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> str:
    """Measures the model on its held-out questions and returns the account as Markdown."""
    labels, batch = label_ids(tokenizer), encode(tokenizer, questions)
    gold, blocks = batch.gold.numpy(), len(model.model.layers)
    probabilities = option_probabilities(model, labels, batch)
    right = probabilities.argmax(-1) == gold
    margin = margins(probabilities, gold)
    curve = margin.mean(1)
    cut, low, high, r2 = step_position(curve)
    shares = np.bincount(gold, minlength=4) / len(gold)

    kinds = np.array([q.kind for q in questions])
    unseen = np.array([q.unseen_link for q in questions])
    lines = ["## Accuracy by kind", ""]
    lines += ["| kind | questions | accuracy | of these with an unseen link | accuracy |"]
    lines += ["|---|---|---|---|---|"]
    for name, mask in [(k, kinds == k) for k in KINDS] + [("all", kinds != "")]:
        new = mask & unseen
        tail = f"{new.sum()} | {right[-1][new].mean():.3f}" if new.any() else "0 | –"
        lines.append(f"| {name} | {mask.sum()} | {right[-1][mask].mean():.3f} | {tail} |")

    lines += ["", "## By readout", ""]
    lines += [f"Gold shares: {_shares(shares)}. Total variation: half the sum of the absolute"]
    lines += ["differences between Option Frequency and gold shares.", ""]
    lines += ["| readout | DM | accuracy | Option Frequency A B C D | total variation |"]
    lines += ["|---|---|---|---|---|"]
    for readout in range(blocks + 1):
        counts = np.bincount(probabilities[readout].argmax(-1), minlength=4) / len(gold)
        distance = abs(counts - shares).sum() / 2
        lines.append(
            f"| {readout} | {curve[readout]:.3f} | {right[readout].mean():.3f} "
            f"| {_shares(counts)} | {distance:.3f} |"
        )
    lines += ["", f"Two-level fit: ℓ* = {cut} ({cut} silent and {blocks - cut} decisive blocks),"]
    lines += [f"levels {low:.3f} and {high:.3f}, R² = {r2:.3f}.", ""]
    lines += ["DM at each readout by kind:", ""]
    lines += ["| kind | " + " | ".join(map(str, range(blocks + 1))) + " |"]
    lines += ["|---" * (blocks + 2) + "|"]
    for kind in KINDS:
        row = margin[:, kinds == kind].mean(1)
        lines.append(f"| {kind} | " + " | ".join(f"{x:.2f}" for x in row) + " |")

    lines += ["", "## One block skipped", "", "| block | accuracy | DM |", "|---|---|---|"]
    for gone in range(blocks):
        kept = [b for b in range(blocks) if b != gone]
        p = option_probabilities(model, labels, batch, kept, last_only=True)[0]
        lines.append(
            f"| {gone} | {(p.argmax(-1) == gold).mean():.3f} | {margins(p, gold).mean():.3f} |"
        )

    lines += ["", "## Iterative pruning", ""]
    lines += [f"Blocks chosen by mean DM on the first {CALIBRATION} questions, accuracy and DM"]
    lines += ["on the others.", ""]
    lines += ["| step | removed | calibration DM | accuracy | DM |", "|---|---|---|---|---|"]
    calibration = Batch(*(t[:CALIBRATION] for t in (batch.ids, batch.last, batch.gold)))
    evaluation = Batch(*(t[CALIBRATION:] for t in (batch.ids, batch.last, batch.gold)))
    first = margin[-1][:CALIBRATION].mean(), *(x[-1][CALIBRATION:].mean() for x in (right, margin))
    lines.append("| 0 | – | " + " | ".join(f"{x:.3f}" for x in first) + " |")
    for step, (gone, *values) in enumerate(
        iterative_pruning(model, labels, calibration, evaluation), start=1
    ):
        lines.append(f"| {step} | {gone} | " + " | ".join(f"{x:.3f}" for x in values) + " |")
    return "\n".join(lines) + "\n"


def _shares(values: np.ndarray) -> str:
    return " ".join(f"{x:.2f}" for x in values)
