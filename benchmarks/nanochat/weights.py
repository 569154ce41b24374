"""The weights of a trial as the parent holds them: a safetensors file in sealed memory, never loaded out here.

A memory file whose writing, shrinking and growing are sealed for good can be taken as it is: whoever else holds it can
only read it. Anything else is copied into one of our own. So weights of several GB cost the clock one message.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.nanochat import sizes

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_BLOCK = 8 << 20


@dataclass(frozen=True)
class Described:
    """What is known of weights without loading them."""

    sha256: str
    metrics: dict[str, float]  # size, entropy, parameters


class Weights:
    """Owns the descriptor of a sealed memory file until `close`."""

    def __init__(self, descriptor: int, copied: bool = False) -> None:
        self.descriptor, self.copied = descriptor, copied
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def taken(cls, descriptor: int) -> Weights:
        """A candidate's memory: as it is where it is sealed, a copy otherwise. The caller closes its own descriptor."""
        if _is_sealed(descriptor):
            return cls(os.dup(descriptor))
        size, own = os.fstat(descriptor).st_size, _memory()
        at = 0
        while at < size and (block := os.pread(descriptor, min(_BLOCK, size - at), at)):
            _write(own, block)
            at += len(block)
        return cls(_sealed(own), copied=True)

    @classmethod
    def of(cls, content: bytes) -> Weights:
        own = _memory()
        _write(own, content)
        return cls(_sealed(own), copied=True)

    def describe(self) -> Described:
        """Reads all of it once. From any thread; block by block, so that holes stay holes."""
        digest, counts = hashlib.sha256(), np.zeros(256, dtype=np.int64)
        step, at, head = sizes.sample_step(self.size), 0, b""
        while block := os.pread(self.descriptor, _BLOCK, at):
            digest.update(block)
            counts += sizes.histogram(block[-at % step :: step])
            head = head or block
            at += len(block)
        described = {"weight_bytes": float(self.size), "weight_entropy": sizes.entropy_of(counts)}
        if (count := sizes.parameters(head)) is not None:
            described["parameters"] = float(count)
        return Described(digest.hexdigest(), described)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            at = 0
            while block := os.pread(self.descriptor, _BLOCK, at):
                at += file.write(block)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_sealed(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # no memory file
        return False


def _memory() -> int:
    return os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _sealed(descriptor: int) -> int:
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
