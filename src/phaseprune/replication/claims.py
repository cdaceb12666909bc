"""What the paper claims, claim by claim, and by which experiment each is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from phaseprune.decision.perturbation import PAPER
from phaseprune.replication import judges
from phaseprune.replication.judges import LEVELS_OFF, Finding
from phaseprune.replication.results import Results


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: short, for programs.
        title: what it is about.
        paper: what the paper says.
        experiment: whose result it is judged by.
        judge: that result (and all others) to a finding.
    """

    name: str
    title: str
    paper: str
    experiment: str
    judge: Callable[[Results], Finding]

    def find(self, results: Results) -> Finding:
        """What the results of a task say; ``undecided`` where the experiment is missing."""
        if self.experiment not in results:
            return Finding("undecided", f"{self.experiment} was not done.")
        return self.judge(results)

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return {part: getattr(self, part) for part in ("name", "title", "paper", "experiment")}


#: In the order of the paper.
CLAIMS = (
    Claim(
        "sharp_transition",
        "A sharp transition",
        "Over the readouts DM stays low (Silent Phase) and then, at a sharp transition, rises to "
        "its level of the Decisive Phase.",
        "trace",
        judges.sharp,
    ),
    Claim(
        "one_sided_options",
        "One-sided options before it",
        "In the Silent Phase Option Frequency is not that of the right options; in the Decisive "
        "Phase it is.",
        "trace",
        judges.one_sided,
    ),
    Claim(
        "cliff",
        "A plateau, then a cliff",
        "Under Iterative Pruning accuracy is stable for many blocks and then falls at once.",
        "prune",
        judges.plateau,
    ),
    Claim(
        "silent_hit",
        "The cliff is the Silent Phase",
        "The collapse comes when pruning reaches the Silent Phase.",
        "prune",
        judges.silent_hit,
    ),
    Claim(
        "transition_vanishes",
        "A collapsed model has no transition",
        "In a collapsed model the transition is gone.",
        "prune",
        judges.vanishes,
    ),
    Claim(
        "phases_differ",
        "Silent blocks matter, Decisive ones hardly",
        "Removing blocks of the Decisive Phase costs little; removing blocks of the Silent Phase "
        "breaks the model.",
        "phasewise",
        judges.phases,
    ),
    Claim(
        "features_alike",
        "Features stay, decisions go",
        "In a collapsed model hidden states are still similar (CKA) to the full model's, "
        "decision representations are not.",
        "similarity",
        judges.features,
    ),
    Claim(
        "silent_breaks",
        "A little noise breaks the Silent Phase",
        f"Noise at a Silent readout breaks the decision near σ² = {PAPER['silent']['noise']:g}.",
        "perturb",
        judges.silent_breaks,
    ),
    Claim(
        "decisive_holds",
        "The Decisive Phase withstands more",
        "Noise at a Decisive readout leaves the decision standing at σ² = "
        f"{PAPER['decisive']['noise']:g} (most of DM left).",
        "perturb",
        judges.decisive_holds,
    ),
    Claim(
        "recovery_bounded",
        "Recovery is bounded by depth",
        "Fine-tuning brings back the less the fewer blocks remain.",
        "heal",
        judges.bounded,
    ),
    Claim(
        "recovery_levels_off",
        "Recovery levels off",
        f"Past about {100 * LEVELS_OFF:.1f} % of pruned blocks (13 of 32) recovery levels off.",
        "heal",
        judges.levels_off,
    ),
    Claim(
        "margin_lifted",
        "Fine-tuning lifts DM everywhere",
        "Fine-tuning raises DM at all readouts.",
        "heal",
        judges.lifts,
    ),
)
