"""What a batch takes under a stopwatch, and what of it is taken off: measured before a solution was imported."""

from __future__ import annotations

from dataclasses import dataclass

HANDLING, FREE = 1.2, 1e-4  # times as long, and seconds more, than before the import may handing over outputs take


@dataclass(frozen=True)
class Taken:
    """Seconds of a batch under a stopwatch, one after the other."""

    whole: float  # until all calls are done
    fetching: float  # until their outputs are handed over
    telling: float  # until the candidate has said so

    def beside(self, without: Taken) -> float:
        """How much longer than with nothing called it takes after the calls."""
        after = ((self.fetching, without.fetching), (self.telling, without.telling))
        return sum(max(taken - HANDLING * usual - FREE, 0.0) for taken, usual in after)


@dataclass(frozen=True)
class Pace:
    """What a batch takes without its calls, and what those of the reference take. Times in seconds."""

    passes: int  # over the pads
    without: Taken
    reference: float  # of a call
