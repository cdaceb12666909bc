"""What llama.cpp says of some prompts; run by the Python of ``.venv-interop``.

    python ask_llama_cpp.py ASKED.json

ASKED.json is a list of {path, context, prompts, texts}: a GGUF file, the context to run with, lists
of token ids, and texts. Prints a list of {next, tokens} as JSON, one a file: the log-probability of
every token after each prompt, and each text's tokens with the special ones that llama.cpp puts.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

#: Tokens of the tests' vocabularies that are one printable character: of GGUF files made directly,
#: and of converted checkpoints.
LETTER, CONVERTED_LETTER = 70, 36


def serve(path: str | Path, context: int):
    """A server of a file, which computes in float32 and keeps all of the context."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(path), context, 1
    params.n_batch = params.n_ubatch = context
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.swa_full, params.warmup, params.fit_params, params.verbosity = True, False, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def next_log_probabilities(server, prompts: list, letter: int) -> list[list[float | None]]:
    """Of every token after each prompt; None where llama.cpp names no number for a token.

    A plain letter is made to be drawn, since of an end or of bytes of half a character nothing is
    told; the log-probabilities that are told are of before.
    """
    following = []
    for ids in prompts:
        said = server.handle_completions(
            {
                "prompt": ids,
                "max_tokens": 1,
                "logprobs": 100_000,
                "cache_prompt": False,
                "temperature": 0,
                "logit_bias": [[letter, 100.0]],
            }
        )
        if "choices" not in said:
            raise RuntimeError(f"llama.cpp says {json.dumps(said)[:500]}")
        first = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = {entry["id"]: entry["logprob"] for entry in first}
        following.append([found.get(token) for token in range(max(found) + 1)])
    return following


def answer(path: str, context: int, prompts: list, texts: list) -> dict:
    server = serve(path, context)
    following = next_log_probabilities(server, prompts, LETTER)
    tokens = []
    for text in texts:
        body = json.dumps({"content": text, "add_special": True}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, headers)
        with urllib.request.urlopen(request) as reply:
            tokens.append(json.load(reply)["tokens"])
    return {"next": following, "tokens": tokens}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as handle:
        answers = [answer(**asked) for asked in json.load(handle)]
    print("answers:" + json.dumps(answers), flush=True)
