"""Short checks: a change is tried alone, takes turns with the pairs, and its score is told to nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from django.urls import reverse

from benchmarks.contract import Failure, Outcome
from research.loop.check import CheckRefused, begin_check, check_result, commit_to_check
from research.models import DataUse, Event, Experiment, Machine, Project, Result, Series, Thread, Trial
from research.models.trial import CHECK
from research.views.spent import spent_of
from runners.lab import Lab
from runners.points import Stretch
from tests.cast import World, go, repository_of

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def sandboxed(quick: Machine) -> None:
    """The quick machine may run code from outside the lab."""
    Machine.objects.filter(pk=quick.pk).update(isolation_level=1)


def change(project: Project, key: str, text: str = "ALPHA = 2.0\n", path: str = "train.py") -> str:
    return commit_to_check(project, key, project.start_commit, {path: text}, NOON)


def check(project: Project, key: str = "one") -> Experiment:
    return begin_check(project, key, change(project, key, f"ALPHA = 2.0  # {key}\n"))


def stages(world: World, claims: int) -> list[str]:
    """What a machine takes one after another, finishing each."""
    taken = []
    for _ in range(claims):
        leases = Trial.objects.claim_pair(world.machine, "player")
        taken.append("+".join(lease.trial.stage for lease in leases))
        assert all(world.finish(lease) for lease in leases)
    return taken


def test_a_check_that_runs_says_so_and_tells_no_score(world: World, project: Project) -> None:
    experiment = check(project)
    assert check_result(experiment) is None
    assert stages(world, 1) == [CHECK]
    found = check_result(experiment)
    assert found is not None and found.ok and not found.failure and found.seconds == 1.0
    assert check_result(experiment) == found and not hasattr(found, "score")
    experiment.refresh_from_db()
    assert experiment.state == Experiment.State.ENDED


def test_a_check_that_fails_tells_why_with_the_end_of_its_log_and_its_curve(
    world: World, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)  # it would end the test's transaction
    experiment = check(project)
    (work,) = Lab("quick", world.machine.machine_class, 2, {}).claim()
    assert (work.task.split, work.task.preset.name, work.task.confirming) == ("train", "quick", False)
    assert work.task.caches is None and not work.task.wants_sample and work.task.keep_losses is None
    steps, values = np.arange(50, dtype=np.int64), np.linspace(5, 4, 50)
    lease = work.lease
    Series.objects.append([Stretch(lease.trial_id, lease.generation, "loss", 0, steps.tobytes(), values.tobytes())])
    failed = Outcome(failure=Failure("crash", "no such name"), log="x" * 9_000 + "NameError: BETA")
    assert Lab("quick", world.machine.machine_class, 2, {}).finish(work, failed)
    found = check_result(experiment)
    assert found is not None and not found.ok and (found.failure, found.message) == ("crash", "no such name")
    assert len(found.log_tail) == 4_000 and found.log_tail.endswith("NameError: BETA")
    assert found.steps == 49 and len(found.curve) == 20 and found.curve[0] == (0, 5.0) and found.curve[-1] == (49, 4.0)


def test_what_does_not_parse_or_touches_what_is_protected_is_refused_without_a_trial(project: Project) -> None:
    with pytest.raises(CheckRefused, match=r"^train.py, line 2: "):
        change(project, "broken", "ALPHA = 2.0\ndef\n")
    contract = change(project, "greedy", "name = 'mine'\n", "benchmark.toml")
    with pytest.raises(CheckRefused, match="benchmark.toml"):
        begin_check(project, "greedy", contract)
    assert not Trial.objects.exists() and not Experiment.every.exists()


def test_the_same_key_is_one_check_and_its_commit_is_kept(project: Project) -> None:
    first, second = check(project), check(project)
    assert first == second and first.trials.count() == 1
    assert repository_of(project).resolve("refs/checks/one") == first.candidate_commit


def test_checks_and_pairs_take_turns_on_a_machine(thread: Thread, world: World, project: Project) -> None:
    go(thread)
    thread.experiments.get().plan("screen", 3)
    for key in ("one", "two", "three", "four", "five"):
        check(project, key)
    assert stages(world, 8) == [CHECK, "screen+screen", CHECK, "screen+screen", CHECK, "screen+screen", CHECK, CHECK]


def test_code_from_outside_is_checked_in_a_sandbox_only(world: World, project: Project) -> None:
    experiment = check(project)
    assert not experiment.trusted
    Machine.objects.update(isolation_level=0)
    assert Trial.objects.claim_pair(world.machine, "player") == []
    Machine.objects.update(isolation_level=1)
    assert len(Trial.objects.claim_pair(world.machine, "player")) == 1


def test_a_check_counts_nowhere_but_in_device_seconds(thread: Thread, world: World, project: Project) -> None:
    experiment = check(project)
    assert stages(world, 1) == [CHECK] and check_result(experiment)
    go(thread)
    assert [row.number for row in project.experiments.all()] == [1], "it takes no number"
    assert experiment not in Experiment.objects.all() and not Result.objects.exists() and Result.every.count() == 1
    assert not DataUse.objects.exclude(split="val_screen").exists()
    assert not Event.objects.filter(experiment=experiment).exists()
    assert (spent_of(project).all.trials, spent_of(project).all.seconds) == (0, 1.0)
    project.max_trials, project.max_device_seconds = 1, 1.0
    assert project.over_budget() == "the budget of 1 device-seconds is spent"


def test_a_check_has_no_page(client, world: World, project: Project, reviewer) -> None:
    experiment = check(project)
    client.force_login(reviewer)
    lease = Trial.objects.claim_pair(world.machine, "player")[0]
    running = client.get(reverse("machines")).content.decode()
    assert "a short check of a change" in running and experiment.public_id not in running
    assert world.finish(lease) and check_result(experiment)
    assert client.get(reverse("experiment", args=[experiment.public_id])).status_code == 404
    assert client.get(reverse("machines")).status_code == 200


def test_a_check_that_no_machine_can_end_is_told_as_lost(world: World, project: Project) -> None:
    experiment = check(project)
    for _ in range(4):
        (lease,) = Trial.objects.claim_pair(world.machine, "player")
        lease.trial.give_back(lease, "the machine went away")
    found = check_result(experiment)
    assert found is not None and not found.ok and (found.failure, found.message) == ("lost", "the machine went away")


@pytest.mark.torch
@pytest.mark.slow
def test_a_real_check_trains_in_the_sandbox_and_reads_no_validation_text(tmp_path: Path) -> None:
    from benchmarks.contract import Assignment, load
    from benchmarks.nanochat import evaluate, prepare
    from benchmarks.tar import pack
    from runners.sandbox import Sandbox
    from tests import candidates
    from tests.text import write_corpus

    (tmp_path / "text").mkdir()
    write_corpus(tmp_path / "text")
    data = tmp_path / "data"
    prepare.prepare(data, tmp_path / "text", lambda line: None)
    for path in data.glob("val_*.bin"):
        path.unlink()
    tree = pack({name: text.encode() for name, text in candidates.honest().items()})
    task = Assignment("nanochat", load("nanochat").check_preset("cpu"), "", tree, 1, "train", data)
    evaluator = evaluate.Evaluator()
    with Sandbox.start(7, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP) as box:
        outcome = evaluator.run(task, box, lambda name, steps, values: None)
    evaluator.close()
    assert outcome.failure is None and outcome.score is not None
