"""Reading JSON from strangers: every value is checked for its kind, every complaint is one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

MAX_BYTES = 64 << 20  # of one file; the largest official definition is far below 1 MB
SHOWN = 60  # characters of a wrong value that a message repeats


class FormatError(ValueError):
    """A file that is not in the official layout: which file and field, what is wrong, what to do."""


def wrong(where: str, what: str, remedy: str) -> NoReturn:
    raise FormatError(" ".join(f"{where}: {what}; {remedy}".split()))


def shown(value: object) -> str:
    """A value as a message repeats it: one line, cut, printable."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deep, or an int of more digits than Python prints
        return f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The UTF-8 text of a file of at most `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        wrong(str(path), f"cannot be read ({reason})", "give a folder in the official layout")
    if len(data) > limit:
        wrong(str(path), f"larger than {limit} bytes", "this is no file of the benchmark")
    try:
        return data.decode()
    except UnicodeDecodeError:
        wrong(str(path), "not UTF-8", "save the file as UTF-8")


def parse_json(text: str, where: str) -> Any:
    """Strict JSON: no NaN, no Infinity, no key twice."""

    def constant(name: str) -> NoReturn:
        wrong(where, f"{name} is no JSON", "write a finite number or null")

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            wrong(where, f"the number {shown(text)} is too large", "write a finite number")
        return value

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(items)) != len(items):
            wrong(where, "a key appears twice in one object", "keep one of the two")
        return found

    try:
        return json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=pairs)
    except FormatError:
        raise
    except RecursionError:
        wrong(where, "nested too deep", "this is no file of the benchmark")
    except ValueError as error:
        wrong(where, f"no valid JSON ({error})", "write it again or fetch it again")


def mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        wrong(where, f"is {shown(value)}", "it must be an object")
    return value


def text(value: object, where: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        wrong(where, f"is {shown(value)}", "it must be a text" + " that is not empty" * (not empty))
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        wrong(where, "has half of a surrogate pair", "write valid Unicode")
    return value


def optional_text(value: object, where: str) -> str | None:
    return None if value is None else text(value, where, empty=True)


def identifier(value: object, where: str) -> str:
    """A name of an axis or tensor: an argument of a Python function."""
    if not (name := text(value, where)).isidentifier():
        wrong(where, f"{shown(name)} is no Python identifier", "rename it")
    return name


def integer(value: object, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        wrong(where, f"is {shown(value)}", f"it must be a whole number from {low} to {high}")
    return value


def real(value: object, where: str, low: float, high: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        wrong(where, f"is {shown(value)}", f"it must be a number from {low:g} to {high:g}")
    return float(value)


def boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        wrong(where, f"is {shown(value)}", "it must be true or false")
    return value


def sequence(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        wrong(where, f"is {shown(value)}", "it must be a list")
    return value


def inner_path(value: object, where: str) -> str:
    """A path below its folder: relative, forward slashes, no `..`, on every system."""
    path = text(value, where)
    parts = PurePosixPath(path).parts
    outside = path.startswith("/") or "\\" in path or ".." in parts or bool(PureWindowsPath(path).drive)
    if outside or not parts or not path.isprintable():
        wrong(where, f"the path {shown(path)} does not stay in its folder", "write a relative path without '..'")
    return PurePosixPath(path).as_posix()
