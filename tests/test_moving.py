"""A project moves to another machine in one file, and goes on there: rows, repository, noise floors, curves."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from research.loop.advance import advance_project_until_idle
from research.management.moving import MANIFEST, ROWS, NotMovable
from research.management.moving.packing import pack
from research.management.moving.tables import ELSEWHERE, STAYS, TABLES, encode, rows_of
from research.management.moving.unpacking import unpack
from research.models import (
    Artifact,
    AuditEntry,
    Chunk,
    DataUse,
    Event,
    Experiment,
    Machine,
    MergeRequest,
    NoiseFloor,
    Project,
    Result,
    Role,
    Series,
    Trial,
    Verdict,
)
from tests.cast import World, focus, go, person, repository_of, step
from tests.stage import Stage

pytestmark = pytest.mark.django_db
MIB = 1 << 20


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    """One merge, one candidate that lost, one pair on a machine, and curves of every finished trial."""
    world, project, thread = stage.world, stage.project, stage.thread
    request = world.gain(thread, "alpha")
    request.approve(request.commit, person("rosa", Role.REVIEWER))
    focus(thread, "delta")
    world.until_verdict(thread)
    focus(thread, "beta")
    go(thread)
    assert Trial.objects.claim_pair(world.machine, "player")
    steps = np.arange(1_000, dtype="<i8")
    for trial in Trial.objects.filter(result__isnull=False):
        series = Series.objects.create(trial=trial, generation=1, metric="loss", next_seq=1_000)
        values = np.linspace(3, trial.result.value, 1_000).astype("<f8")
        Chunk.objects.create(series=series, first_seq=0, count=1_000, steps=steps.tobytes(), values=values.tobytes())
    advance_project_until_idle(project.pk)
    return stage.kept()


@pytest.fixture
def lived(project: Project) -> Project:
    return project


@pytest.fixture
def reviewer(db: None) -> User:
    return User.objects.get(username="rosa")


def elsewhere(project: Project, file: Path, most: int = 16 * MIB) -> dict[str, Any]:
    """Pack it, and leave nothing of it here: as on another machine that has the same text."""
    about = pack(project, file, most)
    shutil.rmtree(project.repository_path)
    project.remove()
    Machine.objects.all().delete()
    NoiseFloor.objects.all().delete()
    DataUse.objects.all().delete()
    assert not Trial.objects.exists() and not Chunk.objects.exists()
    return about


def stories(project: Project) -> dict[str, list[Any]]:
    """All rows without keys, which are others on another machine."""
    found = {}
    for model, way in TABLES:
        rows = [encode(row) for row in rows_of(model, way, project)]
        keys = {f.name for f in model._meta.concrete_fields if f.primary_key or f.is_relation}
        found[model.__name__] = [{k: v for k, v in row.items() if k not in keys} for row in rows]
    found["Event"] = found["Event"][:-1]
    return found


def test_every_model_travels_or_stays_for_a_reason() -> None:
    known = {model.__name__ for model, _ in TABLES} | set(ELSEWHERE) | set(STAYS)
    assert {model.__name__ for model in apps.get_app_config("research").get_models()} == known


def test_what_was_there_is_there_again(lived: Project, tmp_path: Path, reviewer: User) -> None:
    Event.record(Event.Kind.STATE, "the last word", project=lived)
    before, commits = stories(lived), repository_of(lived).git("for-each-ref")
    about = elsewhere(lived, tmp_path / "moved.zip")
    assert about["kept"]["curves"] == {"kept": about["rows"]["Result"], "left_out": 0}
    there = unpack(tmp_path / "moved.zip")
    after = stories(there)
    for name, rows in before.items():
        rows = rows if name != "Event" else [*rows, after[name][-1]]
        differ = [
            (name, key, was[key], now[key])
            for was, now in zip(rows, after[name], strict=True)
            for key in was
            if was[key] != now[key]
        ]
        assert differ == []
    assert repository_of(there).git("for-each-ref") == commits
    (merged,) = MergeRequest.objects.filter(project=there, state="merged")
    assert merged.decided_by == reviewer and merged.verdict.experiment.candidate == merged.candidate
    assert not list(there.repository_path.parent.glob("*unpacking*"))
    told = Event.objects.filter(project=there).latest("seq")
    assert told.text.startswith("unpacked from moved.zip")
    assert AuditEntry.objects.filter(action="unpack", project=there).exists()


def check_curves() -> None:
    trial = Trial.objects.filter(result__isnull=False).first()
    assert trial
    steps, values = trial.series.get().read()
    assert len(steps) == 200 and steps[0] == 0 and steps[-1] == 999
    assert values[-1] == pytest.approx(trial.result.value, abs=1e-6)


def test_the_search_goes_on_with_its_noise_floor_and_its_turns(lived: Project, tmp_path: Path, world: World) -> None:
    elsewhere(lived, tmp_path / "moved.zip")
    there = unpack(tmp_path / "moved.zip")
    check_curves()
    assert Trial.objects.filter(state=Trial.State.LEASED).count() == 0, "what ran when it was packed waits again"
    machine = Machine.objects.create(name="new", machine_class=world.machine.machine_class, slots=2)
    thread, here = there.threads.get(), World(machine, world.gains)
    focus(thread, "beta")
    verdict = here.until_verdict(thread)
    assert (verdict.kind, verdict.experiment.hypothesis) == ("improved", 2)
    assert not Experiment.objects.filter(purpose=Experiment.Purpose.NOISE).exists(), "its floor came along"
    assert DataUse.objects.get(split="val_confirm").uses >= 2
    assert step(thread) == "learn"


def test_it_is_not_put_over_another_state_unasked(lived: Project, tmp_path: Path) -> None:
    file = tmp_path / "moved.zip"
    tight = pack(lived, file, 100_000)
    assert tight["kept"]["curves"]["left_out"] > 0 and tight["bytes"] <= 100_000
    with pytest.raises(NotMovable, match="rows and repository alone take"):
        pack(lived, tmp_path / "tiny.zip", 5_000)
    assert [one.name for one in tmp_path.iterdir()] == ["moved.zip"]
    with pytest.raises(NotMovable, match="is here already; --replace"):
        unpack(file)
    there = unpack(file, replace=True)
    assert there.pk != lived.pk and Project.objects.count() == 1
    there.next_experiment_number()
    with pytest.raises(NotMovable, match="went on here"):
        unpack(file, replace=True)
    Project.objects.filter(pk=there.pk).update(public_id="other")
    with pytest.raises(NotMovable, match="another project is named"):
        unpack(file)
    assert repository_of(there).resolve("refs/heads/main"), "a refusal touches nothing"


def rewritten(file: Path, target: Path, change: dict[str, Any], rows: bytes | None = None) -> Path:
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == MANIFEST:
                content = json.dumps(json.loads(content) | change).encode()
            if name == ROWS and rows is not None:
                content = rows
            new.writestr(name, content)
    return target


def test_a_file_that_does_not_fit_is_one_clear_line(
    lived: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, bad = tmp_path / "moved.zip", tmp_path / "bad.zip"
    call_command("pack", lived.name, out=file)
    about = json.loads(capsys.readouterr().out)
    assert about["rows"]["Verdict"] == 2 and about["bytes"] < MIB
    elsewhere(lived, file)
    for change, message in (
        ({"format": 9}, "format 9"),
        ({"migration": "0001_initial"}, "use the same version of the lab on both machines"),
        ({"benchmark": "chess"}, "no benchmark named 'chess'"),
        ({"data_id": "f" * 64}, "is not prepared here; run `python -m benchmarks.toy prepare`"),
    ):
        with pytest.raises(NotMovable, match=message):
            unpack(rewritten(file, bad, change))
    with pytest.raises(NotMovable, match=r"rows.json in it is damaged"):
        unpack(rewritten(file, bad, {}, b"{}"))
    bad.write_bytes(file.read_bytes()[:2_000])
    with pytest.raises(NotMovable, match="cannot be read"):
        unpack(bad)
    assert not Project.objects.exists() and not Verdict.objects.exists() and not Result.every.exists()
    with pytest.raises(CommandError, match=r"cannot be read") as refused:
        call_command("unpack", bad)
    assert refused.value.returncode == 2
    call_command("unpack", file)
    told = json.loads(capsys.readouterr().out)
    assert told["verdicts"] == 2 and len(told["noise_floors"]) == 1 and told["champion"] == lived.champion


def test_a_pack_of_an_earlier_version_gets_the_defaults_of_what_tables_have_gained_since(
    lived: Project, tmp_path: Path
) -> None:
    file, old = tmp_path / "moved.zip", tmp_path / "old.zip"
    about = elsewhere(lived, file)
    with zipfile.ZipFile(file) as packed:
        state = json.loads(packed.read(ROWS))
    for row in state["rows"]["Experiment"]:
        del row["machine_class"]
    rows = json.dumps(state).encode()
    hashes = {**about["sha256"], ROWS: hashlib.sha256(rows).hexdigest()}
    with pytest.raises(NotMovable, match="not a packed project, or is damaged"):
        unpack(rewritten(file, old, {"sha256": hashes}, rows))
    there = unpack(rewritten(file, old, {"migration": "0019_lab", "sha256": hashes}, rows))
    assert set(there.experiments.values_list("machine_class", flat=True)) == {""}
    assert Verdict.objects.filter(experiment__project=there).count() == about["rows"]["Verdict"]


@pytest.mark.slow
def test_a_campaign_of_a_hundred_experiments_fits(lived: Project, world: World, tmp_path: Path) -> None:
    """14 trials each, with results as long as real ones, 4 curves of 2,000 noisy points and a log of 8 KiB."""
    draw = np.random.default_rng(7)
    model = Result.objects.filter(score__isnull=False)[0]
    facts = {f"fact_{at}": float(draw.normal()) for at in range(40)}
    hashes = {f"hash_{at}": draw.bytes(32).hex() for at in range(8)}
    experiments = Experiment.objects.bulk_create(
        Experiment(key=f"e{at}", project=lived, number=1000 + at, baseline_commit=lived.champion,
                   candidate_commit=lived.champion, rule=lived.rule)
        for at in range(100)
    )  # fmt: skip
    trials = Trial.objects.bulk_create(
        Trial(project=lived, experiment=experiment, arm=arm, stage="confirm", pair=pair, slot=0, seed=pair,
              commit=lived.champion, split="val_confirm", state="ended", generation=1)
        for experiment in experiments for pair in range(7) for arm in ("baseline", "candidate")
    )  # fmt: skip
    steps = np.arange(2_000, dtype="<i8").tobytes()
    for trial in trials:
        log = Artifact.store(draw.bytes(4_096).hex().encode())
        Result.objects.create(
            trial=trial, generation=1, machine=model.machine, score=float(draw.normal()), metrics=facts, seconds=facts,
            hashes=hashes, surroundings=hashes, isolation_level=3, machine_class=model.machine_class, log=log,
        )  # fmt: skip
        for metric in ("loss", "learning_rate", "gradient", "tokens"):
            series = Series.objects.create(trial=trial, generation=1, metric=metric, next_seq=2_000)
            values = draw.normal(size=2_000).astype("<f8").tobytes()
            Chunk.objects.create(series=series, first_seq=0, count=2_000, steps=steps, values=values)
    about = pack(lived, tmp_path / "large.zip", 16 * MIB)
    print(about["bytes"], about["kept"])
    assert about["bytes"] <= 16 * MIB and about["rows"]["Result"] > 1_400
    assert about["kept"]["curves"]["left_out"] == 0
