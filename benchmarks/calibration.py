"""How often the statistics are wrong, on made-up questions whose truth is known.

    python benchmarks/calibration.py [--samples 300] [--seed 0] [--only WORD] [--processes 2]

Each row is a population (tests/populations.py), the verdicts on its samples, and what must hold: a
wrong one in at most 2 of 100 samples; a 95 % interval that holds the truth in 92 to 98 of 100; a
true one found in 90 of 100. Prints a Markdown table, and ends with 1 where a row fails.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from phaseprune.decision.collapse import fit_fall, ratio  # noqa: E402
from phaseprune.decision.dynamics import largest_rise, transition_state  # noqa: E402
from phaseprune.decision.transition import find_transition  # noqa: E402
from populations import (  # noqa: E402
    READOUTS,
    Population,
    churning,
    lead_of_margin,
    lost_one_by_one,
    margin_of_lead,
    one_readout,
    step,
    straight_leads,
)

#: The rise of debiased DM of Qwen2.5-Coder-1.5B-Instruct by letters on ARC-Easy (docs/results.md).
REAL_RISE = 0.61
#: Mean DM of a population that knows nothing.
GUESSING = margin_of_lead(0)


@dataclass(frozen=True)
class Row:
    """A population and what is held against it.

    Attributes:
        name: what is true.
        sample: from a generator, a verdict's word: ``wrong``, or another one; or, of an interval,
            ``held`` or ``missed`` (``none`` where no interval is due).
        kind: ``wrong`` (at most 2 %), ``held`` (92 to 98 % of held and missed; where the parameter
            is a whole number that nearly all samples find, up to 100), ``always`` (no ``none``),
            ``power`` (at least 90 % of ``right``), or ``told`` (nothing is asked of it).
    """

    name: str
    sample: Callable[[np.random.Generator], str]
    kind: str


def transition(population: Population, questions: int, rng: np.random.Generator):
    decisions = population.sample(questions, rng)
    return find_transition(decisions.debiased, int(rng.integers(2**31)), output=decisions)


def no_transition(population, questions, rng) -> str:
    return "wrong" if transition(population, questions, rng).found else "none"


def at_the_truth(population, questions, rng, far=2) -> str:
    found = transition(population, questions, rng)
    if not found.found:
        return "none"
    return "wrong" if abs(found.readout - population.split) > far else "right"


def shape_is(population, questions, right, wrong, rng) -> str:
    found = transition(population, questions, rng)
    if not found.found:
        return "none"
    return {right: "right", wrong: "wrong"}.get(found.shape, found.shape)


def held(population, questions, rng) -> str:
    found = transition(population, questions, rng)
    if not found.found:
        return "none"
    return "held" if found.ci[0] <= population.split <= found.ci[1] else "missed"


def rise_held(population, questions, true, rng) -> str:
    """Both ends of a gradual rise, each by its own interval: held if a drawn one of them is."""
    found = transition(population, questions, rng)
    if not found.found or found.shape != "gradual":
        return "none"
    end = int(rng.integers(2))
    low, high = found.rise_ci[end]
    return "held" if low <= true[end] <= high else "missed"


def sharpness_held(population, questions, rng) -> str:
    found = transition(population, questions, rng)
    if not found.found or found.readout != population.split:
        return "none"
    curve, at = population.curve, population.split
    true = (curve[at] - curve[at - 1]) / (curve[at:].mean() - curve[:at].mean())
    return "held" if found.sharpness_ci[0] <= true <= found.sharpness_ci[1] else "missed"


def found_at(population, questions, rng) -> str:
    found = transition(population, questions, rng)
    return "right" if found.found and found.ci[0] <= population.split <= found.ci[1] else "none"


def fall(rows, right, wrong, rng) -> str:
    correct = rows(rng)
    found = fit_fall(correct, np.full(len(correct[0]), 0.25), int(rng.integers(2**31)))
    if found is None or not found.found:
        return "wrong" if "none" in wrong else "none"
    return "wrong" if found.kind in wrong else "right" if found.kind in right else found.kind


def retained_held(full, pruned, questions, rng) -> str:
    """What the pruned model knows is a part of what the full one does."""
    knows = rng.random(questions) < (full - 0.25) / 0.75
    keeps = knows & (rng.random(questions) < pruned)
    guess = rng.random((2, questions)) < 0.25
    right = np.where(knows, True, guess[0]), np.where(keeps, True, guess[1])
    got = ratio(right[1] - 0.25, right[0] - 0.25)
    if got.ci is None:
        return "none"
    return "held" if got.ci[0] <= pruned <= got.ci[1] else "missed"


def kept_transition(share, questions, wrong, rng) -> str:
    """A pruned model whose rise is a share of the full model's, on the same questions."""
    full = Population(step(22, lead_of_rise(REAL_RISE)))
    pruned = Population(step(22, lead_of_rise(share * REAL_RISE)))
    seed, kept = int(rng.integers(2**31)), list(range(READOUTS - 1))
    rises, found = [], False
    for population in (full, pruned):
        decisions = population.sample(questions, rng)
        rises.append(largest_rise(decisions, kept, seed))
        found = find_transition(decisions.debiased, seed, output=decisions).found
    state = transition_state(found, rises[1], rises[0])
    return "wrong" if state == wrong else state


def lead_of_rise(rise: float) -> float:
    """The lead that lifts mean DM by so much."""
    return lead_of_margin(GUESSING + rise)


def rows() -> list[Row]:
    strong, half = lead_of_rise(REAL_RISE), lead_of_rise(REAL_RISE / 2)
    always_b = np.zeros((READOUTS, 4))
    always_b[:, 1] = 12.0
    fades = np.where(np.arange(READOUTS)[:, None] < 12, [[4.0, 0, 0, 0]], 0.0)
    grows = np.linspace(0.2, 4, READOUTS)
    last = {"golds": (0.0, 0.0, 0.0, 1.0), "letters": False}
    found = []
    for at, factor in ((0, 1 / 8), (15, 1 / 8), (30, 1 / 8), (0, 10), (15, 10), (30, 10)):
        name = f"decisions fixed, scale x {factor:g} at readout {at}, 160 questions"
        scaled = Population(np.full(READOUTS, 1.2), scale=one_readout(at, factor), correlation=1.0)
        found.append(Row(name, partial(no_transition, scaled, 160), "wrong"))
    late = Population(np.full(READOUTS, 1.2), scale=step(20, 4.0, 0.5), correlation=0.98)
    found += [
        Row(
            "decisions nearly fixed, scale x 8 from readout 20 on, 160 questions",
            partial(no_transition, late, 160),
            "wrong",
        ),
        Row(
            "nothing known, scale grows 20 times over the readouts, 160 questions",
            partial(no_transition, Population(np.zeros(READOUTS), scale=grows), 160),
            "wrong",
        ),
        Row(
            "nothing known, label prior fades at readout 12, 160 questions",
            partial(no_transition, Population(np.zeros(READOUTS), prior=fades), 160),
            "wrong",
        ),
        Row(
            "the same, texts",
            partial(no_transition, Population(np.zeros(READOUTS), prior=fades, letters=False), 160),
            "wrong",
        ),
        Row(
            "nothing known, scale grows, texts with all golds in the last place, 160 questions",
            partial(no_transition, Population(np.zeros(READOUTS), scale=grows, **last), 160),
            "wrong",
        ),
        Row(
            "known from readout 20 on, texts with all golds in the last place, 160 questions",
            partial(at_the_truth, Population(step(20, 1.0), **last), 160),
            "power",
        ),
        Row(
            "says B to everything, where B is gold in a third, 300 questions",
            partial(
                no_transition,
                Population(np.zeros(READOUTS), prior=always_b, golds=(0.22, 0.34, 0.22, 0.22)),
                300,
            ),
            "wrong",
        ),
        Row(
            "known from the first readout on, 160 questions",
            partial(no_transition, Population(np.full(READOUTS, 1.5)), 160),
            "wrong",
        ),
        Row(
            "label prior fades at 12, gold known in the last two, 160 questions: at 29 or none",
            partial(at_the_truth, Population(step(29, 2.0), prior=fades), 160),
            "wrong",
        ),
        Row(
            "gold known in the last two, label prior turns at every readout, 160 questions",
            partial(
                at_the_truth,
                Population(step(29, 2.0), prior=3 * np.eye(4)[np.arange(READOUTS) % 4]),
                160,
            ),
            "wrong",
        ),
    ]
    ramp = Population(straight_leads(GUESSING, 0.5))
    for questions in (60, 160, 400):
        found.append(
            Row(
                f"straight ramp over 30 readouts, {questions} questions: no step is said",
                partial(shape_is, ramp, questions, "gradual", "step"),
                "wrong",
            )
        )
    found.append(
        Row(
            "the same ramp, 160 questions: called gradual",
            partial(shape_is, ramp, 160, "gradual", "step"),
            "power",
        )
    )
    for questions in (100, 300):
        found.append(
            Row(
                f"a sharp step, {questions} questions: not called gradual",
                partial(shape_is, Population(step(22, strong)), questions, "step", "gradual"),
                "wrong",
            )
        )
    found.append(
        Row(
            "a sharp step, 300 questions: called a step",
            partial(shape_is, Population(step(22, strong)), 300, "step", "gradual"),
            "power",
        )
    )
    for spread in ((5, 25), (10, 20), (18, 24)):
        for questions in (80, 250):
            onsets = Population(np.full(READOUTS, 3.0), onset=spread)
            found.append(
                Row(
                    f"onset spread over readouts {spread[0]} to {spread[1]}, {questions} "
                    "questions: the split's interval",
                    partial(held, onsets, questions),
                    "held",
                )
            )
    onsets = Population(np.full(READOUTS, 3.0), onset=(8, 24))
    found.append(
        Row(
            "onset spread over readouts 8 to 24, 250 questions: both ends",
            partial(rise_held, onsets, 250, (7, 24)),
            "held",
        )
    )
    for name, at, high, questions in (
        ("weak step at 20, 80 questions", 20, lead_of_rise(0.2), 80),
        ("weak step at 27, 150 questions", 27, lead_of_rise(0.12), 150),
        ("step at 22 as high as the real one, 100 questions", 22, strong, 100),
    ):
        found.append(
            Row(
                f"{name}: the split's interval",
                partial(held, Population(step(at, high)), questions),
                "held",
            )
        )
    found += [
        Row(
            "step at 22, 200 questions: the interval of sharpness",
            partial(sharpness_held, Population(step(22, strong, 0.2)), 200),
            "held",
        ),
        Row(
            "a step half as high as the real model's, 100 questions: found",
            partial(found_at, Population(step(22, half)), 100),
            "power",
        ),
        Row(
            "a step a quarter as high, 100 questions: found",
            partial(found_at, Population(step(22, lead_of_rise(REAL_RISE / 4))), 100),
            "told",
        ),
    ]
    for steps in (12, 16):
        for questions in (100, 300):
            straight = partial(lost_one_by_one, questions, steps, 0.85)
            found.append(
                Row(
                    f"retained falls in a straight line over {steps} steps, {questions} "
                    "questions: no cliff",
                    partial(fall, straight, ("slope",), ("cliff",)),
                    "wrong",
                )
            )
    found += [
        Row(
            "the same, 16 steps, 300 questions: called a slope",
            partial(fall, partial(lost_one_by_one, 300, 16, 0.85), ("slope",), ("cliff",)),
            "power",
        ),
        Row(
            "a cliff at step 8 of 14, 200 questions: called a cliff",
            partial(fall, partial(lost_one_by_one, 200, 14, 0.85, at=8), ("cliff",), ("slope",)),
            "power",
        ),
    ]
    falls = ("cliff", "slope", "several cliffs", "unclear")
    for churn in (0.05, 0.3):
        for questions in (60, 200):
            rows_of = partial(churning, questions, 12, 0.7, churn)
            found.append(
                Row(
                    f"no loss, {churn:.0%} churn a step, 12 steps, {questions} questions",
                    partial(fall, rows_of, (), falls),
                    "wrong",
                )
            )
    for full, questions in ((0.39, 100), (0.6, 100), (0.9, 60)):
        for pruned in (0.0, 0.5, 0.9):
            found.append(
                Row(
                    f"retained {pruned:g} of accuracy {full:g}, {questions} questions",
                    partial(retained_held, full, pruned, questions),
                    "held",
                )
            )
    found.append(
        Row(
            "retained of accuracy 0.39, 100 questions: always an interval",
            partial(retained_held, 0.39, 0.5, 100),
            "always",
        )
    )
    for share in (0.6, 0.79):
        found.append(
            Row(
                f"transition kept at {share:.0%} of its height, 160 questions: not gone",
                partial(kept_transition, share, 160, "gone"),
                "wrong",
            )
        )
    found += [
        Row(
            "transition gone, 160 questions: not found",
            partial(kept_transition, 0.0, 160, "found"),
            "wrong",
        ),
        Row("transition gone, 160 questions: called gone", partial(gone, 160), "power"),
    ]
    return found


def gone(questions, rng) -> str:
    return "right" if kept_transition(0.0, questions, "found", rng) == "gone" else "unclear"


def verdict(kind: str, counts: Counter, samples: int) -> tuple[str, bool]:
    """The figure that counts, and whether it is as it must be."""
    if kind == "wrong":
        share = counts["wrong"] / samples
        return f"{share:.1%} wrong (2 % allowed)", share <= 0.02
    if kind == "held":
        due = counts["held"] + counts["missed"]
        if not due:
            return "no interval", False
        share = counts["held"] / due
        return f"{share:.1%} held of {due} (92 to 98 %)", share >= 0.92
    if kind == "always":
        share = 1 - counts["none"] / samples
        return f"{share:.1%} with an interval", share >= 1 - 1 / samples
    share = counts["right"] / samples
    return f"{share:.1%} right" + (" (90 % asked)" if kind == "power" else ""), (
        kind != "power" or share >= 0.9
    )


def one(row: Row, seed: int, number: int) -> str:
    return row.sample(np.random.default_rng([seed, number]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="rows whose name has this in it")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print("| what is true | verdicts | result | |\n|---|---|---|---|")
    failed = 0
    with ProcessPoolExecutor(options.processes) as pool:
        for row in rows():
            if options.only and options.only not in row.name:
                continue
            numbers = range(options.samples)
            words = list(pool.map(partial(one, row, options.seed), numbers, chunksize=10))
            counts = Counter(words)
            figure, good = verdict(row.kind, counts, options.samples)
            failed += not good
            told = ", ".join(f"{word} {count}" for word, count in counts.most_common())
            print(f"| {row.name} | {told} | {figure} | {'' if good else 'MISSED'} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
