"""What ``paper`` is said to cost: against counted runs of the real experiments, and slow counts."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from phaseprune.cli.main import main
from phaseprune.cli.paper import _options
from phaseprune.healing import train as training
from phaseprune.probes import minibatches
from phaseprune.probes.phasewise_sets import drawn_sets, kinds_of, most_sets
from phaseprune.questions.benchmarks import find_benchmark
from phaseprune.questions.catalog import BUNDLED, load_task
from phaseprune.questions.split import split
from phaseprune.questions.training import training_questions
from phaseprune.replication.bounds import ladder_passes, phasewise_passes, set_passes
from phaseprune.replication.cost import Shape, costs
from phaseprune.replication.experiments import Job, run_experiment
from phaseprune.replication.settings import EXPERIMENTS, Settings, resolve, settings_of
from phaseprune.replication.sides import measure_sides, side_of
from phaseprune.sweep import probe
from phaseprune.sweep import scoring as scoring_module
from phaseprune.sweep.estimate import Rates, estimate, measure_rates
from phaseprune.sweep.measure import encode_inputs, prepare
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.states import Walker
from phaseprune.sweep.walk import block_passes

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "configs" / "paper").glob("*.yaml"))
#: What the configurations name, and how many blocks these have.
MODELS = {
    "llama3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "demo": "demo",
}
BLOCKS = {"llama3-8b": 32, "llama2-7b": 32, "qwen3-4b": 36, "demo": 14}
SMALL = Settings(
    calibration=60,
    evaluation=70,
    probe=12,
    remove=4,
    noise=(0.02, 0.5),
    noise_seeds=2,
    draws=3,
    most=2,
    ladder=(2, 4),
    heal_steps=4,
    heal_batch=8,
)


class Counts:
    """Runs of a block on a token, and positions read, whoever asks for them."""

    def __init__(self):
        self.tokens = self.reads = self.trained = 0


@pytest.fixture
def counts(monkeypatch):
    found = Counts()
    run, add_scores, logits = Walker.run, scoring_module.add_scores, training.part_logits

    def counted_run(self, block, states, **options):
        tokens = sum(batch.input_ids.numel() for batch in self.shard.batches)
        found.tokens += len(states[0]) * tokens
        return run(self, block, states, **options)

    def counted_scores(decoder, shard, states, *rest):
        found.reads += states.shape[0] * states.shape[1]
        return add_scores(decoder, shard, states, *rest)

    def counted_logits(decoder, part, dtype):
        import torch

        tokens = sum(batch.input_ids.numel() for batch in part.shard.batches)
        found.trained += tokens * len(decoder.blocks) * (3 if torch.is_grad_enabled() else 1)
        return logits(decoder, part, dtype)

    def uncounted(decoder):
        before = found.tokens, found.reads
        result = trial(decoder)
        found.tokens, found.reads = before
        return result

    trial = probe._trial  # of packed rows, once a loaded model
    monkeypatch.setattr(probe, "_trial", uncounted)
    monkeypatch.setattr(Walker, "run", counted_run)
    monkeypatch.setattr(scoring_module, "add_scores", counted_scores)
    monkeypatch.setattr(minibatches, "add_scores", counted_scores)
    monkeypatch.setattr(training, "part_logits", counted_logits)
    return found


def stated(decoder, task, settings, seed=0, training_inputs=None):
    """The stated cost by experiment, of a loaded model."""
    inputs = encode_inputs(task, decoder.tokenizer, decoder.max_length)
    rows = prepare(decoder, task, streams=1).rows
    sides = measure_sides(
        task,
        settings,
        seed,
        inputs,
        rows,
        batch_tokens(decoder),
        decoder.packed_length,
        training_inputs,
    )
    width = decoder.width
    parameters = sum(p.numel() for p in decoder.blocks[0].parameters())
    vocabulary = decoder.head.weight.shape[0]
    needed = vocabulary if task.needs_vocabulary else int(task.options.max())
    shape = Shape(len(decoder.blocks), parameters, width, vocabulary, needed)
    return {one.name: one for one in costs(settings, sides, shape)}, sides, shape


@pytest.fixture(scope="module")
def task():
    return load_task("demo", limit=200)


def reported(folder, name, file):
    return json.loads((folder / name / file).read_text())


@pytest.mark.slow
def test_experiments_take_what_is_stated(demo, task, counts, tmp_path):
    settings = resolve(SMALL, len(demo.blocks))
    learned = training_questions(task)
    trained_on = encode_inputs(learned, demo.tokenizer, demo.max_length)
    found, sides, _ = stated(demo, task, settings, training_inputs=trained_on)
    assert list(found) == list(EXPERIMENTS)
    job = Job(demo, task, settings, tmp_path)
    ran = {}
    for name in EXPERIMENTS:
        counts.tokens = counts.reads = counts.trained = 0
        run_experiment(name, job)
        ran[name] = counts.tokens, counts.reads, counts.trained
    for name, one in found.items():
        tokens, reads, _ = ran[name]
        # Minibatches and the two parts that a lens is fitted to and chosen on are laid out by
        # themselves, so that beginnings are shared less.
        slack = {"similarity": 1.1, "lens": 1.02}.get(name, 1)
        if one.kind == "exact":
            assert one.token_passes <= tokens <= slack * one.token_passes, name
            assert reads == one.reads, name
        elif name != "heal":
            assert one.kind == "at most" and tokens > 0, name
            assert tokens <= slack * one.token_passes and reads <= one.reads, name
    # Training: all steps, and all looks; batches are padded otherwise than all questions are.
    traces = sum(2 * (14 - step) for step in settings.ladder) * sides.evaluation.tokens
    tokens, reads, trained = ran["heal"]
    assert tokens == pytest.approx(traces) and reads == found["heal"].reads
    assert trained == pytest.approx(found["heal"].token_passes - traces, rel=0.15)
    # What the results say of themselves.
    steps = [json.loads(line) for line in (tmp_path / "prune/steps.jsonl").read_text().splitlines()]
    assert steps[1]["block_passes"] == 14 * 15 // 2
    assert all(
        step["block_passes"] <= n * (n + 1) // 2
        for step, n in zip(steps[1:], (14, 13, 12, 11), strict=True)
    )
    assert found["prune"].block_passes == (
        14 + sum(n * (n + 1) // 2 for n in (14, 13, 12, 11)) + sum((14, 13, 12, 11, 10))
    )
    exact = reported(tmp_path, "perturb", "perturbation.json")
    assert found["perturb"].block_passes == exact["block_passes"] == 14 + 4 * 14 * 15 // 2
    assert exact["block_passes"] <= exact["block_passes_bound"] == 5 * 14 * 15 // 2
    ablated = reported(tmp_path, "ablate", "ablation.json")
    assert found["ablate"].block_passes == ablated["block_passes"] + 14 == 14 * 14 + 14
    alike = reported(tmp_path, "similarity", "similarity.json")
    assert alike["block_passes"] <= found["similarity"].block_passes
    sets = reported(tmp_path, "phasewise", "manifest.json")["result"]
    assert sets["block_passes"] + 14 <= found["phasewise"].block_passes
    assert sets["block_passes"] > 0.3 * found["phasewise"].block_passes  # it is no idle bound


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swap", "repeat"])
def test_other_ablations(demo, task, counts, tmp_path, kind):
    settings = resolve(replace(SMALL, ablation=kind), len(demo.blocks))
    found, sides, _ = stated(demo, task, settings)
    assert found["ablate"].block_passes == 14 * 14 + {"swap": 14 - 1, "repeat": 14 + 1}[kind]
    job = Job(demo, task, settings, tmp_path)
    run_experiment("trace", job)  # says which phases there are
    counts.tokens = counts.reads = 0
    run_experiment("ablate", job)
    assert (counts.tokens, counts.reads) == (found["ablate"].token_passes, found["ablate"].reads)


@pytest.mark.slow
def test_sides_are_those_of_the_experiments(demo):
    """With permuted options, texts and less than all questions."""
    for scoring, permute in (("letter", True), ("text", False)):
        task = load_task("demo", limit=60, scoring=scoring, permute=permute)
        settings = resolve(Settings(calibration=15, evaluation=20, probe=5), 14)
        _, sides, _ = stated(demo, task, settings, seed=3)
        job = Job(demo, task, settings, Path("."), seed=3)
        chosen, others = split(task, 15, None, 3)
        _, scored = split(task, 15, 20, 3)
        for name, some in (
            ("all", task),
            ("calibration", chosen),
            ("others", others),
            ("evaluation", scored),
            ("probe", job.probe),
        ):
            assert getattr(sides, name) == side_of(prepare(demo, some, streams=1).rows), name
        assert sides.training.questions == (240 if permute else 60)
        assert not sides.training_known


def test_a_ladder_takes_most_where_the_first_blocks_go_in_order():
    blocks = 6
    for removed in range(blocks):
        taken = [
            block_passes(blocks, [order[:step] for step in range(removed + 1)])
            for order in itertools.permutations(range(blocks), removed)
        ]
        assert max(taken) == ladder_passes(blocks, removed)
        assert taken[0] == max(taken)  # 0, 1, 2, ...


def test_no_draw_of_sets_takes_more_than_the_bound():
    blocks, tightest = 9, 0.0
    for seed, draws, silent in itertools.product(range(3), (2, 5, 40), range(1, blocks)):
        kinds, total, models = kinds_of(range(silent), range(silent, blocks)), blocks, 1
        for count in range(1, min(silent, blocks - silent) + 1):
            sets = drawn_sets(kinds, count, draws, seed)
            assert len(sets) <= most_sets(blocks, draws)
            taken = block_passes(blocks, sorted(map(sorted, sets)))
            bound = set_passes(blocks, silent, count, draws)
            assert taken <= bound
            total, models, tightest = (
                total + taken,
                models + len(sets),
                max(tightest, taken / bound),
            )
        passes, readings = phasewise_passes(blocks, draws, None)
        assert total <= passes and models <= readings
    assert tightest > 0.8
    # Every set of one block, once: as a pruning step.
    assert set_passes(blocks, 4, 1, 2) == blocks * (blocks + 1) // 2
    # Neither phase can have three blocks of four.
    assert phasewise_passes(4, 10, 3) == phasewise_passes(4, 10, 2) == phasewise_passes(4, 10, None)
    assert phasewise_passes(4, 10, 1)[0] < phasewise_passes(4, 10, 2)[0]


@pytest.mark.slow
def test_operations_and_seconds_are_those_of_passes_and_reads(demo, task):
    settings = resolve(replace(SMALL, skip=("heal",)), 14)
    found, sides, shape = stated(demo, task, settings)
    assert "heal" not in found
    one = found["trace"]
    assert one.token_passes == 14 * sides.all.tokens and one.reads == 15 * sides.all.reads
    assert one.flop == 2 * shape.block_parameters * one.token_passes + 2 * 64 * 4 * one.reads
    texts = stated(demo, load_task("demo", limit=20, scoring="text"), resolve(Settings(), 14))[2]
    assert texts.head_rows == texts.vocabulary == 1055
    lens = found["lens"]
    without = lens.flop - lens.lens_flop
    assert without == pytest.approx(
        2 * shape.block_parameters * lens.token_passes
        + 2 * 64 * (4 * lens.reads + 1055 * lens.vocabulary_reads),
        rel=1e-5,
    )
    rates = Rates(token=1e-6, read=1e-3, vocabulary_read=1.0)
    assert one.seconds(rates, shape) == pytest.approx(1e-6 * one.token_passes + 1e-3 * one.reads)
    assert lens.seconds(rates, shape) == pytest.approx(
        1e-6 * (lens.token_passes + lens.lens_flop / 2 / shape.block_parameters)
        + 1e-3 * lens.reads
        + lens.vocabulary_reads
    )
    racing = stated(demo, task, resolve(replace(SMALL, search="racing"), 14))[0]["prune"]
    assert (racing.kind, racing.block_passes) == ("about", found["prune"].block_passes)


def test_rates_give_the_estimate(demo, task):
    prepared = prepare(demo, task.head(20))
    measured = measure_rates(demo, prepared)
    assert measured.read > 0 and measured.vocabulary_read > 0 and measured.token > 0
    rates = Rates(token=2.0, read=3.0, vocabulary_read=1e9)
    chosen = prepare(demo, task.head(5))
    cost = estimate(demo, prepared, chosen, rates)
    side, few = side_of(prepared.rows), side_of(chosen.rows)
    assert cost.trace_seconds == 2 * 14 * side.tokens + 3 * 15 * side.reads
    assert cost.step_seconds == 2 * 105 * few.tokens + 3 * 14 * few.reads
    assert (cost.trace_block_passes, cost.step_block_passes) == (14, 105)


@pytest.fixture
def check(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["phaseprune", "check", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code or 0, capsys.readouterr().out

    return run


@pytest.mark.slow
def test_check_tells_it(check, demo):
    code, out = check("demo", "--limit", 40, "--calibration", 12, "--json")
    told = json.loads(out)
    task = load_task("demo", limit=40)
    found, *_ = stated(demo, task, resolve(Settings(calibration=12), 14))
    rows = told["experiments"]
    assert code == 0 and rows == [one.to_dict() | {"seconds": None} for one in found.values()]
    _, out = check("demo", "--limit", 40, "--calibration", 12, "--full", "--json")
    full = json.loads(out)
    assert [row | {"seconds": None} for row in full["experiments"]] == rows
    assert all(row["seconds"] > 0 for row in full["experiments"])
    trace = full["experiments"][0]
    assert trace["seconds"] == pytest.approx(full["trace_seconds"])
    code, out = check("demo", "--limit", 40, "--full")
    lines = out.split("✓ paper: ")[1].splitlines()
    assert lines[0].startswith("up to about ") and "with its default settings" in lines[0]
    assert [line.split()[0] for line in lines[1:9]] == list(EXPERIMENTS)
    assert max(map(len, lines[:9])) < 80 and all(
        line.endswith((" s", " min")) for line in lines[1:9]
    )
    _, out = check("demo", "--limit", 40)
    assert [line.split()[-1] for line in out.split("✓ paper: ")[1].splitlines()[1:9]] == (
        ["TFLOP"] * 8
    )


def test_check_says_where_the_defaults_do_not_do(check, tmp_path):
    """A model of two blocks has no two depths to heal; other commands work on it."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from conftest import ROPE, make_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(**ROPE | {"num_hidden_layers": 2}, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    code, out = check(tmp_path, "--task", "demo", "--limit", 12, "--json")
    told = json.loads(out)
    line = next(one for one in told["checks"] if one["check"] == "paper")
    assert code == 0 and told["ok"] and told["experiments"] == []
    assert not line["ok"] and "--ladder needs at least two steps" in line["text"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_can_be_run(path):
    class Context:
        @staticmethod
        def get_parameter_source(name):
            return None

    model, tasks, options = _options(Context, path, None, {"model": None})
    assert model == MODELS[path.stem]
    assert tasks and options["out"]
    for name, own in tasks.items():
        assert name in BUNDLED or find_benchmark(name), name
        assert own["scoring"] == "letter"
        settings = resolve(settings_of(own), BLOCKS[path.stem])
        assert settings.experiments == EXPERIMENTS and len(settings.ladder) >= 5


def test_every_model_of_the_paper_has_a_configuration():
    assert {path.stem for path in CONFIGURATIONS} == set(BLOCKS)
