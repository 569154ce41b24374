"""Which code runs where: what a machine's sandbox withstood decides what of the outside's code it may measure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from benchmarks.catalogue import Step
from research.models import (
    AuditEntry,
    Candidate,
    Event,
    Experiment,
    Idea,
    Machine,
    NotAllowed,
    Project,
    Result,
    Role,
    Thread,
)
from research.models.machine import needed_level
from research.researchers import RESEARCHERS
from research.researchers.catalogue import CatalogueResearcher
from research.views.now import measuring
from tests.cast import World, focus, go, person, repository_of, running, step, steps_of


class Visitor(CatalogueResearcher):
    """Somebody from outside the lab, whose taste in ideas is the catalogue's."""

    name = "visitor"
    ships_code = False
    holds_sessions = False


@pytest.fixture
def guest(thread: Thread) -> Iterator[Thread]:
    """The thread, in the hands of somebody from outside, who tries what is worth something."""
    RESEARCHERS["visitor"] = Visitor()
    Thread.objects.filter(pk=thread.pk).update(researcher="visitor")
    thread.refresh_from_db()
    focus(thread, "alpha")
    yield thread
    del RESEARCHERS["visitor"]


@pytest.fixture
def root(db: None) -> User:
    return person("ada", Role.ADMIN)


def level(machine: Machine, level: int) -> None:
    machine.attach(level, [])
    machine.beat()


def waiting_words(experiment: Experiment) -> str:
    return measuring([experiment])[experiment.pk].text


def measured_stages(experiment: Experiment) -> set[str]:
    return set(experiment.trials.filter(result__isnull=False).values_list("stage", flat=True))


def until_confirm(world: World, thread: Thread) -> Experiment:
    """Screened and extended: its first confirm pairs wait."""
    for _ in range(6):
        go(thread)
        experiment = running(thread)
        assert experiment is not None
        if experiment.trials.filter(stage="confirm").exists():
            return experiment
        assert world.run() > 0
    raise AssertionError("it was never confirmed")


@pytest.mark.parametrize(
    ("isolation", "override", "outside"),
    [
        (0, False, set()),
        (0, True, {"screen", "extend"}),
        (1, False, {"screen", "extend"}),
        (2, False, {"screen", "extend", "confirm", "closing"}),
        (3, False, {"screen", "extend", "confirm", "closing"}),
    ],
)
def test_a_level_decides_which_stages_the_code_of_others_may_run_in(
    isolation: int, override: bool, outside: set[str]
) -> None:
    machine = Machine(isolation_level=isolation, override_level_zero=override)
    stages = ("screen", "extend", "confirm", "closing")
    assert {stage for stage in stages if machine.may_run(False, stage)} == outside
    assert all(machine.may_run(True, stage) for stage in stages), "what ships with the lab runs anywhere"


def test_code_that_ships_with_the_lab_is_confirmed_at_any_level(world: World, thread: Thread) -> None:
    level(world.machine, 0)
    focus(thread, "alpha")
    verdict = world.until_verdict(thread)
    assert verdict.kind == "improved"
    assert verdict.experiment.trusted and verdict.experiment.candidate is not None
    assert verdict.experiment.candidate.idea.trusted


def test_code_from_outside_is_screened_at_level_1_and_waits_for_level_2(world: World, guest: Thread) -> None:
    level(world.machine, 1)
    experiment = until_confirm(world, guest)
    assert not experiment.trusted
    assert world.run() == 0, "no machine here may confirm it"
    assert measured_stages(experiment) == {"screen"}
    assert "waits for a machine with isolation level 2" in waiting_words(experiment)
    level(world.machine, 2)
    assert world.run() > 0
    go(guest)
    experiment.refresh_from_db()
    assert experiment.verdict.kind == "improved"


def test_code_from_outside_never_runs_where_nothing_held(world: World, guest: Thread) -> None:
    level(world.machine, 0)
    go(guest)
    experiment = running(guest)
    assert experiment is not None and world.run() == 0
    assert "waits for a machine with isolation level 1" in waiting_words(experiment)
    world.machine.beat()
    Machine.objects.create(name="better", machine_class="x", isolation_level=2)  # never heard of: no help
    assert "isolation level 1" in waiting_words(experiment)


def test_the_noise_floor_is_measured_anywhere(project: Project, quick: Machine) -> None:
    from research.loop.advance import advance_project_until_idle
    from research.models import Trial

    level(quick, 0)
    advance_project_until_idle(project.pk)
    assert len(Trial.objects.claim_pair(quick, "w")) == 2


def test_an_admin_may_let_a_machine_screen_without_a_sandbox(world: World, guest: Thread, root: User) -> None:
    level(world.machine, 0)
    go(guest)
    assert world.run() == 0
    world.machine.override(root, True)
    experiment = until_confirm(world, guest)
    assert world.run() == 0, "the override screens, it confirms nothing"
    assert "isolation level 2" in waiting_words(experiment)
    entry = AuditEntry.objects.get(action="override isolation")
    assert (entry.actor, entry.detail) == (root, {"machine": "quick", "allowed": True})
    assert Event.objects.filter(kind=Event.Kind.MACHINE, text__contains="without a sandbox: ada said so").exists()
    world.machine.override(root, False)
    world.machine.override(root, False)
    assert AuditEntry.objects.filter(action="override isolation").count() == 2, (
        "nothing is written where nothing changes"
    )


def test_nobody_below_an_admin_of_the_lab_may_override(quick: Machine, project: Project, reviewer: User) -> None:
    with pytest.raises(NotAllowed, match="only a admin of the lab may let untrusted code"):
        quick.override(reviewer, True)
    with pytest.raises(NotAllowed):
        quick.override(person("paul", Role.ADMIN, project), True)
    quick.refresh_from_db()
    assert not quick.override_level_zero


def test_what_is_built_on_code_from_outside_is_from_outside_too(world: World, guest: Thread) -> None:
    """Also through a merge: git's ancestors decide, not the parent alone."""
    level(world.machine, 3)
    world.gain(guest, "alpha")
    Thread.objects.filter(pk=guest.pk).update(researcher="catalogue")
    focus(guest, "beta")
    verdict = world.until_verdict(guest)
    candidate = verdict.experiment.candidate
    assert candidate is not None
    assert candidate.idea.trusted and not candidate.trusted and not verdict.experiment.trusted
    repository, project = repository_of(guest.project), guest.project
    merged = repository.merge(project.start_commit, candidate.commit, "a merge", candidate.created)
    assert candidate.commit in repository.since(project.start_commit, merged)
    assert not Candidate.all_trusted(project, {merged}), "a commit of nobody's is not trusted beside these"
    assert Candidate.all_trusted(project, {project.start_commit})


def test_a_combination_adds_no_code_of_its_own(world: World, thread: Thread) -> None:
    steps = [Step("alpha", {"value": 2.0}).to_json()]
    idea = Idea.add(thread, 90, kind=Idea.Kind.COMBINATION, hypothesis="both", expected_effect=0, steps=steps)
    other = Idea.add(thread, 91, kind=Idea.Kind.JOINT, hypothesis="mine", expected_effect=0, steps=steps)
    assert (idea.trusted, other.trusted) == (True, False)
    assert steps_of(idea.steps)[0].technique == "alpha"


def test_confirm_pairs_of_a_machine_that_proved_weak_are_no_evidence(world: World, guest: Thread) -> None:
    """The level on the result counts, whatever the machine said when it took the trial."""
    level(world.machine, 2)
    experiment = until_confirm(world, guest)
    world.run()
    assert sum(str(pair.stage) == "confirm" for pair in experiment.complete_pairs()) == 4
    weak = experiment.trials.filter(stage="confirm", pair=0, arm="candidate")
    Result.objects.filter(trial__in=weak).update(isolation_level=1)
    assert sum(str(pair.stage) == "confirm" for pair in experiment.complete_pairs()) == 3
    go(guest)
    assert experiment.trials.filter(stage="confirm").count() == 10, "the pair is made up for"


def test_needed_levels() -> None:
    assert [needed_level(stage) for stage in ("screen", "extend", "confirm")] == [1, 1, 2]


def test_a_thread_whose_trials_must_wait_does_not_hold_up_another(
    world: World, guest: Thread, project: Project
) -> None:
    from research.loop.begin import add_thread

    level(world.machine, 0)
    go(guest)
    assert world.run() == 0
    other = add_thread(project, "catalogue", person("root", Role.ADMIN))
    focus(other, "beta")
    go(other)
    assert world.run() > 0
    assert step(other) == "judge"
