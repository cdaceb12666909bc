"""The shape of the code: imports run downwards, heavy ones are lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "phaseprune"
#: Each may import the ones below it.
ORDER = ["cli", "replication", "report", "comparison", "pruning", "methods", "probes", "healing",
         "sweep", "decoder", "questions", "decision", "runs", "demo"]  # fmt: skip


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)


def plotting(tree):
    """Nodes inside ``plot`` methods, the one place that may look up, when it is called."""
    return {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "plot"
        for node in ast.walk(function)
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_run_downwards(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return
    tree = ast.parse(path.read_text())
    allowed = plotting(tree)
    for module, node in imported_modules(tree):
        names = module.split(".")
        if names[0] != "phaseprune" or len(names) < 2 or names[1] not in ORDER:
            continue
        if id(node) not in allowed:
            assert ORDER.index(names[1]) >= ORDER.index(parts[0]), f"{path}: imports {module}"


@pytest.mark.parametrize("package", ["decision", "questions", "runs", "report"])
def test_these_know_no_model(package):
    for path in (PACKAGE / package).rglob("*.py"):
        for module, _ in imported_modules(ast.parse(path.read_text())):
            assert module.split(".")[0] not in ("torch", "transformers"), path


def test_only_the_decoder_knows_transformers():
    for path in PACKAGE.rglob("*.py"):
        if "decoder" in path.parts:
            continue
        for module, _ in imported_modules(ast.parse(path.read_text())):
            assert module.split(".")[0] != "transformers", path


def test_importing_the_package_and_the_commands_is_light():
    code = (
        "import sys, phaseprune, phaseprune.cli.main; "
        "print([m for m in ('torch', 'transformers', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist():
    import phaseprune

    for name in phaseprune.__all__:
        assert callable(getattr(phaseprune, name)), name
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = phaseprune.nothing_of_that_name
