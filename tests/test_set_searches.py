"""Beam, pairwise surrogate and evolution: each against a slow plain implementation."""

import json
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaseprune.comparison.compare import compare
from phaseprune.comparison.orders import chosen_sets, method_names, wanted_rankings
from phaseprune.comparison.pruned import Pruned
from phaseprune.decision import rankings as draws
from phaseprune.decision.rankings import greedy_order, make_surrogate
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.methods import beam, costs, evolution, pairwise
from phaseprune.methods.beam import beam_search
from phaseprune.methods.evolution import evolve
from phaseprune.methods.judge import question_judge
from phaseprune.methods.pairwise import measure_pairs
from phaseprune.methods.rank import rank_blocks
from phaseprune.methods.registry import METHODS
from phaseprune.probes.phasewise_sets import draw_sets
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import trace_scores
from test_methods import BLOCKS, eight, eight_dir  # noqa: F401
from test_prune_methods import task  # noqa: F401
from test_sweep import naive_scores, without

SETS = ["beam", "pairwise", "evolutionary"]


class Slow:
    """Margins of any set, each by a run of the whole model without its blocks."""

    def __init__(self, decoder, questions):
        self.decoder, self.prepared, self.known = decoder, prepare(decoder, questions), {}

    def margins(self, blocks):
        """[Q] Decision Margins."""
        key = frozenset(blocks)
        if key not in self.known:
            raw = trace_scores(
                self.decoder, self.prepared.rows, self.prepared.needs_vocabulary, removed=key
            )
            self.known[key] = self.prepared.decide(raw).margins[:, -1]
        return self.known[key]

    def __call__(self, blocks):
        return self.margins(blocks).mean()


@pytest.fixture(scope="module")
def slow(eight, task):  # noqa: F811
    return Slow(eight, task)


@pytest.fixture(scope="module")
def judge(eight, task):  # noqa: F811
    return question_judge(eight, prepare(eight, task))


def slow_beam(slow, free, number, width):
    """The best path at each step, every set of every step looked up by itself."""
    paths, best = [()], []
    for _ in range(number):
        longer = {}
        for path in paths:
            for block in free:
                if block not in path:
                    longer.setdefault(frozenset((*path, block)), (*path, block))
        paths = sorted(longer.values(), key=slow, reverse=True)[:width]
        best.append(paths[0])
    return best


@pytest.mark.parametrize("protect", [(), (0, 5)])
def test_a_beam_of_one_is_iterative_pruning(eight, task, judge, protect):  # noqa: F811
    free = [block for block in range(BLOCKS) if block not in protect]
    best, passes = beam_search(eight, judge, "decision_margin", free, 5, 1)
    greedy = rank_blocks(eight, task, method="decision_margin", remove=5, protect=protect)
    assert [path.order for path in best] == [greedy.order[:n] for n in range(1, 6)]
    assert best[-1].values == tuple(greedy.scores[list(greedy.order)])
    assert passes == greedy.block_passes


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_beam_is_the_slow_one(eight, slow, judge, width):  # noqa: F811
    free = [0, 2, 3, 4, 5, 6, 7]
    best, passes = beam_search(eight, judge, "decision_margin", free, 6, width)
    assert [path.order for path in best] == slow_beam(slow, free, 6, width)
    for path in best:
        expected = [slow(path.order[:n]) for n in range(1, len(path.order) + 1)]
        assert path.values == pytest.approx(expected, abs=1e-5)
    greedy = slow_beam(slow, free, 6, 1)
    assert any(set(path.order) != set(one) for path, one in zip(best, greedy, strict=True))


def test_a_beam_by_a_loss_takes_the_least(eight, judge):  # noqa: F811
    best, _ = beam_search(eight, judge, "loss", range(BLOCKS), 1, 3)
    raw = [
        trace_scores(eight, judge.rows, judge.needs_vocabulary, removed=[b]) for b in range(BLOCKS)
    ]
    losses = [judge.figures(one[:, -1])["loss"] for one in raw]
    assert best[0].order == (int(np.argmin(losses)),)


@pytest.mark.slow
def test_what_a_beam_keeps_changes_its_cost_alone(eight, judge, monkeypatch):  # noqa: F811
    kept, passes = beam_search(eight, judge, "decision_margin", range(BLOCKS), 5, 3)
    monkeypatch.setattr(beam, "kept_budget", lambda decoder, rows: 0)
    bare, more = beam_search(eight, judge, "decision_margin", range(BLOCKS), 5, 3)
    assert [path.order for path in kept] == [path.order for path in bare]
    assert passes < more <= costs.beams(BLOCKS, 5)


def test_ties_of_a_beam_go_to_the_lower_index(eight, judge, monkeypatch):  # noqa: F811
    flat = SimpleNamespace(
        rows=judge.rows,
        needs_vocabulary=judge.needs_vocabulary,
        figures=lambda raw: {"decision_margin": 0.5},
    )
    best, _ = beam_search(eight, flat, "decision_margin", [1, 2, 4, 6], 3, 3)
    assert [path.order for path in best] == [(1,), (1, 2), (1, 2, 4)]


def test_rankings_by_a_beam_have_all_numbers(eight, task, slow):  # noqa: F811
    found = rank_blocks(eight, task, method="beam", remove=5, protect=[1])
    free = [0, 2, 3, 4, 5, 6, 7]
    assert list(found.by_number) == slow_beam(slow, free, 5, costs.WIDTH)
    assert found.order == found.by_number[-1]
    assert np.isnan(found.scores[[b for b in range(BLOCKS) if b not in found.order]]).all()
    assert found.scores[found.order[-1]] == pytest.approx(slow(found.order), abs=1e-5)
    assert found.to_dict()["by_number"] == [list(order) for order in found.by_number]
    assert "by_number" not in rank_blocks(eight, method="tail").to_dict()
    for number in (1, 3):
        fewer = rank_blocks(eight, task, method="beam", remove=number, protect=[1])
        assert fewer.order == found.by_number[number - 1]


# The pairwise surrogate.


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_one_and_two_blocks_are_as_if_deleted(tiny, family, small_task):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    judge = question_judge(decoder, prepared)
    surrogate, passes = measure_pairs(decoder, judge, "decision_margin", [0, 1, 3, 4])
    for blocks in ((), *combinations([0, 1, 3, 4], 1), *combinations([0, 1, 3, 4], 2)):
        model = without(decoder.model, decoder.blocks_path, blocks)
        raw = naive_scores(model, decoder.tokenizer, small_task)
        expected = judge.figures(raw)["decision_margin"]
        assert surrogate.figure(blocks) == pytest.approx(expected, abs=1e-4)
    assert np.isnan(surrogate.single[2]) and not surrogate.pair[2].any()
    assert (surrogate.pair == surrogate.pair.T).all() and not np.diag(surrogate.pair).any()


def slow_pairwise(slow, free, number):
    """At each step all sets of one more block by the formula, term by term."""
    base, order = slow(()), []
    drop = {i: base - slow([i]) for i in free}
    extra = {p: base - slow(p) - drop[p[0]] - drop[p[1]] for p in combinations(free, 2)}

    def predicted(blocks):
        blocks = sorted(blocks)
        return sum(drop[b] for b in blocks) + sum(extra[p] for p in combinations(blocks, 2))

    for _ in range(number):
        order.append(
            min((b for b in free if b not in order), key=lambda block: predicted([*order, block]))
        )
    return order, [base - predicted(order[:n]) for n in range(1, number + 1)]


@pytest.mark.parametrize("protect", [(), (2, 7)])
def test_the_pairwise_ranking_is_the_slow_one(eight, task, slow, protect):  # noqa: F811
    free = [block for block in range(BLOCKS) if block not in protect]
    found = rank_blocks(eight, task, method="pairwise", remove=5, protect=protect)
    order, values = slow_pairwise(slow, free, 5)
    assert list(found.order) == order
    assert found.scores[order] == pytest.approx(values, abs=1e-4)
    one = rank_blocks(eight, task, method="pairwise", remove=1, protect=protect)
    assert one.order == found.order[:1]
    assert one.block_passes < found.block_passes


def test_the_cost_of_pairs(eight, judge, monkeypatch):  # noqa: F811
    kept, passes = measure_pairs(eight, judge, "decision_margin", range(BLOCKS))
    left = BLOCKS - 1
    assert passes == BLOCKS + costs.sweep(BLOCKS) + sum(
        left - i + (left - i) * (left - i - 1) // 2 for i in range(left)
    )
    monkeypatch.setattr(pairwise, "kept_budget", lambda decoder, rows: 0)
    bare, more = measure_pairs(eight, judge, "decision_margin", range(BLOCKS))
    assert more == costs.pairs(BLOCKS, 2) > passes
    np.testing.assert_allclose(bare.pair, kept.pair, atol=1e-5)
    assert costs.pairs(32, 8) <= 32**3 / 6 + 32**2


@given(st.integers(1, 7), st.data())
def test_the_surrogate_and_its_greedy_order(blocks, data):
    def draw(count):
        return data.draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))

    linear = draw(blocks)
    extra = dict(zip(combinations(range(blocks), 2), draw(blocks * (blocks - 1) // 2), strict=True))

    def figure(chosen):
        chosen = sorted(chosen)
        return 5 - sum(linear[b] for b in chosen) - sum(extra[p] for p in combinations(chosen, 2))

    pairs = np.full((blocks, blocks), np.nan)
    for pair in extra:
        pairs[pair] = figure(pair)
    singles = np.array([figure([b]) for b in range(blocks)], dtype=float)
    surrogate = make_surrogate(5.0, singles, pairs)
    some = data.draw(st.sets(st.integers(0, blocks - 1)))
    assert surrogate.figure(sorted(some)) == figure(some)
    candidates = sorted(data.draw(st.sets(st.integers(0, blocks - 1), min_size=1)))
    order, scores = greedy_order(surrogate, candidates, len(candidates))
    for step, block in enumerate(order):
        before = order[:step]
        left = [b for b in candidates if b not in before]
        assert block == max(left, key=lambda b: (figure([*before, b]), -b))
        assert scores[block] == figure(order[: step + 1])
    assert np.isnan([scores[b] for b in range(blocks) if b not in candidates]).all()


# Evolution.


@given(st.integers(2, 12), st.data())
def test_mutations(free, data):
    blocks = sorted(data.draw(st.sets(st.integers(0, 30), min_size=free, max_size=free)))
    parent = tuple(
        sorted(data.draw(st.sets(st.sampled_from(blocks), min_size=1, max_size=free - 1)))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mutant = draws.mutate(parent, blocks, rng)
    assert mutant == tuple(sorted(set(mutant))) and set(mutant) <= set(blocks)
    assert len(mutant) == len(parent)
    assert 1 <= len(set(mutant) - set(parent)) <= min(3, len(parent), free - len(parent))
    known = {parent, mutant}
    children = draws.offspring(parent, blocks, 6, known, rng)
    assert len(set(children)) == len(children) <= 6 and not known & set(children)
    assert draws.offspring(tuple(blocks), blocks, 6, known, rng) == []


def test_the_number_of_switches_is_the_smaller_of_two_draws():
    rng = np.random.default_rng(0)
    parent = tuple(range(10))
    counts = Counter(
        len(set(draws.mutate(parent, range(20), rng)) - set(parent)) for _ in range(9000)
    )
    assert [counts[n] / 9000 for n in (1, 2, 3)] == pytest.approx([5 / 9, 3 / 9, 1 / 9], abs=0.03)
    seen = Counter(b for _ in range(3000) for b in draws.mutate((0, 1), range(4), rng))
    shares = [seen[b] / 3000 for b in range(4)]
    assert shares == pytest.approx([5 / 18, 5 / 18, 13 / 18, 13 / 18], abs=0.04)


def test_stages_see_growing_shares():
    assert draws.stage_ends(64, costs.SEEN) == [8, 32, 64]
    assert draws.stage_ends(20, costs.SEEN) == [8, 10, 20]
    assert draws.stage_ends(9, costs.SEEN) == [8, 9] and draws.stage_ends(5, costs.SEEN) == [5]


def slow_evolution(slow, start, free, seed):
    """The same draws, but every set looked up on all questions, and the stages taken from these."""
    number, rng = len(start), np.random.default_rng([seed, len(start)])
    count = len(slow.margins(start))
    parent, known = tuple(sorted(start)), {tuple(sorted(start))}
    for generation in range(costs.generations(len(free), number) + 1):
        if generation:
            sets = draws.offspring(parent, free, 16, known, rng)
        else:
            drawn = draw_sets(free, number, 31, [seed, number, 1])
            sets = [s for s in drawn if s not in known]
        if not sets:
            continue
        order = rng.permutation(count)
        ends = draws.stage_ends(count, (1 / 8, 1 / 2))
        for end, most in zip(ends, (4, 1, None), strict=True):
            seen = order[:end]
            sets = sorted(sets, key=lambda s: (-slow.margins(s)[seen].mean(), s))[:most]
        known |= set(sets)
        parent = max([parent, *sets], key=slow)
    return parent


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seed"), [(2, 0), (3, 1), (4, 2), (6, 3)])
def test_evolution_is_the_slow_one(eight, slow, judge, number, seed):  # noqa: F811
    free = [0, 1, 2, 3, 5, 6, 7]
    start = (1, 2, 3, 5, 6, 7)[:number]  # not the best of any
    chosen, value, passes = evolve(eight, judge, "decision_margin", start, free, seed)
    assert chosen == slow_evolution(slow, start, free, seed)
    assert value == pytest.approx(slow(chosen), abs=1e-5) and value >= slow(start) - 1e-5
    again = evolve(eight, judge, "decision_margin", start, free, seed)
    assert again == (chosen, value, passes)


@pytest.mark.slow
def test_the_evolutionary_ranking(eight, task, slow):  # noqa: F811
    free = [0, 1, 2, 3, 5, 6, 7]
    by_single = sorted(free, key=lambda block: -slow([block]))
    for number in range(1, 8):
        found = rank_blocks(eight, task, method="evolutionary", remove=number, protect=[4], seed=2)
        start = tuple(sorted(by_single[:number]))
        chosen = slow_evolution(slow, start, free, 2) if 1 < number < 7 else start
        assert list(found.order) == [block for block in by_single if block in chosen]
        assert found.scores[free] == pytest.approx([slow([b]) for b in free], abs=1e-5)
        assert np.isnan(found.scores[4])
        assert slow(found.order) >= slow(start) - 1e-6
    assert rank_blocks(eight, task, method="evolutionary", remove=1).block_passes == 36


@pytest.mark.slow
def test_seeds_draw_other_generations(eight, judge):  # noqa: F811
    def walked(seed):
        labels = []
        evolve(
            eight,
            judge,
            "decision_margin",
            (0, 1, 2),
            range(BLOCKS),
            seed,
            progress=lambda label, done, total: labels.append((label, total)),
        )
        return labels

    assert walked(0) == walked(0) != walked(1)


def test_shared_beginnings_leave_one_stage(monkeypatch):
    def parts(tokens):
        part = SimpleNamespace(rows=SimpleNamespace(tokens=tokens), count=1)
        judge = SimpleNamespace(count=64, rows=SimpleNamespace(tokens=100), part=lambda at: part)
        return evolution._stages(judge, np.random.default_rng(0))

    assert len(parts(36)) == 3 and len(parts(40)) == 1


@pytest.mark.slow
def test_the_cost_of_an_evolution(demo):
    questions = load_task("demo", limit=64)
    for number in (2, 7):
        found = rank_blocks(demo, questions, method="evolutionary", remove=number)
        assert 0.5 < found.block_passes / METHODS["evolutionary"].passes(14, number) < 1
    assert costs.generations(14, 7) == 7 and costs.generations(14, 1) == 0


# In runs.


@pytest.mark.parametrize("method", ["beam", "evolutionary"])
def test_a_number_must_be_given(eight, task, method):  # noqa: F811
    with pytest.raises(UserError, match=f"{method} chooses a given number .* remove how many"):
        rank_blocks(eight, task, method=method)
    assert METHODS[method].command == f"prune --method {method} --remove N"
    with pytest.raises(UserError, match="remove how many"):
        prune(eight, task, method=method, keep_accuracy=0.9)


def test_what_is_compared_by_default():
    assert set(METHODS) - set(method_names(None)) == {*SETS, "laco"}
    assert method_names(["tail", "all"]) == tuple(METHODS)
    assert [one.number for one in wanted_rankings("evolutionary", 8, [2, 4], (), 3, 0)] == [2, 4]
    assert [one.remove for one in wanted_rankings("beam", 8, [2, 4], (), 3, 0)] == [4]
    line = {"method": "beam", "number": None, "order": [3, 1], "by_number": [[2], [3, 1]]}
    assert chosen_sets([line], [1, 2, 3]) == {"beam": {1: [Pruned((2,))], 2: [Pruned((1, 3))]}}


@pytest.mark.slow
def test_comparisons_of_sets(eight, task, tmp_path):  # noqa: F811
    common = dict(remove=[2, 4], protect=[5], calibration=8, seed=1)
    compared = compare(eight, [task], methods=SETS, out=tmp_path / "run", **common)
    (found,) = compared.result["tasks"]
    calibration = split(task, 8, None, 1)[0]
    assert [one["method"] for one in found["methods"]] == SETS
    for one in found["methods"]:
        for cell in one["cells"]:
            expected = rank_blocks(
                eight,
                calibration,
                method=one["method"],
                remove=cell["removed_blocks"],
                seed=1,
                protect=[5],
            )
            assert cell["sets"] == [sorted(expected.order)]
    assert [len(one["orders"]) for one in found["methods"]] == [1, 1, 2]
    again = compare(eight, [task], methods=SETS, out=tmp_path / "run", **common)
    assert again.state == "finished" and again.result == compared.result
    json.dumps(compared.result, allow_nan=False)


@pytest.mark.parametrize("method", SETS)
def test_streamed_models_are_searched_alike(tiny, tiny_dirs, small_task, method):
    streamed = load_model(str(tiny_dirs["llama"]), stream=True)
    found = rank_blocks(streamed, small_task, method=method, remove=2, seed=1)
    expected = rank_blocks(tiny["llama"], small_task, method=method, remove=2, seed=1)
    assert found.order == expected.order
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
