"""The candidate's side: scores of a linear head, written into the judge's device memory or sent through the host."""

from __future__ import annotations

import mmap
import socket
from typing import Any

import cuda
import inside_call
import torch


def main() -> None:
    channel = socket.socket(fileno=inside_call.fds["channel"])
    answer = _answer()
    channel.send(b"r")
    while request := channel.recv(1):
        answer(request)
        channel.send(b"d")


def _answer() -> Any:
    args = inside_call.args
    rows, vocabulary = args["rows"], args["vocabulary"]
    memory = cuda.Device().attach(inside_call.fds["memory"], args["size"])
    shared = torch.as_tensor(memory, device="cuda").view(torch.bfloat16)[: rows * vocabulary].view(rows, vocabulary)
    host = torch.frombuffer(_mapped(inside_call.fds["host"], 2 * rows * vocabulary), dtype=torch.bfloat16)
    hidden, head = model(rows, args["width"], vocabulary)

    def answer(request: bytes) -> None:
        if request == b"h":
            host.copy_(torch.mm(hidden, head).view(-1))
        else:
            torch.mm(hidden, head, out=shared)
        torch.cuda.synchronize()

    return answer


def _mapped(descriptor: int, size: int) -> Any:
    return mmap.mmap(descriptor, size)


def model(rows: int, width: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden [rows, width], head [width, vocabulary] in bf16: the same in every process."""
    drawn = torch.Generator(device="cuda").manual_seed(7)
    hidden = torch.randn(rows, width, generator=drawn, device="cuda")
    head = torch.randn(width, vocabulary, generator=drawn, device="cuda") / width**0.5
    return hidden.bfloat16(), head.bfloat16()
