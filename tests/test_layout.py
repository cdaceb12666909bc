"""The shape of the code: imports run downwards, heavy ones are lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "phaseprune"
#: Each may import the ones below it.
ORDER = [
    "cli",
    "replication",
    "report",
    "comparison",
    "pruning",
    "methods",
    "probes",
    "healing",
    "sweep",
    "decoder",
    "questions",
    "decision",
    "runs",
    "demo",
]


#: The most arguments of a function. A command has its options, and what the package offers says
#: what can be asked of it; of all others these take more.
MOST_ARGUMENTS = 8
MORE_ARGUMENTS = {
    "comparison.result.conclude_task",
    "decision.trace.summarize",
    "decoder.pruned_weights.write_kept_weights",
    "methods.racing.bound_drift",
    "methods.rank.rank_free",
    "probes.phasewise._score",
    "sweep.walk.sweep_scores",
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported_modules(tree):
    """Names of the modules that are imported, in functions too; for type checkers alone: not."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        below = tree.orelse
    else:
        below = ast.iter_child_nodes(tree)
    if isinstance(tree, ast.ImportFrom) and tree.module:
        whole = (f"{tree.module}.{alias.name}" for alias in tree.names)
        yield from (name if name in MODULES else tree.module for name in whole)
    elif isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    for node in below:
        yield from imported_modules(node)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    own = module.split(".")[1:]
    if len(own) < 2:
        return
    for name in imported_modules(TREES[module]):
        names = name.split(".")
        if names[0] != "phaseprune" or len(names) < 2 or names[1] not in ORDER:
            continue
        assert ORDER.index(names[1]) >= ORDER.index(own[0]), f"{module} imports {name}"


def circles(graph):
    """Groups of two or more modules each of which reaches all others of its group (Tarjan)."""
    number, lowest, stack, found = {}, {}, [], []

    def visit(one):
        number[one] = lowest[one] = len(number)
        stack.append(one)
        for other in graph[one]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[one] = min(lowest[one], lowest[other])
        if lowest[one] == number[one]:
            group = set(stack[stack.index(one) :])
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(group)

    for one in graph:
        if one not in number:
            visit(one)
    return found


def test_circles_are_found():
    assert circles({"a": "b", "b": "c", "c": "b", "d": "a"}) == [{"b", "c"}]
    assert circles({"a": "bc", "b": "d", "c": "d", "d": ""}) == []
    code = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    from c import d"
    assert list(imported_modules(ast.parse(code))) == ["b", "c"]


def test_no_two_modules_import_each_other_in_a_circle():
    graph = {
        name: sorted({one for one in imported_modules(tree) if one in MODULES} - {name})
        for name, tree in TREES.items()
    }
    assert circles(graph) == []


def functions(tree, within=""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{within}.{node.name}" if within else node.name
            if isinstance(node, ast.FunctionDef):
                yield name, node.args
            yield from functions(node, name)
        else:
            yield from functions(node, within)


def test_functions_take_few_arguments():
    """Many arguments that are handed on from function to function are one thing without a name."""
    import phaseprune

    public = {f"{module}.{name}" for name, module in phaseprune._PUBLIC.items()}
    many = set()
    for module, tree in TREES.items():
        for name, takes in functions(tree):
            count = len([*takes.posonlyargs, *takes.args, *takes.kwonlyargs])
            if count > MOST_ARGUMENTS and f"{module}.{name}" not in public:
                many.add(f"{module}.{name}".removeprefix("phaseprune."))
    many = {name for name in many if not name.startswith("cli.")}
    assert many == MORE_ARGUMENTS, "fewer arguments, please; or take what is gone off the list"


@pytest.mark.parametrize("package", ["decision", "questions", "runs", "report"])
def test_these_know_no_model(package):
    for path in (PACKAGE / package).rglob("*.py"):
        for module in imported_modules(ast.parse(path.read_text())):
            assert module.split(".")[0] not in ("torch", "transformers"), path


def test_only_the_decoder_knows_transformers():
    for path in PACKAGE.rglob("*.py"):
        if "decoder" in path.parts:
            continue
        for module in imported_modules(ast.parse(path.read_text())):
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


def test_editors_and_python_know_the_same_public_names():
    import phaseprune

    tree = TREES["phaseprune"]
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert typed == phaseprune._PUBLIC
    assert (PACKAGE / "py.typed").exists()
    assert set(phaseprune.__all__) <= set(dir(phaseprune))
