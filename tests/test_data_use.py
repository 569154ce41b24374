"""What screens does not confirm, parts of the confirm data take turns, and every use is counted once and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from benchmarks.contract import Outcome
from benchmarks.data import parts_of
from research.models import DataUse, Experiment, Project, Thread
from research.models import data_use as module
from runners.lab import Lab
from tests.cast import World, begin, focus, go

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFIRM_USES", 2)


@pytest.fixture
def parts(project: Project) -> tuple[str, ...]:
    parts = project.confirm_parts
    assert len(parts) >= 2, "the prepared text of the tests must have several parts"
    return parts


def experiment(project: Project, **fields: object) -> Experiment:
    number = project.next_experiment_number()
    return Experiment.objects.create(
        key=f"test-{project.pk}-{number}", project=project, number=number, rule=project.rule,
        baseline_commit=project.start_commit, candidate_commit=project.start_commit, **fields,
    )  # fmt: skip


def confirmed_on(project: Project) -> str:
    row = experiment(project)
    row.plan("confirm", 2)
    (split,) = set(row.trials.values_list("split", flat=True))
    return str(split)


def test_parts_take_turns_after_a_set_number_of_uses_and_come_again(project: Project, parts: tuple[str, ...]) -> None:
    wanted = [part for part in parts for _ in range(2)] + [parts[0]]
    assert [confirmed_on(project) for _ in wanted] == wanted
    assert DataUse.objects.counts(project.data_id) == dict.fromkeys(parts, 2) | {parts[0]: 3}


def test_an_experiment_never_mixes_parts_and_counts_once(project: Project, parts: tuple[str, ...]) -> None:
    first = experiment(project)
    first.plan("screen", 1), first.plan("extend", 3), first.plan("confirm", 4)
    for _ in range(4):  # others move the project on to the next part
        confirmed_on(project)
    again = Experiment.objects.get(pk=first.pk)
    again.plan("confirm", 8)
    splits = first.trials.order_by().values_list("stage", "split").distinct()
    assert set(splits) == {("screen", "val_screen"), ("extend", "val_screen"), ("confirm", parts[0])}
    assert first.trials.filter(stage="confirm").count() == 16
    counts = DataUse.objects.counts(project.data_id)
    assert counts["val_screen"] == 1 and sum(counts[part] for part in parts if part in counts) == 5


def test_two_projects_on_the_same_data_count_together(project: Project, parts: tuple[str, ...]) -> None:
    other = begin("another")
    assert [confirmed_on(each) for each in (project, other, project)] == [parts[0], parts[0], parts[1]]
    row = DataUse.objects.get(data_id=project.data_id, split=parts[0])
    assert (row.uses, row.project) == (2, other)


def test_an_experiment_that_confirmed_before_parts_existed_goes_on_as_it_began(project: Project) -> None:
    old = experiment(project)
    old.plan("confirm", 4)
    Experiment.objects.filter(pk=old.pk).update(confirm_split="")
    for _ in range(3):
        confirmed_on(project)
    Experiment.objects.get(pk=old.pk).plan("confirm", 6)
    assert set(old.trials.values_list("split", flat=True)) == {"val_confirm"}


def test_a_replicate_stays_on_the_part_of_its_original(thread: Thread, world: World, member: User) -> None:
    focus(thread, "alpha")
    original = world.until_verdict(thread).experiment
    for _ in range(3):
        confirmed_on(thread.project)
    replicate = original.more_seeds(member, pairs=2)
    assert set(replicate.trials.values_list("split", flat=True)) == {original.confirm_split} == {"val_confirm"}


def test_the_closing_measurement_alone_touches_val_final(project: Project) -> None:
    closing = experiment(project, purpose=Experiment.Purpose.CLOSING)
    closing.plan("closing", 5), closing.plan("closing", 6)
    assert set(closing.trials.values_list("split", flat=True)) == {"val_final"}
    assert DataUse.objects.counts(project.data_id) == {"val_final": 1}


def test_data_of_one_part_have_one_part(tmp_path: Path) -> None:
    for name in ("val_confirm", "val_confirm_10", "val_confirm_2", "val_screen"):
        (tmp_path / f"{name}.bin").touch()
    assert parts_of(tmp_path, "val_confirm") == ("val_confirm", "val_confirm_2", "val_confirm_10")
    assert parts_of(tmp_path / "nowhere", "val_confirm") == ("val_confirm",)


def test_pages_say_which_part_confirms_and_how_often_it_was_used(
    project: Project, parts: tuple[str, ...], member: User, client: Client
) -> None:
    client.force_login(member)
    for _ in range(3):
        confirmed_on(project)
    row = project.experiments.latest("pk")
    page = client.get(reverse("project", args=[project.name])).content.decode()
    assert f"2 <small>of {len(parts)}</small>" in page
    assert "part of the confirm data in use, by 1 experiment so far; val_final is untouched" in page
    for _ in range(2):
        experiment(project, purpose=Experiment.Purpose.CLOSING).plan("closing", 1)
    page = client.get(reverse("project", args=[project.name])).content.decode()
    assert "val_final was touched 2 times" in page
    page = client.get(reverse("experiment", args=[row.public_id])).content.decode()
    assert f"{parts[1]}: confirm part 2 of {len(parts)}, used by 1 experiment" in page
    closing = project.experiments.latest("pk")
    page = client.get(reverse("experiment", args=[closing.public_id])).content.decode()
    assert "val_final: used by 2 experiments, so it was not fresh for the last" in page


def test_a_machine_hears_that_a_trial_confirms_and_its_result_keeps_what_it_rests_on(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)  # it would end the test's transaction
    focus(thread, "alpha")
    go(thread)
    lab = Lab("quick", world.machine.machine_class, 2, {})
    screening = lab.claim()
    rests = {"split": "a" * 64, "tree": "b" * 64, "cache": "empty"}
    for work in screening:
        assert lab.finish(work, Outcome(score=1.0, hashes=rests, surroundings={"seed": "7", "processor": "one"}))
    row = thread.experiments.get()
    row.plan("confirm", 1)
    confirming = lab.claim()
    assert {work.task.split for work in screening} == {"val_screen"} and row.confirm_split == "val_confirm"
    assert [work.task.confirming for work in (*screening, *confirming)] == [False, False, True, True]
    assert {work.task.split for work in confirming} == {"val_confirm"}
    assert len({work.task.caches for work in confirming}) == 1 and confirming[0].task.caches is not None
    stored = screening[0].trial.result
    assert stored.hashes == rests and stored.surroundings["seed"] == "7"
