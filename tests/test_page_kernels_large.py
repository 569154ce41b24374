"""The kernel board of 235 problems: what its page weighs, costs and asks of the database."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from benchmarks.kernels.cells import CellTimes, metrics
from research.models import Candidate, Diff, Experiment, Idea, MergeRequest, Project, Result, Trial
from tests.cast import toy_benchmarks
from tests.kernel_board_play import Player, begin, prepare_many
from tests.pace import here

PROBLEMS, WORKLOADS = 235, 16


def fill(project: Project, problems: tuple[str, ...]) -> None:
    """One experiment a problem, each pair measured, a third of them confirmed and waiting."""
    player, thread = Player(project), project.threads.order_by("number")[0]
    for number, name in enumerate(problems, start=1):
        commit = f"{number:040x}"
        idea = Idea.objects.create(
            thread=thread, number=number, kind="change", researcher="external", title=f"change {name}", steps=[],
            hypothesis="Faster.", expected_effect=0.1, fingerprint=commit, state="implemented",
        )  # fmt: skip
        made = Candidate.objects.create(
            project=project, thread=thread, idea=idea, parent=project.start_commit, commit=commit, tree=commit
        )
        files = [{"path": f"{name}/solution.py", "added": 1, "removed": 1}]
        Diff.objects.create(
            candidate=made, base=project.start_commit, head=commit, patch="", files=files, added=1, removed=1
        )
        experiment = Experiment.objects.create(
            key=commit, project=project, thread=thread, candidate=made, number=number, rule=project.rule,
            baseline_commit=project.start_commit, candidate_commit=commit, state="ended",
        )  # fmt: skip
        trials = Trial.objects.bulk_create(
            Trial(project=project, experiment=experiment, arm=arm, stage="screen", pair=0, slot=0, seed=1,
                  commit=sha, split="", state="ended")
            for arm, sha in (("baseline", project.start_commit), ("candidate", commit))
        )  # fmt: skip
        Result.objects.bulk_create(
            Result(trial=trial, generation=1, machine=player.machine, score=1.0, isolation_level=3,
                   machine_class="cpu", metrics=_told(player, name))
            for trial in trials
        )  # fmt: skip
        if number % 3 == 0:
            verdict = player.verdict(experiment)
            MergeRequest.objects.create(
                project=project,
                thread=thread,
                candidate=made,
                verdict=verdict,
                base=project.start_commit,
                commit=commit,
            )


def _told(player: Player, name: str) -> dict[str, float]:
    told: dict[str, float] = {}
    for at in range(WORKLOADS):
        reference = player.chance.uniform(0.02, 4.0)
        times = CellTimes(
            reference / player.chance.uniform(0.8, 5), reference, reference / player.chance.uniform(4, 20)
        )
        told |= metrics(name, f"{int(name[:3]) - 1:04x}{at:028x}", times)
    return told


@pytest.fixture
def large(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare_many(PROBLEMS, WORKLOADS)
        project = begin("large", threads=1)
        fill(project, project.contract.problems(project.data_path))
        yield project


def test_a_board_of_4000_cells_is_light(
    client: Client, reviewer: User, large: Project, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client.force_login(reviewer)
    address = f"/p/{large.name}/kernels/"
    page = client.get(address).content.decode()  # the first one reads files and results
    assert page.count("<li class=") == PROBLEMS * WORKLOADS and "<i>○</i>" not in page
    with django_assert_max_num_queries(24):
        assert client.get(address).status_code == 200
    with django_assert_max_num_queries(14):
        assert client.get(address, {"part": "map"}).status_code == 200
    sizes, cpu = [], []
    for _ in range(12):
        begun = time.process_time()
        sizes.append(len(client.get(address, headers={"accept-encoding": "gzip"}).content))
        cpu.append(time.process_time() - begun)
    print(f"page of {PROBLEMS} x {WORKLOADS}: {1000 * min(cpu):.0f} ms CPU, {max(sizes) / 1000:.0f} kB gzip")
    assert max(sizes) <= 150_000 and min(cpu) <= here(0.150)
