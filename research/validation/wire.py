"""JSON for frozen dataclasses: `to_json` and `from_json`, which refuse what they do not know."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints


class Record:
    """JSON for a frozen dataclass. An unknown, missing or mistyped key is a ValueError that names it."""

    def to_json(self) -> dict[str, Any]:
        return {name: _encode(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        if not isinstance(data, Mapping):
            raise ValueError(f"{cls.__name__} must be an object, not {type(data).__name__}")
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # subclasses are dataclasses
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it knows {', '.join(known)}")
        required = {name for name, field in known.items() if field.default is MISSING}
        if missing := sorted(required - set(data)):
            raise ValueError(f"{cls.__name__} needs {', '.join(missing)}")
        hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable; mypy doubts it of Self
        return cls(**{name: _decode(hints[name], data[name], f"{cls.__name__}.{name}") for name in data})


@cache
def _hints(record: type[Record]) -> dict[str, Any]:
    """Types of the fields; working them out takes ten times as long as a small record."""
    return get_type_hints(record)


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _decode(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is UnionType:
        inner, _ = get_args(hint)
        return None if value is None else _decode(inner, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(_decode(get_args(hint)[0], item, where) for item in value)
    if issubclass(hint, Record):
        return hint.from_json(value)
    if issubclass(hint, StrEnum):
        return _decode_choice(hint, value, where)
    return _decode_plain(hint, value, where)


def _decode_choice(hint: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return hint(value)
    except ValueError:
        raise ValueError(f"{where} must be one of {', '.join(hint)}, not {value!r}") from None


def _decode_plain(hint: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, not {value!r}")
    return float(value) if hint is float else value
