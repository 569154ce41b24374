"""What a candidate's `train.py` may ask of the lab. Runs in the sandbox, beside untrusted code: not trusted.

    import harness
    model = build()                           # on harness.device: "cpu" or "cuda"
    harness.reserve(model.state_dict())       # optional: prepares the memory that `submit` fills, before the clock
    spelled = harness.token_bytes             # uint8 [V, 16], what each token stands for
    tokens = harness.start_clock()            # [n] uint8 bytes or uint16 tokens; the budget runs from here
    while harness.progress() < 0.97: ...      # share of the budget used, 0..1
    harness.log(step, loss=...)               # a point for the live curves
    harness.submit(model.state_dict())        # the last one in before the deadline is scored

What compilers keep belongs into /cache, where inductor and triton are pointed: as it stands when the clock starts,
it is there again in later trials of the same commit.

`build()` of `model.py` makes the module that is scored, on torch's default device: tokens int64 [B, T] -> scores
[B, T, vocabulary], float32 or bfloat16. It may offer `step(token, state) -> scores, state` as well: token int64 [B],
scores [B, vocabulary]; state is None at the first token and then whatever it returned. A trial that confirms then feeds
it token by token, and the scores must agree.

The clock that counts is the parent's; `progress` only mirrors it. Changing this file in memory gains nothing.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import time
from typing import Any

import inside_call
import torch
from weightfile import Reserved, shapes_of


def _token_bytes() -> torch.Tensor:
    if vocab_size <= 256:
        return torch.nn.functional.pad(torch.arange(vocab_size, dtype=torch.uint8).unsqueeze(1), (0, 15))
    with os.fdopen(inside_call.fds["token_bytes"], "rb") as spelled:
        content = bytearray(spelled.read())
    known = torch.frombuffer(content, dtype=torch.uint8).view(-1, 16) if content else torch.zeros(0, 16)
    return torch.nn.functional.pad(known, (0, 0, 0, vocab_size - len(known))).to(torch.uint8)


seed: int = inside_call.args["seed"]
sequence_length: int = inside_call.args["sequence_length"]
vocab_size: int = inside_call.args["vocab_size"]
device: str = inside_call.args["device"]
budget_seconds: float = inside_call.args["budget_seconds"]

token_bytes: torch.Tensor = _token_bytes()
"""uint8 [V, 16]: the bytes that each token stands for, zeros behind the last; what is longer is cut."""

_channel = socket.socket(fileno=inside_call.fds["channel"])
_clock = time.process_time if inside_call.args["clock"] == "cpu" else time.monotonic
_started = 0.0
_names: list[str] = []
_records: list[bytes] = []
_flushed = 0.0
_reserved: Reserved | None = None
_RECORD = struct.Struct("<Hqd")
_FLUSH_SECONDS = 0.05
_FRAME_RECORDS = 1500  # a frame stays under 32 KiB


def start_clock() -> torch.Tensor:
    """Wait for the lab's start signal. Returns the training text, mapped from the parent's file.

    uint8 [n], one a byte, where the vocabulary is 256; torch.uint16 [n], one a token, beyond.
    """
    global _started
    _channel.send(b"S")
    _, descriptors, _, _ = socket.recv_fds(_channel, 16, 1)
    mapped = mmap.mmap(descriptors[0], 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    _started = _clock()
    return torch.frombuffer(mapped, dtype=torch.uint8 if vocab_size <= 256 else torch.uint16)


def progress() -> float:
    """Share of the budget used so far."""
    return (_clock() - _started) / budget_seconds


def log(step: int, **values: float) -> None:
    """Stream one point a name. Cheap: values are packed and sent at most every 50 ms."""
    for name, value in values.items():
        if name not in _names:
            _names.append(name)
        _records.append(_RECORD.pack(_names.index(name), step, float(value)))
    now = time.monotonic()
    if now - _flushed > _FLUSH_SECONDS or len(_records) >= _FRAME_RECORDS:
        _flush(now)


def _flush(now: float) -> None:
    global _flushed
    _flushed = now
    if _records:
        head = json.dumps(_names).encode()
        _channel.send(b"P" + struct.pack("<H", len(head)) + head + b"".join(_records))
        _records.clear()


def reserve(state: dict[str, Any]) -> None:
    """Prepare the memory for weights of these names, types and shapes; call it before the clock starts.

    Without it, or where the shapes have changed since, `submit` does it on the clock.
    """
    global _reserved
    _reserved = Reserved(state)


def submit(state: dict[str, Any]) -> None:
    """Hand the weights to the parent (safetensors in a memory file). May be called again; the last one counts."""
    global _reserved
    _flush(time.monotonic())
    prepared, _reserved = _reserved, None
    if prepared is None or prepared.shapes != shapes_of(state):
        prepared = Reserved(state)
    prepared.fill(state)
    memory = prepared.seal()
    try:
        socket.send_fds(_channel, [b"W"], [memory])
        _channel.recv(1)  # the parent holds them
    finally:
        os.close(memory)
