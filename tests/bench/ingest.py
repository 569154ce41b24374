"""Point ingest: frames of training processes to rows of the table; and a public tracker with the same points.

`measure` starts a fresh process for each turn, the arms by turns, on one machine in one go:

- ours: one worker process with a data folder of its own (SQLite file, migrations): parse_frame, PointBuffer,
  Series.objects.append. The clock runs from the first frame until every point is committed; then all of them
  are read back and compared. The frames lie ready in memory, as in a pipe. `one_step_a_frame` is the same
  with the smallest frames a training process can send, `sustained` with twenty times the points.
- trackio (only if it is installed; nothing of the lab needs it): its users' way, `init`, one `log` a step
  with all metrics, `finish`; local, offline, without its hardware monitors. The clock runs from the first
  `init` to the last `finish`. It has no other door, so its clock includes what a call costs the training
  process, which ours leaves out: `ratio_one_step_a_frame` is the careful one of the two ratios.

Importing and migrating are outside both clocks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from research.models import Lease

ABOUT = "points/s from a training process's frames to the table, one process; beside it trackio"
COMMAND = "python -m tests.bench ingest"
TARGET = 150_000
TRIALS, METRICS, STEPS, ROUNDS = 10, ("loss", "val/loss", "lr", "grad_norm"), 5_000, 5
# 50 ms of one of the ten trials at the target rate are 750 points: 187 steps of four metrics.
STEPS_A_FRAME = TARGET // 20 // TRIALS // len(METRICS)


def measure() -> dict[str, object]:
    """The part of the table: medians over ROUNDS turns; every single turn is in it too."""
    tracker = _version("trackio")
    turns: dict[str, list[Turn]] = {name: [] for name in ARMS if name != "trackio" or tracker}
    for number in range(1, ROUNDS + 1):
        for name, done in turns.items():
            done.append(_in_a_process(name))
            rate = done[-1].points / done[-1].wall_s
            print(f"ingest: round {number} of {ROUNDS}, {name}: {rate:,.0f} points/s", file=sys.stderr)
    arms = {name: _summary(done) for name, done in turns.items()}
    part: dict[str, object] = {
        "figure": arms["ours"]["points_per_s"],
        "unit": "points/s",
        "command": COMMAND,
        "target": TARGET,
        "rounds": ROUNDS,
        **arms,
    }
    if not tracker:
        return part | {"trackio": "not installed: nothing to compare with (pip install trackio)"}
    return part | {
        "trackio_version": tracker,
        "ratio": _ratio(turns["ours"], turns["trackio"]),
        "ratio_one_step_a_frame": _ratio(turns["one_step_a_frame"], turns["trackio"]),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _summary(turns: list[Turn]) -> dict[str, object]:
    return {
        "points": turns[0].points,
        "rows": turns[0].rows,
        "points_per_s": round(median(turn.points / turn.wall_s for turn in turns)),
        "points_per_cpu_s": round(median(turn.points / turn.cpu_s for turn in turns)),
        "wall_s": [round(turn.wall_s, 4) for turn in turns],
        "cpu_s": [round(turn.cpu_s, 4) for turn in turns],
    }


def _ratio(ours: list[Turn], theirs: list[Turn]) -> dict[str, float]:
    """Theirs over ours, the median over the rounds."""
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "wall": round(median(their.wall_s / our.wall_s for our, their in pairs), 2),
        "cpu": round(median(their.cpu_s / our.cpu_s for our, their in pairs), 2),
    }


def _in_a_process(arm: str) -> Turn:
    with TemporaryDirectory(prefix="bench-") as folder:
        environment = os.environ | {"LAB_DATA": folder, "LAB_LOG_LEVEL": "WARNING"}
        environment |= {"TRACKIO_DIR": folder, "HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        environment.pop("DATABASE_URL", None)  # the figure is that of the embedded lab
        command = [sys.executable, "-m", "tests.bench.ingest", arm]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"ingest: {arm} failed (exit code {done.returncode}); its error stands above")
    return Turn(**json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Turn:
    """One measurement; `rows` is how many the points ended in."""

    points: int
    rows: int
    wall_s: float
    cpu_s: float


class Clock:
    """Wall and CPU seconds (all threads) between entry and exit."""

    def __enter__(self) -> Clock:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def values(trial: int, steps: int) -> np.ndarray:
    """What trial number `trial` reports: float64 [steps, metrics]."""
    random = np.random.default_rng(trial)
    return np.exp(-np.arange(steps) / steps)[:, None] + random.normal(0, 0.01, (steps, len(METRICS)))


def frames_of(trial: int, steps: int, steps_a_frame: int) -> list[bytes]:
    from runners.points import RECORD, pack_frame

    records = np.zeros((steps, len(METRICS)), RECORD)
    records["metric"] = np.arange(len(METRICS))
    records["step"] = np.arange(steps)[:, None]
    records["value"] = values(trial, steps)
    return [pack_frame(METRICS, records[at : at + steps_a_frame]) for at in range(0, steps, steps_a_frame)]


def leased_trials(count: int) -> list[Lease]:
    """Open leases of new trials of a new project; also used by the tests."""
    from research.models import Experiment, Machine, Project, Trial
    from research.models.ids import new_id

    machine, _ = Machine.objects.get_or_create(name="bench", defaults={"machine_class": "bench"})
    project = Project.objects.create(
        name=new_id(), benchmark="nanochat", preset="cpu", start="vanilla", data_id="none", rule={}
    )
    experiment = Experiment.objects.create(
        key=new_id(), project=project, number=1, baseline_commit="0" * 40, candidate_commit="1" * 40, rule={}
    )
    leases: list[Lease] = []
    for pair in range(count):
        trial = Trial.objects.create(
            project=project, experiment=experiment, arm=Trial.Arm.BASELINE, stage="screen", pair=pair, slot=0,
            seed=pair, commit="0" * 40, split="val_screen",
        )  # fmt: skip
        lease = trial.lease(machine, "bench")
        assert lease is not None
        leases.append(lease)
    return leases


def ours(steps: int, steps_a_frame: int) -> Turn:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
    django.setup()
    from django.core.management import call_command
    from django.db import Error, connections

    from research.models.series import Chunk, Series
    from runners.points import PointBuffer, parse_frame

    call_command("migrate", verbosity=0)
    leases = leased_trials(TRIALS)
    by_trial = [frames_of(trial, steps, steps_a_frame) for trial in range(TRIALS)]
    frames = [(lease, frame) for turn in zip(*by_trial, strict=True) for lease, frame in zip(leases, turn, strict=True)]

    with Clock() as clock:
        buffer = PointBuffer(Series.objects.append, retry=(Error,), farewell=connections.close_all)
        for lease, frame in frames:
            for metric, at, numbers in parse_frame(frame):
                buffer.add(lease.trial_id, lease.generation, metric, at, numbers)
        for lease in leases:
            buffer.drain(lease.trial_id)
        buffer.close()

    for trial, lease in enumerate(leases):
        sent = values(trial, steps)
        for index, metric in enumerate(METRICS):
            at, numbers = Series.objects.get(trial=lease.trial, metric=metric).read()
            if not (np.array_equal(at, np.arange(steps)) and np.array_equal(numbers, sent[:, index])):
                sys.exit(f"ingest: {metric} of trial {trial} came back changed")
    return Turn(TRIALS * steps * len(METRICS), Chunk.objects.count(), clock.wall, clock.cpu)


def trackio() -> Turn:
    import sqlite3

    import trackio

    points = [values(trial, STEPS).tolist() for trial in range(TRIALS)]
    with Clock() as clock, redirect_stdout(StringIO()):
        for trial in range(TRIALS):
            trackio.init(project="bench", name=f"trial-{trial}", auto_log_cpu=False, auto_log_gpu=False)
            for step, row in enumerate(points[trial]):
                trackio.log(dict(zip(METRICS, row, strict=True)), step=step)
            trackio.finish()
    (path,) = Path(os.environ["TRACKIO_DIR"]).glob("bench*.db")
    with closing(sqlite3.connect(path)) as database:
        (rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    if rows != TRIALS * STEPS:
        sys.exit(f"ingest: trackio stored {rows} rows of {TRIALS * STEPS}")
    return Turn(rows * len(METRICS), rows, clock.wall, clock.cpu)


ARMS: dict[str, Callable[[], Turn]] = {
    "ours": lambda: ours(STEPS, STEPS_A_FRAME),
    "trackio": trackio,
    "one_step_a_frame": lambda: ours(STEPS, 1),
    "sustained": lambda: ours(20 * STEPS, STEPS_A_FRAME),
}

if __name__ == "__main__":
    print(json.dumps(asdict(ARMS[sys.argv[1]]())))
