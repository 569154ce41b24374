"""Entry of the FORWARD steps (score, audit) of the token lane: the candidate's model writes scores into shared memory.

It holds the candidate's code and weights, and no data but the tokens it is asked about. exchange.py, on the judge's
side, says what travels: a hello with the memory, then questions of GROUP rows; answers are one byte, how the scores
that now lie in the named buffer are stored. FIRST and NEXT feed one token a row to the model's `step`, see harness.py.
"""

from __future__ import annotations

import importlib.util
import mmap
import socket
import struct
import sys
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
    with channel.makefile("rwb") as stream, torch.inference_mode():
        answer.whole(0, np.arange(rows * length).reshape(rows, length) % vocabulary)  # compiles what is compiled late
        memory.fill_(0xFF)
        stream.write(READY)
        stream.flush()
        while header := stream.read(QUESTION.size):
            what, turn, asked = QUESTION.unpack(header)
            tokens = np.frombuffer(stream.read(2 * rows * asked), dtype="<u2").reshape(rows, asked).astype(np.int64)
            if what == CAN_STEP:
                said = int(callable(getattr(network, "step", None)))
            elif what == WHOLE:
                said = answer.whole(turn, tokens)
            else:
                said = answer.step(turn, tokens, first=what == FIRST)
            stream.write(bytes([said]))
            stream.flush()


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
        if self.device == "cuda":
            torch.cuda.synchronize()
        return TYPES[scores.dtype]


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
