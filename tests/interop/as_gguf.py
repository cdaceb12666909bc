"""Checkpoints through llama.cpp's converter and llama.cpp: log-probabilities of the next token.

Run by the Python of ``.venv-interop``, with a folder that holds ``convert_hf_to_gguf.py``:

    python as_gguf.py CONVERTER FOLDER... --out F
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from ask_llama_cpp import CONVERTED_LETTER, next_log_probabilities, serve
from old_models import tokens

#: Tokens of the prompts; the last one reaches beyond the windows of the tiny models.
LENGTHS = (12, 40)
CONTEXT = 64


def converted(folder: Path, converter: Path) -> Path:
    """The GGUF file that llama.cpp's own converter makes of a checkpoint, in float32."""
    sys.path[:0] = [str(converter / "gguf-py"), str(converter)]
    import torch
    from conversion import ModelType, get_model_architecture, get_model_class
    from conversion.base import ModelBase, TextModel, gguf

    # It knows pre-tokenizers by a checksum, and a tiny tokenizer is none that it knows. Prompts are
    # given as ids here, so that the tokenizer does not matter.
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    TextModel.no_mtp = True  # what predicts further tokens is no part of the model
    path = folder / "model.gguf"
    with torch.inference_mode():
        stated = ModelBase.load_hparams(folder, False)
        architecture = get_model_architecture(stated, ModelType.TEXT)
        of_class = get_model_class(architecture)
        of_class.set_vocab = TextModel._set_vocab_gpt2
        of_class(folder, gguf.LlamaFileType.ALL_F32, path, hparams=stated).write()
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("converter", type=Path)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    prompts = [tokens()[0, :length].tolist() for length in LENGTHS]
    found: dict[str, np.ndarray] = {}
    for folder in options.folders:
        try:
            server = serve(converted(folder.resolve(), options.converter.resolve()), CONTEXT)
            said = next_log_probabilities(server, prompts, CONVERTED_LETTER)
            found[f"{folder}|llama.cpp"] = np.array(said, dtype=float)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told, others are to be read
            found[f"{folder}|error"] = np.array(f"{type(error).__name__}: {error}"[:300])
        np.savez(options.out, **found)


if __name__ == "__main__":
    main()
