"""The named cast of the tests: a project on the toy benchmark, and a machine that plays trials without a sandbox.

The machine leases and finishes trials as a worker does. Its score is read off the code of the trial's commit: every
constant that `World.gains` names is worth something once it is no longer 1.0. So a merge that loses a change shows.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from benchmarks import contract
from research.loop.advance import advance, advance_project_until_idle, advance_until_idle
from research.loop.begin import Budget, begin_project
from research.loop.memory import steps_of as steps_of
from research.models import (
    Experiment,
    Idea,
    Lease,
    Machine,
    Membership,
    MergeRequest,
    NoiseFloor,
    Project,
    Role,
    Thread,
    Trial,
    Verdict,
)
from research.repository import Repository

TOY = Path(__file__).parent / "benchmarks"
SIGMA = 0.001
ROUNDS = 60


def begin(
    name: str = "question", threads: int = 1, budget: Budget | None = None, preset: str = "quick",
    benchmark: str = "toy", start: str = "plain", **options: Any,
) -> Project:  # fmt: skip
    """A project on the toy; options: auto_approve, started_by, single_person. `long` screens at `quick`."""
    project = begin_project(
        name, benchmark, preset, start, ["catalogue"] * threads, budget or Budget(),
        **{"auto_approve": False, **options},
    )  # fmt: skip
    Project.objects.filter(pk=project.pk).update(seed_key=hashlib.sha256(name.encode()).hexdigest())  # the same luck
    project.refresh_from_db()
    project.list_techniques()
    return project


def person(name: str, role: Role | None, project: Project | None = None) -> User:
    """Somebody with a role in a project, or in all of them; or with none."""
    user = User.objects.create_user(name)
    if role is not None:
        Membership.objects.create(user=user, project=project, role=role)
    return user


def store_floor(project: Project, machine: Machine) -> NoiseFloor:
    return NoiseFloor.objects.create(
        machine_class=machine.machine_class, **project.noise_key,
        sigma_trial=SIGMA, sigma_pair=1.4 * SIGMA, drift=0.0, trials=12,
    )  # fmt: skip


def focus(thread: Thread, *names: str) -> None:
    """Steer to these techniques or families; an idea that was made ahead under other steering is dropped."""
    Thread.objects.filter(pk=thread.pk).update(directives={"focus": list(names)})
    thread.ideas.filter(state=Idea.State.PROPOSED).delete()


@contextmanager
def toy_benchmarks() -> Iterator[None]:
    """Benchmark folders are looked up among the tests' own."""
    folder, contract.FOLDER = contract.FOLDER, TOY
    try:
        yield
    finally:
        contract.FOLDER = folder


@dataclass
class World:
    """One machine and what constants are worth on it."""

    machine: Machine
    gains: dict[str, float] = field(default_factory=dict)
    worth: dict[str, Callable[[float], float]] = field(default_factory=dict)  # where the value itself matters
    together: dict[tuple[str, ...], float] = field(default_factory=dict)  # what constants add to each other's gains
    failure: Callable[[Trial], str] = lambda trial: ""
    screened: dict[str, float] = field(default_factory=dict)  # what constants are worth at a screening preset instead
    played: list[Trial] = field(default_factory=list)
    gained: dict[int, list[str]] = field(default_factory=dict)  # by thread: what a stage has played (tests/stage.py)

    def score(self, trial: Trial) -> float:
        changed = {name: value for name, value in constants(trial.project, trial.commit).items() if value != 1}
        noise = random.Random(f"{trial.seed}/{trial.arm}").gauss(0, SIGMA)
        if trial.preset and self.screened:
            return 1.5 - sum(self.screened.get(name, 0.0) for name in changed) + 2 * noise
        both = sum(gain for names, gain in self.together.items() if changed.keys() >= set(names))
        return 1.0 - sum(self._gain(name, value) for name, value in changed.items()) - both + noise

    def _gain(self, name: str, value: float) -> float:
        return self.worth[name](value) if name in self.worth else self.gains.get(name, 0.0)

    def finish(self, lease: Lease) -> bool:
        trial = lease.trial
        failure = self.failure(trial)
        self.played.append(trial)
        return trial.finish(
            lease, machine=self.machine, score=None if failure else self.score(trial), failure=failure,
            message=failure and f"the trial ended with {failure}", isolation_level=self.machine.isolation_level,
            machine_class=self.machine.machine_class, device_seconds=1.0,
        )  # fmt: skip

    def run(self, pairs: int = 1_000) -> int:
        """Execute waiting pairs as a worker would. Returns the number of trials."""
        count = 0
        for _ in range(pairs):
            leases = Trial.objects.claim_pair(self.machine, "player")
            if not leases:
                break
            count += sum(self.finish(lease) for lease in leases)
        return count

    def screens(self, thread: Thread, name: str) -> Experiment:
        """Measure a technique up to the end of its screens, where its confirmation waits for a noise floor."""
        focus(thread, name)
        for _ in range(3):
            go(thread)
            self.run()
        experiment = running(thread)
        assert experiment is not None and experiment.is_idle()
        assert not experiment.trials.filter(stage="confirm").exists()
        return experiment

    def gain(self, thread: Thread, *names: str) -> MergeRequest:
        """Steer to techniques that are worth something; the head moves, a request is open.

        What a stage has played stands there already.
        """
        for name in names:
            if name in (before := self.gained.get(thread.pk, [])):
                before.remove(name)
                continue
            focus(thread, name)
            verdict = self.until_verdict(thread)
            assert verdict.kind == "improved", verdict
            step(thread), step(thread)
            thread.refresh_from_db()
        return thread.merge_requests.latest("pk")

    def until_verdict(self, thread: Thread) -> Verdict:
        """Advance and measure until the thread has one more verdict, and not a step further."""
        known = Verdict.objects.filter(experiment__thread=thread).count()
        for _ in range(ROUNDS):
            while (taken := step(thread)) is not None:
                fresh = Verdict.objects.filter(experiment__thread=thread).order_by("pk")[known:].first()
                if taken == "judge" and fresh:
                    return fresh
            advance_project_until_idle(thread.project_id)
            self.run()
        raise AssertionError(f"no verdict: {thread.state} {thread.note}; {running(thread)}")


def go(thread: Thread) -> int:
    """Advance until idle; a halted thread fails the test with its traceback."""
    steps = advance_until_idle(thread.pk)
    thread.refresh_from_db()
    assert thread.state != Thread.State.HALTED, thread.note
    return steps


def step(thread: Thread) -> str | None:
    """One step of the loop, on fresh rows."""
    return advance(Thread.objects.select_related("project").get(pk=thread.pk))


def running(thread: Thread) -> Experiment | None:
    return thread.experiments.running().first()


def repository_of(project: Project) -> Repository:
    return Repository(project.repository_path)


def constants(project: Project, commit: str) -> dict[str, float]:
    """NAME -> value of the constants in a commit's files."""
    return _constants(project.repository_path, commit)


@cache
def _constants(path: Path, commit: str) -> dict[str, float]:
    text = "\n".join(content.decode() for content in Repository(path).files(commit).values())
    return {name: float(value) for name, value in re.findall(r"^([A-Z]+) = ([\d.]+)", text, re.MULTILINE)}
