"""Measured baselines: variants of the references (eager, torch.compile in its modes), each on each workload.

A process of its own measures, since a kernel that goes astray takes its process with it; another one goes on behind
the workload at which it fell. Timed as in a launch under a stopwatch, so that solutions and baselines can be compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from benchmarks.kernels.anchors import AnchorError
from benchmarks.kernels.formats.trace import Status
from benchmarks.kernels.measured import Measurement

EAGER = "eager"
MODES = ("default", "max-autotune-no-cudagraphs", "reduce-overhead")
VARIANTS = (EAGER, *(f"compile-{mode}" for mode in MODES))
TIMING = "stopwatch"
READY_SECONDS, ONE_SECONDS = 180.0, 240.0


@dataclass(frozen=True)
class Task:
    folder: str  # of the problem
    problem: str
    uuid: str
    variant: str


def sweep(tasks: Sequence[Task], device: str, seconds: float = float("inf")) -> Iterator[Measurement]:
    """A measurement a task, in order, until all are done or the time is up. What fails is told by its status."""
    began, left = time.monotonic(), list(tasks)
    while left and time.monotonic() - began < seconds:
        with Process(device) as process:
            while left and time.monotonic() - began < seconds:
                task = left.pop(0)
                answer = process.measure(task)
                yield _measurement(task, process.name, answer or {"status": Status.RUNTIME_ERROR})
                if answer is None:
                    break  # it died, or did not answer


def _measurement(task: Task, name: str, answer: dict[str, Any]) -> Measurement:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    software = f"torch {version('torch')}"
    return Measurement(
        task.problem, task.uuid, task.variant, name, str(answer["status"]), answer.get("latency_ms"), TIMING, software,
        now,
    )  # fmt: skip


class Process:
    """Measures tasks one after another. `name`: the device's."""

    def __init__(self, device: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed at the end
        command = [sys.executable, "-m", "benchmarks.kernels.meter", device]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        ready = self._hear(READY_SECONDS)
        if ready is None:
            words = self.last_words()
            self._process.kill()
            raise AnchorError(f"the measuring process did not start: {words}")
        self.name: str = ready["name"]

    def measure(self, task: Task) -> dict[str, Any] | None:
        """None where it died or took too long; then it is of no more use."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(vars(task)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._hear(ONE_SECONDS)

    def last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        late = threading.Timer(seconds, self._process.kill)
        late.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late.cancel()
        return dict(json.loads(line)) if line.endswith("\n") else None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
