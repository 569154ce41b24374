"""The machine's only view of the lab's rows: claim, renew, store points, finish. The one importer of `research`."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from django.conf import settings
from django.db import Error, close_old_connections, connection
from django.utils import timezone

from benchmarks.contract import Assignment, Observation, Outcome
from research.models import Artifact, Lease, Machine, Result, Series, Trial
from research.models.data_use import SCREENING
from research.models.pace import expected_seconds
from research.repository import Repository
from research.tasks import advance_project, advance_thread
from runners.points import Stretch

LOG_BYTES = 256 << 10
SHARE_SECONDS = 1800.0  # for which a score of a baseline serves other screens on this device
SHARED = (
    "machine", "score", "metrics", "hashes", "surroundings", "isolation_level", "machine_class", "log", "losses",
)  # fmt: skip
PATIENCE = 1.15  # of the time that a pair usually takes


@dataclass(frozen=True)
class Work:
    """One leased trial with all a slot needs to execute it."""

    lease: Lease
    trial: Trial
    task: Assignment
    side_by_side: bool
    wants_losses: bool


class Lab:
    """Bound to one registered machine and one worker process, which ends at `until` (of time.time)."""

    def __init__(
        self, name: str, machine_class: str, slots: int, description: dict[str, Any], until: float | None = None
    ) -> None:
        self.until = until
        self.worker = f"{name}-{os.getpid()}"
        self.machine, _ = Machine.objects.update_or_create(
            name=name, defaults={"machine_class": machine_class, "slots": slots, "description": description,
                                 "seen": timezone.now()},
        )  # fmt: skip

    def report_isolation(self, level: int, rows: list[dict[str, Any]]) -> None:
        self.machine.attach(level, rows)

    def take_over(self) -> None:
        """Give back what an earlier worker of this machine held: two of them never run at once on one machine."""
        for lease in Lease.objects.open().filter(machine=self.machine).exclude(worker=self.worker):
            lease.trial.give_back(lease, f"worker {lease.worker} is gone")

    def claim(self) -> list[Work]:
        """The arms of the next pair, or a check. What would not be through in time is left to a later worker."""
        close_old_connections()
        leases = Trial.objects.claim_pair(self.machine, self.worker, self._may_begin)
        return [self._work(lease) for lease in leases]

    def _may_begin(self, trial: Trial) -> bool:
        return self.until is None or PATIENCE * expected_seconds(trial) <= self.until - time.time()

    def upcoming(self, work: Work, most: int) -> tuple[list[Assignment], float]:
        """What this machine is given next, one trial a commit (and what of it is measured); the device memory held.

        The memory is what a usual trial of the project held: where one of several holds more, it compiles alone later.
        """
        waiting = Trial.objects.next_for(self.machine).comparing().filter(project=work.trial.project_id)
        tasks: dict[tuple[str, ...], Assignment] = {}
        for trial in waiting.select_related("experiment", "project")[: 16 * most]:
            if len(tasks) < most and (what := (trial.commit, *trial.problems)) not in tasks:
                tasks[what] = self._assignment(trial)
        return list(tasks.values()), median(self._held(work) or [0.0])

    def held_bytes(self, work: Work) -> float:
        """Most device memory that a trial of this project held of late; 0 where none has told."""
        return max(self._held(work), default=0.0)

    def _held(self, work: Work) -> list[float]:
        newest = Result.objects.filter(trial__project=work.trial.project_id, score__isnull=False).order_by("-pk")
        held = (metrics.get("device_memory_bytes", 0.0) for metrics in newest.values_list("metrics", flat=True)[:16])
        return [size for size in held if size]

    def has_run(self, work: Work) -> bool:
        """Whether a trial of this commit has been scored, so that its memory is among what is known."""
        mine = Result.objects.filter(trial__project=work.trial.project_id, trial__commit=work.trial.commit)
        return mine.filter(score__isnull=False).exists()

    def beat(self, leases: Sequence[Lease]) -> list[Lease]:
        """Heartbeat of the machine and of its leases. Returns the lost ones."""
        close_old_connections()
        self.machine.beat()
        return [lease for lease in leases if not lease.renew()]

    store_errors = (Error,)  # of any database: a full disk, a restart

    def store(self, stretches: Sequence[Stretch]) -> Sequence[str]:
        """Points into the table, exactly once; see research.models.series."""
        return Series.objects.append(stretches)

    def hang_up(self) -> None:
        connection.close()

    def finish(self, work: Work, outcome: Outcome) -> bool:
        """Store the result and ring the loop. False where the lease was lost: nothing was written.

        `total_wall` is what the trial costs in device-seconds. Those that it shared with the trial before it on a GPU
        (`overlapped`) are not among them: they are the earlier one's.
        """
        log = outcome.log[-LOG_BYTES:].encode("utf-8", "replace")
        losses = work.task.keep_losses
        stored = Artifact.store(losses.read_bytes()) if losses and losses.is_file() else None
        failure = outcome.failure
        kept = work.trial.finish(
            work.lease,
            machine=self.machine,
            score=outcome.score,
            failure=failure.kind if failure else "",
            message=failure.message if failure else "",
            observations=[vars(observation) for observation in outcome.observations],
            metrics=outcome.metrics,
            seconds=outcome.seconds,
            device_seconds=outcome.seconds.get("total_wall", 0.0),
            hashes=outcome.hashes,
            surroundings=outcome.surroundings,
            isolation_level=self.machine.isolation_level,
            machine_class=self.machine.machine_class,
            log=Artifact.store(log) if log else None,
            losses=stored,
            sample=outcome.sample,
        )
        if losses:
            losses.unlink(missing_ok=True)
        self.ring(work.trial)
        return kept

    def share(self, work: Work) -> bool:
        """Give a baseline arm that this worker measured already its score and its curves. False where it did not."""
        known = work.trial.measured_before(self.worker, SHARE_SECONDS)
        if known is None:
            return False
        drawn = Series.objects.filter(trial=known.trial, generation=known.generation)
        metrics = dict(drawn.values_list("pk", "metric"))
        Series.objects.append([
            Stretch(
                work.trial.pk, work.lease.generation, metrics[series], 0,
                steps.astype("<i8").tobytes(), values.astype("<f8").tobytes(),
            )
            for series, (steps, values) in drawn.points()
        ])  # fmt: skip
        words = f"measured once, as trial {known.trial.public_id} of this commit, seed and preset, on this device"
        kept = work.trial.finish(
            work.lease,
            observations=[*known.observations, vars(Observation("shared_baseline", "info", words))],
            device_seconds=0.0,  # and no seconds of its phases: they are told once
            **{name: getattr(known, name) for name in SHARED},
        )
        self.ring(work.trial)
        return kept

    def start_over(self, work: Work, why: str) -> Work | None:
        """The same trial under a new lease: a second attempt, whose points do not mix with those of the first."""
        lease = work.trial.start_over(work.lease, why)
        return replace(work, lease=lease) if lease else None

    def give_back(self, work: Work, why: str) -> None:
        work.trial.give_back(work.lease, why)

    def ring(self, trial: Trial) -> None:
        if thread := trial.experiment.thread_id:
            advance_thread(thread)
        else:
            advance_project(trial.project_id)

    def _work(self, lease: Lease) -> Work:
        trial = Trial.objects.select_related("experiment", "project").get(pk=lease.trial_id)
        project, experiment = trial.project, trial.experiment
        known = Result.objects.filter(  # of the same preset: another may score other rows
            trial__split=trial.split, trial__preset=trial.preset, losses__isnull=False, trial__project=project
        )
        mine = experiment.is_check or known.filter(trial__commit=trial.commit).exists()
        parent = known.filter(trial__commit=experiment.baseline_commit).order_by("-pk").first()
        task = replace(
            self._assignment(trial),
            reference=parent.losses.path if parent and parent.losses else None,
            wants_sample=not experiment.is_check
            and not trial.preset  # what only screens is too short to be worth reading
            and not Result.objects.filter(
                trial__project=project, trial__commit=trial.commit, trial__preset=trial.preset, score__isnull=False
            ).exists(),
            keep_losses=None if mine else _scratch(f"losses-{trial.public_id}-{lease.generation}.npy"),
        )
        return Work(lease, trial, task, trial.sizes.side_by_side, not mine)

    def _assignment(self, trial: Trial) -> Assignment:
        """What every trial of its kind is given."""
        project = trial.project
        return Assignment(
            benchmark=project.benchmark,
            preset=trial.sizes,
            commit=trial.commit,
            tree=_archive(project.repository_path, trial.commit),
            seed=trial.seed,
            split=trial.split,
            problems=tuple(trial.problems),
            confirming=trial.stage not in SCREENING,
            data=project.data_path,
            # A check leaves none: the trials of its commit would begin warmer than those of its parent.
            caches=None if trial.experiment.is_check else Path(settings.DATA_DIR) / "caches",
            # Of many problems each has a snapshot of its own, by its code alone.
            origin=None if project.problems else _origin(project.repository_path, project.start_commit),
        )


@lru_cache(maxsize=64)
def _archive(repository: Path, commit: str) -> bytes:
    return Repository(repository).archive(commit)


@lru_cache(maxsize=64)
def _origin(repository: Path, start: str) -> tuple[str, str]:
    return start, hashlib.sha256(_archive(repository, start)).hexdigest()


def _scratch(name: str) -> Path:
    folder = Path(settings.DATA_DIR) / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
