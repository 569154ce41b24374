"""What a browser may say on the live socket, as dataclasses. Whatever else it sends is a `BadMessage`."""

from __future__ import annotations

import json
from dataclasses import dataclass

MAX_MESSAGE = 262_144  # characters
MAX_TOPICS = 256
MAX_NAME = 100  # characters of a topic or a metric
MAX_NUMBER = 2**53  # what a browser can count to

Cursor = tuple[tuple[str, int], ...]  # (metric, the first sequence number not seen yet), ordered


class BadMessage(Exception):
    """The message cannot be read; its text is one line for the browser's console."""


@dataclass(frozen=True, slots=True)
class Watch:
    topics: frozenset[str]
    since: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a browser stands in a trial. No generation: it has seen nothing of it."""

    generation: int | None
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Points:
    trials: dict[str, Wanted]


@dataclass(frozen=True, slots=True)
class Ack:
    number: int


@dataclass(frozen=True, slots=True)
class Ping:
    number: int


Message = Watch | Points | Ack | Ping


def parse(text: str | None) -> Message:
    if text is None:
        raise BadMessage("binary messages are not read")
    if len(text) > MAX_MESSAGE:
        raise BadMessage(f"a message of {len(text)} characters; at most {MAX_MESSAGE} are read")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage("not JSON") from None
    match message:
        case {"watch": list(topics), **rest}:
            return Watch(_topics(topics), _number("since", rest.get("since", 0)))
        case {"points": dict(trials)}:
            return Points({topic: _wanted(trials[topic]) for topic in _topics(list(trials))})
        case {"ack": number}:
            return Ack(_number("ack", number))
        case {"ping": number}:
            return Ping(_number("ping", number))
    raise BadMessage("none of watch, points, ack, ping")


def _number(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise BadMessage(f"{name} is not a number of 0 to 2^53")
    return value


def _topics(names: list[object]) -> frozenset[str]:
    if len(names) > MAX_TOPICS:
        raise BadMessage(f"{len(names)} topics; at most {MAX_TOPICS} are watched")
    return frozenset(_name("topic", name) for name in names)


def _name(kind: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise BadMessage(f"a {kind} is not a name of 1 to {MAX_NAME} characters")
    return value


def _wanted(value: object) -> Wanted:
    if not isinstance(value, dict) or not isinstance(cursor := value.get("cursor", {}), dict):
        raise BadMessage("what is wanted of a trial is not an object, or its cursor is none")
    generation = _number("generation", value["generation"]) if "generation" in value else None
    if generation is None and cursor:
        raise BadMessage("a cursor without its generation")
    seqs = ((_name("metric", name), _number("cursor", seq)) for name, seq in cursor.items())
    return Wanted(generation, tuple(sorted(seqs)))
