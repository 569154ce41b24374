"""A player that stands for a worker: it leases trials and appends points, through the same calls as a worker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from research.models import Experiment, Lease, Machine, Project, Series, Trial
from research.models.ids import new_id
from research.models.series import Outcome
from runners.points import Stretch

FLUSH = 0.05  # seconds, as a worker


class Player:
    """A project of its own with as many trials as asked for, all of one experiment, and a machine."""

    def __init__(self, trials: int = 1) -> None:
        self.machine = Machine.objects.create(name=new_id(), machine_class="played", slots=2)
        self.project = Project.objects.create(
            name=f"played-{new_id()}", benchmark="nanochat", preset="cpu", start="vanilla", data_id="none", rule={}
        )
        self.experiment = Experiment.objects.create(
            key=new_id(), project=self.project, number=1, baseline_commit="0" * 40, candidate_commit="1" * 40, rule={}
        )
        self.trials = [self._trial(number) for number in range(trials)]
        self.leases: dict[int, Lease] = {}
        self.written: dict[tuple[int, str], int] = {}

    def _trial(self, number: int) -> Trial:
        arm = Trial.Arm.BASELINE if number % 2 else Trial.Arm.CANDIDATE
        return Trial.objects.create(
            project=self.project, experiment=self.experiment, arm=arm, stage="screen", pair=number // 2, slot=0,
            seed=number, commit="0" * 40, split="val_screen",
        )  # fmt: skip

    @property
    def ids(self) -> list[str]:
        return [trial.public_id for trial in self.trials]

    def lease(self, number: int = 0) -> Lease:
        """The trial is taken (again): its points begin at 0."""
        trial = Trial.objects.get(pk=self.trials[number].pk)
        lease = trial.lease(self.machine, "player")
        assert lease is not None
        self.leases[number] = lease
        self.written = {key: seq for key, seq in self.written.items() if key[0] != number}
        return lease

    def lose(self, number: int = 0) -> None:
        """The machine falls silent: the trial waits again."""
        lease = self.leases.pop(number)
        assert self.trials[number].give_back(lease, "the player fell silent")

    def append(self, values: Sequence[float], number: int = 0, metric: str = "loss", every: int = 1) -> None:
        """Store these values at the next steps."""
        lease, first = self.leases[number], self.written.get((number, metric), 0)
        steps = np.arange(first, first + len(values), dtype="<i8") * every
        stretch = Stretch(
            lease.trial_id, lease.generation, metric, first, steps.tobytes(), np.array(values, "<f8").tobytes()
        )
        assert Series.objects.append([stretch]) == [Outcome.STORED]
        self.written[number, metric] = first + len(values)

    def play(self, count: int, rate: float, number: int = 0, value: Callable[[int], float] | None = None) -> None:
        """`count` points at `rate` a second, flushed as a worker flushes."""
        value, begin, done = value or falling, time.monotonic(), 0
        first = self.written.get((number, "loss"), 0)
        while done < count:
            time.sleep(FLUSH)
            due = min(int((time.monotonic() - begin) * rate), count)
            if due > done:
                self.append([value(first + i) for i in range(done, due)], number)
                done = due

    def finish(self, number: int = 0) -> None:
        lease = self.leases.pop(number)
        assert self.trials[number].finish(
            lease, machine=self.machine, score=1.0, isolation_level=0, machine_class="played", device_seconds=1.0
        )

    def count(self, number: int = 0, metric: str = "loss") -> int:
        """How many points of the newest lease are in the table, read back one by one."""
        series = Series.objects.newest().filter(trial=self.trials[number], metric=metric).first()
        return 0 if series is None else len(series.read()[0])


def falling(step: int) -> float:
    """A loss as a training has it: falling, with noise that is the same each time."""
    return 1.2 + 2.5 * math.exp(-step / 150) + 0.08 * math.sin(step * 12.9898) * math.cos(step * 78.233)
