"""A tree from elsewhere: looked at, measured beside the champion under the same rule, never merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db.utils import OperationalError
from django.test import Client

from research.loop.advance import advance_project_until_idle
from research.loop.rival import read_tree
from research.loop.transfer import over_time
from research.management.commands.transfer import _settled
from research.models import Experiment, Machine, MergeRequest, NotMergeable, Project, Thread, Verdict
from tests.cast import World, store_floor

pytestmark = pytest.mark.django_db


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Better than the start, and with something for a reader."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "train.py").write_text("import socket\n\nALPHA = 2.0\nBETA = 2.0\nGAMMA = 1.0\n")
    (folder / "model.py").write_text("DELTA = 1.0\n")
    return folder


def bring(folder: Path, capsys: pytest.CaptureFixture[str], **options: object) -> dict[str, object]:
    call_command("rival", "question", files=folder, json=True, **options)
    found: dict[str, object] = json.loads(capsys.readouterr().out)["rivals"][-1]
    return found


def test_it_is_measured_beside_the_champion_and_judged_by_the_same_rule(
    thread: Thread, world: World, theirs: Path, reviewer: User, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine.objects.update(isolation_level=3)
    world.machine.refresh_from_db()
    request = world.gain(thread, "alpha")
    request.approve(request.commit, reviewer)
    waiting = bring(theirs, capsys, pairs=6)
    assert waiting["verdict"] is None and "can reach the network" in str(waiting["findings"])
    rival = Experiment.objects.get(purpose=Experiment.Purpose.RIVAL)
    assert not rival.trusted and rival.baseline_commit == request.commit
    assert bring(theirs, capsys, pairs=6) == waiting, "bringing it twice is bringing it once"
    world.run()
    advance_project_until_idle(thread.project_id)
    verdict = Verdict.objects.get(experiment=rival)
    assert (verdict.kind, verdict.pairs) == ("improved", 6) and verdict.effect == pytest.approx(0.05, abs=0.005)
    assert MergeRequest.objects.count() == 1, "it has no thread, so nobody can merge it"
    client.force_login(reviewer)
    for place in ("", "evidence/"):
        assert client.get(f"/e/{rival.public_id}/{place}").status_code == 200
    assert client.get("/p/question/").status_code == 200
    call_command("transfer", "question", preset=["quick", "long"], pairs=2, rival="theirs")
    assert not Experiment.objects.filter(purpose=Experiment.Purpose.TRANSFER, trusted=True).exists()
    world.run()
    advance_project_until_idle(thread.project_id)
    project = Project.objects.get()
    assert [row.seconds for row in over_time(project)["theirs"]] == [1.0, 3.0]
    call_command("rival", "question")
    assert "theirs: improved +0.0" in capsys.readouterr().out


def test_what_is_measured_but_waits_for_a_noise_floor_is_settled(
    project: Project, quick: Machine, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine.objects.update(isolation_level=3)
    quick.refresh_from_db()
    bring(theirs, capsys, pairs=6)
    running = project.experiments.running().filter(purpose=Experiment.Purpose.RIVAL)
    assert not _settled(project, running), "its pairs wait"
    world = World(quick)
    while running.get().trials.waiting().exists():
        world.run(pairs=1)
    assert _settled(project, running) and running.all().exists(), (
        "no floor, so no verdict: nothing more is to be measured"
    )
    store_floor(project, quick)
    assert not _settled(project, running)
    advance_project_until_idle(project.pk)
    assert _settled(project, running) and not running.all().exists()


def test_a_folder_without_a_lab_is_told_in_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**_: object) -> None:
        raise OperationalError("no such table: research_project")

    monkeypatch.setattr(Project.objects, "filter", gone)
    with pytest.raises(CommandError, match=r"there is no lab in .* yet: `manage.py campaign` or"):
        call_command("rival", "question")


def test_a_weak_sandbox_takes_no_rival(thread: Thread, world: World, theirs: Path) -> None:
    type(world.machine).objects.filter(pk=world.machine.pk).update(isolation_level=1)
    call_command("rival", "question", files=theirs)
    assert world.run() == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"it lacks train.py with train\(\)"),
        ({"train.py": "def main(:\n"}, "train.py is not valid Python"),
        ({"train.py": "ALPHA = 1.0\n"}, r"it lacks train\(\) in train.py"),
        ({"train.py": "#" * 300_000}, "is larger than 256 KiB"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], message: str
) -> None:
    monkeypatch.setattr("research.loop.rival.NEEDED", {"train.py": "train"})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(NotMergeable, match=message):
        read_tree(tmp_path, project)


def test_links_and_places_outside_are_refused(project: Project, theirs: Path) -> None:
    (theirs / "more.py").symlink_to("/etc/passwd")
    with pytest.raises(NotMergeable, match="more.py is a link"):
        read_tree(theirs, project)
    with pytest.raises(CommandError, match="there is no folder"):
        call_command("rival", "question", files=theirs / "none")
    with pytest.raises(CommandError, match="is no name"):
        call_command("rival", "question", files=theirs, name="champion")
