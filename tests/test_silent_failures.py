"""Each way in which a pruned checkpoint has silently been another model, and that it is caught."""

import dataclasses

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    Qwen2Config,
)

from conftest import ROPE, make_tokenizer
from phaseprune.decoder import export as export_module
from phaseprune.decoder.export import ExportMismatch, compare_with_skipping, export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.pruned_config import prune, pruned_config

WINDOWS = [
    "sliding_attention",
    "full_attention",
    "sliding_attention",
    "sliding_attention",
    "full_attention",
]
#: Families whose blocks differ by ``layer_types`` alone: every weight fits wherever it is put.
MIXED = {
    "gemma2": lambda: Gemma2Config(**ROPE, head_dim=8, sliding_window=4, layer_types=WINDOWS),
    "gemma3": lambda: Gemma3TextConfig(**ROPE, head_dim=8, sliding_window=4, layer_types=WINDOWS),
    "cohere2": lambda: Cohere2Config(**ROPE, sliding_window=4, layer_types=WINDOWS),
    "qwen2": lambda: Qwen2Config(
        **ROPE, use_sliding_window=True, sliding_window=4, layer_types=WINDOWS
    ),
}
REMOVED = [0, 3]  # leaves full, sliding, full; the first three would be sliding, full, sliding


@pytest.fixture(scope="module", params=MIXED)
def mixed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(MIXED[request.param]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return load_model(str(folder))


def written_as(monkeypatch, change):
    """Let the export write another configuration than the right one."""

    def wrong(original, kept):
        right = prune(original, kept)
        return dataclasses.replace(right, config=change(original.config, right.config, kept))

    monkeypatch.setattr(export_module, "prune", wrong)


def test_the_kept_blocks_keep_their_kind(mixed, tmp_path):
    result = export(mixed, REMOVED, tmp_path / "out")
    assert result.max_abs_logit_difference <= 1e-4
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.config.layer_types == [WINDOWS[1], WINDOWS[2], WINDOWS[4]]
    assert mixed.config.layer_types == WINDOWS and mixed.config.num_hidden_layers == 5
    tokens = torch.randint(320, (2, 17), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        # What the blocks do apart from phaseprune: each returns what it is given.
        handles = [
            mixed.blocks[block].register_forward_hook(lambda module, args, output: args[0])
            for block in REMOVED
        ]
        expected = mixed.model(tokens, use_cache=False).logits
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(plain(tokens).logits, expected, atol=1e-4, rtol=0)


def test_the_first_entries_of_layer_types_are_caught(mixed, tmp_path, monkeypatch):
    def first_entries(full, right, kept):
        right.layer_types = full.layer_types[: len(kept)]
        return right

    written_as(monkeypatch, first_entries)
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        export(mixed, REMOVED, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_count_that_was_not_changed_is_caught(mixed, tmp_path, monkeypatch):
    """On reload the missing blocks are made up at random, and transformers only says so."""
    written_as(
        monkeypatch,
        lambda full, right, kept: AutoConfig.from_pretrained(mixed.source.directory),
    )
    with pytest.raises(ExportMismatch, match="lacks .* weights"):
        export(mixed, REMOVED, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_deleting_from_the_list_in_place_is_caught(mixed, tmp_path):
    """The forward reads ``config.layer_types[i]`` by position, so kept blocks change their kind."""
    model = AutoModelForCausalLM.from_pretrained(mixed.source.directory)
    for block in sorted(REMOVED, reverse=True):
        del model.model.layers[block]
    model.config.num_hidden_layers = len(model.model.layers)
    model.config.layer_types = model.config.layer_types[: len(model.model.layers)]
    model.save_pretrained(tmp_path)
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        compare_with_skipping(mixed, REMOVED, tmp_path)


def test_the_right_configuration_with_the_same_files_passes(mixed, tmp_path):
    """What the case before lacks is the configuration alone."""
    model = AutoModelForCausalLM.from_pretrained(mixed.source.directory)
    for block in sorted(REMOVED, reverse=True):
        del model.model.layers[block]
    config = pruned_config(mixed.config, [1, 2, 4])
    model.config.num_hidden_layers, model.config.layer_types = 3, config.layer_types
    model.save_pretrained(tmp_path)
    assert compare_with_skipping(mixed, REMOVED, tmp_path).difference <= 1e-4


def test_weights_of_other_blocks_are_caught(mixed, tmp_path, monkeypatch):
    from phaseprune.decoder.pruned_weights import write_kept_weights

    monkeypatch.setattr(
        export_module,
        "write_kept_weights",
        lambda decoder, kept, out, **options: write_kept_weights(
            decoder, [k - 1 for k in kept], out, **options
        ),
    )
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        export(mixed, [0], tmp_path / "out")
    assert not list(tmp_path.iterdir())
