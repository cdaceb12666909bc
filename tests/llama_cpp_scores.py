"""What llama.cpp says of some prompts; run by a Python that has its binding, ``xllamacpp``.

    python llama_cpp_scores.py ASKED.json

ASKED.json is a list of {path, context, prompts, texts}: a GGUF file, the context to run with, lists
of token ids, and texts. Prints a list of {next, tokens} as JSON, one a file: the log-probability of
every token after each prompt, and each text's tokens with the special ones that llama.cpp puts.
"""

import json
import sys
import urllib.request

import xllamacpp

#: A token of the tests' vocabularies that is one printable character.
LETTER = 70


def answer(path: str, context: int, prompts: list, texts: list) -> dict:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = path, context, 1
    params.n_batch = params.n_ubatch = context
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.swa_full, params.warmup, params.fit_params, params.verbosity = True, False, False, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    following = []
    for ids in prompts:
        # A plain letter is made to be drawn: bytes of half a character would not be told of.
        asked = {"prompt": ids, "max_tokens": 1, "logprobs": 100_000, "cache_prompt": False,
                 "temperature": 0, "logit_bias": [[LETTER, 100.0]]}
        said = server.handle_completions(asked)
        if "choices" not in said:
            raise RuntimeError(f"{path}: {json.dumps(said)[:500]}")
        first = said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = {entry["id"]: entry["logprob"] for entry in first}
        following.append([found.get(token) for token in range(max(found) + 1)])
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
