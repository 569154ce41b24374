"""A page of memory over which a clock is started and stopped: nobody has to be woken up while it runs.

A message over a socket wakes its reader, which takes as long as many a kernel, and not always the same. Here both sides
watch two words instead. The first says which order is meant and carries the key of what lies sealed; the second is
the number of the order that is done. Beside untrusted code nothing of it is trusted: who says too early that it is done
is still at work when the next order comes, or the next message, and both are timed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time

SIZE = mmap.PAGESIZE
ORDER, DONE = 0, 1  # the words
KEY_BITS = 31
PATIENCE = 60.0  # seconds that somebody waits to be rung
LOOKS = 1 << 6  # before others may have the processor: where there is but one, the other side needs it


class Bell:
    """`descriptor`: of a page that `page` made."""

    def __init__(self, descriptor: int) -> None:
        self._words = memoryview(mmap.mmap(descriptor, SIZE, mmap.MAP_SHARED)).cast("Q")

    def ring(self, number: int, key: int) -> None:
        """Give order `number`, from 1 on, with a key of KEY_BITS: one word, so that none is seen without the other."""
        self._words[ORDER] = number << KEY_BITS | key

    def heard(self, number: int) -> int:
        """Watch until the order is given, and its key. Raises TimeoutError after PATIENCE."""
        words, until = self._words, time.monotonic() + PATIENCE
        while True:
            for _ in range(LOOKS):
                if (order := words[ORDER]) >> KEY_BITS == number:
                    return order & (1 << KEY_BITS) - 1
            os.sched_yield()
            if time.monotonic() > until:
                raise TimeoutError("nobody rang")

    def answer(self, number: int) -> None:
        self._words[DONE] = number

    def answered(self, number: int, rounds: int) -> bool:
        """Watch for so many rounds of LOOKS whether the order is done."""
        words = self._words
        for _ in range(rounds):
            for _ in range(LOOKS):
                if words[DONE] == number:
                    return True
            os.sched_yield()
        return False


def page() -> int:
    """The descriptor of a new page, which cannot change its size: who reads a file that shrank is ended."""
    descriptor = os.memfd_create("bell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
