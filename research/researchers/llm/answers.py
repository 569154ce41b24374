"""What a session is to answer: an idea, a change, a review. Records, their JSON schemas, and how they are read.

`from_json` raises FormatError and nothing else, with the words that the model is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from research.researchers.llm.wire import FormatError

LONGEST_TEXT, LONGEST_TITLE, LONGEST_TAG, MOST = 4_000, 120, 40, 12
SEVERITIES = ("blocker", "warning", "note")


@dataclass(frozen=True)
class IdeaAnswer:
    title: str
    hypothesis: str
    plan: str
    expected_effect: float  # relative gain, positive is better
    tags: tuple[str, ...] = ()
    cost_guess: float = 0.0  # device-seconds until a verdict
    builds_on: tuple[int, ...] = ()  # numbers of experiments
    criteria: str = ""  # what would show that it is wrong

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IdeaAnswer:
        _known(data)
        effect = _number(data, "expected_effect")
        if not -0.5 <= effect <= 0.9:
            raise FormatError("expected_effect is a share of the score: 0.01 means one percent better")
        return cls(
            title=_text(data, "title", LONGEST_TITLE), hypothesis=_text(data, "hypothesis"), plan=_text(data, "plan"),
            expected_effect=effect, tags=tuple(_list(data, "tags", str)),
            cost_guess=max(0.0, _number(data, "cost_guess", 0.0)), builds_on=tuple(_list(data, "builds_on", int)),
            criteria=_text(data, "criteria", needed=False),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title, "hypothesis": self.hypothesis, "plan": self.plan,
            "expected_effect": self.expected_effect, "tags": list(self.tags), "cost_guess": self.cost_guess,
            "builds_on": list(self.builds_on), "criteria": self.criteria,
        }  # fmt: skip


@dataclass(frozen=True)
class ChangeAnswer:
    summary: str
    files: Mapping[str, str] = field(default_factory=dict)  # path -> new text, of what changed

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChangeAnswer:
        _known(data)
        files = data.get("files", {})
        if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
            raise FormatError("files must be an object of path and text")
        return cls(_text(data, "summary"), {str(path): text for path, text in files.items()})

    def to_json(self) -> dict[str, Any]:
        return {"summary": self.summary, "files": dict(self.files)}


@dataclass(frozen=True)
class ReviewAnswer:
    advice: str  # ship, revise
    findings: tuple[Mapping[str, Any], ...] = ()  # severity, text, path, line

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReviewAnswer:
        _known(data)
        advice = _text(data, "advice")
        if advice not in ("ship", "revise"):
            raise FormatError('advice must be "ship" or "revise"')
        return cls(advice, tuple(_finding(row) for row in _list(data, "findings", dict)))

    def to_json(self) -> dict[str, Any]:
        return {"advice": self.advice, "findings": [dict(finding) for finding in self.findings]}


def _known(data: object) -> None:
    if not isinstance(data, Mapping):
        raise FormatError("the answer must be a JSON object")


def _finding(row: Mapping[str, Any]) -> dict[str, Any]:
    severity = row.get("severity")
    return {
        "severity": severity if severity in SEVERITIES else "note", "text": _text(row, "text"),
        "path": _text(row, "path", 200, needed=False), "line": int(_number(row, "line", 0.0)),
    }  # fmt: skip


def _text(data: Mapping[str, Any], name: str, longest: int = LONGEST_TEXT, needed: bool = True) -> str:
    found = data.get(name)
    if found is None and not needed:
        return ""
    if not isinstance(found, str) or (needed and not found.strip()):
        raise FormatError(f"{name} must be a text")
    return _storable(found)[:longest]


def _storable(text: str) -> str:
    """Without what a database refuses: NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode().strip()


def _number(data: Mapping[str, Any], name: str, default: float | None = None) -> float:
    found = data.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or found != found:
        raise FormatError(f"{name} must be a number")
    return float(max(-1e12, min(found, 1e12)))  # in this order: the largest whole numbers are no float


def _list(data: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    found = data.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, kind) and not isinstance(item, bool) for item in found):
        raise FormatError(
            f"{name} must be a list of {'texts' if kind is str else 'numbers' if kind is int else 'objects'}"
        )
    if kind is str:
        return [text[:LONGEST_TAG] for item in found if (text := _storable(item))][:MOST]
    if kind is int:
        return [number for number in found if 0 < number < 2**31][:MOST]
    return found[:MOST]


def _object(required: tuple[str, ...], **properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


# Lengths are told, and held by endpoints that hold a reply to its schema: else a small model writes on without end.
IDEA = _object(
    ("title", "hypothesis", "plan", "expected_effect"),
    title={
        "type": "string", "description": "what is changed, in a few words", "minLength": 5,
        "maxLength": LONGEST_TITLE,
    },
    hypothesis={
        "type": "string",
        "description": "one falsifiable sentence: what the change does to the metric, and why",
        "minLength": 10, "maxLength": 600,
    },
    plan={
        "type": "string",
        "description": "what to change where, so that somebody else can write the code",
        "maxLength": 3_000,
    },
    expected_effect={"type": "number", "description": "relative gain in the metric: 0.01 means one percent better"},
    tags={
        "type": "array", "items": {"type": "string", "maxLength": LONGEST_TAG}, "maxItems": MOST,
        "description": "a few words to find it by",
    },
    cost_guess={"type": "number", "description": "device-seconds until a verdict; 0 where you do not know"},
    builds_on={
        "type": "array", "items": {"type": "integer"}, "maxItems": MOST,
        "description": "numbers of experiments it builds on",
    },
    criteria={"type": "string", "description": "what would show that the hypothesis is wrong", "maxLength": 400},
)  # fmt: skip
CHANGE = _object(
    ("summary",),
    summary={"type": "string", "description": "what was changed, in a few sentences", "maxLength": 800},
)
REVIEW = _object(
    ("advice", "findings"),
    advice={"type": "string", "enum": ["ship", "revise"]},
    findings={
        "type": "array",
        "maxItems": MOST,
        "items": _object(
            ("severity", "text"),
            severity={"type": "string", "enum": list(SEVERITIES)}, text={"type": "string", "maxLength": 600},
            path={"type": "string", "maxLength": 200}, line={"type": "integer"},
        ),
    },
)  # fmt: skip
