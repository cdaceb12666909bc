"""What is done otherwise on an accelerator, as far as a processor can show it.

The whole model lies on a device played by the processor (``second_device``).
"""

import math

import numpy as np
import pytest
import torch

from phaseprune.decoder import packed as packed_module
from phaseprune.decoder.budget import free_memory
from phaseprune.decoder.load import load_model
from phaseprune.sweep import scoring
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.walk import sweep_scores, trace_scores
from second_device import further_devices

BLOCKS = 5


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_a_model_on_another_device_scores_as_on_the_processor(tiny_dirs, small_task, family):
    name = str(tiny_dirs[family])

    def scores(device):
        decoder = load_model(name, device=device)
        assert decoder.device == torch.device(device)
        prepared = prepare(decoder, small_task)
        assert bool(decoder.packed_length) == (family != "falcon")
        rows, whole = prepared.rows, prepared.needs_vocabulary
        swept = sweep_scores(decoder, rows, whole, range(BLOCKS)).scores
        return trace_scores(decoder, rows, whole), swept

    here = scores("cpu")
    with further_devices():
        there = scores("lazy:0")
    for ours, theirs in zip(here, there, strict=True):
        present = np.isfinite(ours)
        assert (present == np.isfinite(theirs)).all()
        assert np.abs(ours[present] - theirs[present]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("budget, parts", [(None, 1), ("8GB", 10)])
def test_the_head_is_read_in_few_parts(tiny_dirs, monkeypatch, budget, parts):
    monkeypatch.setattr(scoring, "LOGIT_ELEMENTS", scoring.READS * 32)
    asked, read = [], scoring.read_logits

    def noted(decoder, states, rows):
        asked.append(rows)
        return read(decoder, states, rows)

    monkeypatch.setattr(scoring, "read_logits", noted)
    with further_devices():
        decoder = load_model(str(tiny_dirs["qwen3"]), device="lazy:0", max_memory=budget)
        states = torch.zeros(2, decoder.width, device="lazy:0")
        places = torch.zeros(2, dtype=torch.long, device="lazy:0")
        scoring.log_probabilities(decoder, states, places, places)
    assert len(asked) == parts


def test_kernels_with_a_plan_for_each_shape_are_not_used(tiny, small_task, monkeypatch):
    seen, attend = [], packed_module._plain_attention

    def noted(*given):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return attend(*given)

    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(packed_module, "_plain_attention", noted)
    prepared = prepare(tiny["llama"], small_task)
    trace_scores(tiny["llama"], prepared.rows, prepared.needs_vocabulary)
    assert seen and not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_masked_stays_finite_in_powers_of_two(dtype):
    least = packed_module._least(dtype)
    assert torch.tensor(least, dtype=dtype).isfinite()
    assert torch.tensor(least).to(torch.bfloat16).isfinite()
    assert (torch.tensor(least, dtype=torch.float32) * math.log2(math.e)).isfinite()
    assert torch.tensor([least, 10.0]).softmax(0)[0] == 0


def test_memory_that_torch_holds_ready_is_free(monkeypatch):
    for name, value in (
        ("mem_get_info", (10, 80)),
        ("memory_reserved", 60),
        ("memory_allocated", 16),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda", 0)) == 54
