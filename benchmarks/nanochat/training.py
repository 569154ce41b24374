"""Following one TRAIN process from outside: its clock, its points, its weights, and why it failed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.contract import Assignment, Gate, PointSink, TrialFailed
from benchmarks.gpu import device_failure
from benchmarks.nanochat import bounds
from benchmarks.nanochat.weights import Weights
from runners.clock import BudgetClock
from runners.logs import last_line
from runners.points import PointsError, parse_frame
from runners.sandbox import Exit, Sandbox

POLL_SECONDS = 0.02
MESSAGE_BYTES = 64 << 10


@dataclass
class Training:
    weights: Weights
    cpu_seconds: float
    wall_seconds: float
    warm_up_seconds: float


class Freezes(Protocol):
    """What keeps the compile cache as it stands when the clock starts."""

    def freeze(self, box: Sandbox) -> None: ...


class TrainSession:
    """Follows one TRAIN process: starts its clock, passes its points on, holds the last weights in time."""

    def __init__(
        self, task: Assignment, box: Sandbox, sink: PointSink, channel: socket.socket, gate: Gate, compiled: Freezes
    ) -> None:
        self.task, self.box, self.sink, self.channel, self.gate = task, box, sink, channel, gate
        self.compiled = compiled
        self.bounds = bounds.of(task.preset)
        self.clock = BudgetClock(box, "wall", self.bounds.warm_up_wall, self.bounds.warm_up_wall)
        self.timed = False
        self.over = False  # the process closed its end by itself
        self.done = False  # nothing more is wanted of it
        self.training: Training | None = None
        self.warm_up, self.warm_up_cpu = 0.0, 0.0
        self.cpu_counts = task.preset.clock == "cpu"
        self.bad_frames = 0
        self.refused = ""
        self.while_held: Callable[[], None] = lambda: None  # called while the candidate waits for its weights' receipt

    def follow(self) -> Training | None:
        """Serve the process until it ends or its time is up. Returns what was submitted in time, if anything."""
        self.channel.settimeout(POLL_SECONDS)
        while not self.clock.expired and not self.done:
            try:
                message, descriptors, flags, _ = socket.recv_fds(self.channel, MESSAGE_BYTES, 4)
            except TimeoutError:
                continue
            except ConnectionResetError:
                message, descriptors, flags = b"", [], 0
            try:
                if not message:
                    self.over = True
                    break
                if not flags & socket.MSG_TRUNC:
                    self._handle(message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        return self.training

    def _handle(self, message: bytes, descriptors: list[int]) -> None:
        kind = message[:1]
        if kind == b"S" and not self.timed:
            self._start()
        elif kind == b"W" and descriptors and self.timed:
            self._take_weights(descriptors[0])
        elif kind == b"P":
            try:
                lines = parse_frame(message[1:])
            except PointsError:
                self.bad_frames += 1
                return
            for line in lines:
                self.sink(*line)

    def _start(self) -> None:
        self.warm_up, self.warm_up_cpu = self.clock.wall, self.clock.cpu
        self.compiled.freeze(self.box)
        self.gate()
        preset = self.task.preset
        with (self.task.data / "train.bin").open("rb") as text:
            self.clock = BudgetClock(self.box, preset.clock, preset.budget_seconds, preset.wall_cap_seconds)
            try:
                socket.send_fds(self.channel, [b"G"], [text.fileno()])
            except (BrokenPipeError, ConnectionResetError):  # it ended while it waited for its clock
                self.over = self.done = True
                return
        self.timed = True

    def _take_weights(self, descriptor: int) -> None:
        size, most = os.fstat(descriptor).st_size, self.bounds.weights_bytes
        if not 0 < size <= most:
            self.refused = f"weights of {size:,} bytes were not taken; between 1 and {most:,} are allowed"
            self.channel.send(b"K")
            return
        weights = Weights.taken(descriptor)
        used, wall = self.clock.cpu, self.clock.wall
        if self.clock.expired:
            weights.close()
        else:
            self.close()
            self.training = Training(weights, used, wall, self.warm_up)
            self.while_held()
        self.channel.send(b"K")

    def close(self) -> None:
        """Let go of the weights held, if any."""
        if self.training:
            self.training.weights.close()
            self.training = None

    def explain(self, exit_: Exit | None, oom: bool, log: str) -> TrialFailed:
        """Why there are no weights."""
        if oom:
            return TrialFailed("out_of_memory", "the process was killed at the memory limit of its sandbox")
        if self.refused:
            return TrialFailed("refused", self.refused)
        if not self.over:
            phase = "its training budget" if self.timed else f"{self.bounds.warm_up_wall:g} s of warm-up"
            return TrialFailed("timeout", f"the candidate used up {phase} without submitting weights")
        last = last_line(log)
        if "No space left on device" in log:
            return TrialFailed("disk_full", f"the candidate filled its scratch space: {last}")
        if "MemoryError" in log or "can't allocate memory" in log:
            return TrialFailed("out_of_memory", last)
        if self.task.preset.device == "cuda" and (failed := device_failure(log)):
            return failed
        if exit_ is not None and exit_.ok:
            return TrialFailed("no_weights", "the candidate ended without submitting weights")
        return TrialFailed("crash", last or f"the candidate ended with {exit_}")


class WarmUpSession(TrainSession):
    """Follows a TRAIN process to where it asks for its clock, which it is not given: all that counts is its cache."""

    def _start(self) -> None:
        self.compiled.freeze(self.box)
        self.done = True
