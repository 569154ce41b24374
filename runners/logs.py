"""Draining the output of a sandboxed step: any amount goes in, a bounded head and tail stay."""

from __future__ import annotations

import os
import threading

_READ = 1 << 16


class LogPump:
    """Reads a descriptor to its end in a thread and keeps the first `head` and the last `tail` bytes.

    Takes over the descriptor and closes it. The end comes when every holder of the write end is gone, so a
    step that leaves a daemon keeps the pump going until `Sandbox.reset`.
    """

    def __init__(self, fd: int, head: int = 64 << 10, tail: int = 192 << 10) -> None:
        self.bytes_seen = 0
        self._fd = fd
        self._head_room, self._tail_room = head, tail
        self._head = bytearray()
        self._tail = bytearray()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="log-pump", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with os.fdopen(self._fd, "rb", buffering=0) as source:
            while True:
                try:
                    block = os.read(source.fileno(), _READ)
                except OSError:  # a pseudo terminal says EIO where a pipe says end of file
                    return
                if not block:
                    return
                self._keep(block)

    def _keep(self, block: bytes) -> None:
        with self._lock:
            self.bytes_seen += len(block)
            room = self._head_room - len(self._head)
            if room > 0:
                self._head += block[:room]
                block = block[room:]
            self._tail += block
            if len(self._tail) > 2 * self._tail_room:  # rarely, so that each byte is moved about once
                del self._tail[: len(self._tail) - self._tail_room]

    @property
    def dropped(self) -> int:
        """Bytes between head and tail that were thrown away."""
        with self._lock:
            return self.bytes_seen - len(self._head) - min(len(self._tail), self._tail_room)

    def text(self) -> str:
        """What was kept, decoded; untrusted text, to be escaped by whoever shows it."""
        dropped = self.dropped
        with self._lock:
            head = bytes(self._head)
            tail = bytes(self._tail[max(0, len(self._tail) - self._tail_room) :])
        gap = f"\n... {dropped} bytes dropped ...\n".encode() if dropped else b""
        return (head + gap + tail).decode("utf-8", "replace")

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the output; False when it did not come in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
