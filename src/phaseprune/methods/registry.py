"""The training-free ways to choose blocks, each with its paper, what it needs and what it costs.

Costs are in block passes: runs of one block over all rows. ``phaseprune.rank_blocks`` runs any of
them, and ``prune --method`` removes blocks by it, with figures at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phaseprune.decision.laco import COMBINED
from phaseprune.errors import UserError, near_matches
from phaseprune.methods import costs

#: What a method may need.
QUESTIONS, TEXT, EITHER, GRADIENTS = "questions", "text", "questions or text", "gradients"
#: The heuristic of Shortened LLaMA's "plus" scores: the first four blocks and the last two stay.
PLUS = (4, 2)
PAPER = "2605.07271"


@dataclass(frozen=True)
class Method:
    """One way to choose which blocks to remove.

    Attributes:
        name: what it is called by.
        title: in words.
        paper: whose it is.
        arxiv: its number; None where it is folklore.
        formula: what a block is scored by, and which goes first.
        needs: what it is given, of ``QUESTIONS``, ``TEXT``, ``EITHER``, ``GRADIENTS``.
        measure: what computes its order, a name in ``measures.MEASURES``.
        passes: block passes for L blocks and k removed ones, nothing else protected.
        cost: the same in words.
        objective: of a search, what it judges by (``objectives.SIGNS``).
        ends: how many blocks at the beginning and at the end it never removes.
        sized: whether it chooses for a number of blocks, and with a larger one maybe others.
        anew: of such a one, whether each number takes a run of its own.
        expensive: whether comparisons leave it out unless it is asked for.
        merges: whether blocks that stay take in those that go, so that their weights change.
    """

    name: str
    title: str
    paper: str
    arxiv: str | None
    formula: str
    needs: tuple[str, ...]
    measure: str
    passes: Callable[[int, int], int]
    cost: str
    objective: str | None = None
    ends: tuple[int, int] = (0, 0)
    sized: bool = False
    anew: bool = False
    expensive: bool = False
    merges: bool = False

    @property
    def command(self) -> str:
        """What removes blocks by it on the command line."""
        return f"prune --method {self.name}" + (" --remove N" if self.sized else "")

    def protected(self, blocks: int) -> frozenset[int]:
        """The blocks of a model that it never removes."""
        first, last = self.ends
        return frozenset(b for b in range(blocks) if b < first or b >= blocks - last)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``methods --json``."""
        return {
            "name": self.name,
            "title": self.title,
            "paper": self.paper,
            "arxiv": self.arxiv,
            "formula": self.formula,
            "needs": list(self.needs),
            "cost": self.cost,
            "command": self.command,
            "never_removes": {"first": self.ends[0], "last": self.ends[1]},
        }


def one_walk(blocks: int, removed: int) -> int:
    """One run of the full model."""
    return blocks


def nothing(blocks: int, removed: int) -> int:
    """No block is run."""
    return 0


def walks(blocks: int, removed: int) -> int:
    """One run of the model that is left, a step."""
    return sum(blocks - step for step in range(removed))


def sweeps(blocks: int, removed: int) -> int:
    """One sweep over the model that is left, a step, nothing kept from the step before."""
    return sum(costs.sweep(blocks - step) for step in range(removed))


def one_sweep(blocks: int, removed: int) -> int:
    """One sweep over the full model."""
    return costs.sweep(blocks)


def one_sweep_plus(blocks: int, removed: int) -> int:
    """One sweep over the full model, without the protected blocks as candidates."""
    return costs.sweep(blocks, *PLUS)


def with_gradients(blocks: int, removed: int) -> int:
    """One run forward, and one backward that costs about two."""
    return 3 * blocks


_SHORTENED = ("Kim et al. 2024 (Shortened LLaMA)", "2402.02834")
_SEARCH = dict(measure="greedy", passes=sweeps, cost="<= sum n(n+1)/2")

METHODS = {
    method.name: method
    for method in (
        Method(
            "decision_margin",
            "Iterative Pruning by the Decision Margin",
            "Shi et al. 2026",
            PAPER,
            "the block whose removal leaves the largest mean Decision Margin; then look again",
            (QUESTIONS,),
            objective="decision_margin",
            **_SEARCH,
        ),
        Method(
            "debiased_margin",
            "Iterative Pruning by the debiased Decision Margin",
            "ours, over Shi et al. 2026",
            PAPER,
            "the block whose removal leaves the largest mean Decision Margin of the scores less "
            "their label prior; then look again (letters)",
            (QUESTIONS,),
            objective="debiased_margin",
            **_SEARCH,
        ),
        Method(
            "accuracy",
            "Iterative Pruning by accuracy",
            "Shi et al. 2026",
            PAPER,
            "the block whose removal leaves the largest accuracy; then look again",
            (QUESTIONS,),
            objective="accuracy",
            **_SEARCH,
        ),
        Method(
            "loss",
            "Iterative Pruning by the gold option's loss",
            "Shi et al. 2026",
            PAPER,
            "the block whose removal leaves the least -log p of the gold option; then look again",
            (QUESTIONS,),
            objective="loss",
            **_SEARCH,
        ),
        Method(
            "beam",
            f"Beam search over Iterative Pruning, width {costs.WIDTH}",
            "ours, over Shi et al. 2026",
            PAPER,
            f"the {costs.WIDTH} sets of one more block that leave the largest mean Decision "
            "Margin; then look again from each of them",
            (QUESTIONS,),
            "beam",
            costs.beams,
            f"<= {costs.WIDTH} x IP's",
            sized=True,
            expensive=True,
        ),
        Method(
            "pairwise",
            "Surrogate from every one and every two blocks",
            "ours, like Jansen et al. 2026",
            "2602.00161",
            "sum of d_i and d_ij, what one block and two lose of the Decision Margin; the block "
            "that adds least goes, one at a time",
            (QUESTIONS,),
            "pairwise",
            costs.pairs,
            "<= L^3/6 + L^2",
            expensive=True,
        ),
        Method(
            "evolutionary",
            "Evolutionary search for a set by the Decision Margin",
            "Sieberling et al. 2024 (EvoPress)",
            "2410.14649",
            "(1+16): blocks of the set are switched for others, judged on growing parts of the "
            "questions; the largest mean Decision Margin stays",
            (QUESTIONS,),
            "evolution",
            costs.evolution,
            "~k(L-k)^2/2+L^2",
            sized=True,
            anew=True,
            expensive=True,
        ),
        Method(
            "laco",
            "Layer Collapse: blocks merged into others",
            "Yang et al. 2024 (LaCo)",
            "2402.11187",
            "from the last blocks down, theta_l + sum_k (theta_l+k - theta_l) for a window of "
            f"{COMBINED}, where the cosine of last hidden states stays above a threshold",
            (EITHER,),
            "merges",
            costs.merging,
            "<= 4.5 L^2",
            sized=True,
            anew=True,
            expensive=True,
            merges=True,
        ),
        Method(
            "sleb",
            "SLEB: text loss, one at a time",
            "Song et al. 2024 (SLEB)",
            "2402.09025",
            "the block whose removal leaves the least loss on plain text; then look again",
            (TEXT,),
            objective="text_loss",
            **_SEARCH,
        ),
        Method(
            "block_influence",
            "Block Influence",
            "Men et al. 2024 (ShortGPT)",
            "2403.03853",
            "1 - E cos(h_l, h_l+1) over all tokens; least first",
            (EITHER,),
            "influence",
            one_walk,
            "L",
        ),
        Method(
            "block_influence_iterative",
            "Block Influence, measured again after each removal",
            "Men et al. 2024 (ShortGPT)",
            "2403.03853",
            "1 - E cos of a block's input and output in the model that is left; then look again",
            (EITHER,),
            "influence_again",
            walks,
            "sum of n",
        ),
        Method(
            "angular",
            "Angular distance of a window",
            "Gromov et al. 2024",
            "2403.17887",
            "arccos(cos(h_l, h_l+k))/pi at the last token; the window of k blocks with the least",
            (EITHER,),
            "window",
            one_walk,
            "L",
            sized=True,
            anew=True,
        ),
        Method(
            "relative_magnitude",
            "Relative magnitude of what a block adds",
            "Samragh et al. 2023",
            "2312.09299",
            "E ||f(x)|| / ||x + f(x)|| over all tokens; least first",
            (EITHER,),
            "relative",
            one_walk,
            "L",
        ),
        Method(
            "cka",
            "CKA of a block's input and output",
            "Kornblith et al. 2019",
            "1905.00414",
            "1 - CKA(h_l, h_l+1), debiased, over drawn tokens; least first",
            (EITHER,),
            "cka",
            one_walk,
            "L",
        ),
        Method(
            "ppl",
            "Perplexity without the block",
            *_SHORTENED,
            "perplexity of plain text with the block removed; least first",
            (TEXT,),
            "perplexity",
            one_sweep,
            "L(L+1)/2",
        ),
        Method(
            "ppl_plus",
            "Perplexity without the block, first 4 and last 2 kept",
            *_SHORTENED,
            "as ppl, with the protection that the paper gives to Taylor+ and Mag+",
            (TEXT,),
            "perplexity",
            one_sweep_plus,
            "< L(L+1)/2",
            ends=PLUS,
        ),
        Method(
            "taylor",
            "First-order Taylor score",
            *_SHORTENED,
            "sum |w dL/dw| over the block's matrices, L the loss on plain text; least first",
            (TEXT, GRADIENTS),
            "taylor",
            with_gradients,
            "3L",
        ),
        Method(
            "taylor_plus",
            "Taylor+: first 4 and last 2 blocks kept",
            *_SHORTENED,
            "as taylor; the first four blocks and the last two are never removed",
            (TEXT, GRADIENTS),
            "taylor",
            with_gradients,
            "3L",
            ends=PLUS,
        ),
        Method(
            "planned",
            "Influence, and what the decision loses",
            "the order of `plan`",
            None,
            "Block Influence, and the Decision Margin lost when what it and those gone before "
            "added is taken off the last state; least first, then look again",
            (QUESTIONS,),
            "planned",
            one_walk,
            "L",
        ),
        Method(
            "magnitude",
            "Magnitude of weights",
            *_SHORTENED,
            "sum |w| over the block's matrices; least first",
            (),
            "magnitude",
            nothing,
            "0",
        ),
        Method(
            "magnitude_plus",
            "Mag+: first 4 and last 2 blocks kept",
            *_SHORTENED,
            "as magnitude; the first four blocks and the last two are never removed",
            (),
            "magnitude",
            nothing,
            "0",
            ends=PLUS,
        ),
        Method(
            "tail",
            "Last blocks first, the very last kept",
            "Gromov et al. 2024",
            "2403.17887",
            "from the last block but one towards the embeddings",
            (),
            "last_first",
            nothing,
            "0",
            ends=(0, 1),
        ),
        Method(
            "tail_all",
            "Last blocks first",
            "Lu et al. 2024 (their reverse order)",
            "2411.15558",
            "from the last block towards the embeddings",
            (),
            "last_first",
            nothing,
            "0",
        ),
        Method(
            "reverse",
            "First blocks first",
            "a control",
            None,
            "from the first block towards the output: the tail turned round",
            (),
            "first_first",
            nothing,
            "0",
        ),
        Method(
            "random",
            "Random order",
            "a control",
            None,
            "an order drawn uniformly by seed",
            (),
            "random",
            nothing,
            "0",
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        UserError: there is none; with near matches.
    """
    if name not in METHODS:
        raise UserError(
            f"--method is {name!r} and must be one of {', '.join(METHODS)}."
            + near_matches(name, METHODS)
        )
    return METHODS[name]


def check_length(method: Method, given: bool) -> None:
    """Refuse a method that needs a number of blocks where none is given.

    Raises:
        UserError: it chooses so many together, and nothing says how many.
    """
    if method.sized and not given:
        raise UserError(
            f"method {method.name} chooses a given number of blocks together; say with --remove "
            "how many"
        )
