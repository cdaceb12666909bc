"""Trains the demo model and writes it with its held-out questions: `python training/train.py`."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evaluate import Batch, encode, label_ids, option_probabilities, results
from forward import head, readouts
from tokenizer import save_tokenizer, train_tokenizer
from world import KINDS, Question, World

HERE = Path(__file__).resolve().parent
BATCH, LENGTH = 128, 31
STEPS, WARM_UP, PEAK = 2_400, 150, 2e-3
PER_KIND = dict.fromkeys(KINDS, 168) | {"fact": 164, "comparison": 164}


@dataclass(frozen=True)
class Stage:
    """A group of question kinds, trained on until they are answered well enough.

    Attributes:
        name: For the progress line.
        kinds: What is asked.
        until: The training accuracy, the mean over the kinds, that ends the stage.
        cap: The share of all steps after which the stage ends in any case.
    """

    name: str
    kinds: tuple[str, ...]
    until: float = 2.0
    cap: float = 1.0


# Without a pure copy exercise first, the binding of letters to options does not emerge; and the
# questions that look up and compare several facts are learned once the facts are there.
STAGES = (
    Stage("copy", ("copy",), until=0.9, cap=0.2),
    Stage("basics", ("fact", "category", "negation", "comparison"), until=0.9, cap=0.3),
    Stage("all", KINDS),
)


def weight(accuracy: float) -> float:
    """Returns how often a kind is asked, relative to the others: the more, the worse it goes.

    With fixed shares, negation stayed at chance for 2,000 steps while facts and categories, long
    since learned, took up most of each batch.
    """
    return 1.1 - accuracy


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Returns the untrained model: many narrow blocks, so that the depth has to be used."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=14,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # The usual 0.02 is far too small for this width: attention starts out uniform, and after
        # 600 steps the copy exercise was still at chance. With 0.1 it is learned in 300.
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """Rises over the warm-up, stays flat to 65 % of the run, then falls linearly to 3 %."""
    fall = max(0.0, (step / steps - 0.65) / 0.35)
    return PEAK * min((step + 1) / WARM_UP, 1.0 - 0.97 * fall)


def make_loss(model: LlamaForCausalLM, end: int) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """Returns the compiled loss: of a batch, the mean loss and the logits of the answers."""

    def loss(ids: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        *_, hidden = readouts(model, ids)
        rows = torch.arange(len(ids))
        answers = head(model, hidden[rows, last])
        ends = head(model, hidden[rows, last + 1])
        # Only the letter counts; a little of the loss goes to ending the text after it.
        ended = F.cross_entropy(ends, torch.full_like(last, end))
        return F.cross_entropy(answers, ids[rows, last + 1]) + 0.05 * ended, answers

    compiled = torch.compile(loss, dynamic=False)
    return lambda batch: compiled(batch.ids, batch.last)


def by_kind(model: LlamaForCausalLM, labels: Tensor, probe: dict[str, Batch]) -> str:
    """Returns the accuracy of each kind, for the progress line."""
    texts = []
    for kind, batch in probe.items():
        found = option_probabilities(model, labels, batch, last_only=True)[0].argmax(-1)
        texts.append(f"{kind} {(found == batch.gold.numpy()).mean():.2f}")
    return ", ".join(texts)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    seed: int,
    steps: int,
    save: Callable[[], None],
) -> None:
    """Trains for a fixed number of steps; the stages switch by measured training accuracy."""
    rng = random.Random(f"training-{seed}")
    held_out = world.evaluation(random.Random(f"probe-{seed}"), dict.fromkeys(KINDS, 64))
    probe = {k: encode(tokenizer, [q for q in held_out if q.kind == k]) for k in KINDS}
    labels = label_ids(tokenizer)
    loss_of = make_loss(model, tokenizer.eos_token_id)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK, fused=True)
    stages = list(STAGES)
    accuracy: dict[str, float] = {}
    began = time.perf_counter()
    for step in range(steps):
        if not accuracy:
            accuracy = dict.fromkeys(stages[0].kinds, 0.25)
            mix = {kind: weight(a) for kind, a in accuracy.items()}
            stream = world.training(rng, mix)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        questions = [next(stream) for _ in range(BATCH)]
        batch = encode(tokenizer, questions, LENGTH)
        loss, answers = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

        right = (answers.detach()[:, labels].argmax(-1) == batch.gold).tolist()
        for kind in accuracy:
            asked = [r for r, q in zip(right, questions, strict=True) if q.kind == kind]
            if asked:
                accuracy[kind] += 0.05 * (sum(asked) / len(asked) - accuracy[kind])
            mix[kind] = weight(accuracy[kind])
        if step % 50 == 49 or step == steps - 1:
            left = (time.perf_counter() - began) / (step + 1) * (steps - step - 1)
            shown = " ".join(f"{kind} {a:.2f}" for kind, a in accuracy.items())
            print(
                f"step {step + 1}/{steps}  loss {loss.item():.3f}  {shown}  "
                f"{left / 60:.1f} min left",
                flush=True,
            )
        if step % 500 == 499:
            save()
            print(f"  held out: {by_kind(model, labels, probe)}", flush=True)
        stage = stages[0]
        done = sum(accuracy.values()) / len(accuracy) >= stage.until or step >= stage.cap * steps
        if done and len(stages) > 1:
            stages.pop(0)
            accuracy = {}


def write_questions(questions: Sequence[Question], path: Path) -> None:
    """Writes the held-out questions, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for number, q in enumerate(questions):
            row = {"id": f"{q.kind}-{number:04d}", "question": q.question}
            row |= {"choices": list(q.choices), "answer": q.answer, "kind": q.kind}
            file.write(json.dumps(row) + "\n")


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Saves the model, readable by all like the files beside it."""
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


@torch.no_grad()
def check(folder: Path, model: LlamaForCausalLM, batch: Batch) -> float:
    """Loads the saved model and returns how far its logits are from those trained on."""
    saved = LlamaForCausalLM.from_pretrained(folder)
    *_, hidden = readouts(model, batch.ids)
    difference = (saved(batch.ids).logits - head(model, hidden)).abs().max().item()
    if difference > 1e-3:
        raise RuntimeError(f"the saved model differs from the trained one by {difference}")
    return difference


def main() -> None:
    """Runs the whole recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=HERE.parent / "src/phaseprune/demo")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    began, cpu = time.perf_counter(), time.process_time()

    world = World(options.seed)
    tokenizer = train_tokenizer(world, options.seed)
    questions = world.evaluation(random.Random(f"evaluation-{options.seed}"), PER_KIND)
    folder = options.out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    write_questions(questions, options.out / "questions.jsonl")

    model = build(tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, vocabulary {len(tokenizer)}", flush=True)
    train(
        model,
        tokenizer,
        world,
        options.seed,
        options.steps,
        save=lambda: save_model(model, folder),
    )
    save_model(model, folder)
    difference = check(folder, model, encode(tokenizer, questions[:64]))
    minutes, cpu_minutes = (time.perf_counter() - began) / 60, (time.process_time() - cpu) / 60
    text = (
        "# What the bundled model shows\n\n"
        f"Written by `train.py --seed {options.seed} --steps {options.steps}` on "
        f"{len(questions)} held-out questions.\n"
        f"{parameters:,} parameters in {model.config.num_hidden_layers} blocks, vocabulary "
        f"{len(tokenizer)}. Trained in {minutes:.1f} minutes\n"
        f"({cpu_minutes:.1f} minutes of processor time, 2 threads). Largest difference between "
        f"the logits of the\nsaved model and of the training code: {difference:.1e}.\n\n"
    )
    text += results(model, tokenizer, questions)
    options.results.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
