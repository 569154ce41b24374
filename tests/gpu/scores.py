"""What the border between candidate and judge costs on a GPU: `python -m tests.gpu.scores`, one JSON object.

The candidate runs in the lab's own sandbox with the device's nodes bound, as the slot's user, and answers 8 x 1,024
rows of 8,192 scores a round. Judged three ways: in one process, through memory that both map on the device, through
host memory.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from runners import cuda
from runners.sandbox import Limits, Sandbox

ROWS, WIDTH, VOCABULARY, ROUNDS = 8 * 1024, 768, 8192, 40
INSIDE = Path(__file__).parent / "inside"
LIMITS = Limits(memory_bytes=16 << 30, processes=512)


def measure() -> dict[str, object]:
    """Milliseconds a round (median of 40) and the loss that each way gives."""
    device = cuda.Device()
    size = 2 * ROWS * VOCABULARY
    descriptor, memory = device.share(size)
    shared = torch.as_tensor(memory, device="cuda").view(torch.bfloat16)[: ROWS * VOCABULARY].view(ROWS, VOCABULARY)
    host_file = os.memfd_create("host")
    os.ftruncate(host_file, size)
    host = torch.frombuffer(mmap.mmap(host_file, size), dtype=torch.bfloat16).view(ROWS, VOCABULARY)
    targets = torch.randint(VOCABULARY, (ROWS,), device="cuda", generator=torch.Generator("cuda").manual_seed(3))
    ours, theirs = socket.socketpair()
    log = os.memfd_create("log")
    with Sandbox.start(0, inside=INSIDE, preload=("torch",), limits=LIMITS, devices=cuda.nodes()) as box:
        isolation = box.isolation
        box.spawn(
            "answer", log=log, args={"rows": ROWS, "width": WIDTH, "vocabulary": VOCABULARY, "size": memory.size},
            fds={"channel": theirs.fileno(), "memory": descriptor, "host": host_file},
        )  # fmt: skip
        theirs.close()
        ours.settimeout(120)
        if ours.recv(1) != b"r":
            raise SystemExit(os.pread(log, 1 << 16, 0).decode())

        def asked(request: bytes) -> None:
            ours.send(request)
            if ours.recv(1) != b"d":
                raise SystemExit(os.pread(log, 1 << 16, 0).decode())

        def on_device() -> float:
            asked(b"s")
            return loss(shared, targets)

        def through_host() -> float:
            asked(b"h")
            return loss(host.to("cuda"), targets)

        rows = {"shared_on_device": timed(on_device), "through_host": timed(through_host)}
    hidden, head = candidate_model()
    rows["one_process"] = timed(lambda: loss(torch.mm(hidden, head), targets))
    return {"isolation": isolation.level, "failed": [row.name for row in isolation.failed], **rows}


def candidate_model() -> tuple[torch.Tensor, torch.Tensor]:
    """The candidate's own weights, for the run in one process."""
    drawn = torch.Generator(device="cuda").manual_seed(7)
    hidden = torch.randn(ROWS, WIDTH, generator=drawn, device="cuda")
    head = torch.randn(WIDTH, VOCABULARY, generator=drawn, device="cuda") / WIDTH**0.5
    return hidden.bfloat16(), head.bfloat16()


def loss(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean cross entropy in float32, reduced into the judge's own memory."""
    return float(torch.nn.functional.cross_entropy(scores.float(), targets).item())


def timed(once: Callable[[], float]) -> dict[str, float]:
    for _ in range(5):
        value = once()
    seconds = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        value = once()
        seconds.append(time.perf_counter() - began)
    return {"ms": round(1000 * statistics.median(seconds), 3), "loss": value}


if __name__ == "__main__":
    print(json.dumps(measure() | {"device_name": torch.cuda.get_device_name(), "python": platform.python_version()}))
