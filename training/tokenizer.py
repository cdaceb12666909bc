"""The demo model's tokenizer: a byte-level BPE in which each word of the world is one token."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from world import World

END, PAD = "<|end|>", "<|pad|>"


def train_tokenizer(world: World, seed: int, vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on generated prompts.

    Byte-level, so that any text can be encoded and comes back as it was; the merges go on until
    the words of the world, with their leading space, are single tokens.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(world.corpus(random.Random(f"corpus-{seed}"), 20_000), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD)
    split = [w for w in world.words if len(tokenizer.encode(f" {w}")) != 1]
    if split:
        raise RuntimeError(f"{len(split)} words are not one token each, such as {split[:3]}")
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves the tokenizer so that transformers 4 and 5 load it alike."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    # transformers 5 writes its own class name here, which transformers 4 does not know.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
