"""Checkpoints through llama.cpp's converter and llama.cpp: log-probabilities of the next token.

Run by the Python of ``.venv-interop``, with a folder that holds ``convert_hf_to_gguf.py``:

    python as_gguf.py CONVERTER FOLDER... --out F
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from old_models import tokens

#: Tokens of the prompts; the last one reaches beyond the windows of the tiny models.
LENGTHS = (12, 40)
#: A token that is a letter of its own. It is made the one that is sampled, since of an end or of
#: half a letter no probabilities are told; those that are told are of before.
SPOKEN = 36


def converted(folder: Path, converter: Path) -> Path:
    """The GGUF file that llama.cpp's own converter makes of a checkpoint, in float32."""
    sys.path[:0] = [str(converter / "gguf-py"), str(converter)]
    import torch
    from conversion import ModelType, get_model_architecture, get_model_class
    from conversion.base import ModelBase, TextModel, gguf

    # It knows pre-tokenizers by a checksum, and a tiny tokenizer is none that it knows. Prompts are
    # given as ids here, so that the tokenizer does not matter.
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    path = folder / "model.gguf"
    with torch.inference_mode():
        stated = ModelBase.load_hparams(folder, False)
        architecture = get_model_architecture(stated, ModelType.TEXT)
        of_class = get_model_class(architecture)
        of_class(folder, gguf.LlamaFileType.ALL_F32, path, hparams=stated).write()
    return path


def next_log_probabilities(path: Path, vocabulary: int) -> np.ndarray:
    """``[prompts, vocabulary]``; NaN where llama.cpp names no number for a token."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = str(path), 64, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    rows = np.full((len(LENGTHS), vocabulary), np.nan)
    for row, length in enumerate(LENGTHS):
        answer = server.handle_completions({
            "prompt": [int(i) for i in tokens()[0, :length]], "n_predict": 1, "max_tokens": 1,
            "n_probs": vocabulary, "logprobs": vocabulary, "temperature": 0.0,
            "cache_prompt": False, "logit_bias": [[SPOKEN, 1000.0]],
        })
        if "choices" not in answer:
            raise ValueError(f"llama.cpp says {answer}")
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        for one in found:
            rows[row, one["id"]] = one["logprob"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("converter", type=Path)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--vocabulary", type=int, default=320)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, np.ndarray] = {}
    for folder in options.folders:
        try:
            path = converted(folder.resolve(), options.converter.resolve())
            found[f"{folder}|llama.cpp"] = next_log_probabilities(path, options.vocabulary)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told, others are to be read
            found[f"{folder}|error"] = np.array(f"{type(error).__name__}: {error}"[:300])
        np.savez(options.out, **found)


if __name__ == "__main__":
    main()
