"""Choosing blocks by the loss on plain text, against whole models and their own cross entropy."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from conftest import WORDS
from phaseprune.errors import UserError
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.sweep.text import text_windows
from test_sweep import without

TEXT = " ".join(WORDS.split()[::step][i % 3] for i in range(400) for step in (1, 2, 3))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@torch.no_grad()
def plain_loss(model, windows):
    losses = []
    for window in windows:
        ids = torch.tensor([window])
        logits = model(ids, use_cache=False).logits[0, :-1].double()
        losses.append(float(functional.cross_entropy(logits, ids[0, 1:], reduction="sum")))
    return sum(losses) / sum(len(window) - 1 for window in windows)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_every_candidate_has_the_loss_of_the_model_without_it(
    tiny, question_file, text_file, tmp_path, family
):
    decoder = tiny[family]
    task = load_task(str(question_file))
    pruning = prune(
        decoder,
        task,
        remove=3,
        calibration=4,
        objective="text_loss",
        text=text_file,
        out=tmp_path / "run",
    )
    length = min(512, decoder.max_length or 512)
    windows = text_windows(decoder, TEXT, length)[:16]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["options"]["text_windows"] == len(windows) > 1
    assert pruning.steps[0].objective == pytest.approx(plain_loss(decoder.model, windows), abs=1e-4)
    lines = (tmp_path / "run" / "candidates.jsonl").read_text().splitlines()
    removed = []
    for step in pruning.steps[1:]:
        scored = [line for line in map(json.loads, lines) if line["step"] == step.step]
        found = {line["block"]: line["text_loss"] for line in scored}
        for block, loss in found.items():
            plain = without(decoder.model, decoder.blocks_path, [*removed, block])
            assert loss == pytest.approx(plain_loss(plain, windows), abs=1e-4)
        assert step.removed == min(found, key=found.get)
        assert step.objective == found[step.removed]
        removed.append(step.removed)
        assert np.isfinite(step.calibration["decision_margin"])


@pytest.mark.slow
def test_racing_over_windows_chooses_as_the_exact_search(tiny, question_file, text_file, tmp_path):
    common = dict(remove=3, calibration=4, objective="text_loss", text=text_file)
    task, decoder = load_task(str(question_file)), tiny["llama"]
    exact = prune(decoder, task, **common)
    raced = prune(
        decoder,
        task,
        search="racing",
        race_alpha=1e-9,
        race_tolerance=0,
        out=tmp_path / "run",
        **common,
    )
    assert raced.removed == exact.removed
    windows = text_windows(decoder, TEXT, min(512, decoder.max_length or 512))[:16]
    order = np.random.default_rng([0, 1]).permutation(len(windows))
    lines = [json.loads(x) for x in (tmp_path / "run/candidates.jsonl").read_text().splitlines()]
    for line in lines[: len(decoder.blocks)]:
        plain = without(decoder.model, decoder.blocks_path, [line["block"]])
        assert len(line["values"]) == line["windows"] >= 4
        for place, value in zip(order, line["values"], strict=False):
            assert -value == pytest.approx(plain_loss(plain, [windows[place]]), abs=1e-4)
        assert line["text_loss"] == pytest.approx(-np.mean(line["values"]), abs=1e-5)
    for step in raced.steps[1:]:
        assert 4 <= step.race["windows"] <= len(windows)


BAD = {
    "no text": (dict(objective="text_loss"), "objective='text_loss' needs a text.*text"),
    "no need": (dict(text="here"), "text .* goes with objective='text_loss' or guard only"),
    "missing": (dict(objective="text_loss", text="nowhere.txt"), "nowhere.txt: there is no such"),
    "short": (dict(objective="text_loss", text="short"), "are 0 windows of 256, and 1 are needed"),
    "bytes": (dict(objective="text_loss", text="bytes"), "is not UTF-8 text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(tiny, question_file, text_file, tmp_path, name):
    options, says = BAD[name]
    (tmp_path / "short").write_text("What is the sky")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    places = {"here": text_file, "short": tmp_path / "short", "bytes": tmp_path / "bytes"}
    if "text" in options:
        options = options | {"text": places.get(options["text"], options["text"])}
    with pytest.raises(UserError, match=says):
        prune(tiny["llama"], load_task(str(question_file)), remove=1, calibration=4, **options)
