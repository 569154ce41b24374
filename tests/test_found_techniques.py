"""What was found becomes known: applied again by its context, asked for, tried, decided by a second person."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from django.contrib.auth.models import User

from benchmarks.catalogue import Step
from benchmarks.edits import DoesNotApply
from benchmarks.found import apply_patch, constants_of, module_of
from research.loop import found
from research.loop.begin import add_thread
from research.loop.memory import catalogue_of, sources_of
from research.models import (
    AuditEntry,
    Event,
    Experiment,
    FoundTechnique,
    Idea,
    NotAllowed,
    NotMergeable,
    Project,
    Role,
)
from tests.cast import World, focus, go, person, step
from tests.found_play import confirmed

PATCH = """diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -2,3 +2,4 @@
 x = 1
-RATE = 1.0
+RATE = 2.0
+SHARE = 4  # of all
 y = 2
"""
SAID = {"name": "big_alpha", "title": "big ALPHA", "family": "train", "hypothesis": "A big ALPHA lowers the loss."}
KNOB = {"name": "ALPHA", "low": 1.5, "high": 9.0}


@pytest.fixture
def gained(world: World, project: Project) -> Experiment:
    return confirmed(world, project)


def proposed(by: User, gained: Experiment, **more: Any) -> FoundTechnique:
    return FoundTechnique.propose(by, gained, catalogue_of(gained.project), {**SAID, **more}, [KNOB])


# The change, again


def test_a_hunk_goes_where_its_lines_stand_whatever_moved_above_them() -> None:
    moved = "# new\n# lines\n\nx = 1\nRATE = 1.0\ny = 2\n"
    assert apply_patch({"train.py": moved}, PATCH) == {
        "train.py": "# new\n# lines\n\nx = 1\nRATE = 2.0\nSHARE = 4  # of all\ny = 2\n"
    }
    assert constants_of(PATCH) == {"RATE": 2.0, "SHARE": 4.0}


@pytest.mark.parametrize("text", ["x = 1\n", "y = 2\nx = 1\n"])
def test_what_was_added_at_the_end_of_a_file_is_not_added_twice(text: str) -> None:
    at = len(text.splitlines())
    patch = (
        f"diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -{at},1 +{at},2 @@\n x = 1\n+Z = 2.0\n"
    )
    once = apply_patch({"train.py": text}, patch)
    assert once == {"train.py": f"{text}Z = 2.0\n"}
    with pytest.raises(DoesNotApply, match="has what it adds already"):
        apply_patch(once, patch)


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"train.py": "x = 1\nRATE = 1.1\ny = 2\n"}, "stand 0 times"),
        ({"train.py": "x = 1\nRATE = 1.0\ny = 2\n" * 2}, "stand 2 times"),
        ({"model.py": "x = 1\n"}, "there is no train.py"),
        ({"train.py": "x = (\nx = 1\nRATE = 1.0\ny = 2\n"}, "no valid Python"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(sources: dict[str, str], words: str) -> None:
    with pytest.raises(DoesNotApply, match=words):
        apply_patch(sources, PATCH)


# From a request to the catalogue


@pytest.mark.django_db
def test_only_an_approved_one_is_in_the_catalogue_and_not_trusted(
    gained: Experiment, world: World, member: User, reviewer: User
) -> None:
    project = gained.project
    row = proposed(member, gained)
    assert "big_alpha" not in catalogue_of(project)
    with pytest.raises(NotMergeable, match="not known yet"):
        row.approve(reviewer)
    assert found.step(project) and not found.step(project)
    row.refresh_from_db()
    assert row.fit["start"] == "" and row.fit["champion"] == ""
    assert (row.fit["kept"], row.fit["others"], row.fit["lost"]) == (5, 6, ["stubborn"])
    row.approve(reviewer)
    technique = catalogue_of(project)["big_alpha"]
    assert technique.prior_gain == pytest.approx(0.05, abs=0.01) and technique.tunables[0].name == "alpha"
    fresh = Project.objects.get(pk=project.pk)
    fresh.list_techniques()
    assert fresh.labels["big_alpha"] == {"big_alpha", "train", "train.py"}
    assert {"propose a technique", "approve a technique"} <= set(AuditEntry.objects.values_list("action", flat=True))
    assert Event.objects.filter(kind=Event.Kind.TECHNIQUE).count() == 2
    thread = add_thread(fresh, "catalogue", person("carl", Role.ADMIN))
    focus(thread, "big_alpha")
    assert step(thread) == "propose"
    idea = thread.ideas.get()
    Idea.objects.update(steps=[{"technique": "big_alpha", "tunables": {"alpha": 3.0}}])  # the default was measured
    go(thread)
    idea.refresh_from_db()
    assert idea.techniques == ["big_alpha"] and not idea.trusted and not idea.candidate.trusted


@pytest.mark.django_db
def test_a_tunable_sets_the_constant_of_the_change(gained: Experiment, member: User) -> None:
    row, start = proposed(member, gained), dict(sources_of(gained.project.repository_path, gained.project.start_commit))
    assert "ALPHA = 3.0\n" in row.technique.apply(start, {"alpha": 3.0})["train.py"]
    assert row.technique.excludes == (f"change-{gained.candidate.idea.public_id}",)  # type: ignore[union-attr]
    text = module_of(row.technique, row.patch)
    ast.parse(text)
    assert "TECHNIQUES = [" in text and "Tunable('alpha', 2.0, 1.5, 9.0, False" in text


@pytest.mark.django_db
def test_a_second_person_decides(gained: Experiment, reviewer: User, member: User, outsider: User) -> None:
    row = proposed(reviewer, gained)
    found.step(gained.project)
    row.refresh_from_db()
    with pytest.raises(NotMergeable, match="a second person"):
        row.approve(reviewer)
    for nobody in (member, outsider):
        with pytest.raises(NotAllowed):
            row.reject(nobody, "no")
    other = person("ruth", Role.REVIEWER)
    with pytest.raises(NotMergeable, match="say why"):
        row.ask_for_changes(other, " ")
    row.ask_for_changes(other, "another name, please")
    assert (row.state, row.reason) == ("returned", "another name, please")
    again = proposed(member, gained, name="larger_alpha")
    assert again.pk == row.pk and again.state == "proposed" and again.fit == {}
    found.step(gained.project)
    again.refresh_from_db()
    again.approve(other)
    again.retract(reviewer, "it overfits")
    assert "larger_alpha" not in catalogue_of(gained.project)
    assert FoundTechnique.objects.any_of("toy", ["larger_alpha"]), "what was made with it stays untrusted"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("said", "knob", "words"),
    [
        ({"name": "alpha"}, KNOB, "has a technique alpha already"),
        ({"name": "Big Alpha"}, KNOB, "small letters"),
        ({"name": "lambda"}, KNOB, "small letters"),
        ({"title": ""}, KNOB, "a title"),
        ({}, {**KNOB, "name": "OMEGA"}, "sets no constant OMEGA"),
        ({}, {**KNOB, "low": 3.0}, "must hold its value 2"),
        ({}, {**KNOB, "high": float("nan")}, "must hold its value 2"),
    ],
)
def test_what_makes_no_technique_is_refused_in_one_line(
    gained: Experiment, member: User, said: dict[str, str], knob: dict[str, Any], words: str
) -> None:
    with pytest.raises(NotMergeable, match=words):
        FoundTechnique.propose(member, gained, catalogue_of(gained.project), {**SAID, **said}, [knob])
    assert not FoundTechnique.objects.exists()


@pytest.mark.django_db
def test_what_the_catalogue_knows_or_nobody_confirmed_becomes_none(
    world: World, project: Project, member: User
) -> None:
    request = world.gain(project.threads.get(), "alpha")
    with pytest.raises(NotMergeable, match="of a researcher's own"):
        proposed(member, request.verdict.experiment)
    assert Step("alpha", {}).technique in catalogue_of(project)
