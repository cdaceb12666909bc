"""Healing: the losses, training that can be killed, the checkpoint, the refusals."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from conftest import QUESTIONS, save_tiny, write_jsonl
from phaseprune.cli.main import main
from phaseprune.decoder import trainable as trainable_module
from phaseprune.decoder.load import load_model
from phaseprune.decoder.trainable import logits_at, trainable, trained_weights
from phaseprune.errors import UserError
from phaseprune.healing import data as data_module
from phaseprune.healing.data import (
    batch_numbers,
    question_material,
    text_material,
    validation_split,
)
from phaseprune.healing.heal import heal
from phaseprune.healing.losses import text_loss, weight
from phaseprune.healing.recipe import Recipe
from phaseprune.healing.state import load_state
from phaseprune.healing.train import Trainer, train
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.question import Question, Task
from phaseprune.questions.training import disjoint_training, overlapping, training_questions
from phaseprune.runs.directory import RunDirectory
from phaseprune.sweep.trace import trace

QUICK = dict(steps=6, batch=4, lr=1e-2, check_every=2)
TEXT = "the sky is blue and grass is green , white snow and black coal . " * 40


@pytest.fixture(scope="module")
def training_file(tmp_path_factory):
    """Questions like those of the runs, with other texts."""
    rows = [
        row | {"question": f"{row['question']} of the sky {n}", "id": f"t{n}-{i}"}
        for n in range(4)
        for i, row in enumerate(QUESTIONS)
    ]
    return write_jsonl(tmp_path_factory.mktemp("training") / "train.jsonl", rows)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_dirs):
    """A finished pruning run of a tiny model, by scoring."""
    root = tmp_path_factory.mktemp("runs")
    questions = write_jsonl(root / "questions.jsonl", QUESTIONS)
    made = {}
    for scoring in ("letter", "text"):
        task = load_task(str(questions), scoring=scoring)
        decoder = load_model(str(tiny_dirs["llama"]))
        prune(decoder, task, remove=3, calibration=3, out=root / scoring)
        made[scoring] = root / scoring
    return made


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the letters' run, to be healed."""
    return Path(shutil.copytree(runs["letter"], tmp_path / "run"))


# The losses


SCORINGS = [
    dict(scoring="letter"),
    dict(scoring="letter", probability="vocabulary"),
    dict(scoring="text"),
    dict(scoring="text", length_norm="chars"),
]


@pytest.mark.parametrize("how", SCORINGS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_task_loss_is_the_gold_loss_of_a_trace(tiny, question_file, family, how):
    task = load_task(str(question_file), **how)
    expected = trace(tiny[family], task).decisions.losses[:, -1].mean()
    assert _mean_loss(tiny[family], question_material(tiny[family], task), "task") == pytest.approx(
        expected, rel=1e-4
    )


def test_permuted_options_are_examples_of_their_own(tiny, question_file):
    task = load_task(str(question_file), permute=True)
    turned = task.with_questions([q for one in task.questions for q, _ in one.rotations()])
    expected = trace(tiny["llama"], turned.__class__(**_plain(turned))).decisions.losses[:, -1]
    material = question_material(tiny["llama"], task)
    assert len(material) == len(turned.questions) > len(task.questions)
    assert _mean_loss(tiny["llama"], material, "task") == pytest.approx(expected.mean(), rel=1e-4)


def _plain(task):
    return vars(task) | {"permute": False}


def test_the_text_loss_is_that_of_transformers(tiny):
    decoder = tiny["llama"]
    material = text_material(decoder, TEXT)
    windows = torch.tensor(material.windows)
    with torch.no_grad():
        expected = decoder.model(windows, labels=windows).loss
    assert _mean_loss(decoder, material, "text") == pytest.approx(float(expected), rel=1e-4)


def test_distillation_is_the_divergence_over_the_whole_vocabulary(tiny, question_file):
    student, teacher = tiny["llama"], tiny["gpt2"]
    task = load_task(str(question_file))
    material = question_material(student, task)
    ids = [torch.tensor([q.context]) for q in material.questions]
    with torch.no_grad():
        ours, theirs = (
            torch.cat([d.model(i).logits[:, -1] for i in ids]) for d in (student, teacher)
        )
    p, q = theirs.softmax(-1), ours.softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    found = _mean_loss(student, material, "distill", teacher)
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert _mean_loss(student, material, "distill", student) == pytest.approx(0, abs=1e-6)


def _mean_loss(decoder, material, objective, teacher=None):
    trainer = Trainer(decoder, material, Recipe(objective=objective), torch.float32, teacher)
    loss, total, terms = trainer.loss(), 0.0, 0
    with torch.no_grad():
        for part in material.parts(decoder, range(len(material))):
            total += float(loss(part, _logits(decoder, part)))
            terms += weight(objective, part)
    return total / terms


def _logits(decoder, part):
    return torch.cat([logits_at(decoder, b.input_ids, b.reads) for b in part.shard.batches])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_logits_at_some_places_are_the_models_own_with_their_gradients(tiny_dirs, family):
    decoder = load_model(str(tiny_dirs[family]))
    tokens = torch.randint(320, (3, 9), generator=torch.Generator().manual_seed(1))
    reads = torch.tensor([4, 8, 13, 26])
    gradients, logits = [], []
    with trainable(decoder, "full", 1, 0):
        for found in (
            logits_at(decoder, tokens, reads),
            decoder.model(tokens, use_cache=False).logits.flatten(0, 1)[reads].float(),
        ):
            decoder.model.zero_grad()
            found.logsumexp(-1).sum().backward()
            weights = trained_weights(decoder).values()
            gradients.append([w.grad.clone() for w in weights if w.grad is not None])
            logits.append(found.detach())
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    assert "forward" not in vars(decoder.head)


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["letter", "text"])
def test_a_step_in_parts_is_the_step_in_one(
    tiny_dirs, training_file, tmp_path, monkeypatch, scoring
):
    task = load_task(str(training_file), scoring=scoring)
    ends = []
    for tokens in (4096, 40):
        monkeypatch.setattr(data_module, "batch_tokens", lambda decoder, tokens=tokens: tokens)
        decoder = load_model(str(tiny_dirs["llama"]))
        material = question_material(decoder, task)
        assert (len(list(material.parts(decoder, range(8)))) > 1) == (tokens == 40)
        trainer = Trainer(decoder, material, Recipe(method="full", **QUICK), torch.float32)
        with trainable(decoder, "full", 1, 0):
            ends.append(train(trainer, tmp_path / f"{tokens}.pt").evaluations)
    for one, other in zip(*ends, strict=True):
        assert one["validation"] == pytest.approx(other["validation"], rel=1e-3)


# The batches


@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_each_example_is_seen_once_before_any_is_seen_again(total, size, seed):
    train = np.arange(100, 100 + total)
    steps = -(-3 * total // size)
    seen = np.concatenate([batch_numbers(train, size, step, seed) for step in range(steps)])
    for epoch in range(3):
        assert sorted(seen[epoch * total : (epoch + 1) * total]) == train.tolist()


@given(st.integers(2, 4000), st.integers(0, 3), st.integers(1, 1000), st.integers(1, 64))
@settings(max_examples=30, deadline=None)
def test_the_validation_split_is_apart(total, seed, steps, batch):
    material = data_module.Material(windows=((1, 2),) * total)
    most = Recipe(steps=steps, batch=batch).validation
    assert 32 <= most <= 256 and most <= max(32, steps * batch / 10)
    train, validation = validation_split(material, seed, most)
    assert sorted([*train, *validation]) == list(range(total))
    assert 1 <= len(validation) <= max(1, total / 10) and len(validation) <= most


# Training questions apart from the run's


TEXTS = st.sampled_from(["Which?", "which? ", "Which  of these?", "What?"])
CHOICES = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=4, unique=True)


@given(st.tuples(TEXTS, CHOICES), st.tuples(TEXTS, CHOICES), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_question_overlaps_by_text_and_options_or_by_id_and_text(one, other, same_id):
    first = Question("x", one[0], tuple(one[1]), 0)
    second = Question("x" if same_id else "y", other[0], tuple(other[1]), 0)
    same_text = one[0].split() == other[0].split() or (
        [w.lower() for w in one[0].split()] == [w.lower() for w in other[0].split()]
    )
    expected = same_text and (set(one[1]) == set(other[1]) or same_id)
    assert overlapping([first], [second]) == ([0] if expected else [])


def test_overlapping_questions_are_refused_or_dropped(question_file):
    task = load_task(str(question_file))
    turned = task.questions[0].reordered([2, 0, 1])
    new = Question("new", "What else", ("a", "b"), 0)
    training = task.with_questions([new, turned])
    with pytest.raises(UserError, match="1 of 2 training questions .* drop_overlap"):
        disjoint_training(training, task.questions)
    assert disjoint_training(training, task.questions, drop=True).questions == (new,)
    with pytest.raises(UserError, match="all training questions"):
        disjoint_training(task, task.questions, drop=True)


@pytest.mark.slow
def test_the_bundled_training_questions_are_the_generators_and_none_is_held_out():
    training = training_questions(load_task("demo"))
    assert len(training.questions) == 6000
    assert not overlapping(training.questions, load_task("demo").questions)
    groups = {
        group: 0
        for group in ("fact", "two_hop", "same_region", "category", "negation", "comparison")
    }
    for question in training.questions:
        groups[question.group] += 1
    assert set(groups.values()) == {1000}
    code = (
        "import json; from training_questions import *; "
        "print(json.dumps([[q.question, list(q.choices), q.answer] "
        "for q in training_questions(World(0), 0)]))"
    )
    folder = Path(__file__).parents[1] / "training"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    drawn = [
        Question("", text, tuple(choices), gold) for text, choices, gold in json.loads(done.stdout)
    ]
    assert [(q.text, q.choices, q.answer) for q in drawn] == [
        (q.text, q.choices, q.answer) for q in training.questions
    ]


def test_a_benchmark_is_trained_on_its_own_split(monkeypatch):
    asked = []

    def read(name, entry, subjects, split, folder):
        asked.append((split, folder))
        return [Question("1", "Which?", ("a", "b"), 0)]

    monkeypatch.setattr("phaseprune.questions.training.read_split", read)
    task = Task("arc_easy", (), "text", settings={"data_dir": "copies"})
    assert len(training_questions(task).questions) == 1
    assert asked == [("train", Path("copies"))]


# Healing


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("scoring", ["letter", "text"])
def test_healing_lowers_the_held_out_loss_and_the_checkpoint_is_what_was_measured(
    runs, tmp_path, training_file, method, scoring
):
    run = Path(shutil.copytree(runs[scoring], tmp_path / "run"))
    healing = heal(
        run, step=2, method=method, train=training_file, steps=20, batch=8, lr=1e-2, check_every=1
    )
    losses = [one["validation"] for one in healing.training["evaluations"]]
    assert min(losses) < losses[0] and healing.training["best_step"] > 0
    assert healing.export["max_abs_logit_difference"] <= 1e-4
    folder = Path(healing.path)
    assert not (folder / "state.pt").exists()
    notes = json.loads((folder / "model/phaseprune.json").read_text())
    manifest = RunDirectory(run).manifest
    assert notes["removed"] == healing.removed == manifest["result"]["removed"][:2]
    assert notes["base_model_fingerprint"] == manifest["model"]["fingerprint"]
    assert notes["healing"]["method"] == method and not (folder / "model/mergekit.yaml").exists()
    assert "then fine-tuned" in (folder / "model/README.md").read_text()
    # Before: the really shortened model is the run's. After: plain transformers decides alike.
    steps = RunDirectory(run).steps()
    before = "".join("1" if right else "0" for right in healing.before.correct)
    assert before == steps[2]["evaluation"]["correct"]
    assert healing.before.margins[:, -1].mean() == pytest.approx(
        steps[2]["evaluation"]["decision_margin"], abs=1e-5
    )
    task = load_task(str(runs[scoring].parent / "questions.jsonl"), scoring=scoring)
    decisions = trace(load_model(str(folder / "model")), task).decisions
    chosen = {q.content: n for n, q in enumerate(task.questions)}
    from phaseprune.questions.split import split

    numbers = [chosen[q.content] for q in split(task, 3, 5, 0)[1].questions]
    assert (decisions.correct[numbers, -1] == healing.after.correct).all()
    np.testing.assert_allclose(decisions.margins[numbers], healing.after.margins, atol=1e-6)


@pytest.mark.slow
def test_plain_transformers_loads_the_healed_checkpoint(run, training_file, tmp_path):
    healing = heal(run, step=3, train=training_file, **QUICK)
    code = (
        "import sys, json, torch; from transformers import AutoModelForCausalLM\n"
        f"model, report = AutoModelForCausalLM.from_pretrained({healing.path!r} + '/model', "
        "output_loading_info=True)\n"
        "assert 'phaseprune' not in sys.modules and 'peft' not in sys.modules\n"
        "assert not report['missing_keys'] and not report['unexpected_keys'], report\n"
        "print(json.dumps(model(torch.tensor([[1, 2, 3, 4]])).logits.tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = load_model(healing.path + "/model").model(torch.tensor([[1, 2, 3, 4]])).logits
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), ours, atol=1e-5, rtol=0)


def test_merged_adapters_are_the_model_that_was_trained(tiny_dirs):
    decoder = load_model(str(tiny_dirs["llama"]))
    tokens = torch.arange(12).view(2, 6)
    untouched = decoder.model(tokens).logits
    with trainable(decoder, "lora", 4, 0):
        torch.testing.assert_close(decoder.model(tokens).logits, untouched, atol=1e-5, rtol=0)
        with torch.no_grad():
            for number, weight_ in enumerate(trained_weights(decoder).values()):
                generator = torch.Generator().manual_seed(number)
                weight_.add_(0.1 * torch.randn(weight_.shape, generator=generator))
            adapted = decoder.model(tokens).logits
    assert (adapted - untouched).abs().max() > 0.1
    torch.testing.assert_close(decoder.model(tokens).logits, adapted, atol=1e-3, rtol=1e-4)
    assert not any("lora" in name for name, _ in decoder.model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_sixteen_bits(tiny_dirs, training_file, tmp_path, method):
    decoder = load_model(str(tiny_dirs["llama"]), dtype="bfloat16")
    task = load_task(str(write_jsonl(tmp_path / "q.jsonl", QUESTIONS)))
    prune(decoder, task, remove=2, calibration=3, out=tmp_path / "run")
    healing = heal(tmp_path / "run", method=method, train=training_file, **QUICK)
    weights = load_file(Path(healing.path) / "model/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    losses = [one["validation"] for one in healing.training["evaluations"]]
    assert min(losses) < losses[0]


@pytest.mark.slow
def test_text_and_distillation(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    for objective in ("text", "distill"):
        healing = heal(run, step=2, objective=objective, text=text, **QUICK)
        losses = [one["validation"] for one in healing.training["evaluations"]]
        assert min(losses) < losses[0] and healing.training["on_questions"] is False
    # The full model is its own teacher: there is nothing to learn.
    healing = heal(run, step=0, objective="distill", text=text, **QUICK)
    assert healing.training["evaluations"][0]["validation"] == pytest.approx(0, abs=1e-6)
    assert healing.training["best_step"] == 0 and healing.removed == []


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights(run, training_file):
    healing = heal(run, train=training_file, steps=200, batch=4, lr=0.5, check_every=1, patience=3)
    training = healing.training
    losses = {one["step"]: one["validation"] for one in training["evaluations"]}
    assert training["steps"] < 200 and "early stopping" in training["stopped_by"]
    assert losses[training["best_step"]] == min(losses.values())
    assert training["steps"] - training["best_step"] == 3


@pytest.mark.slow
def test_a_time_budget_ends_training(run, training_file):
    healing = heal(run, train=training_file, steps=10**6, batch=4, minutes=0.01, patience=10**6)
    assert "minutes are over" in healing.training["stopped_by"]
    assert healing.training["seconds"] >= 0.6


# Killed and gone on with


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_kill_minus_nine_and_the_same_command_again(run, training_file, tmp_path, method):
    other = Path(shutil.copytree(run, tmp_path / "undisturbed"))
    words = [
        "--method",
        method,
        "--train",
        str(training_file),
        "--steps",
        "12",
        "--batch",
        "4",
        "--lr",
        "0.01",
        "--check-every",
        "3",
        "--name",
        "mine",
        "--quiet",
    ]
    slow = (
        "import time, phaseprune.cli.main as m\n"
        "from phaseprune.healing import train as t\n"
        "plain = t._step\n"
        "def slowly(*a, **k): time.sleep(0.3); return plain(*a, **k)\n"
        "t._step = slowly\n"
        f"m.main(['heal', {str(run)!r}, *{words!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", slow])
    state = run / "heal/mine/state.pt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not state.exists():
        time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < load_state(state).step < 12
    for directory in (run, other):
        command = [sys.executable, "-m", "phaseprune", "heal", str(directory), *words]
        subprocess.run(command, check=True)
    mine, theirs = (d / "heal/mine" for d in (run, other))
    for name in ("model/model.safetensors", "measured.safetensors"):
        assert (mine / name).read_bytes() == (theirs / name).read_bytes()
    told = [json.loads((folder / "heal.json").read_text()) for folder in (mine, theirs)]
    assert told[0]["training"]["evaluations"] == told[1]["training"]["evaluations"]


@pytest.mark.slow
def test_a_finished_healing_is_read_back_and_another_one_refused(run, training_file, monkeypatch):
    first = heal(run, train=training_file, name="mine", **QUICK)
    monkeypatch.setattr("phaseprune.healing.heal.load_full", None)  # nothing may be loaded
    again = heal(run, train=training_file, name="mine", **QUICK)
    assert (first.state, again.state) == ("new", "finished")
    assert again.to_dict() == first.to_dict()
    with pytest.raises(UserError, match="holds another run: its option lr was 0.01 and now is 0.1"):
        heal(run, train=training_file, name="mine", **QUICK | {"lr": 0.1})


@pytest.mark.slow
def test_an_interrupted_export_is_made_anew(run, training_file, monkeypatch):
    def broken(*args, **kwargs):
        (run / "heal/mine/model").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("phaseprune.healing.heal.export", broken)
        with pytest.raises(KeyboardInterrupt):
            heal(run, train=training_file, name="mine", **QUICK)
    healing = heal(run, train=training_file, name="mine", **QUICK)
    assert healing.state == "resumed" and healing.training["steps"] == 6


@pytest.mark.slow
def test_a_damaged_state_is_one_sentence(run, training_file):
    def stop(label, done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heal(run, train=training_file, name="mine", progress=stop, **QUICK)
    (run / "heal/mine/state.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="state.pt is damaged"):
        heal(run, train=training_file, name="mine", **QUICK)


# What is refused


def _manifest(run, **parts):
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(train=None), "has no training questions of its own; .* train FILE"),
        (dict(step=7), "steps 0 to 3, and no step 7"),
        (dict(method="adapter"), "method is 'adapter' and must be one of lora, full"),
        (dict(objective="tesk"), "Did you mean 'task'"),
        (dict(objective="text", train=None), "text FILE"),
        (dict(text="x.txt"), "goes with objective='text' or distill"),
        (dict(objective="distill", text="x.txt"), "give one of them"),
        (dict(objective="text", train=None, text="none.txt"), "no such file"),
        (dict(steps=0), "steps must be at least 1"),
        (dict(lr=-1.0), "lr must be more than 0"),
        (dict(lr=1e30, steps=30), "NaN or infinite .* question .t.* smaller lr"),
        (dict(name="../out"), "plain name of a folder"),
        (dict(dtype="float16"), "float32 or bfloat16, not float16"),
        (dict(device="map"), "trains on one device"),
        (dict(model="nowhere/of/that"), "full model of .* cannot be found"),
    ],
    ids=str,
)
def test_refusals(run, training_file, options, says):
    with pytest.raises(UserError, match=says):
        heal(run, **dict(train=training_file, **QUICK) | options)


def test_another_base_model_is_refused_by_its_fingerprint(run, training_file, tmp_path):
    save_tiny(tmp_path / "other", "llama", seed=5)
    with pytest.raises(UserError, match="is not the full model of .* its weights differ"):
        heal(run, train=training_file, model=str(tmp_path / "other"), **QUICK)
    assert not (run / "heal").exists()


@pytest.mark.slow
def test_a_model_that_moved_is_found_by_model(run, training_file, tiny_dirs, tmp_path):
    manifest = RunDirectory(run).manifest
    _manifest(run, model=manifest["model"] | {"name": str(tmp_path / "gone")})
    with pytest.raises(UserError, match="say where with model"):
        heal(run, train=training_file, **QUICK)
    healing = heal(run, train=training_file, model=str(tiny_dirs["llama"]), **QUICK)
    assert healing.state == "new"


def test_runs_that_cannot_be_healed(run, training_file, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        heal(tmp_path, train=training_file)
    for parts, says in (
        (dict(status="running"), "is not finished"),
        (dict(command="trace"), "a run of trace, which removes no blocks"),
    ):
        kept = (run / "manifest.json").read_text()
        _manifest(run, **parts)
        with pytest.raises(UserError, match=says):
            heal(run, train=training_file)
        (run / "manifest.json").write_text(kept)
    path = run / "steps.jsonl"
    whole = path.read_text()
    lines = [json.loads(line) for line in whole.splitlines()]
    left = sorted(set(range(5)) - {line["removed"] for line in lines})
    more = [lines[-1] | {"step": 4 + n, "removed": block} for n, block in enumerate(left)]
    write_jsonl(path, [*lines, *more])
    with pytest.raises(UserError, match="step 5 removes all 5 blocks"):
        heal(run, train=training_file, step=5)
    write_jsonl(path, [*lines[:-1], lines[-1] | {"removed": lines[1]["removed"]}])
    with pytest.raises(UserError, match="steps.jsonl is damaged"):
        heal(run, train=training_file, step=3)


def test_questions_that_changed_since_are_refused(run, training_file):
    manifest = RunDirectory(run).manifest
    _manifest(run, task=manifest["task"] | {"fingerprint": "0" * 64})
    with pytest.raises(UserError, match="another fingerprint"):
        heal(run, train=training_file)
    _manifest(run, task=manifest["task"] | {"name": "gone.jsonl"})
    with pytest.raises(UserError, match="cannot be loaded again: gone.jsonl"):
        heal(run, train=training_file)


def test_the_runs_own_questions_are_refused_as_training_questions(run, runs):
    with pytest.raises(UserError, match="8 of 8 training questions are calibration or evaluation"):
        heal(run, train=runs["letter"].parent / "questions.jsonl")


@pytest.mark.slow
def test_the_settings_of_the_task_are_the_runs(tiny_dirs, tmp_path, training_file):
    """Questions are put as the run put them, whatever ``load_task`` was told."""
    path = write_jsonl(tmp_path / "q.jsonl", QUESTIONS)
    task = load_task(
        str(path), limit=7, labels="1", shuffle=True, seed=3, shots=2, shots_from=training_file
    )
    prune(load_model(str(tiny_dirs["llama"])), task, remove=2, calibration=3, out=tmp_path / "run")
    healing = heal(tmp_path / "run", step=1, train=training_file, **QUICK)
    assert healing.training["decided_otherwise_than_the_run"] == 0
    assert healing.training["examples"] == 32 - 2  # the shots are not trained on


@pytest.mark.slow
def test_without_peft_the_sentence_says_what_to_install(run, training_file, monkeypatch):
    monkeypatch.setattr(trainable_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'phaseprune\[heal\]', or give method='full'"):
        heal(run, train=training_file)
    assert heal(run, train=training_file, method="full", **QUICK).training["steps"] == 6


# The command


@pytest.mark.slow
def test_the_command(run, training_file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ["heal", str(run), "--train", str(training_file), "--steps", "4", "--batch", "4"]
    for more, expected in ((["--json", "--name", "one"], "json"), (["--name", "two"], "table")):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        out = capsys.readouterr().out
        assert not ended.value.code
        if expected == "json":
            assert json.loads(out)["recipe"]["steps"] == 4
        else:
            assert "Decision Margin before and after healing" in out and "next:" in out
            assert max(map(len, out.split("next:")[0].splitlines())) <= 80
        page = (run / "heal" / more[-1] / "report.html").read_text()
        assert "before healing" in page and "Losses of healing" in page
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run / "heal/one")])
    assert not ended.value.code
    for bad, says in (
        (["--step", "1", "--ladder", "1,2"], "give one of them"),
        (["--seeds", "2"], "--seeds is for a --ladder"),
        (["--ladder", "1,x"], "steps of the run"),
        (["--ladder", "1"], "at least two steps"),
        (["--ladder", "1,1"], "names a step twice"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *bad])
        captured = capsys.readouterr()
        assert ended.value.code == 2 and says in captured.err and "Traceback" not in captured.err


def test_text_loss_is_a_plain_cross_entropy(tiny):
    decoder = tiny["llama"]
    material = text_material(decoder, TEXT)
    part = next(iter(material.parts(decoder, [0])))
    window = torch.tensor([material.windows[0]])
    with torch.no_grad():
        logits = decoder.model(window).logits[0, :-1]
        expected = functional.cross_entropy(logits, window[0, 1:], reduction="sum")
        found = text_loss(part, _logits(decoder, part))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert weight("text", part) == window.shape[1] - 1


@pytest.mark.slow
def test_the_function_has_the_name_of_its_package():
    code = (
        "import phaseprune\n"
        "for _ in range(2):\n"
        "    try: phaseprune.heal('nowhere')\n"
        "    except phaseprune.UserError as error: print(error)\n"
        "import phaseprune.healing.ladder"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nowhere: not a run directory") == 2
