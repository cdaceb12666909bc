"""Training on packed rows: the loss and the gradients of plain rows, or plain rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from conftest import CONFIGS, QUESTIONS, ROPE, save_tiny, write_jsonl
from phaseprune.decoder import packed as packed_rows
from phaseprune.decoder.load import load_model
from phaseprune.decoder.trainable import trainable, trained_weights
from phaseprune.healing import data as data_module
from phaseprune.healing import packed as packed_module
from phaseprune.healing.data import question_material, text_material
from phaseprune.healing.heal import heal
from phaseprune.healing.losses import weight
from phaseprune.healing.packed import part_logits, trained_length
from phaseprune.healing.recipe import Recipe
from phaseprune.healing.train import Trainer, train
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.sweep.probe import ANY_LENGTH

PACKED = ["llama", "qwen3", "gpt2", "gpt_neox", "gemma2"]
TEACHERS = dict(zip(PACKED, PACKED[1:] + PACKED[:1], strict=True))
TEXT = "the sky is blue and grass is green , white snow and black coal . " * 40
#: How questions are put, and what is made smaller.
CASES = [
    ("task", dict(scoring="letter")),
    ("task", dict(scoring="letter", probability="vocabulary")),
    ("task", dict(scoring="text", length_norm="chars")),
    ("task", dict(scoring="letter", permute=True)),
    ("distill", dict(scoring="letter")),
    ("distill", dict(scoring="text")),
]
WEAK = 0.3  # of what LoRA's second matrix, 0 at first, is filled with


@pytest.fixture
def small_batches(monkeypatch):
    """Batches so small that questions' common beginning is a trunk in an earlier one."""
    monkeypatch.setattr(data_module, "batch_tokens", lambda decoder: 64)


@pytest.fixture
def shots(tmp_path):
    """Few-shot examples, so that all questions begin alike."""
    rows = [row | {"question": f"{row['question']} of snow"} for row in QUESTIONS[:3]]
    return dict(shots=2, shots_from=str(write_jsonl(tmp_path / "shots.jsonl", rows)))


def _run(decoder, material, objective, dtype=torch.float32, teacher=None):
    """The mean loss over all examples, its gradients, and the parts."""
    trainer = Trainer(decoder, material, Recipe(objective=objective), dtype, teacher)
    loss, parts = trainer.loss(), list(material.parts(decoder, range(len(material))))
    total = sum(weight(objective, part) for part in parts)
    mean = sum(loss(part, part_logits(decoder, part, dtype)) for part in parts) / total
    weights = list(trained_weights(decoder).values())
    gradients = torch.autograd.grad(mean, weights, allow_unused=True, materialize_grads=True)
    return float(mean.detach()), gradients, parts


def _begin(decoder, method):
    """Away from the beginning, where LoRA's second matrices are 0 and the first have no slope."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trained_weights(decoder).items():
        if "lora_B" in name:
            parameter.data.copy_(WEAK * torch.randn(parameter.shape, generator=generator))
    assert (method == "lora") == any("lora_B" in name for name in trained_weights(decoder))


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "how"), CASES, ids=str)
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", PACKED)
def test_loss_and_gradients_are_those_of_plain_rows(
    tiny_dirs, question_file, shots, small_batches, family, method, objective, how
):
    decoder = load_model(str(tiny_dirs[family]))
    teacher = load_model(str(tiny_dirs[TEACHERS[family]])) if objective == "distill" else None
    more = {} if how.get("permute") else shots
    plain = question_material(decoder, load_task(str(question_file), **how, **more))
    before = [config._attn_implementation for config in decoder.configs]
    with trainable(decoder, method, 2, 0):
        _begin(decoder, method)
        length = trained_length(decoder, teacher, torch.float32)
        assert length == ANY_LENGTH
        packed = replace(plain, packed_length=length)
        ours, theirs = (
            _run(decoder, material, objective, teacher=teacher) for material in (packed, plain)
        )
    assert [config._attn_implementation for config in decoder.configs] == before
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert max(float(gradient.abs().max()) for gradient in theirs[1]) > 1e-3
    for one, other in zip(ours[1], theirs[1], strict=True):
        most = max(1e-3, float(other.abs().max()))
        torch.testing.assert_close(one, other, atol=1e-4 * most, rtol=1e-3)
    batches = [[b for part in run[2] for b in part.shard.batches] for run in (ours, theirs)]
    assert all(b.packing for b in batches[0]) and not any(b.packing for b in batches[1])
    if how["scoring"] == "text":
        assert sum(b.tokens for b in batches[0]) < sum(b.tokens for b in batches[1]) / 2
        assert any(group.trunk for b in batches[0] for group in b.packing.groups)


def test_a_read_counts_for_each_sequence_that_it_stands_in(tiny, question_file):
    """Against a list of all sequences, each with the places at which its tokens are scored."""
    decoder = tiny["llama"]
    material = question_material(decoder, load_task(str(question_file), scoring="text"))
    prefixes: dict[tuple, set] = {}
    for question in material.questions:
        for continuation in question.continuations:
            sequence = question.context + continuation
            for end in range(len(question.context), len(sequence)):
                prefixes.setdefault(sequence[:end], set()).add(sequence[:-1])
    expected = sorted(map(len, prefixes.values()))
    assert max(expected) > 1
    (part,) = replace(material, packed_length=ANY_LENGTH).parts(decoder, range(len(material)))
    assert sorted(part.times.tolist()) == expected
    (part,) = material.parts(decoder, range(len(material)))
    assert part.times.tolist() == [1] * sum(expected) and weight("distill", part) == sum(expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_products_in_bfloat16(tiny_dirs, question_file, small_batches, family, method):
    """Places that fill up a group see nothing, and must not make gradients NaN."""
    decoder = load_model(str(tiny_dirs[family]), dtype="bfloat16")
    plain = question_material(decoder, load_task(str(question_file), scoring="text"))
    with trainable(decoder, method, 2, 0):
        assert trained_length(decoder, None, torch.bfloat16) == ANY_LENGTH
        packed = replace(plain, packed_length=ANY_LENGTH)
        ours, theirs = (_run(decoder, m, "task", torch.bfloat16) for m in (packed, plain))
    assert ours[0] == pytest.approx(theirs[0], rel=3e-2)
    mine, others = (torch.cat([g.flatten().float() for g in found[1]]) for found in (ours, theirs))
    assert (mine - others).norm() < 0.1 * others.norm()


def test_what_hides_a_key_is_finite_in_bfloat16_too():
    for dtype in (torch.float32, torch.bfloat16):
        least = torch.tensor(packed_rows._least(dtype), dtype=dtype).bfloat16()
        assert torch.isfinite(least) and least < -1e38


def test_a_window_that_no_mask_function_has_leaves_long_sequences_plain(
    tmp_path, question_file, monkeypatch
):
    monkeypatch.setitem(CONFIGS, "windowed", lambda: LlamaConfig(**ROPE, sliding_window=18))
    decoder = load_model(str(save_tiny(tmp_path / "windowed", "windowed")))
    plain = question_material(decoder, load_task(str(question_file), scoring="text"))
    with trainable(decoder, "full", 2, 0):
        assert trained_length(decoder, None, torch.float32) == 18
        packed = replace(plain, packed_length=18)
        ours, theirs = (_run(decoder, material, "task") for material in (packed, plain))
    assert len({b.packing is None for part in ours[2] for b in part.shard.batches}) == 2
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)


# Where rows stay plain


def test_plain_rows_where_packed_ones_are_not_exact(tiny_dirs):
    falcon, llama = (load_model(str(tiny_dirs[family])) for family in ("falcon", "llama"))
    with trainable(falcon, "full", 2, 0):
        assert trained_length(falcon, None, torch.float32) == 0
    with trainable(llama, "full", 2, 0):
        assert trained_length(llama, falcon, torch.float32) == 0  # the teacher's rows are the same
        assert trained_length(llama, None, torch.float32) == ANY_LENGTH


def _cut_off(query, key, value, mask, scale, plain=packed_rows._plain_attention):
    return plain(query, key.detach(), value, mask, scale)


def _raising(*arguments):
    raise RuntimeError("one of the variables needed for gradient computation was modified")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("instead", [_cut_off, _raising])
def test_gradients_are_tried_and_not_supposed(tiny_dirs, monkeypatch, method, instead):
    decoder = load_model(str(tiny_dirs["llama"]))
    with trainable(decoder, method, 2, 0):
        assert trained_length(decoder, None, torch.float32) == ANY_LENGTH
        monkeypatch.setattr(packed_rows, "_plain_attention", instead)
        assert trained_length(decoder, None, torch.float32) == 0


def test_letters_that_share_too_little_are_plain_rows(tiny_dirs, tmp_path, shots):
    decoder = load_model(str(tiny_dirs["llama"]))
    beginnings = ["sky blue", "snow white", "Is coal", "grass green", "What is", "red sky"]
    rows = [{"question": text, "choices": ["sky", "snow"], "answer": 0} for text in beginnings]
    questions = write_jsonl(tmp_path / "apart.jsonl", rows)
    for more, expected in (({}, 0), (shots, ANY_LENGTH)):
        material = question_material(decoder, load_task(str(questions), **more))
        with trainable(decoder, "full", 2, 0):
            trainer = Trainer(decoder, material, Recipe(method="full", batch=8), torch.float32)
            assert trainer.packed().material.packed_length == expected


def test_windows_of_text_are_plain_rows(tiny_dirs, tmp_path, monkeypatch):
    monkeypatch.setattr("phaseprune.healing.train.trained_length", None)
    decoder = load_model(str(tiny_dirs["llama"]))
    material = text_material(decoder, TEXT)
    recipe = Recipe(objective="text", method="full", steps=2, batch=2, lr=1e-3)
    with trainable(decoder, "full", 2, 0):
        train(Trainer(decoder, material, recipe, torch.float32), tmp_path / "state.pt")
    (part,) = replace(material, packed_length=ANY_LENGTH).parts(decoder, [0, 1])
    assert not any(batch.packing for batch in part.shard.batches)


# Training


def _train(folder, question_file, path, progress=lambda *a: None, other=None, **how):
    decoder = load_model(str(folder))
    material = question_material(decoder, load_task(str(question_file), scoring="text"))
    recipe = Recipe(**dict(steps=6, batch=3, lr=1e-2, check_every=2, seed=3) | how)
    teacher = load_model(str(other)) if recipe.objective == "distill" else None
    with trainable(decoder, recipe.method, 2, recipe.seed):
        trainer = Trainer(decoder, material, recipe, torch.float32, teacher)
        return train(trainer, path, progress)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_seed_gives_the_same_bytes_and_so_does_a_run_gone_on_with(
    tiny_dirs, question_file, tmp_path, monkeypatch, method
):
    rows = []
    plain = packed_module.logits_at

    def watched(decoder, input_ids, reads, packing=None, trunk=None):
        rows.append(packing is not None)
        return plain(decoder, input_ids, reads, packing, trunk)

    def stop(label, done, total):
        if done == 5:
            raise KeyboardInterrupt

    folder = tiny_dirs["llama"]
    whole = _train(folder, question_file, tmp_path / "whole.pt", method=method)
    again = _train(folder, question_file, tmp_path / "again.pt", method=method)
    with pytest.raises(KeyboardInterrupt):
        _train(folder, question_file, tmp_path / "killed.pt", stop, method=method)
    monkeypatch.setattr(packed_module, "logits_at", watched)
    resumed = _train(folder, question_file, tmp_path / "killed.pt", method=method)
    assert rows.count(False) == 4 and rows.count(True) > 10  # the trial's plain rows alone
    for other in (again, resumed):
        assert other.evaluations == whole.evaluations
        assert all(torch.equal(other.weights[name], whole.weights[name]) for name in whole.weights)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["task", "distill"])
def test_training_goes_the_way_of_plain_rows(
    tiny_dirs, question_file, tmp_path, monkeypatch, objective
):
    how = dict(method="full", objective=objective, lr=1e-3, other=tiny_dirs["llama"])
    packed = _train(tiny_dirs["gemma2"], question_file, tmp_path / "packed.pt", **how)
    monkeypatch.setattr("phaseprune.healing.train.trained_length", lambda *a: 0)
    plain = _train(tiny_dirs["gemma2"], question_file, tmp_path / "plain.pt", **how)
    for one, other in zip(packed.evaluations, plain.evaluations, strict=True):
        assert one["validation"] == pytest.approx(other["validation"], rel=2e-3, abs=1e-6)
    np.testing.assert_allclose(
        [float(w.norm()) for w in packed.best.values()],
        [float(w.norm()) for w in plain.best.values()],
        rtol=1e-3,
    )


@pytest.mark.slow
def test_a_pruned_model_is_healed_on_packed_rows(tiny_dirs, question_file, tmp_path, monkeypatch):
    task = load_task(str(question_file), scoring="text")
    prune(load_model(str(tiny_dirs["llama"])), task, remove=2, calibration=3, out=tmp_path / "run")
    rows = [row | {"question": f"{row['question']} of the sky"} for row in QUESTIONS]
    training, found = write_jsonl(tmp_path / "train.jsonl", rows), []

    def watched(*arguments):
        found.append(trained_length(*arguments))
        return found[-1]

    monkeypatch.setattr("phaseprune.healing.train.trained_length", watched)
    healing = heal(tmp_path / "run", step=1, train=training, steps=2, batch=2, method="full")
    assert found == [ANY_LENGTH] and healing.training["steps"] == 2
