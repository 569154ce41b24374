"""The rules of the house that a syntax tree can show: who imports whom, how large things are, who catches what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("recursive_web", "research", "runners", "benchmarks")
STEPS = {path.stem for path in (ROOT / "research" / "loop").glob("*.py")} - {"__init__", "advance"}
SHARED = {
    "memory", "commit", "begin", "beside", "check", "submit", "together", "asking", "desk", "recall", "repeats",
    "account", "decide", "screens", "parts", "problems", "carry", "headline", "scope", "evidence",
    "floors",
}  # fmt: skip
LARGEST_FILE, LONGEST_FUNCTION = 400, 60


def sources(*folders: str) -> list[str]:
    """Python files of the product below these folders, as paths relative to the root."""
    found = [path for folder in folders or PACKAGES for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def is_editable_tree(path: str) -> bool:
    return "/starts/" in path


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: str) -> ast.Module:
    return ast.parse(text(path), path)


@cache
def imports(path: str) -> tuple[str, ...]:
    """Full names of all that a file imports, wherever in it the import stands, types aside."""
    return tuple(_imports(path))


def _imports(path: str) -> Iterator[str]:
    nodes = list(ast.walk(tree(path)))
    skipped = {inner for node in nodes if _is_for_types(node) for inner in ast.walk(node)}
    for node in nodes:
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or is_editable_tree(path), f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def importers(*names: str, among: list[str] | None = None) -> set[str]:
    """Files that import one of these modules or something in them."""
    lasts = [name.rpartition(".")[2] for name in names]  # what imports a module says this word: the rest is not parsed
    return {
        path
        for path in (sources() if among is None else among)
        if any(last in text(path) for last in lasts)
        and any(found == name or found.startswith(f"{name}.") for found in imports(path) for name in names)
    }


def test_validation_is_pure() -> None:
    allowed = sys.stdlib_module_names | {"numpy", "scipy"}
    outside = {
        name
        for path in sources("research/validation")
        for name in imports(path)
        if not name.startswith("research.validation.") and name.split(".")[0] not in allowed
    }
    assert outside == set()
    assert importers("subprocess", "socket", "pathlib", "os", among=sources("research/validation")) == set()


def test_benchmarks_know_neither_django_nor_the_lab() -> None:
    assert importers("django", "research", "recursive_web", among=sources("benchmarks")) == set()


def test_torch_and_triton_stay_under_benchmarks() -> None:
    outside = [path for path in sources() if not path.startswith("benchmarks/")]
    assert importers("torch", "triton", "safetensors", among=outside) == set()


def test_only_the_llm_researcher_imports_openai() -> None:
    assert all(path.startswith("research/researchers/llm") for path in importers("openai"))


def test_optuna_belongs_to_the_catalogue_researcher_and_scipy_to_validation() -> None:
    assert importers("optuna") == {"research/researchers/catalogue.py"}
    assert all(path.startswith(("research/validation/", "benchmarks/")) for path in importers("scipy"))


def test_git_is_called_in_one_place() -> None:
    callers = {
        path
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(" ")[0] == "git"
        and not is_editable_tree(path)
    }  # fmt: skip
    assert callers <= {"research/repository.py", "runners/checkout.py"}


def test_steps_of_the_loop_never_import_each_other() -> None:
    for step in STEPS - SHARED:
        path = f"research/loop/{step}.py"
        used = {name.split(".")[2] for name in imports(path) if name.startswith("research.loop.")}
        assert used <= SHARED, f"{step} imports {used - SHARED}"
    assert importers("research.loop.advance", among=sources("research/loop")) == set()


def test_models_and_validation_know_nothing_above_them() -> None:
    above = ("research.loop", "research.tasks", "research.views", "research.api", "research.researchers", "runners")
    assert importers(*above, among=sources("research/models", "research/validation")) == set()


def test_runners_meet_the_rows_in_one_module() -> None:
    assert importers("research", among=sources("runners")) == {"runners/lab.py"}


def test_runners_know_no_single_benchmark() -> None:
    names = {path.parent.name for path in (ROOT / "benchmarks").glob("*/benchmark.toml")}
    assert importers(*(f"benchmarks.{name}" for name in names), among=sources("runners")) == set()
    used = {name for path in sources("runners") for name in imports(path) if name.startswith("benchmarks.")}
    assert {name.split(".")[1] for name in used} <= {"contract"}


def test_a_researcher_sees_no_row() -> None:
    assert importers("research.models", "django", among=sources("research/researchers")) == set()


def test_nobody_changes_a_state_outside_the_models() -> None:
    """Neither by assignment nor by `update`: a transition is one method on the model."""
    found = []
    for path in sources("research", "recursive_web", "runners/lab.py"):
        if path.startswith(("research/models/", "research/migrations/")):
            continue
        for node in ast.walk(tree(path)):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            assigned = [t for t in targets if isinstance(t, ast.Attribute) and t.attr in ("state", "status")]
            updated = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("update", "bulk_update")
                and any(keyword.arg in ("state", "status") for keyword in node.keywords)
            )
            if assigned or updated:
                found.append(f"{path}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


def test_everything_is_caught_in_two_places_only() -> None:
    """The third belongs to the process inside the sandbox, where a candidate's failure ends."""
    broad = Counter(path for path in sources() for node in ast.walk(tree(path)) if _swallows_everything(node))
    assert broad == {
        "runners/worker.py": 1,
        "research/loop/advance.py": 1,
        "research/loop/converse.py": 1,
        "runners/zygote.py": 1,
    }


def _swallows_everything(node: ast.AST) -> bool:
    """A handler of everything that does not raise again what it caught."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = {"Exception"} if node.type is None else set(ast.unparse(node.type).strip("()").split(", "))
    return bool(caught & {"Exception", "BaseException"}) and ast.unparse(node.body[-1]) != "raise"


def test_files_and_functions_stay_small() -> None:
    exempt = ("/starts/", "/catalogue/", "/migrations/")
    large = []
    for path in sources():
        if any(part in f"/{path}" for part in exempt):
            continue
        if (lines := len((ROOT / path).read_text().splitlines())) > LARGEST_FILE:
            large.append(f"{path}: {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > LONGEST_FUNCTION:
                    large.append(f"{path}:{node.lineno} {node.name}: {size} lines")
    assert large == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [
        path
        for path in sources()
        if tree(path).body and not ast.get_docstring(tree(path)) and "/migrations/" not in path
    ]
    assert silent == ["research/apps.py"]


def test_tasks_are_at_most_five_lines() -> None:
    for node in tree("research/tasks.py").body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            assert (node.end_lineno or 0) - node.lineno <= 5, node.name


@pytest.mark.parametrize("module", ["recursive_web.asgi", "recursive_web.urls"])
def test_the_web_process_loads_no_heavy_library(module: str) -> None:
    heavy = ("torch", "triton", "scipy", "optuna", "openai", "numpy", "ninja", "pydantic", "mcp")
    code = (
        f"import sys, django; django.setup(); import {module}; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
