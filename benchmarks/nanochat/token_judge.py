"""The JUDGE of the token lane: judge.py's work over tokens and a large vocabulary, on the device of the trial.

Same rules, other means. Scores [8, T, 8192] arrive in shared memory (exchange.py); of each position only the loss is
kept, and of those that an audit will ask again the whole distribution. Questions always have the full length T: the
future is cut off by random tokens instead. Bytes are those of the raw text that a target stands for (`token_bytes.npy`,
made by the preparation); targets without bytes, marks between documents, count for nothing.

How far two answers may differ on a GPU: scores come in bfloat16, whose last bit is worth 0.0625 between 8 and 16, and a
kernel that was tuned anew may flip it. So one position may be off by DEVICE_TOLERANCE. A gain that small at every
position would still be a gain, so the mean over all positions asked must be near zero, too: a rounding has no side.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started by its path, outside any package

from benchmarks.judge_device import about  # noqa: E402
from benchmarks.nanochat import losses  # noqa: E402
from benchmarks.nanochat.exchange import GROUP, Exchange, Rehearsal  # noqa: E402
from benchmarks.nanochat.judge import (  # noqa: E402
    FIRST,
    NEXT,
    RESCORED_SHARE,
    TOLERANCE,
    Refusal,
    readable,
    serve,
    windows,
)  # fmt: skip
from benchmarks.nanochat.kept import Kept  # noqa: E402
from benchmarks.nanochat.reference import Reference  # noqa: E402

DEVICE_TOLERANCE = 0.1  # nats at one position, or distance of two distributions
MEAN_TOLERANCE = 2e-3  # nats that a cut future may cost on average; beyond five standard errors it is no accident
ERRORS = 5.0
REHEARSED = 2048  # tokens a row
COMPARED = 512  # answers at once, 16 MB of 8,192 scores
STREAMED = 256  # positions of a row that are fed one by one: kernels for one token differ from those for many
STREAMED_TOLERANCE = 0.5
PROMPT, SAMPLE_TOKENS, SAMPLE_SEED, TEMPERATURE, SAMPLE_SECONDS = "It was a", 48, 7, 0.8, 1.5

Tokens = NDArray[np.uint16]
Work = Callable[[Exchange, dict[str, Any]], dict[str, Any]]


@dataclass
class Sheet:
    """One scored validation set."""

    inputs: Tokens  # [rows, T]
    targets: torch.Tensor  # int64 [rows, T]
    losses: torch.Tensor  # float32 [rows, T], nats
    kept: Kept
    tolerance: float


@dataclass
class Gaps:
    """How far answers are from those of before: sizes and signed nats lost, float32 [n] each."""

    sizes: list[torch.Tensor]
    lost: list[torch.Tensor]

    def report(self, tolerance: float, drifts: bool = True) -> dict[str, Any]:
        """`drifts`: whether a mean loss counts; not at positions chosen for their gain."""
        if not self.sizes:
            return {"asked": 0, "failed": 0, "worst": 0.0}
        sizes, lost = torch.cat(self.sizes), torch.cat(self.lost).double()
        mean = float(lost.mean())
        error = float(lost.std(correction=0)) / math.sqrt(len(lost))
        return {
            "asked": len(sizes), "failed": int((sizes > tolerance).sum()), "worst": float(sizes.max()), "mean": mean,
            "drifted": drifts and mean > MEAN_TOLERANCE and mean > ERRORS * error, "tolerance": tolerance,
        }  # fmt: skip


class TokenJudge:
    def __init__(self, data: Path, device: torch.device) -> None:
        self.data, self.device = data, device
        self.token_bytes = torch.from_numpy(np.load(data / "token_bytes.npy").astype(np.int64)).to(device)  # [V]
        self.vocabulary = len(self.token_bytes)
        self.losses = losses.pick(device, self.vocabulary)
        self.reference = Reference(data / "train.bin", self.vocabulary, device)
        self.sheet: Sheet | None = None
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def rehearse(self) -> None:
        """Score and audit zeros of either type once: what a device compiles and loads at its first use is then there.

        Where another program leaves no room for that, the first trial says so.
        """
        length = min(REHEARSED, (self.data / "train.bin").stat().st_size // 2 // (2 * GROUP) - 1)
        request = {"split": "train", "rows": 2 * GROUP, "length": length, "vocabulary": self.vocabulary, "seed": 1,
                   "reference": None, "keep_losses": None, "stream_rows": 1, "sample": False}  # fmt: skip
        for dtype, asked in ((torch.float32, 128), (torch.bfloat16, 512)):  # sorting so many takes a kernel each
            request |= {"random": asked, "targeted": asked}
            with suppress(Refusal), closing(Rehearsal(length, self.vocabulary, self.device, dtype)) as nobody:
                self.score(nobody, request)
                self.audit(nobody, request)

    def meet(self, descriptor: int, request: dict[str, Any]) -> Exchange:
        length = request["length"]
        return Exchange(descriptor, request["seconds"], length, self.vocabulary, self.device)

    def score(self, candidate: Exchange, request: dict[str, Any]) -> dict[str, Any]:
        return self._with_room(self._score, candidate, request)

    def audit(self, candidate: Exchange, request: dict[str, Any]) -> dict[str, Any]:
        """Ask again, in a fresh process, with the future cut off; and a shuffled part as it was."""
        return self._with_room(self._audit, candidate, request)

    def _with_room(self, work: Work, candidate: Exchange, request: dict[str, Any]) -> dict[str, Any]:
        """The judge shares the device with the model, which may have filled it."""
        try:
            with torch.inference_mode():
                candidate.greet()
                return work(candidate, request)
        except torch.OutOfMemoryError as problem:
            raise Refusal("out_of_memory", f"the model leaves the judge no room on the device: {problem}") from None

    def _score(self, candidate: Exchange, request: dict[str, Any]) -> dict[str, Any]:
        self.sheet = None
        inputs, shifted = self._windows(request)
        targets = torch.from_numpy(shifted.astype(np.int64)).to(self.device)
        before = self.reference.losses(inputs, targets, request["reference"])
        random = np.random.default_rng(request["seed"])
        count = min(targets.numel(), request["random"])
        drawn = np.sort(random.choice(targets.numel(), count, replace=False))
        kept = Kept(drawn, request["targeted"], self.vocabulary, self.device)
        found = torch.empty(targets.shape, dtype=torch.float32, device=self.device)
        for at, scores in zip(range(0, len(inputs), GROUP), candidate.answers(_groups(inputs, random)), strict=True):
            share = slice(at, at + GROUP)
            rows = len(found[share])
            flat = scores[:rows].flatten(0, 1)  # [n, V]
            nats = self.losses(flat, targets[share].flatten())
            found[share] = nats.view(rows, -1)
            kept.add(at * inputs.shape[1], flat, before[share].flatten() - nats)
        if not bool(torch.isfinite(found).all()):
            raise Refusal("not_finite", "the model's scores hold NaN or infinity")
        strict = self.device.type == "cpu" and candidate.dtype == torch.float32
        self.sheet = Sheet(inputs, targets, found, kept, TOLERANCE if strict else DEVICE_TOLERANCE)
        if keep := request["keep_losses"]:
            np.save(keep, found.cpu().numpy().astype(np.float16))
        lengths = self.token_bytes[targets]
        counted = found.double()[lengths > 0].sum().item() / math.log(2)
        total = int(lengths.sum())
        return {"score": counted / total, "bytes": total, **_spent(candidate)}

    def _audit(self, candidate: Exchange, request: dict[str, Any]) -> dict[str, Any]:
        sheet, self.sheet = self.sheet, None  # what trains next needs its room on the device
        if sheet is None:
            raise Refusal("refused", "nothing has been scored that could be audited")
        random = np.random.default_rng(request["seed"])
        report = {
            "streamed": self._streamed(sheet, candidate, request["stream_rows"], random),  # first: these rows are new
            "targeted": self._truncated(sheet, candidate, *sheet.kept.best(), random).report(sheet.tolerance, False),
            "random": self._truncated(sheet, candidate, *sheet.kept.drawn(), random).report(sheet.tolerance),
            "rescored": self._rescored(sheet, candidate, random).report(sheet.tolerance),
            "tolerance": sheet.tolerance,
        }
        report |= _spent(candidate)
        if request["sample"]:
            report |= self._sample(candidate)
        return report

    def memory(self) -> dict[str, int]:
        """Bytes of the device that anybody uses, and all."""
        if self.device.type != "cuda":
            return {"used": 0, "total": 0}
        free, total = torch.cuda.mem_get_info()
        return {"used": total - free, "total": total}

    def _windows(self, request: dict[str, Any]) -> tuple[Tokens, Tokens]:
        if request["vocabulary"] != self.vocabulary:
            words = f"the data have a vocabulary of {self.vocabulary}, the preset of {request['vocabulary']}"
            raise Refusal("refused", f"{words}; prepare them again")
        raw = np.memmap(self.data / f"{request['split']}.bin", dtype="<u2", mode="r")  # a check reads the train data
        inputs, targets = windows(raw, request["rows"], request["length"], "tokens")
        if max(inputs.max(), targets.max()) >= self.vocabulary:
            raise Refusal("refused", "the validation data hold tokens beyond the vocabulary; prepare them again")
        return inputs, targets

    def _truncated(
        self, sheet: Sheet, candidate: Exchange, positions: NDArray[np.int64], before: torch.Tensor,
        random: np.random.Generator,
    ) -> Gaps:  # fmt: skip
        """Positions are flat indices into [rows, T], `before` [n, V] what was said there. The answer at t may use
        inputs 0..t alone."""
        order = random.permutation(len(positions))
        rows, at = np.divmod(positions[order], sheet.inputs.shape[1])
        tokens = sheet.inputs[rows]
        after = np.arange(tokens.shape[1])[None, :] > at[:, None]
        tokens[after] = random.integers(0, self.vocabulary, int(after.sum()), dtype=np.uint16)
        where = np.zeros(-(-len(at) // GROUP) * GROUP, dtype=np.int64)  # of rows that fill a question up: anything
        where[: len(at)] = at
        places = torch.from_numpy(where).to(self.device).view(-1, GROUP)
        said = torch.empty(len(where), self.vocabulary, device=self.device)
        asked = candidate.answers(_groups(tokens, random), at=places)
        for begin, scores in zip(range(0, len(tokens), GROUP), asked, strict=True):
            said[begin : begin + GROUP] = scores
        return self._gaps(sheet, said[: len(at)], rows, at, before[torch.from_numpy(order).to(self.device)])

    def _gaps(
        self, sheet: Sheet, said: torch.Tensor, rows: NDArray[np.int64], at: NDArray[np.int64],
        before: torch.Tensor | None = None,
    ) -> Gaps:  # fmt: skip
        """said [n, V] at the positions rows, at [n]. The larger of the difference in nats at the target, against the
        loss that was scored, and the distance of the two distributions (total variation), where the first one was kept.

        After all answers have come: each number that the host waits for in between costs the device a turn away from
        the model.
        """
        if not bool(torch.isfinite(said).all()):
            raise Refusal("not_finite", "the model's scores hold NaN or infinity")
        where = tuple(torch.from_numpy(part).to(self.device) for part in (rows, at))
        targets, losses, gaps = sheet.targets[where], sheet.losses[where], Gaps([], [])
        for begin in range(0, len(said), COMPARED):
            share = slice(begin, begin + COMPARED)
            again = torch.log_softmax(said[share], 1)
            lost = -again.gather(1, targets[share, None])[:, 0] - losses[share]
            apart = torch.zeros_like(lost) if before is None else (again.exp() - before[share].exp()).abs().sum(1) / 2
            gaps.sizes.append(torch.maximum(apart, lost.abs()))
            gaps.lost.append(lost)
        return gaps

    def _streamed(self, sheet: Sheet, candidate: Exchange, count: int, random: np.random.Generator) -> dict[str, Any]:
        """Rows fed one token at a time: when a position is scored, what follows has been sent to nobody over there."""
        if not count or not candidate.can_step():
            return Gaps([], []).report(0.0)
        rows = random.choice(len(sheet.inputs), GROUP, replace=len(sheet.inputs) < GROUP)
        fed = sheet.inputs[rows, :STREAMED]
        length = fed.shape[1]
        said = torch.empty(length, GROUP, self.vocabulary, device=self.device)
        (first,) = candidate.answers([fed[:, :1]], FIRST)
        said[0] = first[:, 0]
        rest = candidate.answers((fed[:, at : at + 1] for at in range(1, length)), NEXT)
        for at, scores in zip(range(1, length), rest, strict=True):
            said[at] = scores[:, 0]
        gaps = self._gaps(sheet, said.flatten(0, 1), np.tile(rows, length), np.arange(length).repeat(GROUP))
        strict = sheet.tolerance == TOLERANCE
        return gaps.report(TOLERANCE if strict else STREAMED_TOLERANCE)

    def _rescored(self, sheet: Sheet, candidate: Exchange, random: np.random.Generator) -> Gaps:
        count = max(1, round(len(sheet.inputs) * RESCORED_SHARE))
        rows = random.permutation(len(sheet.inputs))[:count]
        gaps = Gaps([], [])
        answers = candidate.answers(_groups(sheet.inputs[rows], random))
        for begin, scores in zip(range(0, count, GROUP), answers, strict=True):
            which = torch.from_numpy(rows[begin : begin + GROUP]).to(self.device)
            again = self.losses(scores[: len(which)].flatten(0, 1), sheet.targets[which].flatten())
            if not bool(torch.isfinite(again).all()):
                raise Refusal("not_finite", "the model's scores hold NaN or infinity")
            lost = again - sheet.losses[which].flatten()
            gaps.sizes.append(lost.abs())
            gaps.lost.append(lost)
        return gaps

    def _sample(self, candidate: Exchange) -> dict[str, Any]:
        """What the model writes after PROMPT, as readable text; empty where there is no tokenizer or no time."""
        began = time.monotonic()
        candidate.limit(SAMPLE_SECONDS)
        try:
            text = self._written(candidate, began)
        except Refusal:  # it is asked nothing more, and its score stands
            text = ""
        return {"sample": readable(text.encode()), "sample_seconds": time.monotonic() - began}

    def _written(self, candidate: Exchange, began: float) -> str:
        path = self.data / "tokenizer.json"
        try:
            from tokenizers import Tokenizer
        except ImportError:  # nobody prepares tokens on this machine, and no number needs it
            return ""
        if not path.is_file():
            return ""
        tokenizer = Tokenizer.from_file(str(path))
        written = [0, *tokenizer.encode(PROMPT).ids]  # 0 begins a document
        drawn = torch.Generator(device=self.device).manual_seed(SAMPLE_SEED)
        room = min(SAMPLE_TOKENS, candidate.length - len(written))
        row = np.zeros((GROUP, candidate.length), dtype=np.uint16)
        for _ in range(room):
            if time.monotonic() - began > 0.9 * SAMPLE_SECONDS:
                break
            row[0, : len(written)] = written
            (scores,) = candidate.answers([row])
            chances = torch.softmax(scores[0, len(written) - 1].float() / TEMPERATURE, 0)
            written.append(int(torch.multinomial(chances, 1, generator=drawn)))
        return str(tokenizer.decode(written[1:]))


def _spent(candidate: Exchange) -> dict[str, float]:
    return {"ready_seconds": candidate.getting_ready, "asking_seconds": candidate.asking}


def _groups(tokens: Tokens, random: np.random.Generator) -> Iterator[Tokens]:
    """tokens [n, T] in questions of GROUP rows; rows of other random tokens fill up the last one."""
    for at in range(0, len(tokens), GROUP):
        rows = tokens[at : at + GROUP]
        if missing := GROUP - len(rows):
            filler = random.integers(0, int(tokens.max()) + 1, (missing, tokens.shape[1]), dtype=np.uint16)
            rows = np.concatenate((rows, filler))
        yield rows


def main() -> None:
    """`token_judge.py DATA CONTROL_FD DEVICE`."""
    data, descriptor, name = sys.argv[1:4]
    control, device = socket.socket(fileno=int(descriptor)), torch.device(name)
    try:
        judge = TokenJudge(Path(data), device)
        if device.type == "cuda":
            judge.rehearse()
        ready: dict[str, Any] = about(device)
    except (RuntimeError, OSError, ValueError) as problem:  # no device, no driver, no data
        control.send(json.dumps({"refusal": "no_device", "message": str(problem).strip().splitlines()[-1]}).encode())
        os._exit(1)  # a driver that fails may hang at exit
    control.send(json.dumps(ready).encode())
    serve(judge, control, judge.meet, {"memory": judge.memory})


if __name__ == "__main__":
    main()
