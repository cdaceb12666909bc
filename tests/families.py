"""The whole job on one tiny random model of any family, against an obvious way of skipping blocks.

Tests and ``benchmarks/families.py`` use it. Nothing of phaseprune is trusted here: blocks are
skipped by forward hooks on the model's own forward, and checkpoints are loaded by transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from conftest import QUESTIONS, make_tokenizer, write_jsonl
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.export import export
from phaseprune.decoder.load import load_model
from phaseprune.errors import UserError
from phaseprune.questions.catalog import load_task
from phaseprune.questions.encode import encode_task
from phaseprune.sweep.measure import prepare
from phaseprune.sweep.trace import trace
from phaseprune.sweep.walk import sweep_scores
from tiny_configs import tiny_config

TOLERANCE = 1e-4


class Unusable(Exception):
    """transformers itself cannot build such a model here, or run it: nothing is left to test."""


def save_family(model_type: str, folder: Path, seed: int = 0) -> Path:
    """A tiny random model whose blocks all matter, saved by transformers, and a tokenizer."""
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(tiny_config(model_type)).eval()
    except Exception as error:
        raise Unusable(f"{type(error).__name__}: {error}") from error
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.mul_(4)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def check_itself(folder: Path) -> None:
    """The saved model, loaded by transformers alone, must run and generate alike with its cache."""
    try:
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokens = random_tokens()
        allowed = TOLERANCE * max(1.0, float(model(input_ids=tokens).logits.abs().max()))
        differs = generation_difference(model, tokens)
    except Exception as error:
        raise Unusable(f"the whole model fails, {type(error).__name__}: {error}") from error
    if differs > 10 * allowed:
        raise Unusable("the whole model generates otherwise with its cache than without")


@contextmanager
def skipped_by_hooks(blocks, removed: Collection[int]):
    """Let the given blocks return what they were given, whatever form their output has."""

    def unchanged(module, args, kwargs, output):
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden

    handles = [
        blocks[index].register_forward_hook(unchanged, with_kwargs=True) for index in removed
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_tokens(length: int = 24) -> torch.Tensor:
    """``[2, length]`` random tokens."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(4, 300, (2, length), generator=generator)


@torch.no_grad()
def check_trace(decoder: Decoder, folder: Path) -> None:
    """The trace's last readout must be what the whole model says of each option."""
    for scoring in ("letter", "text"):
        task = load_task(str(_questions(folder)), scoring=scoring)
        found = trace(decoder, task).raw_scores[:, -1]
        expected = plain_scores(decoder, task)
        for row, scores in zip(found, expected, strict=True):
            np.testing.assert_allclose(row[: len(scores)], scores, atol=5 * TOLERANCE, rtol=1e-4)


@torch.no_grad()
def check_sweep(decoder: Decoder, folder: Path, live: Sequence[int] | None = None) -> None:
    """Each candidate's scores must be those of the whole model with its block skipped."""
    blocks = len(decoder.blocks)
    live = list(range(blocks)) if live is None else list(live)
    gone = set(range(blocks)) - set(live)
    for scoring in ("letter", "text"):
        task = load_task(str(_questions(folder)), scoring=scoring, limit=4)
        prepared = prepare(decoder, task)
        sweep = sweep_scores(decoder, prepared.rows, prepared.needs_vocabulary, live)
        for candidate, block in enumerate(live):
            with skipped_by_hooks(decoder.blocks, gone | {block}):
                expected = plain_scores(decoder, task)
            for row, scores in zip(sweep.scores[candidate], expected, strict=True):
                np.testing.assert_allclose(
                    row[: len(scores)], scores, atol=5 * TOLERANCE, rtol=1e-4
                )


@torch.no_grad()
def check_export(decoder: Decoder, removed: Sequence[int], out: Path) -> None:
    """The checkpoint, loaded by transformers, must say what the model says that skips the blocks.

    Also with the KV cache: a prompt and then one token at a time.
    """
    exported = export(decoder, removed, out)
    plain, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"], report["missing_keys"]
    plain.eval()
    tokens = random_tokens()
    with skipped_by_hooks(decoder.blocks, set(removed)):
        expected = decoder.model(input_ids=tokens, use_cache=False).logits
    found = plain(input_ids=tokens, use_cache=False).logits
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= allowed, "logits differ"
    if not exported.generated_tokens:  # nor does the full model generate exactly with the cache
        return
    differs = generation_difference(plain, tokens)
    assert differs <= 10 * allowed, "generation differs with and without the cache"


@torch.no_grad()
def generation_difference(model, tokens: torch.Tensor) -> float:
    """0 if generation is the same with and without the KV cache, else how near the choice was.

    That is the least difference between the best two logits at any generated position.
    """
    # No padding inside the text: RoBERTa's positions skip it, with and without the cache otherwise.
    never = special_tokens(model)
    model.generation_config.forced_eos_token_id = None
    settings = dict(
        max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0, suppress_tokens=never
    )
    cached = model.generate(tokens, **settings)
    plain = model.generate(tokens, **settings, use_cache=False)
    if torch.equal(cached, plain):
        return 0.0
    said = model(input_ids=plain, use_cache=False).logits[:, tokens.shape[1] - 1 : -1]
    said[..., never] = -torch.inf
    best = said.topk(2).values
    return float((best[..., 0] - best[..., 1]).min())


def special_tokens(model) -> list[int]:
    """The tokens for padding and for the end of a text."""
    stated = [model.generation_config.eos_token_id]
    for config in (model.config, model.config.get_text_config(decoder=True)):
        stated += [getattr(config, f"{name}_token_id", None) for name in ("pad", "eos")]
    flat = [t for each in stated for t in (each if isinstance(each, list) else [each])]
    return sorted({token for token in flat if token is not None and 0 <= token < 320})


def plain_scores(decoder: Decoder, task) -> list[np.ndarray]:
    """Scores of each question's options, one whole forward an option."""
    scores = []
    for question in encode_task(task, decoder.tokenizer, decoder.max_length):
        row = []
        for ending in question.continuations:
            ids = torch.tensor([question.context + ending])
            logits = decoder.model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()
            logits = logits[-len(ending) :]
            if task.scoring == "text":
                logits = logits.log_softmax(-1)
            row.append(float(logits.gather(1, torch.tensor(ending)[:, None]).sum()))
        scores.append(np.array(row))
    return scores


def _questions(folder: Path) -> Path:
    path = folder / "questions.jsonl"
    return path if path.exists() else write_jsonl(path, QUESTIONS)


def whole_job(model_type: str, folder: Path, removals: Sequence[Sequence[int]]) -> dict[str, str]:
    """What works for a family: ``load``, ``trace``, ``sweep`` and ``export``, each with its reason.

    Each value is ``works``, ``partly: SENTENCES`` (some removals are refused), ``refused:
    SENTENCE``, ``unusable: ERROR`` (in transformers itself), or ``failed: ERROR``; what comes after
    a part that does not work is missing.
    """
    found: dict[str, str] = {}
    state: dict[str, Decoder] = {}

    def load() -> None:
        check_itself(save_family(model_type, folder / "model"))
        state["decoder"] = load_model(str(folder / "model"))

    def sweeps() -> None:
        check_sweep(state["decoder"], folder)
        check_sweep(state["decoder"], folder, range(1, len(state["decoder"].blocks), 2))

    def exports() -> str | None:
        refused = {}
        for number, removed in enumerate(removals):
            try:
                check_export(state["decoder"], removed, folder / f"pruned-{number}")
            except UserError as error:
                refused[str(list(removed))] = error
        if len(refused) == len(removals):
            raise next(iter(refused.values()))
        first = next(iter(refused.values()), None)
        return first and f"not without {' or '.join(refused)}, for the first of which: {first}"

    parts = {
        "load": load,
        "trace": lambda: check_trace(state["decoder"], folder),
        "sweep": sweeps,
        "export": exports,
    }
    for name, part in parts.items():
        try:
            refused = part()
            found[name] = f"partly: {refused}".replace(str(folder), "") if refused else "works"
        except Unusable as error:
            found[name] = f"unusable: {' '.join(str(error).split())[:200]}"
        except UserError as error:
            found[name] = f"refused: {error}".replace(str(folder), "")
        except Exception as error:  # noqa: BLE001 - what this is made to find
            text = " ".join(str(error).split())[:300]
            found[name] = f"failed: {type(error).__name__}: {text}".replace(str(folder), "")
        if found[name] != "works":
            break
    return found
