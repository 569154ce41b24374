"""A trace: what one workload of one solution came to, one strict JSON object a line, with the official fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from benchmarks.kernels.formats.fields import (
    boolean,
    mapping,
    optional_text,
    parse_json,
    real,
    shown,
    text,
    wrong,
)  # fmt: skip

LARGEST = 1.7e308


class Status(StrEnum):
    PASSED = "PASSED"
    INCORRECT_SHAPE = "INCORRECT_SHAPE"
    INCORRECT_NUMERICAL = "INCORRECT_NUMERICAL"
    INCORRECT_DTYPE = "INCORRECT_DTYPE"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    COMPILE_ERROR = "COMPILE_ERROR"
    TIMEOUT = "TIMEOUT"
    REWARD_HACK = "REWARD_HACK"
    INVALID_REFERENCE = "INVALID_REFERENCE"


COMPARED = frozenset({Status.PASSED, Status.INCORRECT_NUMERICAL})  # these carry correctness


@dataclass(frozen=True)
class Correctness:
    """Largest errors over all outputs; where there was NaN or infinity they say nothing and stay 0."""

    max_relative_error: float = 0.0
    max_absolute_error: float = 0.0
    has_nan: bool = False
    has_inf: bool = False
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Performance:
    """Milliseconds; `speedup_factor` is over the definition's reference, never over a scoring baseline."""

    latency_ms: float
    reference_latency_ms: float = 0.0  # 0: not measured
    speedup_factor: float = 0.0


@dataclass(frozen=True)
class Environment:
    hardware: str
    libs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    status: Status
    environment: Environment
    timestamp: str  # ISO 8601
    log: str = ""
    correctness: Correctness | None = None
    performance: Performance | None = None

    def __post_init__(self) -> None:
        if (self.correctness is not None) != (self.status in COMPARED):
            wrong("evaluation", f"{self.status} with correctness {shown(self.correctness)}",
                  "PASSED and INCORRECT_NUMERICAL have it, no other status has")  # fmt: skip
        if (self.performance is not None) != (self.status is Status.PASSED):
            wrong("evaluation", f"{self.status} with performance {shown(self.performance)}",
                  "PASSED has it, no other status has")  # fmt: skip


@dataclass(frozen=True)
class Trace:
    definition: str
    solution: str | None
    workload: Mapping[str, Any]  # the workload's object as it stood in its file
    evaluation: Evaluation | None

    def to_line(self) -> str:
        """One line of strict JSON. A number that is not finite is a ValueError: it belongs into the flags."""
        evaluation = self.evaluation
        value: dict[str, Any] = {
            "definition": self.definition, "workload": self.workload, "solution": self.solution, "evaluation": None
        }  # fmt: skip
        if evaluation is not None:
            value["evaluation"] = {
                "status": evaluation.status.value,
                "environment": {"hardware": evaluation.environment.hardware, "libs": dict(evaluation.environment.libs)},
                "timestamp": evaluation.timestamp,
                "log": evaluation.log,
                "correctness": None if evaluation.correctness is None else dict(vars(evaluation.correctness)),
                "performance": None if evaluation.performance is None else dict(vars(evaluation.performance)),
            }
        return json.dumps(value, allow_nan=False)


def parse_trace(line: str, where: str) -> Trace:
    fields = mapping(parse_json(line, where), where)
    raw = fields.get("evaluation")
    return Trace(
        text(fields.get("definition"), f"{where}: definition"),
        optional_text(fields.get("solution"), f"{where}: solution"),
        mapping(fields.get("workload"), f"{where}: workload"),
        None if raw is None else _evaluation(mapping(raw, f"{where}: evaluation"), f"{where}: evaluation"),
    )


def _evaluation(fields: Mapping[str, Any], where: str) -> Evaluation:
    if fields.get("status") not in list(Status):
        wrong(f"{where}.status", f"is {shown(fields.get('status'))}", f"it must be one of {', '.join(Status)}")
    environment = mapping(fields.get("environment"), f"{where}.environment")
    libs = mapping(environment.get("libs", {}), f"{where}.environment.libs")
    correctness, performance = fields.get("correctness"), fields.get("performance")
    return Evaluation(
        Status(fields["status"]),
        Environment(
            text(environment.get("hardware"), f"{where}.environment.hardware"),
            {name: text(version, f"{where}.environment.libs.{name}") for name, version in libs.items()},
        ),
        text(fields.get("timestamp"), f"{where}.timestamp"),
        text(fields.get("log", ""), f"{where}.log", empty=True),
        None if correctness is None else _correctness(mapping(correctness, f"{where}.correctness"), where),
        None if performance is None else _performance(mapping(performance, f"{where}.performance"), where),
    )


def _correctness(fields: Mapping[str, Any], where: str) -> Correctness:
    at, extra = f"{where}.correctness", fields.get("extra")
    return Correctness(
        real(fields.get("max_relative_error", 0.0), f"{at}.max_relative_error", 0, LARGEST),
        real(fields.get("max_absolute_error", 0.0), f"{at}.max_absolute_error", 0, LARGEST),
        boolean(fields.get("has_nan", False), f"{at}.has_nan"),
        boolean(fields.get("has_inf", False), f"{at}.has_inf"),
        None if extra is None else mapping(extra, f"{at}.extra"),
    )


def _performance(fields: Mapping[str, Any], where: str) -> Performance:
    names = ("latency_ms", "reference_latency_ms", "speedup_factor")
    values = (real(fields.get(name, 0.0), f"{where}.performance.{name}", 0, LARGEST) for name in names)
    return Performance(*values)


def finite(value: float) -> float:
    """An error as a trace can hold it: infinity and NaN become 0, as the flags tell them."""
    return value if math.isfinite(value) else 0.0
