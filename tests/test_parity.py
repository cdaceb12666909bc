"""The same log-likelihoods and the same right and wrong answers as lm-evaluation-harness."""

import importlib.util
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SHARED, make_tokenizer, need
from phaseprune.decoder.load import load_model
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_pair

if importlib.util.find_spec("lm_eval") is None and os.environ.get("CI") != "true":
    pytest.skip("lm_eval is not installed", allow_module_level=True)

from harness import FILES, claimed_and_found, parity  # noqa: E402

#: Options' log-likelihoods, fp32.
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def assert_same(found):
    assert found.difference <= TOLERANCE
    np.testing.assert_array_equal(found.our_accuracy, found.accuracy)
    np.testing.assert_array_equal(found.our_normalised, found.normalised)


@pytest.mark.parametrize("scoring", ["letter", "text"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.real
def test_the_bundled_model_on_every_data_set(demo, tmp_path, name, scoring):
    """0-shot, and 3-shot, where many contexts are longer than the model takes and are cut."""
    need(SHARED / f"{FILES[name][0]}.jsonl")
    every = 40 if name == "mmlu" else 1
    assert_same(parity(demo, SHARED, name, scoring, 0, 24, tmp_path / "zero", every))
    assert_same(parity(demo, SHARED, name, scoring, 3, 12, tmp_path / "three", every))


@pytest.mark.real
def test_chat_templates(tmp_path):
    """Turns for the examples, no space before what is scored, special tokens only once."""
    need(SHARED / "arc_easy.test.jsonl")
    model = load_model("demo")
    model.tokenizer.chat_template = (
        "{{ eos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    for scoring, shots in (("letter", 2), ("text", 0)):
        chat = dict(apply_chat_template=True, fewshot_as_multiturn=True)
        assert_same(parity(model, SHARED, "arc_easy", scoring, shots, 12, tmp_path, **chat))


@pytest.fixture(scope="module")
def real_model(smollm2):
    return load_model(str(smollm2))


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "scoring", "shots", "count"),
    [
        ("arc_challenge", "text", 0, 40),
        ("arc_challenge", "text", 5, 8),
        ("openbookqa", "letter", 0, 40),
        ("openbookqa", "letter", 5, 8),
    ],
)
def test_a_real_model(real_model, tmp_path, name, scoring, shots, count):
    """Two data sets; `make parity` has the whole matrix."""
    need(SHARED / f"{FILES[name][0]}.jsonl")
    assert_same(parity(real_model, SHARED, name, scoring, shots, count, tmp_path))


@pytest.mark.slow
def test_the_exported_model_in_lm_eval_has_the_accuracy_that_the_run_claims(demo, tmp_path):
    """On every evaluation question, after pruning and reloading from disk."""
    task = load_task("demo", limit=60)
    claimed, found = claimed_and_found(demo, task, tmp_path, remove=3, calibration=20)
    assert claimed == found and len(found) == 40


@pytest.mark.real
@pytest.mark.parametrize(("name", "scoring"), [("arc_challenge", "text"), ("openbookqa", "letter")])
def test_the_same_of_a_real_model(real_model, tmp_path, name, scoring):
    path = need(SHARED / f"{FILES[name][0]}.jsonl")
    task = load_task(str(path), scoring=scoring, limit=40)
    claimed, found = claimed_and_found(real_model, task, tmp_path, remove=2, calibration=4)
    assert claimed == found and len(found) == 36


@pytest.fixture(scope="module")
def theirs():
    """lm-eval's own tokenising of pairs, over the tests' small tokenizer."""
    from lm_eval.models.huggingface import HFLM

    class Tokenising(HFLM):
        def __init__(self, tokenizer):
            self.tokenizer, self.backend = tokenizer, "causal"
            self.add_bos_token = self.custom_prefix_token_id = None

    return Tokenising(make_tokenizer())


TEXT = st.text(st.sampled_from("ABC bluegrn sky.\n\té中🙂"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(context=TEXT, continuation=TEXT)
def test_pairs_are_cut_where_lm_eval_cuts(theirs, context, continuation):
    """Also where the tokenizer merges across the boundary."""
    assert encode_pair(theirs.tokenizer, "Q" + context, continuation) == theirs._encode_pair(
        "Q" + context, continuation
    )


def test_the_merging_case_is_real(theirs):
    """`blu` + `e`: the whole has one token, the context alone three."""
    before, after = encode_pair(theirs.tokenizer, "snow blu", "e sky")
    assert (before, after) == theirs._encode_pair("snow blu", "e sky")
    assert before + after != theirs.tokenizer("snow blue sky")["input_ids"]
