"""Which models there are: read from the environment, once a process. Keys are never read here.

One model: LAB_LLM_MODEL, with LAB_LLM_BASE_URL, LAB_LLM_KEY_VARIABLE, LAB_LLM_PRICE_IN, LAB_LLM_PRICE_OUT and
LAB_LLM_CONTEXT where the defaults do not fit. Several: LAB_MODELS names a TOML file of [[model]] tables with the fields
of ModelSpec. Neither: there is no LLM researcher.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from research.researchers.llm.tools import EDITS
from research.researchers.llm.wire import ModelSpec

ROLES = ("propose", "implement", "review")
HOW = "set LAB_LLM_MODEL (and LAB_LLM_BASE_URL for a server of your own), or LAB_MODELS for several, then start again"
PRICES = ("price_in", "price_cached", "price_out")
WHOLE = ("context_tokens", "reply_tokens", "looks")
SCHEMAS = ("json_schema", "json_object", "none")
VARIABLE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,79})?")
ADDRESS = re.compile(r"https?://[^\s/@?#]+(?:/[^\s@?#]*)?")
OURS = frozenset({"messages", "model", "n", "response_format", "stream", "stream_options", "tools"})


class ModelsError(ValueError):
    """The models cannot be read as they are written down. One line with what to do."""


def models_from(environ: Mapping[str, str]) -> tuple[ModelSpec, ...]:
    """The models in the order in which they are asked. Empty where none is configured; raises ModelsError."""
    if path := environ.get("LAB_MODELS", "").strip():
        return _from_file(Path(path))
    name = environ.get("LAB_LLM_MODEL", "").strip()
    if not name:
        return ()
    table: dict[str, Any] = {"name": name[:80], "model": name, "base_url": environ.get("LAB_LLM_BASE_URL", "").strip()}
    if "LAB_LLM_KEY_VARIABLE" in environ:
        table["key_variable"] = environ["LAB_LLM_KEY_VARIABLE"].strip()
    for variable, field in (
        ("LAB_LLM_PRICE_IN", "price_in"), ("LAB_LLM_PRICE_OUT", "price_out"), ("LAB_LLM_CONTEXT", "context_tokens"),
    ):  # fmt: skip
        if value := environ.get(variable, "").strip():
            table[field] = value
    return (_spec(table, "the environment"),)


def with_role(models: Sequence[ModelSpec], role: str) -> tuple[ModelSpec, ...]:
    return tuple(model for model in models if role in model.roles)


def _from_file(path: Path) -> tuple[ModelSpec, ...]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelsError(f"LAB_MODELS names {path}, which cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelsError(f"{path} is not TOML: {error}") from error
    tables = content.get("model")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ModelsError(f"{path} must hold one or more [[model]] tables")
    models = tuple(_spec(table, str(path)) for table in tables)
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelsError(f"{path}: the name {twice[0]!r} is given twice")
    return models


def _spec(table: Mapping[str, Any], where: str) -> ModelSpec:
    known = {field.name for field in fields(ModelSpec)}
    if unknown := sorted(set(table) - known):
        raise ModelsError(f"{where}: a model has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if not table.get("name") or not table.get("model"):
        raise ModelsError(f"{where}: every model needs `name` and `model`")
    values = dict(table)
    _check_types(values, where)
    try:
        values |= {name: Decimal(str(values[name])) for name in PRICES if values.get(name) is not None}
        values |= {name: int(values[name]) for name in WHOLE if name in values}
    except (InvalidOperation, ValueError, TypeError) as error:
        raise ModelsError(f"{where}: prices and sizes of {table['name']} must be numbers") from error
    if not all(values[name].is_finite() and values[name] >= 0 for name in PRICES if values.get(name) is not None):
        raise ModelsError(f"{where}: prices of {table['name']} must be numbers, and not negative")
    values |= {name: _names(table, name, every, where) for name, every in (("roles", ROLES), ("edits", EDITS))}
    spec = ModelSpec(**values)
    if not 0 < spec.reply_tokens < spec.context_tokens:
        raise ModelsError(f"{where}: reply_tokens of {spec.name} must be above 0 and below context_tokens")
    if not VARIABLE.fullmatch(spec.key_variable):  # the value is not shown: it could be the key itself
        raise ModelsError(f"{where}: key_variable of {spec.name} must be the name of a variable, never a key")
    if spec.base_url and not ADDRESS.fullmatch(spec.base_url):
        raise ModelsError(f"{where}: base_url of {spec.name} must be http(s)://host/path, without name or password")
    if taken := sorted(set(spec.extra) & OURS):
        raise ModelsError(f"{where}: extra of {spec.name} must leave {', '.join(taken)} to the lab")
    return spec


def _names(table: Mapping[str, Any], field: str, every: tuple[str, ...], where: str) -> tuple[str, ...]:
    """A list of known names; all of them where it is not given."""
    given = tuple(table.get(field) or every)
    if odd := [name for name in given if name not in every]:
        raise ModelsError(f"{where}: {table['name']} has {odd[0]!r} in {field}; known are {', '.join(every)}")
    return given


def _check_types(values: Mapping[str, Any], where: str) -> None:
    """What a TOML file can get wrong; names and sizes are read apart."""
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "model": (str,), "base_url": (str,), "key_variable": (str,), "roles": (list, tuple),
        "edits": (list, tuple), "tools": (bool,), "extra": (dict,), "timeout_seconds": (int, float), "schema": (str,),
    }  # fmt: skip
    for name, kind in kinds.items():
        if name in values and (not isinstance(values[name], kind) or (kind == (int, float) and not values[name] > 0)):
            words = {bool: "true or false", dict: "a table", list: "a list of names", str: "a text"}
            raise ModelsError(f"{where}: {name} of a model must be {words.get(kind[0], 'a number above 0')}")
    if values.get("schema", "json_schema") not in SCHEMAS:
        raise ModelsError(f"{where}: schema of a model must be one of {', '.join(SCHEMAS)}")
