"""A pruning run and what its models are trained on, checked before any weights are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.mapped import is_map
from phaseprune.errors import UserError
from phaseprune.healing.data import Material, question_material, text_material
from phaseprune.healing.pruned import PrunedRun, open_run
from phaseprune.healing.recipe import Recipe, check_recipe
from phaseprune.questions.question import Task
from phaseprune.questions.training import disjoint_training, training_questions


@dataclass(frozen=True)
class Sources:
    """A pruning run and what its models are trained on.

    Attributes:
        run: the pruning run.
        recipe: how to train.
        training: training questions, None where text is trained on.
        text: plain text, None where questions are.
        dtype: a name that ``load_model`` knows.
        options: of ``load_model`` besides.
    """

    run: PrunedRun
    recipe: Recipe
    training: Task | None
    text: str | None
    dtype: str
    options: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What says on what is trained."""
        trained_on = (
            {"training": self.training.fingerprint, "training_questions": self.counts}
            if self.training
            else {"text": hashlib.sha256(self.text.encode()).hexdigest()}
        )
        return self.recipe.to_dict() | trained_on | {"dtype": self.dtype}

    @property
    def counts(self) -> int:
        """Training questions; 0 where text is trained on."""
        return len(self.training.questions) if self.training else 0

    def material(self, decoder: Decoder) -> Material:
        """What is trained on, as tokens."""
        if self.training:
            return question_material(decoder, self.training)
        return text_material(decoder, self.text)


def prepare_sources(
    run: str | Path,
    recipe: Recipe,
    *,
    train: str | Path | None,
    text: str | Path | None,
    drop_overlap: bool,
    model: str | None,
    dtype: str,
    **options: Any,
) -> Sources:
    """Read and check everything that can be checked without weights; arguments as of ``heal``."""
    check_recipe(recipe)
    if recipe.objective == "text" and text is None:
        raise UserError("--objective=text needs plain text to train on; give it with --text FILE")
    if recipe.objective == "task" and text is not None:
        raise UserError("--text goes with --objective=text or distill; add one, or leave it out")
    if text is not None and train is not None:
        raise UserError("--train and --text both say what to train on; give one of them")
    if is_map(options["device"]):
        raise UserError(
            "healing trains on one device, and a map spreads the model over several; name one, as "
            "--device=cuda"
        )
    pruned = open_run(run, model, options["revision"])
    dtype = pruned.manifest["model"]["dtype"] if dtype == "auto" else dtype
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"training runs in float32 or bfloat16, not {dtype}; give --dtype=bfloat16")
    training = None
    if text is None:
        found = training_questions(pruned.evaluation, train)
        training = disjoint_training(found, pruned.scored, drop_overlap)
    return Sources(
        pruned, recipe, training, None if text is None else _read_text(Path(text)), dtype, options
    )


def _read_text(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"--text {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text {path}: cannot be read as UTF-8 text ({error})") from None
