"""Bounds of time that hold on a slow machine too: they grow with what a fixed piece of plain Python takes there."""

from __future__ import annotations

import re
import time

MEASURED = 0.019  # CPU seconds of `work` where the bounds were measured: `python -m tests.pace`
WORD = re.compile(r"\w+")


def here(seconds: float) -> float:
    """What takes so many seconds on the machine of the bounds may take this long on this one; never less."""
    return seconds * max(1.0, min(cpu_seconds() for _ in range(5)) / MEASURED)


def cpu_seconds() -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def work() -> int:
    """Text, dicts and numbers, as pages are made of them."""
    rows = [f'<td class="c">{number % 97} of {number * 0.37:.3f}</td>' for number in range(6000)]
    counted: dict[str, int] = {}
    for row in rows:
        for word in WORD.findall(row):
            counted[word] = counted.get(word, 0) + 1
    return len("".join(sorted(rows))) + len(counted)


if __name__ == "__main__":
    print(f"{min(cpu_seconds() for _ in range(50)):.4f} s")
