"""The README's and the docs' own commands and code run."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import phaseprune
from conftest import QUESTIONS, write_jsonl
from phaseprune.cli.main import COMMANDS, main
from phaseprune.decoder import source

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """Lines ``$ phaseprune …`` of a page's console blocks."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S):
        for line in block.splitlines():
            if line.startswith("$ phaseprune "):
                yield shlex.split(line.removeprefix("$ phaseprune "), comments=True)


@pytest.mark.slow
def test_the_commands_of_the_readme_and_the_guide(tmp_path, monkeypatch, capsys):
    """In order, in one directory; the bundled model stands in for the hub's."""
    demo = Path(phaseprune.__file__).parent / "demo" / "model"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "_from_hub", lambda *arguments: demo)
    write_jsonl(
        tmp_path / "questions.jsonl",
        [
            dict(row, question=f"{row['question']} {number}?")
            for number in range(30)
            for row in QUESTIONS
        ],
    )
    found = [words for page in ("README.md", "docs/guide.md") for words in commands(ROOT / page)]
    assert len(found) >= 20
    for words in found:
        monkeypatch.setattr("sys.argv", ["phaseprune", *words])
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        assert not ended.value.code, f"phaseprune {shlex.join(words)}: {captured.err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(block, str(page), "exec"), {})


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "tour.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 8 and all(cell["execution_count"] for cell in cells)
    names: dict = {}
    for cell in cells:
        text = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(text, "tour.ipynb", "exec"), names)
    assert names["pruning"].removed and (tmp_path / "pruned-model" / "config.json").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"phaseprune {command}" in text, command


def test_the_make_targets_exist():
    text = (ROOT / "README.md").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in text
        if shutil.which("make"):
            done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True)
            assert done.returncode == 0
    assert "make test" in (ROOT / ".ci" / "run").read_text()
