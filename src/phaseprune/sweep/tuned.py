"""The tuned lens: an affine map before each readout (Belrose et al. 2023, arXiv 2303.08112).

``h + A h + b`` goes where ``h`` goes in the plain logit lens: into the model's own final norm and
head. The last readout has no map, as it is the model's own output. The maps are fitted so that each
readout's distribution over the vocabulary comes near the model's own (Kullback-Leibler divergence),
on the hidden states of calibration questions. Nothing of the right answers enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import differentiable_logits, read_logits
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.questions.question import Task
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.rows import Batch, Rows
from phaseprune.sweep.scoring import read_into
from phaseprune.sweep.states import States, by_token
from phaseprune.sweep.walk import PassCounter, walk

#: The fewest calibration questions, and the share of them that the fit is chosen on.
LEAST_QUESTIONS, HELD_SHARE = 10, 0.2
#: Tokens that are fitted to and that the fit is chosen on, about; and those of a step.
TOKENS, HELD_TOKENS, STEP_TOKENS = 2048, 512, 256
#: Ridge penalties that are tried, in units of the (standardised) states' variance.
RIDGES = (1e-2, 1e-1, 1.0)
EPOCHS = 2
#: Adam's learning rate times the width: what a step changes of a state grows with the width.
STEP_TIMES_WIDTH = 0.2


@dataclass(frozen=True)
class TunedLens:
    """The maps of readouts 0 … L-1.

    Attributes:
        weight: ``[L, D, D]`` float32 matrices A.
        bias: ``[L, D]`` float32 b.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, readout: int, states: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` states as the readout is given them, in their own dtype and place."""
        if readout == len(self.weight):
            return states
        weight, bias = self.weight[readout].to(states.device), self.bias[readout].to(states.device)
        return apply_map(states.float(), weight, bias).to(states.dtype)


def identity_lens(blocks: int, width: int) -> TunedLens:
    """The lens that is the logit lens: all maps are zero."""
    return TunedLens(torch.zeros(blocks, width, width), torch.zeros(blocks, width))


def apply_map(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[..., D]`` states h mapped to h + A h + b."""
    return states + states @ weight.T + bias


@torch.no_grad()
def scores_under_both(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    lens: TunedLens,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Option scores of the full model at every readout under both lenses, in one pass.

    Returns:
        ``[Q, L+1, K]`` raw scores of the logit lens and of the tuned one; ``-inf`` where an option
        is absent. The last readout's are the same.

    Raises:
        UserError: a block gives NaN; names the block and a question.
    """
    questions, options = rows.shape
    count = len(decoder.blocks)
    sums = torch.zeros(2, count + 1, questions * options, dtype=torch.float64)
    tell = PassCounter(progress, "trace", len(rows.batches) * count)
    for shard in rows.shards:
        for here in walk(decoder, shard, progress=tell):
            plain = here.at_reads()
            both = torch.cat([plain, lens(here.number, plain)])
            read_into(
                decoder,
                shard,
                both,
                needs_vocabulary,
                sums[:, here.number],
                [here.block] * 2,
                options,
            )
    scores = sums.numpy().reshape(2, count + 1, questions, options).transpose(0, 2, 1, 3)
    # In the order in which scores are read back, so that means of them are rounded alike.
    scores = np.ascontiguousarray(scores) / rows.repeats[:, None, None]
    scores[np.broadcast_to(rows.absent[:, None], scores.shape)] = -np.inf
    return scores[0], scores[1]


@dataclass(frozen=True)
class LensFit:
    """A lens and how near it comes to the model's own distribution.

    Attributes:
        lens: the maps.
        questions: calibration questions that it was fitted to,
        held_questions: and chosen on.
        kl_logit: ``[L]`` mean KL(model || readout), nats a token, of the plain logit lens on the
            latter,
        kl_tuned: and of this lens.
    """

    lens: TunedLens
    questions: int
    held_questions: int
    kl_logit: torch.Tensor
    kl_tuned: torch.Tensor


def check_calibration(task: Task) -> None:
    """Refuse too few questions to fit a lens to.

    Raises:
        UserError: says how many there are and how many are needed.
    """
    if len(task.questions) < LEAST_QUESTIONS:
        raise UserError(
            f"{task.name}: {len(task.questions)} calibration questions are too few to fit --lens "
            f"tuned to; it needs {LEAST_QUESTIONS}: ask for more with --calibration, or raise "
            "--limit"
        )


def fit_lens(
    decoder: Decoder, task: Task, *, seed: int = 0, progress: Progress = silent
) -> LensFit:
    """Fit a tuned lens to a model on some questions.

    Each map begins as the best on held-out questions of the zero map and ridge regressions of the
    last state on its readout's, and is then trained on the divergence by Adam for a few epochs.
    It is kept as it was at the epoch with the least divergence on the held-out questions, so
    there it is never worse than the plain logit lens.

    Args:
        decoder: the model.
        task: calibration questions, other ones than those that will be traced.
        seed: of the tokens that are drawn and of their order.
        progress: told of each block and step.

    Raises:
        UserError: too few questions, a family with several states a token, or NaN.
    """
    check_calibration(task)
    held_count = max(2, round(HELD_SHARE * len(task.questions)))
    sides = (
        (task.questions[held_count:], TOKENS, "tuned lens: states"),
        (task.questions[:held_count], HELD_TOKENS, "tuned lens: held-out states"),
    )
    states, held = (
        token_states(
            decoder,
            prepare(decoder, task.with_questions(side), streams=1).rows,
            most,
            seed,
            progress=progress,
            label=label,
        ).float()
        for side, most, label in sides
    )
    fitting = _Fitting(decoder, states, held)
    fitting.begin(progress)
    fitting.train(seed, progress)
    return LensFit(
        fitting.folded(),
        len(task.questions) - held_count,
        held_count,
        fitting.kl_logit,
        fitting.kl_best,
    )


class _Fitting:
    """Maps of standardised states, h + s (A (h - m) / s + b), all readouts side by side."""

    def __init__(self, decoder: Decoder, states: torch.Tensor, held: torch.Tensor):
        self.decoder, self.states, self.held = decoder, states, held
        self.blocks, (_, width) = len(states) - 1, states.shape[1:]
        before = states[:-1]
        self.mean, spread = before.mean(dim=1), before.std(dim=1)
        least = 1e-3 * spread.square().mean(dim=1, keepdim=True).sqrt() + 1e-12
        self.spread = torch.maximum(spread, least)
        self.weight = torch.zeros(self.blocks, width, width, device=states.device)
        self.bias = torch.zeros(self.blocks, width, device=states.device)
        self.held_target = [self._log_p(part) for part in held[-1].split(STEP_TOKENS)]

    def begin(self, progress: Progress) -> None:
        """Choose where each map begins."""
        best = [self._held_kl(readout) for readout in range(self.blocks)]
        self.kl_logit = torch.tensor(best)
        for readout in range(self.blocks):
            scaled = (self.states[readout] - self.mean[readout]) / self.spread[readout]
            wanted = (self.states[-1] - self.states[readout]) / self.spread[readout]
            bias = wanted.mean(dim=0)
            gram, cross = scaled.T @ scaled, scaled.T @ (wanted - bias)
            chosen = self.weight[readout].clone(), self.bias[readout].clone()
            for ridge in RIDGES:
                penalty = ridge * len(scaled) * torch.eye(len(gram), device=gram.device)
                self.weight[readout] = torch.linalg.solve(gram + penalty, cross).T
                self.bias[readout] = bias
                found = self._held_kl(readout)
                if found < best[readout]:
                    best[readout] = found
                    chosen = self.weight[readout].clone(), self.bias[readout].clone()
            self.weight[readout], self.bias[readout] = chosen
            progress("tuned lens: least squares", readout + 1, self.blocks)
        self.kl_best = torch.tensor(best)
        self.best = self.weight.clone(), self.bias.clone()

    def train(self, seed: int, progress: Progress) -> None:
        """Lessen the divergence by Adam, and keep each map at its best epoch."""
        generator = torch.Generator().manual_seed(seed)
        size = STEP_TIMES_WIDTH / self.weight.shape[-1]
        adam = torch.optim.Adam([self.weight, self.bias], lr=size)
        tokens = self.states.shape[1]
        steps, step = EPOCHS * -(-tokens // STEP_TOKENS), 0
        self.weight.grad = torch.zeros_like(self.weight)
        self.bias.grad = torch.zeros_like(self.bias)
        for _ in range(EPOCHS):
            for part in torch.randperm(tokens, generator=generator).split(STEP_TOKENS):
                part = part.to(self.states.device)
                target = self._log_p(self.states[-1, part]).exp()
                for readout in range(self.blocks):
                    gradients = self._gradients(readout, self.states[readout, part], target)
                    self.weight.grad[readout], self.bias.grad[readout] = gradients
                adam.param_groups[0]["lr"] = size * (1 - step / steps)
                adam.step()
                step += 1
                progress("tuned lens: training", step, steps)
            for readout in range(self.blocks):
                found = self._held_kl(readout)
                if found < self.kl_best[readout]:
                    self.kl_best[readout] = found
                    self.best[0][readout] = self.weight[readout]
                    self.best[1][readout] = self.bias[readout]

    def folded(self) -> TunedLens:
        """The best maps, of states as they are."""
        weight, bias = self.best
        weight = self.spread[:, :, None] * weight / self.spread[:, None, :]
        bias = self.spread * bias - (weight @ self.mean[:, :, None])[:, :, 0]
        return TunedLens(weight.cpu(), bias.cpu())

    def _mapped(self, readout: int, states: torch.Tensor, weight, bias) -> torch.Tensor:
        mean, spread = self.mean[readout], self.spread[readout]
        scaled = (states - mean) / spread
        mapped = states + spread * (apply_map(scaled, weight, bias) - scaled)
        return mapped.to(self.decoder.dtype)

    def _log_p(self, states: torch.Tensor) -> torch.Tensor:
        return read_logits(self.decoder, states.to(self.decoder.dtype)).log_softmax(dim=-1)

    def _gradients(self, readout: int, states: torch.Tensor, target: torch.Tensor):
        weight = self.weight[readout].clone().requires_grad_()
        bias = self.bias[readout].clone().requires_grad_()
        with torch.enable_grad():
            mapped = self._mapped(readout, states, weight, bias)
            logits = differentiable_logits(self.decoder, mapped)
        # What the mean divergence changes by with the logits.
        change = logits.detach().softmax(dim=-1).sub_(target).div_(len(states))
        return torch.autograd.grad(logits, (weight, bias), change)

    @torch.no_grad()
    def _held_kl(self, readout: int) -> float:
        """Mean divergence of a readout on the held-out tokens, nats."""
        total = 0.0
        parts = self.held[readout].split(STEP_TOKENS)
        for part, target in zip(parts, self.held_target, strict=True):
            mapped = self._mapped(readout, part, self.weight[readout], self.bias[readout])
            found = read_logits(self.decoder, mapped).log_softmax(dim=-1)
            total += float((target.exp() * (target - found)).sum())
        return total / self.held.shape[1]


def token_places(batch: Batch) -> np.ndarray:
    """``[M]`` places of a batch's tokens, counted through its rows; no padding."""
    rows, length = batch.input_ids.shape
    if batch.packing is not None:
        return np.arange(length)
    reads = batch.reads.cpu().numpy()
    # A plain row ends with a token that is read.
    ends = [reads[reads // length == row].max() % length for row in range(rows)]
    return np.concatenate([row * length + np.arange(end + 1) for row, end in enumerate(ends)])


def draw_tokens(rows: Rows, most: int, seed: int) -> list[np.ndarray]:
    """Places of each batch (of all shards in order) to take: those read, and others by seed.

    Args:
        rows: of a task.
        most: how many tokens in all, about.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    reads = sum(len(batch.reads) for batch in rows.batches)
    share = max(0.0, (most - reads) / max(1, rows.tokens - reads))
    drawn = []
    for batch in rows.batches:
        read = batch.reads.cpu().numpy()
        if reads > most:
            read = read[rng.random(len(read)) < most / reads]
        places = token_places(batch)
        others = places[rng.random(len(places)) < share]
        drawn.append(np.union1d(read, others))
    return drawn


@torch.no_grad()
def token_states(
    decoder: Decoder,
    rows: Rows,
    most: int,
    seed: int,
    *,
    progress: Progress = silent,
    label: str = "states",
) -> torch.Tensor:
    """Walk the full model over rows and take its states at tokens.

    Args:
        decoder: the model.
        rows: of a task.
        most: how many tokens, about; the read ones come first.
        seed: of the draw.
        progress: told of each block.
        label: for ``progress``.

    Returns:
        ``[L+1, T, D]`` in the model's dtype, on its device.

    Raises:
        UserError: a family with several states a token, or NaN.
    """
    drawn = iter(draw_tokens(rows, most, seed))
    found: list[torch.Tensor] = []
    tell = PassCounter(progress, label, len(rows.batches) * len(decoder.blocks))
    for shard in rows.shards:
        places = [
            torch.as_tensor(next(drawn), device=decoder.device, dtype=torch.long)
            for _ in shard.batches
        ]
        found.append(
            torch.stack(
                [
                    _taken(shard.batches, here.states, places)
                    for here in walk(decoder, shard, whole=True, progress=tell)
                ]
            )
        )
    together = torch.cat(found, dim=1)
    if together.dim() != 3:
        raise UserError(
            f"{decoder.name}: --lens=tuned needs one hidden state a token, and this family has "
            f"{together.shape[2]}; use --lens=logit"
        )
    if not torch.isfinite(together).all():
        readout = int((~torch.isfinite(together)).flatten(1).any(dim=1).nonzero()[0, 0])
        place = f"block {readout - 1}" if readout else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on a calibration question; try "
            "--dtype=float32"
        )
    return together


def _taken(batches: tuple[Batch, ...], states: States, places: list[torch.Tensor]) -> torch.Tensor:
    """``[T, D]`` states of the one stream at the chosen places of all batches."""
    parts = zip(batches, states, places, strict=True)
    return torch.cat([by_token(batch, state)[0, at] for batch, state, at in parts])
