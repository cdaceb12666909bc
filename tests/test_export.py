"""The exported checkpoint is the model that was measured, or there is no checkpoint."""

import json
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from conftest import CONFIGS, save_tiny
from phaseprune.decoder import export as export_module
from phaseprune.decoder.blocks import skipped_blocks
from phaseprune.decoder.export import ExportMismatch, export
from phaseprune.decoder.export_notes import kept_slices
from phaseprune.decoder.load import load_model
from phaseprune.decoder.pruned_config import pruned_config
from phaseprune.decoder.pruned_weights import write_kept_weights
from phaseprune.errors import UserError

REMOVALS = [[0], [4], [1, 3], [0, 1, 2, 4], [3, 2]]


@torch.no_grad()
@pytest.mark.parametrize("removed", REMOVALS, ids=str)
@pytest.mark.parametrize("family", CONFIGS)
def test_reloaded_logits_are_those_of_the_skipping_model(tiny, tmp_path, family, removed):
    decoder = tiny[family]
    result = export(decoder, removed, tmp_path / "out")
    assert result.removed == removed
    assert result.kept == [b for b in range(5) if b not in removed]
    assert result.max_abs_logit_difference <= 1e-4
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and plain.config.num_hidden_layers == 5 - len(removed)
    tokens = torch.randint(320, (2, 17), generator=torch.Generator().manual_seed(9))
    with skipped_blocks(decoder, set(removed)):
        expected = decoder.model(tokens, use_cache=False).logits
    torch.testing.assert_close(plain(tokens).logits, expected, atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b")["input_ids"]
    assert result.parameters == sum(p.numel() for p in plain.parameters())


def test_what_stands_beside_the_weights(tiny, tmp_path):
    result = export(tiny["llama"], [3, 1], tmp_path / "out")
    notes = json.loads((tmp_path / "out/phaseprune.json").read_text())
    assert notes["removed"] == [3, 1] and notes["kept"] == [0, 2, 4] and notes["blocks"] == 5
    assert notes["max_abs_logit_difference"] == result.max_abs_logit_difference
    assert notes["base_model_fingerprint"] == tiny["llama"].source.fingerprint
    card = (tmp_path / "out/README.md").read_text()
    assert "3, 1" in card and "0, 2, 4" in card
    assert (tmp_path / "out/generation_config.json").is_file()
    slices = yaml.safe_load((tmp_path / "out/mergekit.yaml").read_text())["slices"]
    sources = [one["sources"][0] for one in slices]
    assert [one["layer_range"] for one in sources] == [[0, 1], [2, 3], [4, 5]]
    assert {one["model"] for one in sources} == {str(tiny["llama"].source.directory)}
    assert kept_slices([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 6), (7, 9)]


def test_layer_types_are_those_of_the_kept_blocks(tiny):
    """Keeping the first entries instead gives a valid file with wrong logits."""
    decoder = tiny["gemma2"]
    full = decoder.config.layer_types
    assert pruned_config(decoder.config, [1, 2, 4]).layer_types == [full[1], full[2], full[4]]
    assert pruned_config(decoder.config, [1, 2, 4]).layer_types != full[:3]
    assert decoder.config.layer_types == full and decoder.config.num_hidden_layers == 5


def test_weights_of_the_wrong_blocks_would_be_caught(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_module,
        "write_kept_weights",
        lambda decoder, kept, out, **options: write_kept_weights(
            decoder, [k - 1 for k in kept], out, **options
        ),
    )
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        export(tiny["llama"], [0], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_shards_with_an_index(tiny, tmp_path):
    nbytes, zeros, dtype = write_kept_weights(tiny["gpt2"], [0, 2], tmp_path, shard_bytes=40_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    names = set(index["weight_map"].values())
    assert len(names) > 1 and names == {p.name for p in tmp_path.glob("*.safetensors")}
    assert index["metadata"]["total_size"] == nbytes and dtype == torch.float32
    pruned_config(tiny["gpt2"].config, [0, 2]).save_pretrained(tmp_path)
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]


def test_the_checkpoints_own_dtype_is_kept(tmp_path):
    source = save_tiny(tmp_path / "source")
    half = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    half.save_pretrained(source)
    decoder = load_model(str(source))  # measured in float32
    assert decoder.dtype == torch.float32
    export(decoder, [2], tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("removed", "message"),
    [([5], "blocks 0 to 4"), ([-1], "block -1"), ([1, 1], "twice"), ([0, 1, 2, 3, 4], "all 5")],
)
def test_bad_removals(tiny, tmp_path, removed, message):
    with pytest.raises(UserError, match=message):
        export(tiny["llama"], removed, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(UserError, match="exists already"):
        export(tiny["llama"], [1], tmp_path / "out")
    assert (tmp_path / "out/mine.txt").read_text() == "keep"


def test_the_same_export_again_is_only_compared_again(tiny, tmp_path):
    first = export(tiny["llama"], [1, 2], tmp_path / "out")
    weights = tmp_path / "out/model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert export(tiny["llama"], [1, 2], tmp_path / "out") == first
    assert weights.stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="exists already"):
        export(tiny["llama"], [2], tmp_path / "out")
    tensors = load_file(weights)
    tensors["model.norm.weight"] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ExportMismatch, match="not the model that was measured"):
        export(tiny["llama"], [1, 2], tmp_path / "out")


@pytest.mark.slow
def test_a_process_without_phaseprune_loads_it(tiny, tmp_path):
    export(tiny["llama"], [1], tmp_path / "out")
    code = (
        "import sys; sys.modules['phaseprune'] = None\n"
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"model = M.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"tokenizer = T.from_pretrained({str(tmp_path / 'out')!r})\n"
        "ids = tokenizer('What is the sky', return_tensors='pt').input_ids\n"
        "print(len(model.model.layers), model.generate(ids, max_new_tokens=3).shape[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "4"
