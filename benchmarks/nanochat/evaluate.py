"""One trial of the nanochat lane: train in the sandbox, score from outside, audit. Protected.

    TRAIN step (candidate, train text) -> weights -> FORWARD steps (candidate, no data) <-> JUDGE (ours, val text)

Each step is a pristine process; the sandbox is emptied and verified between them. The clock is the parent's and runs
from the moment the train text becomes readable to the moment the parent holds the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contract import Assignment, Failure, Gate, Observation, Outcome, PointSink
from benchmarks.nanochat import audits, identity, sizes
from benchmarks.nanochat.compiled import CompileCache
from runners.clock import BudgetClock
from runners.logs import LogPump
from runners.points import PointsError, parse_frame
from runners.sandbox import Child, Exit, Sandbox

PRELOAD = (
    "torch",
    "numpy",
    "safetensors.torch",
    "torch._dynamo",
)  # building an optimizer imports dynamo: 1 s
SETUP = "torch.set_num_threads(1)"
INSIDE = Path(__file__).parent / "inside"
VOCABULARY = 256
POLL_SECONDS = 0.02
WARM_UP_WALL = 30.0  # everything before the clock: building the model, a warm-up on random tokens
WARM_UP_SHARE = 0.5  # of a budget of CPU seconds; a longer warm-up could train, on text that the candidate carries
FORWARD_WALL = 30.0
LOG_WALL = 2.0  # for the rest of the output, once every writer is dead
WEIGHTS_BYTES = 256 << 20
MESSAGE_BYTES = 64 << 10


class TrialFailed(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


@dataclass
class Training:
    weights: bytes
    cpu_seconds: float
    wall_seconds: float
    warm_up_seconds: float


class JudgeProcess:
    """The worker's end of a judge. Started once a slot; restarted where it died."""

    def __init__(self, data: Path, program: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", *program, str(data), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
                | {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")},
            )  # fmt: skip
        self.socket = ours
        self.socket.settimeout(2 * FORWARD_WALL)
        self.data, self.program = data, program

    def ask(self, request: dict[str, Any], stream: socket.socket) -> dict[str, Any]:
        """Let the judge talk with the FORWARD process at the far end of `stream`. Raises TrialFailed on a refusal."""
        socket.send_fds(self.socket, [json.dumps(request).encode()], [stream.fileno()])
        stream.close()
        reply: dict[str, Any] = json.loads(
            self.socket.recv(65536) or b'{"refusal": "crash", "message": "the judge died"}'
        )
        if kind := reply.get("refusal"):
            raise TrialFailed(kind, reply["message"])
        return reply

    def pin(self, cpu: int) -> None:
        os.sched_setaffinity(self.process.pid, {cpu})

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


class Evaluator:
    """Runs trials on one slot, one after another."""

    judge_program: tuple[str, ...] = (str(Path(__file__).parent / "judge.py"),)

    def __init__(self) -> None:
        self._judge: JudgeProcess | None = None
        self.session = _TrainSession

    def close(self) -> None:
        if self._judge:
            self._judge.close()
            self._judge = None

    def judge(self, data: Path) -> JudgeProcess:
        wanted = (data, self.judge_program)
        if (held := self._judge) and ((held.data, held.program) != wanted or held.process.poll() is not None):
            self.close()
        if self._judge is None:
            self._judge = JudgeProcess(*wanted)
        return self._judge

    def run(
        self, task: Assignment, box: Sandbox, sink: PointSink, gate: Gate = lambda: None, cpu: int | None = None,
        keep_weights: Path | None = None,
    ) -> Outcome:  # fmt: skip
        """The whole trial. A candidate's failure is part of the outcome; only a broken sandbox raises."""
        if task.removed_guards:
            raise ValueError("a trial that counts keeps all its guards")
        outcome = Outcome(hashes=identity.hashes(task), surroundings=identity.surroundings(task, box))
        began = time.monotonic()
        judge = self.judge(task.data)
        if cpu is not None:
            judge.pin(cpu)
        try:
            outcome.metrics["code_bytes"] = _checked_size(task.tree)
            compiled = CompileCache(task, outcome)
            training = self.train(task, box, sink, outcome, gate, compiled)
            if keep_weights:
                keep_weights.write_bytes(training.weights)
            outcome.hashes["weights"] = hashlib.sha256(training.weights).hexdigest()
            outcome.metrics |= sizes.describe(training.weights)
            outcome.seconds |= {
                "train_cpu": training.cpu_seconds, "train_wall": training.wall_seconds,
                "warm_up": training.warm_up_seconds,
            }  # fmt: skip
            outcome.score = self.score(task, box, training.weights, outcome, compiled.content)
            self.audit(task, box, training.weights, outcome, compiled.content)
        except TrialFailed as failed:
            outcome.score, outcome.failure = None, failed.failure
        outcome.seconds["total_wall"] = time.monotonic() - began
        return outcome

    def train(
        self, task: Assignment, box: Sandbox, sink: PointSink, outcome: Outcome, gate: Gate, compiled: CompileCache
    ) -> Training:
        """The TRAIN step. Raises TrialFailed where no weights came in before the deadline."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log, writer = _pump()
        args = {
            "seed": task.seed, "sequence_length": task.preset.sequence_length, "vocab_size": VOCABULARY,
            "budget_seconds": task.preset.budget_seconds, "clock": task.preset.clock,
        }  # fmt: skip
        with ours:
            with theirs:
                child = box.spawn(
                    "run_train", tree=task.tree, args=args, fds={"channel": theirs.fileno()}, log=writer,
                    cache=compiled.content,
                )  # fmt: skip
            os.close(writer)
            session = self.session(task, box, sink, ours, gate, compiled)
            training = session.follow()
            if session.bad_frames:
                words = f"{session.bad_frames} frames of points could not be read"
                outcome.observations.append(Observation("bad_points", "info", words))
            outcome.seconds["warm_up_cpu"] = session.warm_up_cpu
            if (spent := session.warm_up_cpu) > WARM_UP_SHARE * task.preset.budget_seconds and session.cpu_counts:
                words = f"{spent:.2f} CPU seconds before its clock, {task.preset.budget_seconds:g} after"
                seen = Observation("long_warm_up", "review", "spends long in the untimed warm-up", (words,))
                outcome.observations.append(seen)
            exit_ = _exit_of(child) if session.over else None
            peak, oom = box.memory_peak(), box.oom_killed()
            box.reset()
            log.join(LOG_WALL)
            outcome.log = log.text()
            if peak:
                outcome.metrics["memory_bytes"] = float(peak)
        if training:
            return training
        raise session.explain(exit_, oom, outcome.log)

    def score(self, task: Assignment, box: Sandbox, weights: bytes, outcome: Outcome, cache: bytes = b"") -> float:
        request = {
            "op": "score", "split": task.split, "rows": task.preset.score_rows,
            "length": task.preset.sequence_length, "reference": task.reference and str(task.reference),
            "keep_losses": task.keep_losses and str(task.keep_losses),
        }  # fmt: skip
        reply = self._forward(task, box, weights, request, outcome, "score", cache)
        return float(reply["score"])

    def audit(self, task: Assignment, box: Sandbox, weights: bytes, outcome: Outcome, cache: bytes = b"") -> None:
        """Prefix truncation and re-scoring in a fresh process; every mismatch is a finding."""
        request = {
            "op": "audit", **audits.sizes(task),
            "seed": int.from_bytes(os.urandom(8), "big"), "sample": task.wants_sample,
        }  # fmt: skip
        reply = self._forward(task, box, weights, request, outcome, "audit", cache)
        if task.wants_sample:
            outcome.sample = reply["sample"]
            outcome.seconds["sample_wall"] = reply["sample_seconds"]
        audits.record(reply, outcome)

    def _forward(
        self, task: Assignment, box: Sandbox, weights: bytes, request: dict[str, Any], outcome: Outcome, phase: str,
        cache: bytes,
    ) -> dict[str, Any]:  # fmt: skip
        began, cpu = time.monotonic(), box.cpu_seconds()
        memory = os.memfd_create("weights", os.MFD_ALLOW_SEALING)
        ours, theirs = socket.socketpair()
        log, writer = _pump()
        try:
            _write_all(memory, weights)
            with theirs:
                box.spawn(
                    "run_forward", tree=task.tree, args={}, cache=cache,
                    fds={"channel": theirs.fileno(), "weights": memory}, log=writer,
                )  # fmt: skip
            reply = self.judge(task.data).ask(request | {"seconds": FORWARD_WALL}, ours)
        except TrialFailed as failed:
            box.reset()
            log.join(LOG_WALL)
            last = _last_line(log.text())
            message = f"{phase}: {failed.failure.message}" + (f" ({last})" if last else "")
            raise TrialFailed(failed.failure.kind, message) from None
        finally:
            os.close(memory)
            os.close(writer)
            ours.close()
            outcome.seconds[f"{phase}_cpu"] = box.cpu_seconds() - cpu
            box.reset()
            outcome.seconds[f"{phase}_wall"] = time.monotonic() - began
        outcome.seconds[f"{phase}_judge_cpu"] = reply["cpu_seconds"]
        return reply


class _TrainSession:
    """Follows one TRAIN process: starts its clock, passes its points on, holds the last weights in time."""

    def __init__(
        self, task: Assignment, box: Sandbox, sink: PointSink, channel: socket.socket, gate: Gate,
        compiled: CompileCache,
    ) -> None:  # fmt: skip
        self.task, self.box, self.sink, self.channel, self.gate = task, box, sink, channel, gate
        self.compiled = compiled
        self.clock = BudgetClock(box, "wall", WARM_UP_WALL, WARM_UP_WALL)
        self.timed = False
        self.over = False  # the process closed its end by itself
        self.training: Training | None = None
        self.warm_up, self.warm_up_cpu = 0.0, 0.0
        self.cpu_counts = task.preset.clock == "cpu"
        self.bad_frames = 0
        self.refused = ""

    def follow(self) -> Training | None:
        """Serve the process until it ends or its time is up. Returns what was submitted in time, if anything."""
        self.channel.settimeout(POLL_SECONDS)
        while not self.clock.expired:
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
            socket.send_fds(self.channel, [b"G"], [text.fileno()])
        self.timed = True

    def _take_weights(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if not 0 < size <= WEIGHTS_BYTES:
            self.refused = f"weights of {size:,} bytes were not taken; between 1 and {WEIGHTS_BYTES:,} are allowed"
            self.channel.send(b"K")
            return
        content = bytearray()
        while len(content) < size and (part := os.pread(descriptor, size - len(content), len(content))):
            content += part
        used, wall = self.clock.cpu, self.clock.wall
        if not self.clock.expired:
            self.training = Training(bytes(content), used, wall, self.warm_up)
        self.channel.send(b"K")

    def explain(self, exit_: Exit | None, oom: bool, log: str) -> TrialFailed:
        """Why there are no weights."""
        if oom:
            return TrialFailed("out_of_memory", "the process was killed at the memory limit of its sandbox")
        if self.refused:
            return TrialFailed("refused", self.refused)
        if not self.over:
            phase = "its training budget" if self.timed else f"{WARM_UP_WALL:g} s of warm-up"
            return TrialFailed("timeout", f"the candidate used up {phase} without submitting weights")
        last = _last_line(log)
        if "No space left on device" in log:
            return TrialFailed("disk_full", f"the candidate filled its scratch space: {last}")
        if "MemoryError" in log or "can't allocate memory" in log:
            return TrialFailed("out_of_memory", last)
        if exit_ is not None and exit_.ok:
            return TrialFailed("no_weights", "the candidate ended without submitting weights")
        return TrialFailed("crash", last or f"the candidate ended with {exit_}")


def _checked_size(tree: bytes) -> float:
    size = sizes.code_bytes(tree)
    if size > sizes.TREE_BYTES:
        words = f"its files hold {size:,} bytes; at most {sizes.TREE_BYTES:,} are allowed"
        raise TrialFailed("refused", words)
    return float(size)


def _pump() -> tuple[LogPump, int]:
    """A log, and the descriptor that writes to it."""
    reader, writer = os.pipe()
    return LogPump(reader), writer


def _exit_of(child: Child) -> Exit | None:
    """How a process ended that has closed its channel; None where it lives on without it."""
    try:
        return child.wait(1.0)
    except TimeoutError:
        return None


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
