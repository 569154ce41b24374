"""Leases: a pair goes to one worker, comes back when that one falls silent, and a late result changes nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from research.models import Experiment, Lease, Machine, Project, Result, Trial
from research.models.trial import MAX_ATTEMPTS
from tests.cast import World, begin

ROOT = Path(__file__).resolve().parent.parent
State = Trial.State
CLAIM = """
import django, sys
django.setup()
from research.models import Machine, Trial
machine, worker = Machine.objects.get(), sys.argv[1]
print("ready", flush=True)
sys.stdin.readline()
misses = 0
while misses < 5:  # another worker was faster: look again
    leases = Trial.objects.claim_pair(machine, worker)
    misses = 0 if leases else misses + 1
    if leases:
        print(*[lease.trial_id for lease in leases], flush=True)
"""


def experiment_of(project: Project, number: int, pairs: int) -> Experiment:
    experiment = Experiment.objects.create(
        key=f"played-{project.pk}-{number}", project=project, number=number, rule=project.rule,
        baseline_commit=project.start_commit, candidate_commit=project.start_commit,
    )  # fmt: skip
    experiment.plan("screen", pairs)
    return experiment


def claim(machine: Machine, worker: str = "worker") -> list[Lease]:
    return Trial.objects.claim_pair(machine, worker)


def let_expire() -> None:
    Lease.objects.open().update(expires=timezone.now() - timedelta(seconds=1))


def store(lease: Lease) -> bool:
    return lease.trial.finish(lease, machine=lease.machine, score=1.0, isolation_level=0, machine_class="quick")


@pytest.mark.django_db
def test_a_claim_gives_both_arms_of_a_pair_once(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=2)
    pairs = [claim(quick), claim(quick)]
    assert claim(quick) == []
    for number, leases in enumerate(pairs):
        assert [lease.trial.arm for lease in leases] == ["baseline", "candidate"]
        assert {lease.trial.pair for lease in leases} == {number}
        assert {lease.trial.slot for lease in leases} == {0, 1}


@pytest.mark.django_db(transaction=True)
def test_eight_threads_share_pairs_exactly_once(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=12)
    start = threading.Barrier(8)
    taken: list[tuple[str, list[int]]] = []

    def work(name: str) -> None:
        start.wait()
        misses = 0
        while misses < 5:
            leases = claim(quick, name)
            misses = 0 if leases else misses + 1
            if leases:
                taken.append((name, [lease.trial_id for lease in leases]))
        connection.close()

    threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_each_once([pair for _, pair in taken])


@pytest.mark.django_db(transaction=True)
def test_processes_share_pairs_exactly_once(project: Project, quick: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment_of(project, 1, pairs=12)
    monkeypatch.setenv("TESTS_DATABASE", str(connection.settings_dict["NAME"]))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, f"worker-{number}"], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert_each_once([[int(pk) for pk in line.split()] for output in outputs for line in output.splitlines()])


def assert_each_once(pairs: list[list[int]]) -> None:
    assert len(pairs) == 12 and all(len(pair) == 2 for pair in pairs)
    times = Counter(pk for pair in pairs for pk in pair)
    assert set(times) == set(Trial.objects.values_list("pk", flat=True)) and set(times.values()) == {1}
    assert Lease.objects.open().count() == 24


@pytest.mark.django_db
def test_a_lost_lease_returns_its_trial_with_a_higher_generation(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    first = claim(quick, "silent")
    assert Trial.objects.return_expired() == 0, "a lease that lives is left alone"
    let_expire()
    assert Trial.objects.return_expired() == 2
    assert set(Trial.objects.values_list("state", flat=True)) == {State.WAITING}
    again = claim(quick, "another")
    assert [lease.trial_id for lease in again] == [lease.trial_id for lease in first]
    assert [lease.generation for lease in first + again] == [1, 1, 2, 2]
    assert Trial.objects.return_expired() == 0


@pytest.mark.django_db
def test_a_fenced_finish_writes_nothing(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    late = claim(quick, "silent")[0]
    let_expire()
    Trial.objects.return_expired()
    assert not store(late) and not Result.objects.exists()
    mine = claim(quick, "another")[0]
    assert not store(late), "also while another worker has the trial"
    assert Trial.objects.get(pk=late.trial_id).state == State.LEASED
    assert store(mine)
    assert not store(late) and not store(mine)
    assert Result.objects.get().generation == 2


@pytest.mark.django_db
def test_a_fenced_worker_cannot_give_back_what_another_holds(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    late = claim(quick, "silent")[0]
    let_expire()
    Trial.objects.return_expired()
    claim(quick, "another")
    assert not late.trial.give_back(late, "late")
    assert set(Trial.objects.values_list("state", flat=True)) == {State.LEASED}


@pytest.mark.django_db
def test_renewing_tells_whether_the_lease_still_holds(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    lease = claim(quick)[0]
    Lease.objects.update(expires=timezone.now() + timedelta(seconds=1))
    assert lease.renew()
    assert Lease.objects.get(pk=lease.pk).expires > timezone.now() + timedelta(seconds=10)
    let_expire()
    Trial.objects.return_expired()
    assert not lease.renew()


@pytest.mark.django_db
def test_a_trial_that_no_machine_can_finish_is_lost(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert len(claim(quick)) == 2, attempt
        let_expire()
        Trial.objects.return_expired()
    assert set(Trial.objects.values_list("state", flat=True)) == {State.LOST}
    assert claim(quick) == []
    assert "expired" in Trial.objects.all()[0].note


@pytest.mark.django_db
def test_trials_of_a_cancelled_experiment_are_not_claimed(project: Project, quick: Machine) -> None:
    experiment = experiment_of(project, 1, pairs=2)
    running = claim(quick)
    experiment.cancel()
    assert claim(quick) == []
    let_expire()
    Trial.objects.return_expired()
    assert set(Trial.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert not running[0].renew() and claim(quick) == []


@pytest.mark.django_db
def test_trials_of_a_paused_project_wait(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    project.pause()
    assert claim(quick) == []
    project.resume()
    assert len(claim(quick)) == 2


@pytest.mark.django_db
def test_experiments_take_turns(project: Project, quick: Machine) -> None:
    for number, pairs in ((1, 4), (2, 2), (3, 2)):
        experiment_of(project, number, pairs)
    order = [claim(quick)[0].trial.experiment.number for _ in range(8)]
    assert order == [1, 2, 3, 1, 2, 3, 1, 1]


@pytest.mark.django_db
def test_what_is_being_confirmed_comes_first_and_the_oldest_of_it(project: Project, quick: Machine) -> None:
    one, two, three = (experiment_of(project, number, pairs=1) for number in (1, 2, 3))
    three.plan("confirm", 2)
    two.plan("confirm", 2)
    order = [claim(quick)[0].trial.experiment.number for _ in range(7)]
    assert order == [2, 2, 3, 3, 1, 2, 3] and one.number == 1


@pytest.mark.django_db
def test_projects_take_turns_whatever_they_confirm(project: Project, quick: Machine) -> None:
    other = begin("another question")
    mine, theirs = experiment_of(project, 1, pairs=1), experiment_of(other, 1, pairs=2)
    mine.plan("confirm", 2)
    order = [claim(quick)[0].trial.experiment for _ in range(5)]
    assert order == [mine, theirs, mine, theirs, mine]


@pytest.mark.django_db
def test_an_arm_is_never_measured_without_its_sibling(project: Project, quick: Machine) -> None:
    experiment_of(project, 1, pairs=1)
    baseline, candidate = claim(quick)
    assert store(baseline)
    let_expire()
    Trial.objects.return_expired()
    assert claim(quick) == []
    assert Trial.objects.get(pk=candidate.trial_id).state == Trial.State.LOST


@pytest.mark.django_db
def test_planning_again_makes_no_trial_twice(project: Project) -> None:
    experiment = experiment_of(project, 1, pairs=2)
    before = list(Trial.objects.values())
    assert experiment.plan("screen", 2) == 0 and list(Trial.objects.values()) == before
    assert experiment.plan("screen", 3) == 2


@pytest.mark.django_db(transaction=True)
def test_no_machine_sees_one_arm_before_the_other(project: Project, quick: Machine) -> None:
    """A machine that claims all the time, while trials are planned, always gets whole pairs."""
    experiment = experiment_of(project, 1, pairs=0)
    stop = threading.Event()
    sizes: list[int] = []

    def work() -> None:
        while not stop.is_set():
            if leases := claim(quick):
                sizes.append(len(leases))
        connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    for pairs in range(1, 13):
        experiment.plan("screen", pairs)
    while Trial.objects.waiting().exists():
        stop.wait(0.01)
    stop.set()
    worker.join()
    assert sizes == [2] * 12


@pytest.mark.django_db
def test_a_result_has_a_score_or_a_failure(world: World, project: Project, quick: Machine) -> None:
    from django.db import IntegrityError, transaction

    experiment_of(project, 1, pairs=1)
    lease = claim(quick)[0]
    with pytest.raises(IntegrityError), transaction.atomic():
        lease.trial.finish(lease, machine=quick, isolation_level=0, machine_class="quick")
    assert lease.renew(), "nothing of it was written"
