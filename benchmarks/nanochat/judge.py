"""The JUDGE: a process of its own that holds the validation text and turns a candidate's scores into bits per byte.

It never runs candidate code. It sends tokens, receives scores over the whole vocabulary, normalises them itself
(log-softmax in float32), gathers the targets, which the candidate never sees, and counts bytes from the raw text. Then
it audits causality: positions where the candidate beats its reference most, and random ones, are asked again in a fresh
process with everything after them cut off; the scores must agree. A shuffled 5 % of the rows is scored again there too,
so that nothing can depend on order or on what was asked before. A trial that confirms is audited at more positions, and
streamed where the model offers `step`: fed byte by byte, it cannot see ahead, and must say what it said before.

When the score and the audit are done, the judge may let the model write a little, for people to read: it draws bytes
from the scores it gets. That counts for nothing.

Conversation with the worker, over one seqpacket socket: JSON requests with the candidate's stream attached, JSON
replies. What this does not catch: a dependence on future text below TOLERANCE nats.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 256
TOLERANCE = 1e-3  # nats; float32 re-orderings of an honest model stay near 1e-5
CUT = 16  # truncated prefixes are rounded up to this length; the tail is replaced by random bytes
RESCORED_SHARE = 0.05
GROUP = 32  # rows asked at once
WHOLE, FIRST, NEXT, CAN_STEP = range(4)  # what a question asks for; inside/run_forward.py answers it
PROMPT = b"It was a "  # of no text in particular
SAMPLE_BYTES, SAMPLE_SEED, TEMPERATURE = 160, 7, 0.8
SAMPLE_SECONDS = 1.5  # a slow model writes less
SHORTEST = 40  # bytes worth showing
WINDOW = 64  # bytes the model sees of what it has written; half the cost of 128

Floats = NDArray[np.float32]
Meet = Callable[[int, dict[str, Any]], Any]
Replies = Mapping[str, Callable[[], dict[str, Any]]]


class Refusal(Exception):
    """The candidate's answer cannot be judged. `kind` is one of benchmarks.contract.FAILURE_KINDS."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Sheet:
    """One scored validation set: what the candidate said of each position."""

    inputs: NDArray[np.uint8]  # [rows, T]
    targets: NDArray[np.uint8]  # [rows, T]
    log_probabilities: Floats  # [rows, T, V]
    losses: Floats = field(init=False)  # [rows, T] nats

    def __post_init__(self) -> None:
        picked = np.take_along_axis(self.log_probabilities, self.targets[..., None].astype(np.int64), axis=2)
        self.losses = -picked[..., 0]

    @property
    def bits_per_byte(self) -> float:
        """Every target is one raw byte of the text, so bytes are counted here and by nobody else."""
        return float(self.losses.sum(dtype=np.float64) / math.log(2) / self.targets.size)

    def gap(self, rows: NDArray[np.int64], at: NDArray[np.int64], again: Floats) -> Floats:
        """How far another answer [n, V] to these positions is from the first one: the larger of the distance of the
        two distributions (total variation) and the difference in nats at the target."""
        before = self.log_probabilities[rows, at]
        apart = np.abs(np.exp(again) - np.exp(before)).sum(axis=1) / 2
        target = self.targets[rows, at].astype(np.int64)[:, None]
        nats = np.abs(np.take_along_axis(again - before, target, 1)[:, 0])
        larger: Floats = np.maximum(apart, nats)
        return larger


def log_softmax(scores: Floats) -> Floats:
    """Normalise in place over the last axis, in float32. Raises Refusal on NaN or infinity."""
    if not np.isfinite(scores).all():
        raise Refusal("not_finite", "the model's scores hold NaN or infinity")
    scores -= scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores


def validation_rows(text: bytes, rows: int, length: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`rows` windows spread evenly over the text -> inputs and targets, uint8 [rows, length] each."""
    return windows(np.frombuffer(text, dtype=np.uint8), rows, length, "bytes")


def windows(raw: NDArray[Any], rows: int, length: int, unit: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """`rows` windows spread evenly over raw [n] -> inputs and targets, [rows, length] each, of its type."""
    if len(raw) < rows * (length + 1):
        raise Refusal("refused", f"the validation text has {len(raw)} {unit}, {rows * (length + 1)} are needed")
    starts = np.linspace(0, len(raw) - length - 1, rows).astype(np.int64)
    found = raw[starts[:, None] + np.arange(length + 1)]
    return found[:, :-1].copy(), found[:, 1:].copy()


class Candidate:
    """The far end of a FORWARD process: asks it for scores, trusts none of it."""

    def __init__(self, descriptor: int, seconds: float) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self.socket.settimeout(seconds)

    def ask(self, tokens: NDArray[np.uint8], what: int = WHOLE) -> Floats:
        """tokens [rows, T] -> scores [rows, T, V]. Raises Refusal where the answer does not come whole."""
        scores = np.empty((*tokens.shape, VOCABULARY), dtype=np.float32)
        self._converse(what, tokens, memoryview(scores.data).cast("B"))
        return scores

    def can_step(self) -> bool:
        """Whether its model says that it can be fed token by token."""
        answer = bytearray(1)
        self._converse(CAN_STEP, np.empty((0, 0), dtype=np.uint8), memoryview(answer))
        return answer == b"\x01"

    def _converse(self, what: int, tokens: NDArray[np.uint8], view: memoryview) -> None:
        try:
            self.socket.sendall(struct.pack("<IIB", *tokens.shape, what) + tokens.tobytes())
            while view:
                got = self.socket.recv_into(view)
                if not got:
                    raise Refusal("bad_output", "the model ended before it had scored all positions")
                view = view[got:]
        except TimeoutError:
            raise Refusal("timeout", "the model did not score the validation text in time") from None
        except (BrokenPipeError, ConnectionResetError):
            raise Refusal("bad_output", "the model ended before it had scored all positions") from None

    def close(self) -> None:
        self.socket.close()


def sample(candidate: Candidate) -> dict[str, Any]:
    """What the model writes after PROMPT in the time it has, as readable text; empty where that is next to nothing."""
    began, random, written = time.monotonic(), np.random.default_rng(SAMPLE_SEED), bytearray(PROMPT)
    try:
        while len(written) < len(PROMPT) + SAMPLE_BYTES:
            if (left := began + SAMPLE_SECONDS - time.monotonic()) <= 0:
                break
            candidate.socket.settimeout(left)
            seen = written[-WINDOW:]
            tokens = np.zeros((1, -(-len(seen) // CUT) * CUT), dtype=np.uint8)  # lengths that the audit asks for too
            tokens[0, : len(seen)] = np.frombuffer(seen, dtype=np.uint8)
            scores = log_softmax(candidate.ask(tokens)[0, len(seen) - 1] / TEMPERATURE)
            chances = np.exp(scores.astype(np.float64))
            written.append(int(random.choice(VOCABULARY, p=chances / chances.sum())))
    except Refusal:  # it is asked nothing more, and its score stands
        pass
    enough = len(written) >= len(PROMPT) + SHORTEST
    return {"sample": readable(bytes(written)) if enough else "", "sample_seconds": time.monotonic() - began}


def readable(content: bytes) -> str:
    """As text without anything that is no character of a page: control codes, direction marks, broken bytes."""
    text = content.decode("utf-8", "replace")
    return "".join(letter for letter in text if letter == "\n" or letter.isprintable())


class Judge:
    def __init__(self, data: Path) -> None:
        self.data = data
        self.sheet: Sheet | None = None
        self.reference: Floats | None = None
        self._bigram: Floats | None = None

    def score(self, candidate: Candidate, request: dict[str, Any]) -> dict[str, Any]:
        text = (self.data / f"{request['split']}.bin").read_bytes()
        inputs, targets = validation_rows(text, request["rows"], request["length"])
        scores = np.empty((*inputs.shape, VOCABULARY), dtype=np.float32)
        for at in range(0, len(inputs), GROUP):
            scores[at : at + GROUP] = log_softmax(candidate.ask(inputs[at : at + GROUP]))
        self.sheet = Sheet(inputs, targets, scores)
        self.reference = self._reference(request.get("reference"))
        if keep := request.get("keep_losses"):
            np.save(keep, self.sheet.losses.astype(np.float16))
        return {"score": self.sheet.bits_per_byte, "bytes": int(targets.size)}

    def audit(self, candidate: Candidate, request: dict[str, Any]) -> dict[str, Any]:
        """Ask again, in a fresh process, with the future cut off; and a shuffled part as it was."""
        if self.sheet is None:
            raise Refusal("refused", "nothing has been scored that could be audited")
        random = np.random.default_rng(request["seed"])
        streamed = self._streamed(candidate, request["stream_rows"], random)  # first: it has not seen these rows here
        targeted = self._best_against_reference(request["targeted"])
        drawn = random.choice(self.sheet.losses.size, request["random"], replace=False)
        report = {
            "targeted": self._truncated(candidate, targeted, random),
            "random": self._truncated(candidate, drawn, random),
            "rescored": self._rescored(candidate, random),
            "streamed": streamed,
            "tolerance": TOLERANCE,
        }
        self.sheet = None
        if request.get("sample"):
            report |= sample(candidate)
        return report

    def _truncated(
        self, candidate: Candidate, positions: NDArray[np.int64], random: np.random.Generator
    ) -> dict[str, Any]:
        """Positions are flat indices into [rows, T]. The answer at t may use inputs 0..t alone."""
        sheet = self._sheet()
        length = sheet.inputs.shape[1]
        rows, at = np.divmod(positions, length)
        cut = np.minimum((at // CUT + 1) * CUT, length)
        worst, failed = 0.0, 0
        for size in np.unique(cut):
            chosen = cut == size
            tokens = sheet.inputs[rows[chosen], :size].copy()
            after = np.arange(size)[None, :] > at[chosen][:, None]
            tokens[after] = random.integers(0, VOCABULARY, int(after.sum()), dtype=np.uint8)
            for part in range(0, len(tokens), GROUP):
                share = slice(part, part + GROUP)
                where = at[chosen][share]
                answer = candidate.ask(tokens[share])[np.arange(len(where)), where]  # [n, V]
                gap = sheet.gap(rows[chosen][share], where, log_softmax(answer))
                worst, failed = max(worst, float(gap.max())), failed + int((gap > TOLERANCE).sum())
        return {"asked": len(positions), "failed": failed, "worst": worst}

    def _streamed(self, candidate: Candidate, count: int, random: np.random.Generator) -> dict[str, Any]:
        """Rows fed byte by byte: when a position is scored, what follows it has been sent to nobody in that process."""
        if not count or not candidate.can_step():
            return {"asked": 0, "failed": 0, "worst": 0.0}
        sheet, length = self._sheet(), self._sheet().inputs.shape[1]
        rows = random.choice(len(sheet.inputs), min(count, len(sheet.inputs)), replace=False)
        worst, failed = 0.0, 0
        for at in range(length):
            answer = candidate.ask(sheet.inputs[rows, at : at + 1], NEXT if at else FIRST)[:, 0]  # [n, V]
            gap = sheet.gap(rows, np.full(len(rows), at), log_softmax(answer))
            worst, failed = max(worst, float(gap.max())), failed + int((gap > TOLERANCE).sum())
        return {"asked": len(rows) * length, "failed": failed, "worst": worst}

    def _rescored(self, candidate: Candidate, random: np.random.Generator) -> dict[str, Any]:
        sheet = self._sheet()
        count = max(1, round(len(sheet.inputs) * RESCORED_SHARE))
        rows = random.permutation(len(sheet.inputs))[:count]
        again = log_softmax(candidate.ask(sheet.inputs[rows]))
        picked = np.take_along_axis(again, sheet.targets[rows][..., None].astype(np.int64), axis=2)[..., 0]
        gap = np.abs(-picked - sheet.losses[rows])
        return {"asked": int(gap.size), "failed": int((gap > TOLERANCE).sum()), "worst": float(gap.max())}

    def _best_against_reference(self, count: int) -> NDArray[np.int64]:
        assert self.reference is not None
        gain = (self.reference - self._sheet().losses).ravel()
        best: NDArray[np.int64] = np.argsort(-gain)[:count]
        return best

    def _reference(self, path: str | None) -> Floats:
        """Losses of an earlier commit on the same rows; a bigram count model where there is none."""
        sheet = self._sheet()
        if path and Path(path).is_file():
            stored: Floats = np.load(path, allow_pickle=False).astype(np.float32)
            if stored.shape == sheet.losses.shape:
                return stored
        if self._bigram is None:
            train = np.frombuffer((self.data / "train.bin").read_bytes(), dtype=np.uint8).astype(np.int64)
            pairs = np.bincount(train[:-1] * VOCABULARY + train[1:], minlength=VOCABULARY**2) + 0.1
            table = pairs.reshape(VOCABULARY, VOCABULARY)
            self._bigram = -np.log(table / table.sum(axis=1, keepdims=True)).astype(np.float32)
        return np.asarray(self._bigram[sheet.inputs, sheet.targets], dtype=np.float32)

    def _sheet(self) -> Sheet:
        assert self.sheet is not None
        return self.sheet


class Judges(Protocol):
    """What `serve` asks of a judge: replies that travel as JSON. Each may raise Refusal."""

    def score(self, candidate: Any, request: dict[str, Any]) -> dict[str, Any]: ...

    def audit(self, candidate: Any, request: dict[str, Any]) -> dict[str, Any]: ...


def serve(judge: Judges, control: socket.socket, meet: Meet, more: Replies | None = None) -> None:
    """Serve one worker until it closes the socket. `meet(descriptor, request)` makes the end of a FORWARD process;
    `more` answers requests that come without one."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            return
        request = json.loads(message)
        if more and request["op"] in more:
            control.send(json.dumps(more[request["op"]]()).encode())
            continue
        began = os.times()
        try:
            with closing(meet(descriptors[0], request)) as candidate:
                reply = (judge.score if request["op"] == "score" else judge.audit)(candidate, request)
        except Refusal as refusal:
            reply = {"refusal": refusal.kind, "message": str(refusal)}
        ended = os.times()
        reply["cpu_seconds"] = ended.user + ended.system - began.user - began.system
        control.send(json.dumps(reply).encode())


def main() -> None:
    """`judge.py DATA CONTROL_FD`."""
    control = socket.socket(fileno=int(sys.argv[2]))
    control.send(b"{}")  # ready
    serve(Judge(Path(sys.argv[1])), control, lambda descriptor, request: Candidate(descriptor, request["seconds"]))


if __name__ == "__main__":
    main()
