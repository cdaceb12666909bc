"""Exports in the hands of other programs: family x (transformers 4.57 and 5, llama.cpp, lm-eval,
mergekit).

    make interop-table     (or: python benchmarks/interop.py [--families llama3,gemma2] [--out F])

Tiny random models are written by transformers 4.57 in an environment of its own, as checkpoints of
the hub are, pruned here, and read by each program, the unpruned source beside the export. Where a
program reads the source otherwise than transformers 5 does, that is no difference of the export's;
it is told as one of the source. Prints a table in Markdown with the largest difference of the
logits (of llama.cpp and lm-eval: of log-probabilities).
"""  # noqa: D205

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/interop"))

from as_gguf import LENGTHS  # noqa: E402
from old_models import FAMILIES, tokens  # noqa: E402

PYTHON = Path(os.environ.get("INTEROP_PYTHON", ROOT / ".venv-interop/bin/python"))
CONVERTER = Path(os.environ.get("LLAMA_CPP", ROOT / ".venv-interop/llama.cpp"))
REMOVED = (1, 4)
#: As a share of the largest logit. Gemma 2's soft cap is computed in another order in 4.57.
TOLERANCE = 1e-3
PROGRAMS = ("transformers 4.57", "transformers 5", "llama.cpp", "lm-eval", "mergekit")


@dataclass
class Work:
    """Where the checkpoints of a run are, and what programs said of them.

    Attributes:
        folder: of everything.
        names: the families.
        said: program -> folder -> what it gave, or an error in words.
        exact: name -> how near the export is to the whole model that skips its blocks, in
            transformers 5.
        warned: names of exports of which llama.cpp was said to make another model.
        removed: name -> the blocks that are not in its export.
    """

    folder: Path
    names: list[str]
    said: dict[str, dict[str, np.ndarray | str]] = field(default_factory=dict)
    exact: dict[str, float] = field(default_factory=dict)
    warned: set[str] = field(default_factory=set)
    removed: dict[str, list[int]] = field(default_factory=dict)

    def source(self, name: str) -> Path:
        """The source of an export, whose name may have ``+period`` behind it."""
        return self.folder / "sources" / name.partition("+")[0]

    def export(self, name: str) -> Path:
        return self.folder / "exports" / name


def in_interop(script: str, *arguments: str | Path) -> None:
    """Run a script of ``tests/interop`` in the environment of transformers 4.57."""
    done = subprocess.run(
        [str(PYTHON), str(ROOT / "tests/interop" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )
    if done.returncode:
        raise RuntimeError(f"{script} {arguments[:1]} failed: {done.stderr[-2000:]}")


def make(folder: Path, names: Sequence[str]) -> Work:
    """Write the sources in transformers 4.57, and prune each in transformers 5."""
    from phaseprune.decoder.export import export, model_pattern
    from phaseprune.decoder.load import load_model

    work = Work(folder, list(names))
    in_interop("old_models.py", "write", folder / "sources", "--families", ",".join(names))
    for name in names:
        decoder = load_model(str(work.source(name)))
        work.removed[name] = list(REMOVED)
        pattern = model_pattern(decoder)
        if pattern is not None:  # the same with a whole period gone
            period = list(range(1, 1 + pattern.period))
            if len(period) < len(decoder.blocks) - 1:
                work.removed[f"{name}+period"] = period
        for made in (one for one in work.removed if one.partition("+")[0] == name):
            exported = export(decoder, work.removed[made], work.export(made))
            work.exact[made] = exported.max_abs_logit_difference
            if exported.warnings:
                work.warned.add(made)
    return work


def checkpoints(work: Work) -> list[Path]:
    """All sources and exports."""
    return [*(work.source(name) for name in work.names), *map(work.export, work.removed)]


def _take(work: Work, program: str, path: Path, key: str) -> None:
    with np.load(path) as found:
        for entry in found:
            folder, what = entry.split("|")
            if what in (key, "error"):
                value = found[entry]
                work.said.setdefault(program, {})[folder] = str(value) if what == "error" else value


def read_both(work: Work) -> None:
    """Logits of all checkpoints in transformers 4.57 and 5."""
    from old_models import read

    in_interop("old_models.py", "read", *checkpoints(work), "--out", work.folder / "four.npz")
    read(checkpoints(work), work.folder / "five.npz")
    _take(work, PROGRAMS[0], work.folder / "four.npz", "logits")
    _take(work, PROGRAMS[1], work.folder / "five.npz", "logits")


def read_llama_cpp(work: Work) -> None:
    """Log-probabilities of all checkpoints, converted by llama.cpp's converter."""
    if not (CONVERTER / "convert_hf_to_gguf.py").is_file():
        return
    out = work.folder / "llama_cpp.npz"
    in_interop("as_gguf.py", CONVERTER, *checkpoints(work), "--out", out)
    _take(work, "llama.cpp", out, "llama.cpp")


def read_lm_eval(work: Work) -> None:
    """Log-probabilities of some continuations by lm-eval's own class."""
    from lm_eval.models.huggingface import HFLM

    ids = tokens()[0].tolist()
    for folder in checkpoints(work):
        try:
            model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
            asked = [(("", ""), ids[:length], ids[length : length + 3]) for length in LENGTHS]
            said = model._loglikelihood_tokens(asked, disable_tqdm=True)
            found: np.ndarray | str = np.array([score for score, _ in said])
        except Exception as error:  # noqa: BLE001 - told in the table
            found = f"{type(error).__name__}: {error}"[:200]
        work.said.setdefault("lm-eval", {})[str(folder)] = found


def run_mergekit(work: Work) -> None:
    """Whether mergekit cuts the same tensors by the export's ``mergekit.yaml``."""
    from safetensors.numpy import load_file

    program = os.environ.get("MERGEKIT_YAML")
    for name in work.names if program else ():  # a whole period is cut no otherwise
        out = work.folder / "mergekit" / name
        done = subprocess.run(
            [program, str(work.export(name) / "mergekit.yaml"), str(out)],
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        ours = load_file(work.export(name) / "model.safetensors")
        theirs: dict[str, np.ndarray] = {}
        tied = "lm_head.weight"  # mergekit may write a tied head once more
        for path in out.glob("*.safetensors"):
            theirs |= load_file(path)
        same = ours.keys() | {tied} == theirs.keys() | {tied} and all(
            np.array_equal(ours[key], theirs[key]) for key in ours
        )
        last = done.stderr.strip().splitlines()[-1:] or [""]
        said = "equal" if same else "other tensors"
        if done.returncode:
            said = f"{'equal tensors, then ' if same else ''}error: {last[0].strip()[:80]}"
        work.said.setdefault("mergekit", {})[name] = said


def reference(work: Work, program: str, folder: Path) -> np.ndarray | None:
    """What transformers 5 says of a checkpoint in the form in which a program tells it."""
    logits = work.said["transformers 5"].get(str(folder))
    if not isinstance(logits, np.ndarray) or program.startswith("transformers"):
        return logits if isinstance(logits, np.ndarray) else None
    shifted = logits[0] - logits[0].max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    if program == "llama.cpp":
        return log[[length - 1 for length in LENGTHS]]
    ids = tokens()[0]
    return np.array(
        [
            sum(log[place - 1, ids[place]] for place in range(length, length + 3))
            for length in LENGTHS
        ]
    )


def difference(work: Work, program: str, folder: Path) -> tuple[float, float] | str:
    """The largest difference of a program from transformers 5, and what is allowed; or an error."""
    said, ours = work.said.get(program, {}).get(str(folder)), reference(work, program, folder)
    if said is None:
        return "not tried"
    if isinstance(said, str) or ours is None:
        return f"refused: {said}" if isinstance(said, str) else "refused by transformers 5"
    return float(np.abs(said - ours).max()), TOLERANCE * max(1.0, float(np.abs(ours).max()))


def cell(work: Work, program: str, name: str) -> str:
    """A cell of the table."""
    if program == "mergekit":
        return str(work.said.get("mergekit", {}).get(name, "not tried"))
    found = difference(work, program, work.export(name))
    if program == "transformers 5":  # against the whole model that skips the blocks
        found = work.exact[name], TOLERANCE
    if isinstance(found, str):
        return found.split("\n")[0].replace("|", "/")[:90]
    if found[0] <= found[1]:
        return f"equal ({found[0]:.0e})" if found[0] else "equal (0)"
    source = difference(work, program, work.source(name))
    if isinstance(source, str) or source[0] > source[1]:
        return f"differs ({found[0]:.1g}), as its unpruned source"
    warned = ", as the export says" if program == "llama.cpp" and name in work.warned else ""
    return f"**differs** ({found[0]:.1g}){warned}"


def table(work: Work) -> list[str]:
    """The table in Markdown."""
    lines = [f"| export of | {' | '.join(PROGRAMS)} |", "|---" * (len(PROGRAMS) + 1) + "|"]
    for name in work.removed:
        plain = name.replace("+period", ", a whole period removed")
        lines.append(f"| {plain} | {' | '.join(cell(work, one, name) for one in PROGRAMS)} |")
    return lines


def main() -> None:
    from phaseprune.decoder.load import silence_transformers

    parser = argparse.ArgumentParser()
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    silence_transformers()
    with tempfile.TemporaryDirectory() as scratch:
        work = make(Path(scratch), options.families.split(","))
        for read in (read_both, read_llama_cpp, read_lm_eval, run_mergekit):
            read(work)
            print(f"{read.__name__}: done", file=sys.stderr)
        text = "\n".join(table(work)) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
