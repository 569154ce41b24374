"""Entry of the FORWARD steps (score, audit) of the token lane: the candidate's model writes scores into shared memory.

It holds the candidate's code and weights, and no data but the tokens it is asked about. exchange.py, on the judge's
side, says what travels: a hello with the memory, then questions of GROUP rows; answers are one byte, how the scores
that now lie in the named buffer are stored. FIRST and NEXT feed one token a row to the model's `step`, see harness.py.
"""

from __future__ import annotations

import importlib.util
import mmap
import select
import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Any

import inside_call
import numpy as np
import torch
from weightfile import read

HELLO = struct.Struct("<QIII")
QUESTION = struct.Struct("<BBI")
WHOLE, FIRST, NEXT, CAN_STEP = range(4)
TYPES = {torch.float32: 1, torch.bfloat16: 2}
READY = b"\x00"
BUFFERS = 2


def main() -> None:
    device = inside_call.args["device"]
    channel = socket.socket(fileno=inside_call.fds["channel"])
    hello, descriptors, _, _ = socket.recv_fds(channel, HELLO.size, 1)
    size, rows, length, vocabulary = HELLO.unpack(hello)
    memory = _mapped(descriptors[0], size, device)
    torch.set_default_device(device)
    network = _model()
    answer = Answer(network, memory.view(BUFFERS, -1), (rows, vocabulary), device)
    with torch.inference_mode():
        answer.whole(0, np.arange(rows * length).reshape(rows, length) % vocabulary)  # compiles what is compiled late
        memory.fill_(0xFF)
        if (end := answer.end()) is not None:
            end.synchronize()
        channel.sendall(READY)
        serve(channel, answer, rows)


def serve(channel: socket.socket, answer: Answer, rows: int) -> None:
    """Answer in the order of the questions until the channel is closed.

    While a device is at one answer, the next question is read and begun, so that it does not wait for the host.
    """
    under_way: deque[tuple[int, Any]] = deque()  # what to say, and the event after which
    while True:
        if under_way:
            said, end = under_way[0]
            if end is None or len(under_way) == BUFFERS or not select.select([channel], [], [], 0)[0]:
                if end is not None:
                    end.synchronize()
                channel.sendall(bytes([said]))
                under_way.popleft()
                continue
        header = channel.recv(QUESTION.size, socket.MSG_WAITALL)
        if len(header) < QUESTION.size:
            return
        what, turn, asked = QUESTION.unpack(header)
        content = channel.recv(2 * rows * asked, socket.MSG_WAITALL) if asked else b""
        tokens = np.frombuffer(content, dtype="<u2").reshape(rows, asked).astype(np.int64)
        if what == CAN_STEP:
            said = int(callable(getattr(answer.network, "step", None)))
        elif what == WHOLE:
            said = answer.whole(turn, tokens)
        else:
            said = answer.step(turn, tokens, first=what == FIRST)
        under_way.append((said, answer.end()))


class Answer:
    """Puts what the model says into the shared buffers."""

    def __init__(self, network: Any, buffers: torch.Tensor, shape: tuple[int, int], device: str) -> None:
        self.network, self.buffers, self.device = network, buffers, device
        self.rows, self.vocabulary = shape
        self.state: Any = None

    def whole(self, turn: int, tokens: np.ndarray[Any, Any]) -> int:
        return self._put(turn, self.network(torch.from_numpy(tokens).to(self.device)), tokens.shape[1])

    def step(self, turn: int, tokens: np.ndarray[Any, Any], first: bool) -> int:
        token = torch.from_numpy(tokens[:, 0].copy()).to(self.device)
        scores, self.state = self.network.step(token, None if first else self.state)  # [B, V]
        return self._put(turn, scores[:, None], 1)

    def _put(self, turn: int, scores: torch.Tensor, length: int) -> int:
        wanted = (self.rows, length, self.vocabulary)
        if tuple(scores.shape) != wanted:
            raise ValueError(f"the model's scores are of shape {tuple(scores.shape)}; {wanted} is wanted")
        if scores.dtype not in TYPES:
            scores = scores.float()
        size = scores.numel() * scores.element_size()
        self.buffers[turn, :size].view(scores.dtype).view(wanted).copy_(scores)
        return TYPES[scores.dtype]

    def end(self) -> Any:
        """An event at the end of what the device was told so far; None on a CPU, which is there already."""
        return torch.cuda.current_stream().record_event() if self.device == "cuda" else None


def _model() -> Any:
    import model as candidate

    network = candidate.build()
    network.load_state_dict(read(inside_call.fds["weights"]), strict=True)
    return network.eval()


def _mapped(descriptor: int, size: int, device: str) -> torch.Tensor:
    """The judge's memory, uint8 [size]."""
    if device != "cuda":
        return torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
    # By its path: another package may be named `cuda`, and a candidate's file, too.
    path = Path(inside_call.__file__).with_name("cuda.py")
    spec = importlib.util.spec_from_file_location("lab_cuda", path)
    assert spec is not None and spec.loader is not None
    driver = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = driver  # its dataclasses ask for it
    spec.loader.exec_module(driver)
    return torch.as_tensor(driver.Device().attach(descriptor, size), device=device)
