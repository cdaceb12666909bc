"""The tuned lens: the logit lens where it begins, nearer to the model where it ends."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from phaseprune.decision.intervals import Interval
from phaseprune.decision.tests import holm
from phaseprune.decision.trace import compare_lenses
from phaseprune.decoder.readout import read_logits
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair
from phaseprune.questions.prompts import render
from phaseprune.questions.split import split
from phaseprune.sweep import trace as trace_module
from phaseprune.sweep import tuned
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import scores_under_both, split_for, trace
from phaseprune.sweep.tuned import TunedLens, fit_lens, identity_lens, token_states
from phaseprune.sweep.walk import trace_scores
from test_cli import run, sentence  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def sides():
    """Calibration and evaluation questions of the bundled task."""
    return split(load_task("demo", limit=150), 50, 60, 0)


@pytest.fixture(scope="module")
def fit(demo, sides):
    return fit_lens(demo, sides[0], seed=3)


def divergence(decoder, states, last):
    """Mean KL(model || readout), nats a token."""
    target, found = (read_logits(decoder, s).double().log_softmax(-1) for s in (last, states))
    return float((target.exp() * (target - found)).sum(-1).mean())


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
def test_the_zero_map_is_the_logit_lens(tiny, family, small_task):
    decoder = tiny[family]
    prepared = prepare(decoder, small_task)
    needs = prepared.needs_vocabulary
    plain, same = scores_under_both(decoder, prepared.rows, needs, identity_lens(5, 32))
    np.testing.assert_array_equal(plain, same)
    np.testing.assert_allclose(plain, trace_scores(decoder, prepared.rows, needs), atol=1e-5)


def test_the_readout_at_the_output_stays_the_models_own(tiny, small_task):
    decoder = tiny["qwen3"]
    generator = torch.Generator().manual_seed(0)
    lens = TunedLens(torch.randn(5, 32, 32, generator=generator), torch.ones(5, 32))
    prepared = prepare(decoder, small_task)
    plain, mapped = scores_under_both(decoder, prepared.rows, prepared.needs_vocabulary, lens)
    np.testing.assert_array_equal(mapped[:, -1], plain[:, -1])
    present = np.isfinite(plain[:, :-1])
    moved = np.abs(mapped[:, :-1][present] - plain[:, :-1][present])
    assert (moved > 1e-6).mean() > 0.9
    states = torch.randn(3, 32, generator=generator)
    expected = states.double() + states.double() @ lens.weight[2].double().T + 1
    torch.testing.assert_close(lens(2, states).double(), expected, atol=1e-4, rtol=1e-4)
    assert lens(1, states.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "falcon"])  # packed and plain rows
def test_states_are_those_of_all_tokens_of_the_model(tiny, family, small_task):
    decoder = tiny[family]
    rows = prepare(decoder, small_task).rows
    found = token_states(decoder, rows, 10**9, 0)
    assert found.shape == (6, rows.tokens, 32)
    expected = []
    for question in small_task.questions:
        context, continuations = render(question, small_task.scoring)
        for continuation in continuations:
            before, after = encode_pair(decoder.tokenizer, context, continuation)
            with torch.no_grad():
                out = decoder.model.base_model(
                    torch.tensor([before + after[:-1]]), output_hidden_states=True
                )
            expected.append(torch.stack([h[0] for h in out.hidden_states[:-1]]))
    expected = torch.cat(expected, dim=1)  # readouts 0 to L-1; behind them stands the norm
    for readout in range(5):
        apart = torch.cdist(found[readout].double(), expected[readout].double())
        scale = 1e-4 * expected[readout].abs().max()
        assert apart.min(dim=1).values.max() < scale and apart.min(dim=0).values.max() < scale
    few = token_states(decoder, rows, sum(shard.reads for shard in rows.shards) + 20, 0)
    assert few.shape[1] < rows.tokens
    again = token_states(decoder, rows, sum(shard.reads for shard in rows.shards) + 20, 0)
    torch.testing.assert_close(few, again, atol=0, rtol=0)


@pytest.mark.slow
def test_the_fit_lowers_the_divergence_on_questions_it_has_not_seen(demo, sides, fit):
    states = token_states(demo, prepare(demo, sides[1]).rows, 4096, 0)
    before = [divergence(demo, states[at], states[-1]) for at in range(14)]
    after = [divergence(demo, fit.lens(at, states[at]), states[-1]) for at in range(14)]
    assert all(b < 0.9 * a for a, b in zip(before, after, strict=True))
    assert sum(after) < 0.6 * sum(before)
    # What the fit says of itself, on its held-out questions, is of the same size.
    assert (fit.kl_tuned < fit.kl_logit).all()
    np.testing.assert_allclose(fit.kl_logit, before, rtol=0.35)
    assert float(fit.kl_tuned.sum()) == pytest.approx(sum(after), rel=0.35)


def test_the_folded_maps_are_those_that_were_measured(demo, sides, fit):
    held = sides[0].with_questions(sides[0].questions[: fit.held_questions])
    states = token_states(demo, prepare(demo, held).rows, tuned.HELD_TOKENS, 3)
    for readout in range(14):
        found = divergence(demo, fit.lens(readout, states[readout]), states[-1])
        assert found == pytest.approx(float(fit.kl_tuned[readout]), rel=1e-3)
        plain = divergence(demo, states[readout], states[-1])
        assert plain == pytest.approx(float(fit.kl_logit[readout]), rel=1e-3)


@pytest.mark.slow
def test_training_lowers_it_also_without_least_squares(demo, sides, monkeypatch):
    monkeypatch.setattr(tuned, "RIDGES", ())
    monkeypatch.setattr(tuned, "STEP_TIMES_WIDTH", 0.6)
    found = fit_lens(demo, sides[0])
    assert (found.kl_tuned < 0.95 * found.kl_logit).all()
    monkeypatch.setattr(tuned, "EPOCHS", 0)
    untrained = fit_lens(demo, sides[0])
    torch.testing.assert_close(untrained.kl_tuned, untrained.kl_logit)
    assert not untrained.lens.weight.any() and not untrained.lens.bias.any()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(demo, tmp_path):
    task = load_task("demo", limit=60)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trace(demo, task, out=tmp_path / name, lens="tuned", seed=seed)
    for name in ("lens.safetensors", "trace.json", "scores.parquet", "scores_logit.parquet"):
        a, b, c = ((tmp_path / side / name).read_bytes() for side in "abc")
        assert a == b != c, name


@pytest.mark.slow
def test_a_stopped_run_reads_its_lens_back(demo, tmp_path, monkeypatch):
    task = load_task("demo", limit=60)
    really = trace_module.scores_under_both
    dies = lambda *a: (_ for _ in ()).throw(MemoryError)  # noqa: E731
    monkeypatch.setattr(trace_module, "scores_under_both", dies)
    with pytest.raises(MemoryError):
        trace(demo, task, out=tmp_path / "r", lens="tuned")
    assert (tmp_path / "r/lens.safetensors").is_file()
    monkeypatch.setattr(trace_module, "scores_under_both", really)
    monkeypatch.setattr(trace_module, "fit_lens", None)  # is not called again
    traced = trace(demo, task, out=tmp_path / "r", lens="tuned")
    assert traced.state == "resumed"
    again = trace(demo, task, out=tmp_path / "r", lens="tuned")
    assert again.state == "finished" and again.to_dict() == traced.to_dict()
    for other in ({}, {"lens": "tuned", "calibration": 15}):
        with pytest.raises(UserError, match="holds another run"):
            trace(demo, task, out=tmp_path / "r", **other)


@pytest.mark.slow
def test_a_trace_has_the_chosen_lens_and_the_other_one_beside_it(demo, tmp_path):
    task = load_task("demo", limit=90)
    traced = trace(demo, task, out=tmp_path / "r", lens="tuned", calibration=30)
    assert traced.to_dict() == trace(demo, task, lens="tuned", calibration=30).to_dict()
    fitted, evaluated = split_for("tuned", task, 30, 0)
    ids = pq.read_table(tmp_path / "r/scores.parquet")["question_id"].to_pylist()
    assert set(ids) == {q.id for q in evaluated.questions}
    assert not set(ids) & {q.id for q in fitted.questions}
    plain = trace(demo, evaluated)
    assert plain.lens is None and "lens" not in plain.to_dict()
    beside = traced.to_dict()["lens"]
    ours = plain.to_dict()
    assert beside["name"] == "tuned"
    for name in ("decision_margin", "accuracy"):
        for part, values in ours[name].items():
            np.testing.assert_allclose(beside[name][part], values, atol=1e-9)
    assert beside["transition"]["readout"] == ours["transition"]["readout"] is not None
    assert set(traced.to_dict()) == set(ours) | {"lens"}
    difference = traced.decisions.margins - plain.decisions.margins
    np.testing.assert_allclose(traced.lens.difference.mean, difference.mean(axis=0), atol=1e-12)
    assert traced.lens.p_value[-1] == 1 and not difference[:, -1].any()
    assert json.loads((tmp_path / "r/trace.json").read_text()) == traced.to_dict()
    traced.plot()


def test_readouts_differ_by_a_corrected_paired_test():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(50, 4)) / 5
    other = plain + rng.normal(size=(50, 4)) / 5 + [0.3, 0.0, 0.05, 0.0]
    other[:, 3] = plain[:, 3]

    def of(margins):
        parts = Interval(margins.mean(axis=0), margins.min(axis=0), margins.max(axis=0))
        return SimpleNamespace(
            decisions=SimpleNamespace(margins=margins),
            decision_margin=parts,
            accuracy=parts,
            to_dict=lambda: {"transition": {}},
        )

    found = compare_lenses(
        of(other),
        of(plain),
        calibration_questions=9,
        kl_logit=np.ones(3),
        kl_tuned=np.zeros(3),
        seed=0,
    )
    tests = [float(stats.ttest_rel(other[:, at], plain[:, at]).pvalue) for at in range(3)] + [1.0]
    np.testing.assert_allclose(found.p_value, holm(tests))
    assert found.differs == (0,)
    low, mean, high = (getattr(found.difference, p)[0] for p in ("ci_low", "mean", "ci_high"))
    assert 0 < low < mean < high
    np.testing.assert_array_equal(found.kl_logit, [1, 1, 1, 0])


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5])


@pytest.mark.slow
def test_the_command(run, tmp_path):  # noqa: F811
    words = ("trace", "demo", "--limit", 90, "--lens", "tuned", "--out", "t")
    code, out, _ = run(*words)
    assert code == 0 and "DM logit" in out and "next: phaseprune prune" in out
    assert max(map(len, out.split("next:")[0].splitlines())) <= 80
    assert "fitted to 30 other questions" in " ".join(out.split())
    manifest = json.loads((tmp_path / "t/manifest.json").read_text())
    assert manifest["calibration_questions"] == 30 and manifest["evaluation_questions"] == 60
    page = (tmp_path / "t/report.html").read_text()
    assert "By the plain logit lens" in page and "plain logit lens" in page
    code, out, err = run(*words, "--json")
    assert code == 0 and "finished before" in err
    assert json.loads(out)["lens"]["calibration_questions"] == 30


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--lens", "tund"), "Did you mean 'tuned'"),
        (("--calibration", "20"), "goes with --lens tuned"),
        (("--lens", "tuned", "--limit", "24"), "8 calibration questions are too few"),
        (("--lens", "tuned", "--limit", "24", "--calibration", "24"), "leave 0 others"),
    ],
)
def test_mistakes(run, words, says):  # noqa: F811
    code, out, err = run("trace", "demo", *words)
    assert code == 2 and out == "" and says in sentence(err)


def test_several_states_a_token_are_refused(demo, sides, monkeypatch):
    really = tuned._taken
    monkeypatch.setattr(tuned, "_taken", lambda *a: really(*a)[:, None].expand(-1, 3, -1))
    with pytest.raises(UserError, match="this family has 3; use lens='logit'"):
        fit_lens(demo, sides[0])
