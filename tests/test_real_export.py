"""SmolLM2-135M without 8 of its 30 blocks, in the hands of other programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.decoder.pruned_weights import write_kept_weights
from phaseprune.decoder.saving import measure_saving

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from exported import REMOVED, block_bytes  # noqa: E402

pytestmark = pytest.mark.real
KEPT = [block for block in range(30) if block not in REMOVED]
PROMPT = "The sky is"


@pytest.fixture(scope="module")
def decoder(smollm2):
    return load_model(str(smollm2))


@pytest.fixture(scope="module")
def exported(decoder, tmp_path_factory):
    return export(decoder, REMOVED, tmp_path_factory.mktemp("real") / "pruned")


@pytest.fixture(scope="module")
def plain_copy(decoder, tmp_path_factory):
    """The full model as safetensors, for programs that read no GGUF."""
    folder = tmp_path_factory.mktemp("plain")
    write_kept_weights(decoder, range(30), folder)
    decoder.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config")
    config["architectures"] = ["LlamaForCausalLM"]  # a GGUF file states none
    (folder / "config.json").write_text(json.dumps(config))
    decoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_process_with_nothing_but_transformers(exported):
    assert exported.kept == KEPT and exported.max_abs_logit_difference <= 1e-3
    code = (
        "import sys; sys.modules['phaseprune'] = None\n"
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"model, tokenizer = (c.from_pretrained({exported.path!r}) for c in (M, T))\n"
        f"ids = tokenizer({PROMPT!r}, return_tensors='pt').input_ids\n"
        "new = model.generate(ids, do_sample=False, min_new_tokens=8, max_new_tokens=8)\n"
        "print(len(model.model.layers), new[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("22 [")


def test_the_tensors_are_those_of_the_kept_blocks(decoder, exported):
    written = load_file(Path(exported.path) / "model.safetensors")
    held = decoder.model.state_dict()
    for number, block in enumerate(KEPT):
        name = "model.layers.{}.self_attn.q_proj.weight"
        assert torch.equal(written[name.format(number)], held[name.format(block)])
    assert "model.embed_tokens.weight" in written and "lm_head.weight" not in written  # tied


def test_the_size_falls_by_the_removed_blocks(decoder, exported):
    per_block = {sum(p.nbytes for p in block.parameters()) for block in decoder.blocks}
    whole = sum(p.nbytes for p in decoder.model.parameters())
    assert len(per_block) == 1
    written, _ = block_bytes(Path(exported.path))
    assert whole - written == len(REMOVED) * per_block.pop()
    on_disk = (Path(exported.path) / "model.safetensors").stat().st_size
    assert written == exported.weight_bytes and on_disk - written < 100_000


@pytest.mark.slow
def test_it_generates_faster(decoder, exported):
    saving = measure_saving(decoder, exported.path, repeats=3, prompt_tokens=16, new_tokens=24)
    assert saving.decode.median > 1


@pytest.mark.slow
def test_lm_eval_scores_it_as_phaseprune_does(exported, arc_easy, tmp_path):
    pytest.importorskip("lm_eval")
    from harness import parity

    found = parity(load_model(exported.path), arc_easy.parent, "arc_easy", "text", 0, 8, tmp_path)
    assert found.difference < 1e-2  # sums of up to 20 log-probabilities of size 10
    assert (found.accuracy == found.our_accuracy).all()
    assert (found.normalised == found.our_normalised).all()


@pytest.mark.slow
@pytest.mark.mergekit
def test_mergekit_makes_the_same_tensors(plain_copy, tmp_path):
    export(load_model(str(plain_copy)), REMOVED, tmp_path / "ours")
    subprocess.run(
        [mergekit_program(), str(tmp_path / "ours/mergekit.yaml"), str(tmp_path / "theirs")],
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    ours, theirs = (
        {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}
        for folder in (tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def mergekit_program() -> str:
    """In PATH, or named by MERGEKIT_YAML; it wants an environment of its own."""
    program = os.environ.get("MERGEKIT_YAML") or shutil.which("mergekit-yaml")
    return program or pytest.skip("mergekit-yaml is not installed")


#: llama.cpp through whichever binding is there; prints what it generates.
RUN_GGUF = """
import sys
path, ids = sys.argv[1], [int(i) for i in sys.argv[2].split(",")]
try:
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = path, 256
    asked = {"prompt": ids, "n_predict": 8, "max_tokens": 8, "temperature": 0}
    answer = xllamacpp.Server(params).handle_completions(asked)
except ImportError:
    import llama_cpp
    model = llama_cpp.Llama(path, n_ctx=256, verbose=False)
    answer = model.create_completion(ids, max_tokens=8, temperature=0)
print("said:" + answer["choices"][0]["text"])
"""


@pytest.mark.llama_cpp
def test_llama_cpp_converts_and_runs_it(exported, tmp_path):
    """LLAMA_CPP names a llama.cpp checkout, LLAMA_CPP_PYTHON a Python with a binding (or ours)."""
    converter = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "convert_hf_to_gguf.py"
    if not converter.is_file():
        pytest.skip("LLAMA_CPP names no llama.cpp checkout with convert_hf_to_gguf.py")
    python = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    imports = (
        "import importlib.util as u; assert u.find_spec('xllamacpp') or u.find_spec('llama_cpp')"
    )
    if subprocess.run([python, "-c", imports], capture_output=True).returncode:
        pytest.skip("neither xllamacpp nor llama-cpp-python is installed")
    tokenizer = AutoTokenizer.from_pretrained(exported.path)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    plain = AutoModelForCausalLM.from_pretrained(exported.path).eval()
    new = plain.generate(ids, do_sample=False, min_new_tokens=8, max_new_tokens=8)
    gguf = tmp_path / "pruned.gguf"
    convert = [str(converter), exported.path, "--outfile", str(gguf), "--outtype", "f32"]
    run = ["-c", RUN_GGUF, str(gguf), ",".join(map(str, ids[0].tolist()))]
    for words in (convert, run):
        done = subprocess.run([python, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split("said:")[1].rstrip("\n") == tokenizer.decode(new[0, ids.shape[1] :])
