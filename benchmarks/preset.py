"""The records of a `benchmark.toml` (metric, lanes, presets), and how they are read: no key unknown, no type wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeGuard


class ContractError(ValueError):
    """A benchmark, preset or start that does not exist, or a `benchmark.toml` that cannot be used."""


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    lower_is_better: bool


@dataclass(frozen=True)
class Lane:
    """A kind of device with what is made for it. A preset may set the last four otherwise."""

    name: str
    starts: tuple[str, ...]  # folders in `starts/LANE/`
    catalogue: str  # a module
    device: str  # "cpu" or "cuda"
    vocabulary: int = 0  # ids of its tokens; 256: bytes; 0: it has none
    data: str = ""  # which of the benchmark's prepared data, see benchmarks/data.py
    check: str = ""  # the preset of a short check of a change; none without


Constants = Mapping[str, Mapping[str, int | float | str | bool]]  # file -> name -> value


@dataclass(frozen=True)
class Preset:
    """A named size of a benchmark. Seconds are of `clock`: "cpu" counts the process tree, "wall" a stopwatch."""

    name: str
    lane: str
    vocabulary: int
    device: str
    budget_seconds: float
    clock: str
    wall_cap_seconds: float
    side_by_side: bool  # both arms of a pair at the same time, one core each
    noise_pairs: int  # A/A pairs that make a noise floor
    champion_pairs: int = 3  # A/A pairs of every new champion, for drift; 0: none
    confirm_data: str = ""  # the validation split that confirms; empty: inputs are drawn anew, there is no split
    sequence_length: int = 0
    score_rows: int = 0  # validation rows of `sequence_length` tokens that are scored
    audit_random: int = 0  # random positions whose suffix is cut off and scored again
    audit_targeted: int = 0  # the same, where the candidate beats its reference most
    audit_confirm_random: int = 0  # both again, for trials that confirm
    audit_confirm_targeted: int = 0
    data: str = ""
    check: str = ""
    screen_preset: str = ""  # the preset whose trials screen; empty: this one
    seeds: int = 5  # fresh paired seeds on which a campaign holds its champion against the start at its end
    constants: Constants = field(default_factory=dict, hash=False)  # set in a start's files when a project begins


DEVICES = ("cpu", "cuda")


def read_lane(name: str, body: Mapping[str, Any], path: Path) -> Lane:
    values = _values(Lane, f"lane {name}", {"name": name, **body}, path)
    return Lane(**{**values, "starts": texts(body, "starts", path)})


def read_preset(name: str, body: Mapping[str, Any], lanes: Mapping[str, Lane], path: Path) -> Preset:
    if body.get("lane") not in lanes:
        raise ContractError(f"{path.name}: preset {name} needs a lane: one of {', '.join(lanes)}")
    lane = lanes[body["lane"]]
    of_lane = {"vocabulary": lane.vocabulary, "device": lane.device, "data": lane.data, "check": lane.check}
    return Preset(**_values(Preset, f"preset {name}", {"name": name, **of_lane, **body}, path))


def _values(record: type[Lane] | type[Preset], what: str, body: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of one table: all that the record needs, none that it does not know, each of its type."""
    known = {one.name: one for one in fields(record)}
    if unknown := set(body) - set(known):
        raise ContractError(f"{path.name}: {what} has unknown keys {', '.join(sorted(unknown))}")
    needed = {name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING}
    if missing := needed - set(body):
        raise ContractError(f"{path.name}: {what} lacks {', '.join(sorted(missing))}")
    for name, value in body.items():
        if not _fits(value, str(known[name].type)):
            raise ContractError(f"{path.name}: {what} has {name} = {value!r}; it must be {known[name].type}")
    if body["device"] not in DEVICES:
        raise ContractError(f"{path.name}: {what} has device = {body['device']!r}; use {' or '.join(DEVICES)}")
    return dict(body)


def check_preset(preset: Preset, presets: Mapping[str, Preset], path: Path) -> None:
    if not 0 < preset.budget_seconds < math.inf or preset.clock not in ("cpu", "wall"):
        raise ContractError(f"{path.name}: preset {preset.name} needs budget_seconds > 0 and clock 'cpu' or 'wall'")
    if preset.seeds < 1:
        raise ContractError(f"{path.name}: preset {preset.name} has seeds = {preset.seeds}; it must be 1 or more")
    for key in ("check", "screen_preset"):
        other = getattr(preset, key)
        alike = [n for n, p in presets.items() if (p.lane, p.vocabulary) == (preset.lane, preset.vocabulary)]
        if other and other not in alike:
            raise ContractError(
                f"{path.name}: {key} of preset {preset.name} is {other!r}; name one of {', '.join(alike)}"
            )


def texts(raw: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    """A list of texts. One bare text would pass for a list of letters, and `protected` would protect nothing."""
    value = raw[key]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ContractError(f"{path.name}: {key} must be a list of texts, not {value!r}")
    return tuple(value)


def _fits(value: object, wanted: str) -> bool:
    """Whether a value of the TOML file has the type that a field names; a whole number passes for a float."""
    if wanted == "Constants":
        values = [one for names in value.values() for one in names.values()] if _is_nested(value) else [None]
        return all(isinstance(one, int | float | str) for one in values)
    types = {"float": (float, int), "int": (int,), "str": (str,), "bool": (bool,), "tuple[str, ...]": (list, str)}
    return isinstance(value, types[wanted]) and (wanted == "bool" or not isinstance(value, bool))


def _is_nested(value: object) -> TypeGuard[dict[str, dict[str, object]]]:
    return isinstance(value, dict) and all(isinstance(names, dict) for names in value.values())
