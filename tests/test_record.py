"""The record of a project: one file without a word of text, of which page, figures and verdicts can be made again."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from research.loop.advance import advance_project_until_idle
from research.loop.begin import add_thread
from research.management.record import check, figures, page
from research.management.record.beside import thinned
from research.management.record.commands import commands_of
from research.management.record.files import read, text_of
from research.management.record.words import label
from research.models import Chunk, Experiment, Finding, Machine, Result, Series, Thread
from tests.cast import World, begin, focus

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
COMMITTED = [path for path in sorted(RESULTS.glob("*.json")) if "format" in json.loads(path.read_text())]
SECRET = "the words of a text that nobody may read"


def learn(experiment: Experiment) -> None:
    """Every trial logs a loss; the candidate makes twice the steps at the same loss a step."""
    for trial in experiment.trials.all():
        steps = np.arange(1, 201 if trial.arm == "candidate" else 101, dtype="<i8")
        series = Series.objects.create(trial=trial, generation=trial.generation, metric="loss", next_seq=len(steps))
        Chunk.objects.create(
            series=series, first_seq=0, count=len(steps), steps=steps.tobytes(),
            values=(3 - steps / 100).astype("<f8").tobytes(),
        )  # fmt: skip


@pytest.fixture
def finished(world: World, thread: Thread, reviewer: User) -> Thread:
    """Two merges, a change that does harm, one that crashes, a transfer, and the closing pairs."""
    for name in ("alpha", "beta"):
        request = world.gain(thread, name)
        request.approve(request.commit, reviewer)
    focus(thread, "delta")
    world.until_verdict(thread)
    world.failure = lambda trial: "crashed" if trial.arm == "candidate" else ""
    focus(thread, "gamma")
    assert world.until_verdict(thread).kind == "invalid"
    world.failure = lambda trial: ""
    project = thread.project
    project.refresh_from_db()
    call_command("transfer", project.name, preset=["quick", "long"], pairs=3)
    closing = Experiment.objects.create(
        key=f"closing-{project.public_id}", project=project, purpose=Experiment.Purpose.CLOSING,
        number=project.next_experiment_number(), rule=project.rule, baseline_commit=project.start_commit,
        candidate_commit=project.champion,
    )  # fmt: skip
    closing.plan("closing", 5)
    world.run()
    closing.end()
    advance_project_until_idle(project.pk)
    for experiment in Experiment.objects.filter(project=project):
        learn(experiment)
    Result.objects.update(sample=SECRET, message=SECRET)
    Finding.objects.update(message=SECRET, evidence=[SECRET])
    return thread


def test_a_record_gives_page_figures_and_verdicts_again(
    finished: Thread, tmp_path: Path, capsys: pytest.CaptureFixture[str], prepared_text: Path
) -> None:
    target, project = tmp_path / "toy.json", finished.project
    call_command("record", project.name, out=target)
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["not_reached_again"] == [] and said["label"] == "known techniques, assembled"
    record, folder = read(target), tmp_path / "toy"
    assert [merge["name"] for merge in record["merges"]] == [row["what"] for row in record["frontier"]["steps"]]
    assert [step["name"] for step in record["champion"]["steps"]] == ["alpha", "beta"]
    assert any(line.startswith("+ALPHA") for line in record["champion"]["patch"])
    assert all(len(row["patch"]) > 3 for row in record["verdicts"] if row["merged"])
    assert len(record["closing"]["pairs"]) == 5 and record["closing"]["set"] == "val_final"
    assert all(0.08 < row["baseline"] - row["candidate"] < 0.12 for row in record["closing"]["pairs"])
    assert record["closing"]["split"]["throughput"]["mean"] > 0
    spent = [row["device_seconds"] for row in record["frontier"]["attempts"]]
    assert spent == sorted(spent) and spent[-1] <= record["summary"]["device_seconds"]
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == {
        "champion.patch",
        *(f"{name}.svg" for name in ("seeds", "quality", "frontier", "parts", "curves")),
    }
    text = target.with_suffix(".md").read_text()
    assert "**Known techniques, assembled.**" in text and "5 fresh pairs" in text and "manage.py transfer" in text
    assert "All 4 follow from the evidence" in text and "invalid" in text
    folder.rename(tmp_path / "before")
    call_command("record", draw=target)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made, "from the record alone"
    assert target.with_suffix(".md").read_text() == text
    (folder / "fidelity.svg").write_text("of another time")
    call_command("record", draw=target)
    assert not (folder / "fidelity.svg").exists()


def test_a_record_holds_no_word_of_text(finished: Thread, tmp_path: Path, prepared_text: Path) -> None:
    target = tmp_path / "toy.json"
    call_command("record", finished.project.name, out=target)
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET not in written and "the trial ended with" not in written and "crashed" in written
    found = (prepared_text / "val_confirm.bin").read_bytes().decode("utf-8", "ignore")
    assert not any(found[at : at + 48] in written for at in range(0, 20_000, 48))


def test_a_verdict_that_does_not_follow_is_named(finished: Thread, tmp_path: Path) -> None:
    target = tmp_path / "toy.json"
    call_command("record", finished.project.name, out=target)
    record = read(target)
    improved = next(row for row in record["verdicts"] if row["kind"] == "improved")
    improved["evidence"]["pairs"][-1]["candidate"] += 0.5
    assert check.broken(record) == [improved["number"]]
    assert f"Not reached again from the evidence in the record: experiments {improved['number']}." in page.page(
        record, "toy", []
    )
    worse = next(row for row in record["verdicts"] if not row["merged"] and row["kind"] != "invalid")
    worse["kind"] = "improved"
    assert check.broken(record) == [improved["number"], worse["number"]]


def test_the_label_says_what_the_champion_stands_on() -> None:
    own, known = {"known": False}, {"known": True}
    found = [label({"champion": {"steps": steps}}) for steps in ([], [known], [own], [known, own])]
    assert found == [
        "no gain: main stands on the start", "known techniques, assembled", "changes of its researchers' own",
        "known techniques, assembled, with 1 of 2 changes of its researchers' own",
    ]  # fmt: skip


def test_a_project_without_a_verdict_has_a_record_too(thread: Thread, tmp_path: Path) -> None:
    call_command("record", thread.project.name, out=tmp_path / "new.json")
    assert "No gain: main stands on the start" in (tmp_path / "new.md").read_text()
    assert list((tmp_path / "new").iterdir()) == []


def test_curves_are_thinned_to_means_over_stretches() -> None:
    steps, values = np.arange(1, 81), np.where(np.arange(80) == 7, np.nan, np.arange(80.0))
    at, means = thinned(steps, values)
    assert len(at) == 40 and at[0] == 2 and at[-1] == 80 and means[0] == 0.5 and means[-1] == 79.0
    assert all(np.isfinite(means)) and thinned(np.array([]), np.array([])) == ([], [])


def test_the_json_keeps_rows_of_numbers_on_a_line() -> None:
    value = {
        "a": [1, 2.5, None],
        "b": [{"x": 1, "y": "s"}, {"x": 2, "y": "[ 1,  2 ]"}],
        "c": {},
        "d": ["line one", "é\n"],
    }
    text = text_of(value)
    assert json.loads(text) == value
    assert '"a": [1, 2.5, null]' in text and '{"x": 1, "y": "s"},\n' in text and text.count("\n") == 8


def test_what_cannot_be_recorded_is_refused_in_a_line(thread: Thread, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"summary": {}}')
    name = thread.project.name
    for options, message in (
        ({}, "say either"), ({"draw": old}, "no record of format 1"),
        ({"draw": tmp_path / "none.json"}, "cannot be read"),
        ({"project": name, "out": tmp_path / "no" / "a.json"}, "folder that is there"),
        ({"project": "nobody", "out": tmp_path / "a.json"}, "no project named"),
        ({"project": name, "out": tmp_path / "a.txt"}, "must end in .json"),
    ):  # fmt: skip
        project = options.pop("project", None)
        with pytest.raises(CommandError, match=message):
            call_command("record", *([project] if project else []), **options)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_records_are_sound_and_their_pages_are_theirs(path: Path) -> None:
    record = read(path)
    drawn = figures.figures(record)
    assert check.broken(record) == [] and path.with_suffix(".md").read_text() == page.page(record, path.stem, drawn)
    for figure in drawn:
        ElementTree.fromstring((path.with_suffix("") / f"{figure.name}.svg").read_text())


def test_a_screening_preset_is_drawn_beside_the_projects_own(quick: Machine, toy: None, tmp_path: Path) -> None:
    world = World(quick, {"ALPHA": 0.05}, screened={"ALPHA": 0.06, "BETA": 0.05})
    thread = begin(preset="long").threads.get()
    for _ in range(3):
        advance_project_until_idle(thread.project_id)
        world.run()
    for name in ("alpha", "beta"):
        focus(thread, name)
        world.until_verdict(thread)
    call_command("record", thread.project.name, out=tmp_path / "two.json")
    record, text = read(tmp_path / "two.json"), (tmp_path / "two.md").read_text()
    assert check.broken(record) == [] and [row["label"] for row in record["fidelity"]["points"]] == ["alpha", "beta"]
    assert set(record["noise_floors"]) == {"quick", "long"} and "screened at `quick`" in text
    assert all(f"| {preset} on {quick.machine_class} |" in text for preset in ("quick", "long"))
    root = ElementTree.fromstring((tmp_path / "two" / "fidelity.svg").read_text())
    said = "".join(root.itertext())
    assert "Too few" in said and "beta: +0.0" in said and "## The screening preset" in text


def test_the_command_of_a_campaign_counts_its_own_threads_alone(thread: Thread, reviewer: User) -> None:
    project = thread.project
    project.name = "campaign-toy"
    project.save(update_fields=["name"])
    add_thread(project, "external", reviewer)
    command = commands_of(project)[0]
    assert f"--researcher {thread.researcher} --threads 1 " in command + " "
