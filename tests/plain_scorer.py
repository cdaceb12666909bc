"""Scores multiple-choice questions with plain transformers; knows nothing of phaseprune.

    python plain_scorer.py CHECKPOINT QUESTIONS.jsonl

Text scoring, zero-shot, lm-eval's ARC prompt, one forward for each (question, option). Prints one
JSON object: the accuracy, and a 1 or 0 for each question. Tests and benchmarks run it in a process
of its own to see that an exported checkpoint needs nothing of ours.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main(checkpoint: str, questions: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    flags = ""
    for line in Path(questions).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        context = f"Question: {row['question']}\nAnswer:"
        start = len(tokenizer(context)["input_ids"])
        scores = []
        for choice in row["choices"]:
            ids = tokenizer(f"{context} {choice}", return_tensors="pt")["input_ids"]
            log_p = model(ids[:, :-1]).logits[0].log_softmax(-1)
            targets = ids[0, start:]
            scores.append(float(log_p[start - 1 :].gather(-1, targets[:, None]).sum()))
        flags += "1" if max(range(len(scores)), key=scores.__getitem__) == row["answer"] else "0"
    assert "phaseprune" not in sys.modules
    print(json.dumps({"accuracy": flags.count("1") / len(flags), "correct": flags}))


if __name__ == "__main__":
    main(*sys.argv[1:])
