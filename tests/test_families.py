"""Families of different design through the whole job, against skipping by hooks.

``benchmarks/families.py`` does the same for every causal language model of transformers.
"""

import json
import random

import pytest

from conftest import QUESTIONS, save_tiny, write_jsonl
from families import check_export, check_sweep, check_trace, save_family
from phaseprune.cli.main import main
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from tiny_configs import BLOCKS, OVERRIDES

#: Design -> families. Each has ``BLOCKS`` blocks.
DESIGNS = {
    "pre-norm, rotary": ["llama", "qwen2", "stablelm", "starcoder2", "nemotron", "helium"],
    "norms of queries and keys": ["qwen3", "apertus"],
    "post-norm": ["olmo2", "bert", "electra", "openai-gpt"],
    "sandwich norms": ["gemma2", "gemma3_text", "glm4"],
    "parallel attention and MLP": ["gpt_neox", "gptj", "phi", "cohere", "codegen"],
    "learned positions": ["gpt2", "opt", "biogpt", "gpt_bigcode", "xglm", "ctrl"],
    "ALiBi": ["bloom", "mpt", "falcon"],
    "scaled or capped logits": ["granite", "cohere2"],
    "sliding windows by block": ["gpt_neo", "olmo3", "ministral", "smollm3", "exaone4"],
    "experts": ["mixtral", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "dbrx", "phimoe"],
    "latent attention": ["deepseek_v2"],
    "sparse attention": ["glm_moe_dsa"],
    "state-space": ["mamba", "mamba2", "falcon_mamba"],
    "hybrid": ["falcon_h1", "minimax"],
    "without biases and norms' weights": ["olmo", "persimmon"],
}
MIXED = ["sliding_attention", "full_attention"] * 3
FAMILIES = [family for families in DESIGNS.values() for family in families]


def removal_sets(family: str, layer_types) -> list[list[int]]:
    """The first, the last, alternate ones, all but one, and one that changes the pattern."""
    chance = random.Random(f"removals of {family}")
    left = chance.randrange(BLOCKS)
    sets = [
        [0],
        [BLOCKS - 1],
        list(range(chance.randrange(2), BLOCKS, 2)),
        [block for block in range(BLOCKS) if block != left],
    ]
    if layer_types and len(set(layer_types)) > 1:
        kept = layer_types[0]
        sets.append([block for block, kind in enumerate(layer_types) if kind == kept][:-1])
    return [chance.sample(blocks, len(blocks)) for blocks in sets if blocks]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, tmp_path):
    decoder = load_model(str(save_family(family, tmp_path / "model")))
    sets = removal_sets(family, getattr(decoder.config, "layer_types", None))
    check_trace(decoder, tmp_path)
    check_sweep(decoder, tmp_path)
    for removed in sets[2:]:
        live = [block for block in range(BLOCKS) if block not in removed]
        check_sweep(decoder, tmp_path, live)
    for number, removed in enumerate(sets):
        check_export(decoder, removed, tmp_path / f"pruned-{number}")


def test_there_are_enough_families():
    assert len(set(FAMILIES)) >= 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("jamba", "model.layers"),  # blocks of two classes
        ("zamba2", "model.layers"),
        ("nemotron_h", "model.layers"),
        ("qwen3_next", "model.layers"),  # of one class, with attention of two kinds
        ("bart", "model.decoder.layers"),  # num_hidden_layers is the encoder's
        ("longcat_flash", "model.layers"),  # num_hidden_layers counts attentions
        ("gemma3", "model.language_model.layers"),  # beside a vision tower of as many layers
    ],
)
def test_where_blocks_are(family, path, tmp_path):
    decoder = load_model(str(save_family(family, tmp_path)))
    assert decoder.blocks_path == path and len(decoder.blocks) == BLOCKS
    check_sweep(decoder, tmp_path, [0, 2, 5])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("hy_v4", "block 2 of model.layers is given prev_topk_indices, which earlier blocks"),
        ("zaya", "block 1 of model.layers is given prev_router_hidden_states"),
        ("gemma3n_text", r"hands a state of shape \[4, 2, 12, 32\] from block to block"),
        ("prophetnet", r"a state of shape \[2, 36, 32\]"),
        ("reformer", "reformer.encoder.layers cannot be run one by one"),
        ("inkling2_text", "readout after the last block of model.layers differs"),
        ("xlm", "readout after the last block of transformer.ffns differs"),
        ("hrm_text", r"no list of 48 blocks.*model.L_module.layers \(6 x .*blocks PATH"),
        ("emu3", "emu3_text_model is none that transformers' AutoModelForCausalLM loads"),
    ],
)
def test_refused_with_what_it_is_that_cannot_be(family, reason, tmp_path):
    save_family(family, tmp_path)
    with pytest.raises(UserError, match=reason):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "sizes", "argument"),
    [
        ("gemma4_text", {"num_kv_shared_layers": 2, "layer_types": MIXED}, "shared_kv_states"),
        ("glm_moe_dsa", {"indexer_types": ["full", "shared"] * 3}, "prev_topk_indices"),
        # All of a short probe's positions are chosen, so that its logits do not tell.
        (
            "glm_moe_dsa",
            {"indexer_types": ["full", "shared"] * 3, "index_topk": 64},
            "prev_topk_indices",
        ),
    ],
)
def test_what_blocks_share_is_named(family, sizes, argument, tmp_path, monkeypatch):
    monkeypatch.setitem(OVERRIDES, family, OVERRIDES.get(family, {}) | sizes)
    save_family(family, tmp_path)
    with pytest.raises(UserError, match=f"is given {argument}, which earlier blocks computed"):
        load_model(str(tmp_path))


@pytest.fixture
def changed_llama(tiny_dirs, tmp_path, monkeypatch):
    """Load a Llama whose forward of a block is another, its own forward given."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    own = LlamaDecoderLayer.forward

    def load(forward, **options):
        def changed(block, *args, **kw):
            return forward(own, block, *args, **kw)

        monkeypatch.setattr(LlamaDecoderLayer, "forward", changed)
        return load_model(str(tiny_dirs["llama"]), **options)

    return load


def test_what_blocks_share_behind_the_models_back_is_noticed(changed_llama):
    """A block that adds a later one's memory of the stream: right for one stream, not for two."""
    memory = {}

    def forward(own, block, hidden, *args, **kw):
        if block.self_attn.layer_idx == 1:
            memory["state"] = hidden.clone()
        output = own(block, hidden, *args, **kw)
        return output + memory["state"] if block.self_attn.layer_idx == 3 else output

    with pytest.raises(UserError, match="skipping block 0 of model.layers in a stream of its own"):
        changed_llama(forward)


def test_a_model_that_fails_by_itself_is_one_sentence(changed_llama):
    def forward(own, block, hidden, *args, **kw):
        raise ValueError("two\nlines")

    with pytest.raises(UserError, match=r"itself fails .*\(ValueError: two lines\)"):
        changed_llama(forward)


def test_blocks_that_are_called_twice_are_refused(tiny_dirs, monkeypatch):
    from transformers.models.llama import modeling_llama

    own = modeling_llama.LlamaModel.__init__

    def shared(model, config):
        own(model, config)
        model.layers[3] = model.layers[2]

    monkeypatch.setattr(modeling_llama.LlamaModel, "__init__", shared)
    with pytest.raises(UserError, match="does not call each of the 5 blocks.*once and in order"):
        load_model(str(tiny_dirs["llama"]))


@pytest.mark.slow
def test_blocks_named_by_the_user(tmp_path):
    """A model that states no count, and one whose list is another than the stated count's."""
    save_tiny(tmp_path, "llama")
    found, named = load_model(str(tmp_path)), load_model(str(tmp_path), blocks="model.layers")
    assert (named.blocks_path, len(named.blocks)) == (found.blocks_path, 5)
    with pytest.raises(UserError, match="blocks='model.layer'.*Did you mean 'model.layers'"):
        load_model(str(tmp_path), blocks="model.layer")
    with pytest.raises(UserError, match="blocks='lm_head'.*has no list.*It has model.layers"):
        load_model(str(tmp_path), blocks="lm_head")


def test_a_wrong_list_named_by_the_user_is_refused(tmp_path):
    save_family("hrm_text", tmp_path)
    with pytest.raises(UserError, match="H_module.layers once and in order"):
        load_model(str(tmp_path), blocks="model.H_module.layers")


@pytest.mark.slow
def test_blocks_named_on_the_command_line(tmp_path):
    save_tiny(tmp_path / "model", "llama")
    task = write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)
    for command in (
        ["check", "--full"],
        ["trace", "--out", str(tmp_path / "trace"), "--task", str(task)],
        ["export", "--remove", "1", "--out", str(tmp_path / "pruned")],
    ):
        words = [command[0], str(tmp_path / "model"), *command[1:], "--quiet", "--blocks"]
        for path, code in (("model.norm", 2), ("model.layers", 0)):
            with pytest.raises(SystemExit) as ended:
                main([*words, path])
            assert ended.value.code == code, (command, path)
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["num_hidden_layers"] == 4
