"""The judge's end of a talk with a FORWARD process of the token lane: questions over a socket, scores in shared memory.

The judge makes the memory (on the device where there is one, docs/decisions/0009) and sends its descriptor. Questions
all have one shape, GROUP rows of T tokens, since kernels of a device round differently from shape to shape. There are
two buffers in turn, so that the model computes while the judge reads. What was answered is copied into the judge's own
memory once, and only the copy is judged: the candidate can write to the shared memory at any time.

inside/run_scores.py is the other end.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.judge_device import Shared
from benchmarks.nanochat.judge import CAN_STEP, WHOLE, Refusal
from runners import cuda

GROUP = 8  # rows of a question: 16,384 positions at 2,048 tokens a row
BUFFERS = 2
HELLO = struct.Struct("<QIII")  # bytes of shared memory, rows, length, vocabulary
QUESTION = struct.Struct("<BBI")  # what, which buffer, tokens a row; the tokens follow as uint16
TYPES = {1: torch.float32, 2: torch.bfloat16}  # an answer is one byte: how its scores lie in the buffer
READY = b"\x00"
_WIDEST = 4  # bytes of a score
_POISON = 0xFF  # four such bytes, or two, are NaN
_LATE = "the model did not score the validation data in time"
_GONE = "the model ended before it had scored all positions"


class Exchange:
    """Asks one FORWARD process for scores, once it was greeted; trusts none of them. All must be over in `seconds`."""

    def __init__(self, descriptor: int, seconds: float, length: int, vocabulary: int, device: torch.device) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self.length, self.vocabulary, self.device = length, vocabulary, device
        self.dtype = torch.float32  # of the last answer
        self.getting_ready = 0.0  # seconds from the greeting until its model had answered once, for itself
        self.asking = 0.0  # seconds from the first question of each batch to its last answer
        self._deadline = time.monotonic() + seconds
        room = GROUP * length * vocabulary * _WIDEST
        try:
            self._own = torch.empty(room, dtype=torch.uint8, device=device)
            self._shared = Shared(BUFFERS * room, device)
        except (torch.OutOfMemoryError, cuda.CudaError) as problem:
            self.socket.close()
            raise Refusal("out_of_memory", f"the model leaves the judge no room on the device: {problem}") from None
        self._shared.bytes.fill_(_POISON)  # the scores of another process or candidate may have lain here
        self._finish()
        self._buffers = self._shared.bytes.view(BUFFERS, -1)
        self._rows = torch.arange(GROUP, device=device)
        self._greeted, self._is_ready = 0.0, False

    def limit(self, seconds: float) -> None:
        """From here on it has at most so long."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def answers(
        self, batches: Iterable[NDArray[np.uint16]], what: int = WHOLE, at: torch.Tensor | None = None
    ) -> Iterator[torch.Tensor]:  # fmt: skip
        """batches of tokens [GROUP, n] -> scores [GROUP, n, V] of each, in order; float32 or bfloat16.

        `at`, int64 [batches, GROUP] on the device: scores [GROUP, V] at one position a row, and no more is copied. The
        other end is not told. An answer is overwritten by the next one. Whole rows are sent one question ahead; a token
        that is fed never is: nobody over there may know it before the one in front of it is answered. Raises Refusal
        where an answer does not come whole.
        """
        self._wait_until_ready()
        began, source, waiting = time.monotonic(), iter(batches), deque[tuple[int, int]]()
        places = None if at is None else iter(at)

        def ask(turn: int) -> None:
            if (tokens := next(source, None)) is not None:
                self._send(what, turn, tokens)
                waiting.append((turn, tokens.shape[1]))

        for turn in range(BUFFERS if what == WHOLE else 1):
            ask(turn)
        while waiting:
            turn, length = waiting.popleft()
            scores = self._take(turn, length, None if places is None else next(places))
            ask(turn)
            yield scores
        self.asking += time.monotonic() - began

    def can_step(self) -> bool:
        """Whether its model says that it can be fed token by token."""
        self._wait_until_ready()
        self._send(CAN_STEP, 0, np.empty((GROUP, 0), dtype=np.uint16))
        return self._hear() == 1

    def close(self) -> None:
        self.socket.close()
        self._finish()
        del self._buffers, self._own
        self._shared.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what trains next needs the room

    def greet(self) -> None:
        """Let the other end get ready, seconds on a device, while the judge prepares its questions."""
        hello = HELLO.pack(self._shared.size, GROUP, self.length, self.vocabulary)
        self._greeted = time.monotonic()
        self._talk(lambda: socket.send_fds(self.socket, [hello], [self._shared.descriptor]))

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        if self._hear() != READY[0]:
            raise Refusal("bad_output", "the model's process did not get ready as it should")
        self._is_ready = True
        self.getting_ready = time.monotonic() - self._greeted

    def _send(self, what: int, turn: int, tokens: NDArray[np.uint16]) -> None:
        content = QUESTION.pack(what, turn, tokens.shape[1]) + tokens.astype("<u2", copy=False).tobytes()
        self._talk(lambda: self.socket.sendall(content))

    def _hear(self) -> int:
        if not (answer := self._talk(lambda: self.socket.recv(1))):
            raise Refusal("bad_output", _GONE)
        return int(answer[0])

    def _take(self, turn: int, length: int, at: torch.Tensor | None = None) -> torch.Tensor:
        """The answer in one buffer, copied once into memory of our own, which nobody else can write."""
        if (dtype := TYPES.get(self._hear())) is None:
            raise Refusal("bad_output", "the model's scores are of a type that is not allowed")
        self.dtype = dtype
        shape = (GROUP, length, self.vocabulary)
        size = GROUP * length * self.vocabulary * dtype.itemsize
        if at is None:
            self._own[:size].copy_(self._buffers[turn, :size])
            scores = self._own[:size].view(dtype).view(shape)
        else:
            scores = self._buffers[turn, :size].view(dtype).view(shape)[self._rows, at]
        self._finish()
        return scores

    def _finish(self) -> None:
        """Wait for what was told to the device."""
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _talk(self, act: Any) -> Any:
        try:
            self.socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            return act()
        except TimeoutError:
            raise Refusal("timeout", _LATE) from None
        except (BrokenPipeError, ConnectionResetError):
            raise Refusal("bad_output", _GONE) from None


class Rehearsal(Exchange):
    """An exchange with nobody: each answer is there at once and holds zeros, of `dtype`."""

    def __init__(self, length: int, vocabulary: int, device: torch.device, dtype: torch.dtype) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        super().__init__(ours.detach(), math.inf, length, vocabulary, device)
        self._shared.bytes.zero_()
        self._said = next(code for code, known in TYPES.items() if known == dtype)
        self._is_ready = True

    def greet(self) -> None:
        pass

    def can_step(self) -> bool:
        return True

    def _send(self, what: int, turn: int, tokens: NDArray[np.uint16]) -> None:
        pass

    def _hear(self) -> int:
        return self._said
