"""The whole job on a real language model and real questions, small: SmolLM2-135M on ARC-Easy."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import write_jsonl
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.load import load_model
from phaseprune.pruning.export_run import export_run, run_to_export
from phaseprune.pruning.prune import prune
from phaseprune.questions.catalog import load_task
from phaseprune.questions.split import split
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.probe import ANY_LENGTH, packed_length
from phaseprune.sweep.walk import sweep_scores, trace_scores

pytestmark = pytest.mark.real
SCORER = Path(__file__).parent / "plain_scorer.py"


@pytest.fixture(scope="module")
def decoder(smollm2):
    return load_model(str(smollm2))


@pytest.fixture(scope="module")
def task(arc_easy):
    return load_task(str(arc_easy), scoring="text", limit=30)


@pytest.mark.slow
def test_it_is_found_and_read_out(decoder):
    assert (decoder.family, len(decoder.blocks), decoder.blocks_path) == (
        "llama",
        30,
        "model.layers",
    )
    assert decoder.readout_difference < 1e-3 and packed_length(decoder) == ANY_LENGTH


@pytest.mark.slow
def test_sweep_equals_skipping_and_running_the_whole_model(decoder, task):
    """Three candidates of the first step, against plain forwards of the model without the block."""
    from test_sweep import naive_scores

    prepared = prepare(decoder, task.head(3))
    sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, range(30))
    assert sweep.block_passes == 30 * 31 // 2
    for block in (0, 13, 29):
        with skipped_blocks(decoder, {block}):
            expected = naive_scores(decoder.model, decoder.tokenizer, task.head(3))
        # Sums of up to 20 log-probabilities of size 10: 1e-3 is rounding.
        np.testing.assert_allclose(sweep.scores[block], expected, atol=1e-3)


@pytest.mark.slow
def test_prune_export_and_measure_in_a_process_without_phaseprune(decoder, task, tmp_path):
    pruning = prune(decoder, task, remove=2, calibration=6, evaluation=20, out=tmp_path / "run")
    exported = export_run(decoder, run_to_export(tmp_path / "run"))
    assert exported.max_abs_logit_difference <= 1e-3
    assert len(exported.kept) == 28 and exported.parameters < exported.full_parameters
    _, evaluation = split(task, 6, 20, 0)
    rows = [
        {"question": q.text, "choices": q.choices, "answer": q.answer} for q in evaluation.questions
    ]
    questions = write_jsonl(tmp_path / "evaluation.jsonl", rows)
    done = subprocess.run(
        [sys.executable, str(SCORER), exported.path, str(questions)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["correct"] == pruning.steps[-1].evaluation["correct"]
    assert said["accuracy"] == pruning.steps[-1].evaluation["accuracy"]


@pytest.mark.slow
def test_the_readout_at_the_end_is_the_models_answer(decoder, task):
    prepared = prepare(decoder, task.head(6))
    raw = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary)
    output = trace_scores(decoder, prepared.rows, prepared.needs_vocabulary, output_only=True)
    np.testing.assert_allclose(raw[:, -1], output[:, 0], atol=1e-3)
