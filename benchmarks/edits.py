"""Anchored edits of Python source: each names the line it hangs on, and refuses where that line is not there once.

Anchors are whole lines without indentation, looked up inside one function or class (`inside="Model.forward"`) or at
module level. An anchor that ends in `...` stands for the line that begins so, which keeps apart techniques that touch
the same line; where a statement of several lines begins on it, it stands for all of them. Inserted lines take the
anchor's indentation. The result must still be valid Python.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Callable
from functools import lru_cache

from benchmarks.syntax import parse


class DoesNotApply(Exception):
    """An anchor is missing or not unique, or the edit makes no valid Python. One line."""


def after(source: str, anchor: str, lines: str, inside: str = "") -> str:
    """Insert `lines` below the anchor."""
    return _edit(source, anchor, inside, lambda found: [*found, *_indented(lines, found[0])])


def before(source: str, anchor: str, lines: str, inside: str = "") -> str:
    """Insert `lines` above the anchor."""
    return _edit(source, anchor, inside, lambda found: [*_indented(lines, found[0]), *found])


def replace(source: str, anchor: str, lines: str, inside: str = "") -> str:
    """Put `lines` in the place of the anchor."""
    return _edit(source, anchor, inside, lambda found: _indented(lines, found[0]))


def without_comment(source: str, anchor: str, inside: str = "") -> str:
    """Drop the comment lines right above the anchor: they speak of a line that will go."""
    lines, found = source.splitlines(), _found(source, anchor, inside)
    while len(found) == 1 and lines[found[0] - 1].strip().startswith("#"):
        found[0] -= 1
        del lines[found[0]]
    return _checked(lines)


def has(source: str, anchor: str, inside: str = "") -> bool:
    """Whether the anchor stands there once."""
    return len(_found(source, anchor, inside)) == 1


def swap(source: str, old: str, new: str, inside: str = "") -> str:
    """Replace the fragment `old`, which must occur exactly once in the scope."""
    first, last = _scope(source, inside)
    lines = source.splitlines()
    scope = "\n".join(lines[first:last])
    if scope.count(old) != 1:
        raise DoesNotApply(f"{old!r} stands {scope.count(old)} times in {inside or 'the file'}, not once")
    return _checked([*lines[:first], *scope.replace(old, new).splitlines(), *lines[last:]])


def constant(source: str, name: str, value: object) -> str:
    """Set an upper-case constant of the module, keeping its comment."""
    for node in _parsed(source).body:
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == [name]:
            lines = source.splitlines()
            if node.lineno != node.end_lineno:
                break
            line = lines[node.lineno - 1]
            end = node.value.end_col_offset or 0
            head = line.encode()[: node.value.col_offset].decode()
            tail = line.encode()[end:].decode()
            lines[node.lineno - 1] = f"{head}{value!r}{tail}"
            return _checked(lines)
    raise DoesNotApply(f"there is no constant {name} on a line of its own")


def new_constant(source: str, name: str, value: object, comment: str) -> str:
    """Add an upper-case constant below the last one of the module. It must not exist yet."""
    last = 0
    for node in _parsed(source).body:
        names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
        if name in names:
            raise DoesNotApply(f"the constant {name} exists already")
        if names and all(n.isupper() for n in names):
            last = node.end_lineno or 0
    if not last:
        raise DoesNotApply("the module has no constants to add one to")
    lines = source.splitlines()
    return _checked([*lines[:last], f"{name} = {value!r}  # {comment}", *lines[last:]])


def new_import(source: str, line: str) -> str:
    """Add an import unless it is there: of the standard library above the others, any other below them."""
    lines = source.splitlines()
    if line in lines:
        return source
    imports = [node for node in _parsed(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    if line.split()[1].split(".")[0] not in sys.stdlib_module_names:
        at = max((node.end_lineno or 0 for node in imports), default=0)
        return _checked([*lines[:at], line, *lines[at:]])
    at = min((node.lineno - 1 for node in imports), default=0)
    below = lines[at].split() if imports else []
    same = len(below) > 1 and below[1].split(".")[0] in sys.stdlib_module_names
    return _checked([*lines[:at], line, *([] if same else [""]), *lines[at:]])


def append(source: str, definition: str) -> str:
    """Add a function or class at the end of the module."""
    return _checked([*source.rstrip("\n").splitlines(), "", "", *textwrap.dedent(definition).strip("\n").splitlines()])


def define_before(source: str, name: str, definition: str) -> str:
    """Add a function or class above the module-level definition `name`."""
    for node in _parsed(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            at = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            lines = source.splitlines()
            return _checked([*lines[:at], *textwrap.dedent(definition).strip("\n").splitlines(), "", "", *lines[at:]])
    raise DoesNotApply(f"there is no function or class {name}")


@lru_cache(maxsize=256)
def _parsed(source: str) -> ast.Module:  # most of the time of an edit is parsing
    return parse(source)


def _edit(source: str, anchor: str, inside: str, change: Callable[[list[str]], list[str]]) -> str:
    found = _found(source, anchor, inside)
    if len(found) != 1:
        where = inside or "the file"
        raise DoesNotApply(f"the line {anchor!r} stands {len(found)} times in {where}, not once")
    lines = source.splitlines()
    first, last = found[0], _statement_end(source, found[0])
    return _checked([*lines[:first], *change(lines[first:last]), *lines[last:]])


def _found(source: str, anchor: str, inside: str) -> list[int]:
    first, last = _scope(source, inside)
    lines = [line.strip() for line in source.splitlines()]
    if anchor.endswith("..."):
        return [at for at in range(first, last) if lines[at].startswith(anchor[:-3].strip())]
    return [at for at in range(first, last) if lines[at] == anchor.strip()]


def _statement_end(source: str, at: int) -> int:
    """One past the last line of the simple statement that begins on line `at`; just this line where none does."""
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.stmt) and node.lineno == at + 1 and not hasattr(node, "body"):
            return node.end_lineno or at + 1
    return at + 1


def _indented(text: str, like: str) -> list[str]:
    prefix = like[: len(like) - len(like.lstrip())]
    return [prefix + line if line.strip() else "" for line in textwrap.dedent(text).strip("\n").splitlines()]


def _scope(source: str, inside: str) -> tuple[int, int]:
    """First and one-past-last line (0-based) of a dotted definition; the whole file for ''."""
    try:
        node: ast.AST = _parsed(source)
    except SyntaxError as error:
        raise DoesNotApply(f"the file is not valid Python: {error}") from error
    if not inside:
        return 0, len(source.splitlines())
    for name in inside.split("."):
        children = [
            child for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name
        ]  # fmt: skip
        if len(children) != 1:
            raise DoesNotApply(f"there is no single {inside}")
        node = children[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return node.lineno - 1, node.end_lineno or node.lineno


def _checked(lines: list[str]) -> str:
    text = "\n".join(lines).rstrip("\n") + "\n"
    try:
        _parsed(text)
    except SyntaxError as error:
        raise DoesNotApply(f"the edit makes no valid Python: {error}") from error
    return text
