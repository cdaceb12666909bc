"""``plan``: what is read without blocks, the order, the budget, the command."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phaseprune.cli.main import main
from phaseprune.decision.rankings import (
    LIMITS,
    LOOKED_AT,
    OFF_BY,
    least_needed,
    plan_order,
    predict_budget,
)
from phaseprune.errors import UserError
from phaseprune.methods.plan import plan
from phaseprune.methods.rank import rank_blocks
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_task
from phaseprune.sweep.changes import block_changes, task_sequences
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.residuals import take_residuals
from phaseprune.sweep.walk import trace_scores
from test_methods import BLOCKS, eight, eight_dir, plain_states  # noqa: F401

FAMILIES = ["llama", "gemma2", "gpt2", "falcon"]


@torch.no_grad()
def slow_scores(decoder, task, removed):
    """[Q][k] raw scores with what blocks added taken off, a row an option, by transformers."""
    found = []
    for question in encode_task(task, decoder.tokenizer, decoder.max_length):
        row = []
        for continuation in question.continuations:
            tokens = [*question.context, *continuation[:-1]]
            states = plain_states(decoder.model, decoder.blocks_path, tokens)
            last = states[-1] - sum(
                (states[b + 1] - states[b] for b in removed), np.zeros_like(states[-1])
            )
            norm = decoder.model.get_submodule(decoder.blocks_path.rpartition(".")[0]).norm
            logits = decoder.head(norm(torch.tensor(last, dtype=torch.float32)[None]))[0]
            at = range(len(question.context) - 1, len(tokens))
            if task.needs_vocabulary:
                logits = logits.log_softmax(-1)
            row.append(sum(float(logits[p, t]) for p, t in zip(at, continuation, strict=True)))
        found.append(row)
    return found


@pytest.mark.parametrize("removed", [(), (3,), (1, 6), (0, 2, 7)])
def test_what_is_read_off_is_that_of_plain_states(eight, small_task, removed):  # noqa: F811
    found = take_residuals(eight, prepare(eight, small_task, streams=1)).scores([removed])[0]
    for ours, theirs in zip(found, slow_scores(eight, small_task, removed), strict=True):
        assert ours[: len(theirs)] == pytest.approx(theirs, abs=2e-4)
        assert (ours[len(theirs) :] == -np.inf).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_walk_gives_the_trace_and_exactly_what_is_left_of_the_first_blocks(
    tiny, family, small_task
):
    decoder = tiny[family]
    blocks = len(decoder.blocks)
    prepared = prepare(decoder, small_task, streams=1)
    found = take_residuals(decoder, prepared)
    traced = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    finite = np.isfinite(traced)
    assert found.trace_scores()[finite] == pytest.approx(traced[finite], abs=1e-4)
    without = tuple(range(1, blocks))  # nothing stands behind them that could see the change
    left = trace_scores(
        decoder, prepared.rows, prepared.needs_vocabulary, removed=without, output_only=True
    )[:, 0]
    finite = np.isfinite(left)
    assert found.scores([without])[0][finite] == pytest.approx(left[finite], abs=1e-3)
    changes = block_changes(decoder, task_sequences(decoder, small_task))
    assert found.changes.block_passes == changes.block_passes == blocks
    assert (found.changes.influence == changes.influence).all()


def test_permuted_options_are_put_back(tiny, question_file):
    task = load_task(str(question_file), scoring="letter", permute=True)
    prepared = prepare(tiny["llama"], task, streams=1)
    traced = trace_scores(tiny["llama"], prepared.rows, prepared.needs_vocabulary)
    found = take_residuals(tiny["llama"], prepared).trace_scores()
    assert found[np.isfinite(traced)] == pytest.approx(traced[np.isfinite(traced)], abs=1e-4)


blocks_with_values = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0, 1), min_size=n, max_size=n),
        st.lists(st.floats(0, 1), min_size=n, max_size=n),
        st.lists(st.floats(-1, 1), min_size=n, max_size=n),
        st.sets(st.integers(0, n - 1), min_size=1, max_size=n),
    )
)


@given(blocks_with_values)
def test_each_block_is_the_cheapest_of_the_least_needed(drawn):
    influence, rearrangement, worth = (np.array(values) for values in drawn[:3])
    free = sorted(drawn[3])

    def worse_rank(block):
        ranks = [
            sum(other < values[block] for other in values) for values in (influence, rearrangement)
        ]
        return max(ranks), influence[block], block

    def margins(sets):
        return np.array([-sum(worth[b] for b in blocks) for blocks in sets])

    order, costs = plan_order(influence, rearrangement, margins, free, len(free))
    assert sorted(order) == free
    left = set(free)
    for block, cost in zip(order, costs, strict=True):
        looked_at = sorted(left, key=worse_rank)[:LOOKED_AT]
        assert block in looked_at
        prices = {b: influence[b] + worth[b] for b in looked_at}
        assert cost == pytest.approx(prices[block], abs=1e-9)
        assert cost <= min(prices.values()) + 1e-9
        left.remove(block)


def test_ties_go_to_the_lower_index():
    order, _ = plan_order(np.zeros(5), np.ones(5), lambda sets: np.zeros(len(sets)), [4, 1, 3], 3)
    assert order == (1, 3, 4)


def test_of_too_few_questions_influence_decides():
    influence = np.array([0.4, 0.1, 0.2, 0.1])
    assert least_needed(influence, np.full(4, np.nan)).tolist() == [3, 0, 2, 1]
    assert least_needed(influence, np.array([0.0, 0.9, 0.1, 0.2])).tolist() == [3, 2, 1, 0]


def test_the_budget_ends_where_influence_or_the_decision_says():
    influence = np.array([0.5, 0.06, 0.1, 0.07, 0.04])
    order = (4, 1, 2, 3, 0)  # together 0.04, 0.10, 0.20, 0.27, 0.77
    assert LIMITS == (0.20, 0.25, 0.30)
    kept = [1.0] * 6
    assert predict_budget(influence, order, kept) == {
        "blocks": 3,
        "low": 1,
        "high": 5,
        "bound_by": "influence",
    }
    fallen = [1.0, 0.9, 0.5, 0.49, 0.9, 0.9]
    assert predict_budget(influence, order, fallen) == {
        "blocks": 2,
        "low": 0,
        "high": 2,
        "bound_by": "decision",
    }
    assert predict_budget(influence, order[:2], kept[:3])["bound_by"] == "order"
    thin = np.full(60, 0.0099)  # here the outer limits are further apart than that
    thin = predict_budget(thin, range(60), [1.0] * 61)
    assert OFF_BY == 2 and (thin["low"], thin["blocks"], thin["high"]) == (20, 25, 30)
    assert predict_budget(influence, order, [None] * 6)["blocks"] is None


def test_planned_is_the_order_of_plan_and_spares_what_is_protected(eight, small_task):  # noqa: F811
    ranking = rank_blocks(eight, small_task, method="planned", protect=[2, 5])
    planned = plan(eight, small_task, protect=[5, 2])
    assert list(ranking.order) == planned.order
    assert sorted(planned.order) == [0, 1, 3, 4, 6, 7]
    assert ranking.block_passes == BLOCKS == planned.result["block_passes"]
    assert [row["cost"] for row in planned.result["rows"]] == [
        ranking.scores[block] for block in planned.order
    ]
    assert ranking.budget == planned.result["budget"] == ranking.to_dict()["budget"]
    assert "budget" not in rank_blocks(eight, small_task, method="cka").to_dict()
    with pytest.raises(UserError, match="protect=8: the model has blocks 0 to 7"):
        plan(eight, small_task, protect=[8])


def test_all_parts_of_a_plan_tell_how_far_they_are(eight, small_task):  # noqa: F811
    told = {}
    plan(eight, small_task, progress=lambda label, *done: told.setdefault(label, []).append(done))
    walk, reads, order = told.values()
    assert walk[-1][0] == pytest.approx(walk[-1][1])
    assert [done for done, _ in reads] == list(range(1, reads[0][1] + 1))
    assert len(reads) % (BLOCKS + 1) == 0
    assert order == [(done, BLOCKS - 1) for done in range(BLOCKS)]


@pytest.mark.slow
def test_a_run_is_read_back_and_another_is_refused(demo, tmp_path):
    task = load_task("demo", limit=60)
    first = plan(demo, task, out=tmp_path)
    assert first.state == "new" and first.trace.transition.found
    again = plan(demo, task, out=tmp_path)
    assert again.state == "finished" and again.to_dict() == first.to_dict()
    assert json.loads((tmp_path / "plan.json").read_text()) == first.to_dict()
    assert plan(demo, task).to_dict() == first.to_dict()
    assert rank_blocks(demo, task, method="planned").budget == first.result["budget"]
    short = rank_blocks(demo, task, method="planned", remove=3).budget
    assert short == {"blocks": 3, "low": 1, "high": 3, "bound_by": "order"}
    with pytest.raises(UserError, match="protect"):
        plan(demo, task, protect=[0], out=tmp_path)


def test_a_model_at_chance_gets_no_budget(eight, small_task):  # noqa: F811
    planned = plan(eight, small_task)
    full = planned.result["accuracy"]
    assert (planned.budget is None) == (full <= planned.result["chance"])
    assert not planned.result["transition"]["found"]


@pytest.mark.slow
def test_the_command_says_the_budget_and_what_to_type(tmp_path, capsys):
    command = ["plan", "demo", "--limit", "100", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Predicted budget: 9 of 14 blocks (7 to 11)" in said
    assert "--method planned --remove 9" in said
    assert "--remove 9 --among decisive" in said
    assert "no nearer to where models fell than one and the same number for all" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Predicted budget: 9 of 14 blocks" in page and 'id="plan"' in page
    with pytest.raises(SystemExit):
        main([*command, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["budget"]["blocks"] == 9
    # Letters: read off as the model answers, and with the label prior taken off.
    for row in told["rows"]:
        read = row["read_off"]
        low, high = read["retained_debiased_ci"]
        assert low <= read["retained_debiased"] <= high
        assert f"{100 * read['retained_debiased']:.0f} [{100 * low:.0f}, {100 * high:.0f}]" in said
        assert f"{100 * read['retained']:.0f} [" in said
    assert "debiased: less the label prior" in said
    with pytest.raises(SystemExit) as end:
        main(["plan", "demo", "--protect", "x"])
    assert end.value.code == 2 and "--protect" in capsys.readouterr().err
