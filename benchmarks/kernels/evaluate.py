"""One trial of the kernels benchmark: one launch of a commit's solutions of some problems. Protected.

The score is the geometric mean over all workloads of the solution's latency as a multiple of the reference's. A
solution that is wrong on any of them has none. See `launch` for how the two are timed.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import identity
from benchmarks.compiled import CompileCache
from benchmarks.contract import Assignment, Failure, Gate, Observation, Outcome, PointSink, TrialFailed
from benchmarks.gpu import check_not_busy, device_failure, gpu_of
from benchmarks.judging import JudgeProcess
from benchmarks.kernels import cells
from benchmarks.kernels.cpu_clock import CpuLaunch
from benchmarks.kernels.launch import Launch
from benchmarks.kernels.stopwatch import StopwatchLaunch
from benchmarks.tar import only
from runners import cuda
from runners.logs import LogPump, last_line
from runners.sandbox import Sandbox

PRELOAD = ("torch", "numpy", "torch._dynamo")
PACKAGES = ("torch", "numpy")
SETUP = "torch.set_num_threads(1)"
INSIDE = Path(__file__).parent / "inside"
JUDGE = (str(Path(__file__).parent / "judge.py"),)
CLOCKS: dict[str, type[Launch]] = {"cpu": CpuLaunch, "wall": StopwatchLaunch}
COMPILERS = (b"torch.compile", b"triton", b"compile_cpp", b"compile_cuda", b"load_inline", b"_compile_kernel")
AHEAD_SECONDS = 60.0  # for compiling ahead: others wait for the slowest
LOG_WALL = 2.0  # for the rest of the output, once every writer is dead
LOOK_FASTER = 10.0  # times the reference: a person looks
LOOK_BELOW = 0.7  # of the bound, which is by measured peaks
IMPOSSIBLE = 0.5  # of the time that its bytes alone take at the best rate that was ever measured here


logger = logging.getLogger("lab.kernels")


class Evaluator:
    """Runs trials on one slot, one after another."""

    judge_program: tuple[str, ...] = JUDGE
    clocks: Mapping[str, type[Launch]] = CLOCKS

    def __init__(self) -> None:
        self._judge: JudgeProcess | None = None

    def close(self) -> None:
        if self._judge:
            self._judge.close()
            self._judge = None

    def judge(self, task: Assignment, box: Sandbox) -> JudgeProcess:
        """The judge of these problems; another one where the slot turned to something else."""
        gpu = gpu_of(task, box)
        wanted = (task.data, self.judge_program, gpu)
        if (held := self._judge) and ((held.data, held.program, held.gpu) != wanted or not held.lives):
            self.close()
        if self._judge is None:
            self._judge = JudgeProcess(*wanted)
        return self._judge

    def run(
        self, task: Assignment, box: Sandbox, sink: PointSink, gate: Gate = lambda: None, cpu: int | None = None,
        *, trained: Gate = lambda: None, beside: bool = False,
    ) -> Outcome:  # fmt: skip
        """The whole trial. A candidate's failure is part of the outcome; only a broken sandbox raises."""
        if task.removed_guards:
            raise ValueError("a trial that counts keeps all its guards")
        if missing := self._missing(task):
            return Outcome(failure=Failure("no_data", missing))
        began = time.monotonic()
        outcome, judge = self._outcome(task, box), self.judge(task, box)
        if cpu is not None:
            judge.pin(cpu)
        try:
            check_not_busy(task, judge)
            self._launch(task, box, judge, sink, outcome, gate)
        except TrialFailed as failed:
            outcome.score, outcome.failure = None, _told(failed, outcome.log)
        if judge.gpu is not None and judge.lives:
            judge.memory()  # it lets go of what it holds of the device
        trained()
        outcome.seconds["total_wall"] = time.monotonic() - began
        return outcome

    def prepare(self, task: Assignment, box: Sandbox) -> bool:
        """Call every workload once, untimed, in a sandbox of its own: the first trial then finds a warm compile cache.

        Whether a cache is there now. Not beside a timed trial, which would feel it. From any thread, once `is_prepared`
        has started the judge: this takes another one, for as long as it lasts.
        """
        if self.is_prepared(task, box):
            return True
        outcome, judge = self._outcome(task, box), JudgeProcess(task.data, self.judge_program, gpu_of(task, box))
        task = replace(task, seed=secrets.randbits(48))  # no trial draws what is shown here
        try:
            with _process(task, box, outcome) as (compiled, channel):
                launch = self.clocks[task.preset.clock](task, box, judge, channel, outcome, lambda *_: None)
                launch.compile(AHEAD_SECONDS)
                compiled.freeze(box)
        except TrialFailed as failed:
            logger.warning("the warm-up of %s failed: %s", task.commit[:10], _told(failed, outcome.log).message)
            return False
        finally:
            judge.close()
        return bool(compiled.content)

    def is_prepared(self, task: Assignment, box: Sandbox) -> bool:
        """Whether a trial of this commit would find a compile cache, or needs none."""
        if task.caches is None or self._missing(task):
            return True
        code = only(task.tree, task.problems)
        if not any(word in code for word in COMPILERS):
            return True
        return CompileCache.exists(task, self._outcome(task, box), _name(code))

    def _outcome(self, task: Assignment, box: Sandbox) -> Outcome:
        outcome = Outcome(hashes=identity.hashes(task, PACKAGES), surroundings=identity.surroundings(task, box))
        outcome.surroundings |= self.judge(task, box).ready()
        return outcome

    def device_memory(self, task: Assignment, box: Sandbox) -> int:
        return self.judge(task, box).memory()[1] if task.preset.device == "cuda" else 0

    @staticmethod
    def _missing(task: Assignment) -> str:
        """Why nothing can be measured, in one line; empty where all is there."""
        if not (task.data / "manifest.json").is_file():
            return "the prepared problems are not there: run `python -m benchmarks.kernels prepare`"
        if not task.problems:
            return "no problem was named for this trial"
        lacking = [name for name in task.problems if not (task.data / "problems" / name / "definition.json").is_file()]
        return f"the prepared data have no problem {lacking[0]}" if lacking else ""

    def _launch(
        self, task: Assignment, box: Sandbox, judge: JudgeProcess, sink: PointSink, outcome: Outcome, gate: Gate
    ) -> None:
        began = time.monotonic()
        with _process(task, box, outcome) as (compiled, channel):
            launch = self.clocks[task.preset.clock](task, box, judge, channel, outcome, sink)
            try:
                launch.warm_up()
                compiled.freeze(box)
                outcome.seconds["warm_up"] = time.monotonic() - began
                gate()
                timed, cpu = time.monotonic(), box.cpu_seconds()
                launch.measure()
                outcome.seconds |= {"timed_wall": time.monotonic() - timed, "timed_cpu": box.cpu_seconds() - cpu}
                _score(launch, outcome)
                if task.confirming:
                    launch.look_further()
                if judge.gpu is not None:
                    outcome.metrics["device_memory_bytes"] = float(judge.memory()[0])
            finally:
                if judge.gpu is not None:
                    outcome.surroundings |= cuda.condition(judge.gpu)


@contextmanager
def _process(task: Assignment, box: Sandbox, outcome: Outcome) -> Iterator[tuple[CompileCache, socket.socket]]:
    """The candidate's process for one launch, which sees the folders of its problems alone; gone at the end.

    Raises TrialFailed where the sandbox ran out of memory.
    """
    tree = only(task.tree, task.problems)
    compiled = CompileCache(task, outcome, _name(tree))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    log = LogPump(reader)
    with ours:
        try:
            with theirs:
                box.spawn(
                    "run_solutions", tree=tree, cache=compiled.content, fds={"channel": theirs.fileno()}, log=writer,
                    args={"device": task.preset.device},
                )  # fmt: skip
            yield compiled, ours
        finally:
            os.close(writer)
            if peak := box.memory_peak():
                outcome.metrics["memory_bytes"] = float(peak)
            out_of_memory = box.oom_killed()
            box.reset()
            log.join(LOG_WALL)
            outcome.log = log.text()
            if out_of_memory:
                raise TrialFailed("out_of_memory", "the sandbox ran out of memory")


def _name(code: bytes) -> str:
    """Of what runs in a launch: problems that another commit left alone find what was compiled for them before."""
    return hashlib.sha256(code).hexdigest()


def _told(failed: TrialFailed, log: str) -> Failure:
    """A failure of its own with what the process said last."""
    kind, message = failed.failure.kind, failed.failure.message
    if kind == "crash" and (why := device_failure(log)):
        return Failure(why.failure.kind, f"{message}: {why.failure.message}")
    said = last_line(log) if kind == "crash" else ""
    return Failure(kind, f"{message}: {said}" if said else message)


def _score(launch: Launch, outcome: Outcome) -> None:
    """The score, the times of every cell, and what a reader should look at."""
    logs, impossible, below, faster = [], [], [], []
    for cell in launch.cells:
        times = cell.times
        outcome.metrics |= cells.metrics(cell.problem, cell.uuid, times)
        logs.append(math.log(times.latency_ms / times.reference_ms))
        if cell.floor_ms is not None and times.latency_ms < IMPOSSIBLE * cell.floor_ms:
            impossible.append(f"{cell.name}: {times.latency_ms:.4g} ms, its bytes take {cell.floor_ms:.4g}")
        elif times.bound_ms is not None and times.latency_ms < LOOK_BELOW * times.bound_ms:
            below.append(f"{cell.name}: {times.latency_ms:.4g} ms, the bound is {times.bound_ms:.4g}")
        if times.latency_ms * LOOK_FASTER < times.reference_ms:
            faster.append(f"{cell.name}: {times.latency_ms:.4g} ms, the reference {times.reference_ms:.4g}")
    for kind, severity, meaning, lines in (
        ("below_floor", "structural", "is faster than its bytes can be moved", impossible),
        ("below_bound", "review", "is faster than the roofline of the device", below),
        ("much_faster", "review", "is more than ten times as fast as the reference", faster),
    ):
        if lines:
            outcome.observations.append(Observation(kind, severity, meaning, tuple(lines)))
    outcome.score = math.exp(math.fsum(logs) / len(logs))
    outcome.metrics["workloads"] = float(len(logs))
