"""One trial of the nanochat benchmark: train in the sandbox, score from outside, audit. Protected.

    TRAIN step (candidate, train data) -> weights -> FORWARD steps (candidate, no data) <-> JUDGE (ours, val data)

Each step is a pristine process; the sandbox is emptied and verified between them. The clock is the parent's and runs
from the moment the train data becomes readable to the moment the parent holds the weights. On a GPU the judge is on the
same device, and scores reach it there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.compiled import CompileCache
from benchmarks.contract import Assignment, Failure, Gate, Observation, Outcome, PointSink, TrialFailed
from benchmarks.gpu import check_not_busy, device_failure, gpu_of
from benchmarks.identity import surroundings
from benchmarks.judging import JudgeProcess
from benchmarks.nanochat import audits, bounds, identity, sizes
from benchmarks.nanochat.tokens.tokenizer import spellings
from benchmarks.nanochat.training import Training, TrainSession, WarmUpSession
from benchmarks.nanochat.weights import Weights
from runners import cuda
from runners.logs import LogPump, last_line
from runners.sandbox import Child, Exit, Sandbox, SandboxBroken

logger = logging.getLogger("lab.evaluate")
PRELOAD = (
    "torch",
    "numpy",
    "safetensors.torch",
    "torch._dynamo",
)  # building an optimizer imports dynamo: 1 s
SETUP = "torch.set_num_threads(1)"
INSIDE = Path(__file__).parent / "inside"
BYTES = 256  # the vocabulary of the byte lane
WARM_UP_SHARE = 0.5  # of a budget of CPU seconds; a longer warm-up could train, on text that the candidate carries
LOG_WALL = 2.0  # for the rest of the output, once every writer is dead


class Evaluator:
    """Runs trials on one slot, one after another."""

    judge_program: tuple[str, ...] = (str(Path(__file__).parent / "judge.py"),)
    token_judge_program: tuple[str, ...] = (str(Path(__file__).parent / "token_judge.py"),)

    def __init__(self) -> None:
        self._judge: JudgeProcess | None = None
        self.session = TrainSession

    def close(self) -> None:
        if self._judge:
            self._judge.close()
            self._judge = None

    def judge(self, task: Assignment, box: Sandbox) -> JudgeProcess:
        """The judge of this lane, its data and device; another one where the slot turned to something else."""
        program = self.judge_program if task.preset.vocabulary == BYTES else self.token_judge_program
        wanted = (task.data, program, gpu_of(task, box))
        if (held := self._judge) and ((held.data, held.program, held.gpu) != wanted or not held.lives):
            self.close()
        if self._judge is None:
            self._judge = JudgeProcess(*wanted)
        return self._judge

    def run(
        self, task: Assignment, box: Sandbox, sink: PointSink, gate: Gate = lambda: None, cpu: int | None = None,
        keep_weights: Path | None = None, *, trained: Gate = lambda: None, beside: bool = False,
    ) -> Outcome:  # fmt: skip
        """The whole trial. A candidate's failure is part of the outcome; only a broken sandbox raises.

        `trained` is called once its weights are held and its TRAIN process is gone: what warms up next may begin.
        `beside`: another trial is being judged on the device, so what is taken of its memory accuses nobody.
        """
        if task.removed_guards:
            raise ValueError("a trial that counts keeps all its guards")
        if missing := self._missing(task):
            return Outcome(failure=Failure("no_data", _without(missing, task)))
        began = time.monotonic()
        outcome = self._outcome(task, box)
        judge = self.judge(task, box)
        if cpu is not None:
            judge.pin(cpu)
        try:
            outcome.metrics["code_bytes"] = _checked_size(task.tree)
            if not beside:
                check_not_busy(task, judge)
            compiled = CompileCache(task, outcome)
            training = self.train(task, box, sink, outcome, gate, compiled)
            with training.weights as weights:
                trained()
                if keep_weights:
                    weights.save(keep_weights)
                with _described(weights, outcome):
                    outcome.score = self.score(task, box, weights, outcome, compiled.content)
                    self.audit(task, box, weights, outcome, compiled.content)
        except TrialFailed as failed:
            outcome.score, outcome.failure = None, failed.failure
            outcome.metrics |= failed.metrics
        outcome.seconds["total_wall"] = time.monotonic() - began
        return outcome

    def prepare(self, task: Assignment, box: Sandbox) -> bool:
        """Run the untimed warm-up of a commit alone, in a sandbox of its own: its first trial then finds a warm cache.

        No data and no clock are handed out, and what it prints is dropped. Whether a cache is there now. Not beside a
        timed trial: a warm-up trains a few steps, which the other one would feel. Several at once may share a device
        that has room for them; all have to end before the next trial begins, which refuses a device where somebody
        else holds memory. From any thread, once `is_prepared` has started the judge.
        """
        if self.is_prepared(task, box):
            return True
        outcome = self._outcome(task, box)
        compiled = CompileCache(task, outcome)
        _, log, channel = _begin(task, box, compiled)
        with channel:
            WarmUpSession(task, box, lambda *_: None, channel, lambda: None, compiled).follow()
        box.reset()
        log.join(LOG_WALL)
        if not compiled.content:
            logger.warning(
                "the warm-up of %s left no cache: %s", task.commit[:10], last_line(log.text()) or "no output"
            )
        return bool(compiled.content)

    def is_prepared(self, task: Assignment, box: Sandbox) -> bool:
        """Whether a trial of this commit would find a compile cache, or could have none."""
        if task.caches is None or self._missing(task):
            return True
        return CompileCache.exists(task, self._outcome(task, box))

    def device_memory(self, task: Assignment, box: Sandbox) -> int:
        return self.judge(task, box).memory()[1] if task.preset.device == "cuda" else 0

    def _outcome(self, task: Assignment, box: Sandbox) -> Outcome:
        outcome = Outcome(hashes=identity.hashes(task), surroundings=surroundings(task, box))
        outcome.surroundings |= self.judge(task, box).ready()
        return outcome

    @staticmethod
    def _missing(task: Assignment) -> list[str]:
        """Files of the prepared data that are not there."""
        return [n for n in ("manifest.json", "train.bin", f"{task.split}.bin") if not (task.data / n).is_file()]

    def train(
        self, task: Assignment, box: Sandbox, sink: PointSink, outcome: Outcome, gate: Gate, compiled: CompileCache
    ) -> Training:
        """The TRAIN step. Raises TrialFailed where no weights came in before the deadline."""
        child, log, channel = _begin(task, box, compiled)
        with channel:
            session = self.session(task, box, sink, channel, gate, compiled)
            if task.preset.device == "cuda":
                session.while_held = partial(self._look_at_device, task, box, outcome)
            training = session.follow()
            self._note(session, outcome, compiled)
            exit_ = _exit_of(child) if session.over else None
            peak, oom = box.memory_peak(), box.oom_killed()
            box.reset()
            log.join(LOG_WALL)
            outcome.log = log.text()
            if peak:
                outcome.metrics["memory_bytes"] = float(peak)
            outcome.metrics["cache_bytes"] = float(len(compiled.content))
        if training:
            outcome.seconds |= {
                "train_cpu": training.cpu_seconds, "train_wall": training.wall_seconds,
                "warm_up": training.warm_up_seconds,
            }  # fmt: skip
            return training
        raise session.explain(exit_, oom, outcome.log)

    def _look_at_device(self, task: Assignment, box: Sandbox, outcome: Outcome) -> None:
        """While the candidate hands its weights in: the memory it holds (torch keeps what it once took), the clocks."""
        judge = self.judge(task, box)
        outcome.metrics["device_memory_bytes"] = float(judge.memory()[0])
        outcome.surroundings |= cuda.condition(judge.gpu or 0)

    def _note(self, session: TrainSession, outcome: Outcome, compiled: CompileCache) -> None:
        """What a reader should know of how it trained."""
        if session.bad_frames:
            words = f"{session.bad_frames} frames of points could not be read"
            outcome.observations.append(Observation("bad_points", "info", words))
        outcome.seconds["warm_up_cpu"] = spent = session.warm_up_cpu
        words, budget, limits = "", session.task.preset.budget_seconds, session.bounds
        if session.cpu_counts and spent > WARM_UP_SHARE * budget:
            words = f"{spent:.2f} CPU seconds before its clock, {budget:g} after"
        most = limits.cached_warm_up_asks if compiled.was_there else limits.warm_up_asks
        if most and session.warm_up > most:
            words = f"{session.warm_up:.0f} s before its clock, {budget:g} after; compiling takes less than {most:g}"
        if words:
            seen = Observation("long_warm_up", "review", "spends long in the untimed warm-up", (words,))
            outcome.observations.append(seen)

    def score(self, task: Assignment, box: Sandbox, weights: Weights, outcome: Outcome, cache: bytes = b"") -> float:
        request = {
            "op": "score", "split": task.split, "rows": task.preset.score_rows,
            "length": task.preset.sequence_length, "reference": task.reference and str(task.reference),
            "keep_losses": task.keep_losses and str(task.keep_losses), "vocabulary": task.preset.vocabulary,
            **audits.sizes(task), "seed": int.from_bytes(os.urandom(8), "big"),
        }  # fmt: skip
        reply = self._forward(task, box, weights, request, outcome, "score", cache)
        return float(reply["score"])

    def audit(self, task: Assignment, box: Sandbox, weights: Weights, outcome: Outcome, cache: bytes = b"") -> None:
        """Prefix truncation and re-scoring in a fresh process; every mismatch is a finding."""
        request = {
            "op": "audit", "length": task.preset.sequence_length, **audits.sizes(task),
            "seed": int.from_bytes(os.urandom(8), "big"), "sample": task.wants_sample,
        }  # fmt: skip
        reply = self._forward(task, box, weights, request, outcome, "audit", cache)
        if task.wants_sample:
            outcome.sample = reply["sample"]
            outcome.seconds["sample_wall"] = reply["sample_seconds"]
        audits.record(reply, outcome)

    def _forward(
        self, task: Assignment, box: Sandbox, weights: Weights, request: dict[str, Any], outcome: Outcome, phase: str,
        cache: bytes,
    ) -> dict[str, Any]:  # fmt: skip
        began, cpu = time.monotonic(), box.cpu_seconds()
        step = "run_forward" if task.preset.vocabulary == BYTES else "run_scores"
        ours, theirs = socket.socketpair()
        log, writer = _pump()
        try:
            with theirs:
                box.spawn(
                    step, tree=task.tree, args={"device": task.preset.device}, cache=cache,
                    fds={"channel": theirs.fileno(), "weights": weights.descriptor}, log=writer,
                )  # fmt: skip
            seconds = bounds.of(task.preset).forward_wall
            judge, late = self.judge(task, box), "the model did not score the validation data in time"
            reply = judge.ask(request | {"seconds": seconds}, [ours.fileno()], late)
        except TrialFailed as failed:
            box.reset()
            log.join(LOG_WALL)
            raise _of_phase(phase, failed, log.text(), task) from None
        finally:
            os.close(writer)
            ours.close()
            outcome.seconds[f"{phase}_cpu"] = box.cpu_seconds() - cpu
            ended = time.monotonic()
            box.reset()
            outcome.seconds |= {f"{phase}_wall": time.monotonic() - began, f"{phase}_reset": time.monotonic() - ended}
        outcome.seconds[f"{phase}_judge_cpu"] = reply["cpu_seconds"]
        for part in ("ready", "asking"):
            if (spent := reply.get(f"{part}_seconds")) is not None:
                outcome.seconds[f"{phase}_{part}"] = spent
        return reply


def _begin(task: Assignment, box: Sandbox, compiled: CompileCache) -> tuple[Child, LogPump, socket.socket]:
    """Start a TRAIN process. Returns it, its log, and the parent's end of its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    log, writer = _pump()
    preset = task.preset
    args = {
        "seed": task.seed, "sequence_length": preset.sequence_length, "vocab_size": preset.vocabulary,
        "budget_seconds": preset.budget_seconds, "clock": preset.clock, "device": preset.device,
    }  # fmt: skip
    try:
        with theirs, memory_file("token_bytes", _spellings(task)) as spelled:
            child = box.spawn(
                "run_train", tree=task.tree, args=args, log=writer, cache=compiled.content,
                fds={"channel": theirs.fileno(), "token_bytes": spelled},
            )  # fmt: skip
    except SandboxBroken:
        ours.close()
        raise
    finally:
        os.close(writer)
    return child, log, ours


def _spellings(task: Assignment) -> bytes:
    """What the tokens of this lane stand for, [V, 16]: a candidate may know it, as it may know that bytes are bytes."""
    if task.preset.vocabulary <= BYTES:
        return b""
    return spellings(task.data).tobytes()


@contextmanager
def memory_file(name: str, content: bytes) -> Iterator[int]:
    """A descriptor of a file in memory, at its beginning."""
    memory = os.memfd_create(name)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(memory, view) :]
        os.lseek(memory, 0, os.SEEK_SET)
        yield memory
    finally:
        os.close(memory)


class _described:
    """Hashes and measures weights in a thread of its own, while the device scores them."""

    def __init__(self, weights: Weights, outcome: Outcome) -> None:
        self._outcome = outcome
        self._thread = threading.Thread(target=self._describe, args=(weights,), name="describe-weights")

    def _describe(self, weights: Weights) -> None:
        described = weights.describe()
        self._outcome.hashes["weights"] = described.sha256
        self._outcome.metrics.update(described.metrics)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def _without(missing: list[str], task: Assignment) -> str:
    command = "python -m benchmarks.nanochat prepare" + (f" --preset {task.preset.name}" if task.preset.data else "")
    return f"the prepared data lack {', '.join(missing)}: run `{command}` again"


def _of_phase(phase: str, failed: TrialFailed, log: str, task: Assignment) -> TrialFailed:
    """A failure of a FORWARD step, with its last words."""
    if task.preset.device == "cuda" and failed.failure.kind == "bad_output" and (why := device_failure(log)):
        return TrialFailed(why.failure.kind, f"{phase}: {why.failure.message}", why.metrics)
    last = last_line(log)
    message = f"{phase}: {failed.failure.message}" + (f" ({last})" if last else "")
    return TrialFailed(failed.failure.kind, message)


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
