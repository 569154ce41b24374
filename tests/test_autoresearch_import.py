"""What was found by the public autoresearch program is taken over: as claims, with one candidate to measure here."""

from __future__ import annotations

import os
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from research.loop.import_autoresearch import NotReadable, read_table
from research.models import AuditEntry, Experiment, Idea, Lesson, Project, Result, Thread
from tests.cast import World, constants, go

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def git(folder: Path, *args: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *who, *args], cwd=folder, env=clean, capture_output=True, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A repository with a kept gain, and with all that a hostile one may hold."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "autoresearch/tag")
    (folder / "train.py").write_text("ALPHA = 1.0\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "baseline")
    (folder / "train.py").write_text("ALPHA = 2.0\nGAMMA = 1.0\nBETA = 1.0\n")
    (folder / "model.py").symlink_to("/etc/passwd")
    (folder / "huge.py").write_bytes(b"#" * 300_000)
    (folder / "benchmark.toml").write_text("name = 'theirs'\n")
    git(folder, "add", ".")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{git(folder, 'rev-parse', 'HEAD')},sub.py")
    git(folder, "commit", "-qm", "a larger alpha")
    ran = tmp_path / "ran"
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        path = folder / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {ran}\n")
        path.chmod(0o755)
    git(folder, "config", "core.fsmonitor", f"touch {ran}")
    git(folder, "config", "core.pager", f"touch {ran}")
    return folder


def table(theirs: Path) -> Path:
    tip, first = git(theirs, "rev-parse", "HEAD")[:7], git(theirs, "rev-parse", "HEAD~1")[:7]
    text = (
        f"{HEADER}{first}\t0.997900\t44.0\tkeep\tbaseline\n{tip}\t0.990000\t44.2\tkeep\tlarger alpha\n"
        "abcdef1\t1.005000\t44.0\tdiscard\tanother beta\nabcdef2\t0.000000\t0.0\tcrash\tdouble width (OOM)\n"
    )
    path = theirs.parent / "results.tsv"
    path.write_text(text)
    return path


def bring(theirs: Path, *more: str, project: str = "question") -> str:
    said = StringIO()
    call_command(
        "import_autoresearch", results=table(theirs), repo=theirs, branch="autoresearch/tag", project=project,
        stdout=said, list="--list" in more,
    )  # fmt: skip
    return said.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a1b2c3d\t0.99\t44.0\tkeep\tlarger alpha\n",
        "a1b2c3d\t0.99\t44.0\tKEEP\tlarger alpha\r\n\r\n",
        "a1b2c3d  0.99  44.0  keep  larger alpha",
        "a1b2c3d 0.99 44.0 keep larger alpha",
        "\ufeffcommit  val_bpb  status  description\na1b2c3d\t0.99\tkeep\tlarger alpha",
    ],
)
def test_the_table_is_read_with_and_without_header_and_columns(text: str) -> None:
    (row,) = read_table(text)
    assert (row.commit, row.metric, row.status, row.description) == ("a1b2c3d", "0.99", "keep", "larger alpha")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no rows"), ("a1b2c3d\t0.9\t1\tmaybe\tx", "line 1: no status"), ("-rf\t0.9\t1\tkeep\tx", "is no commit")],
)
def test_what_is_no_table_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(NotReadable, match=words) as refused:
        read_table(text)
    assert "\n" not in str(refused.value)


@pytest.mark.django_db
def test_a_look_writes_nothing(project: Project, theirs: Path) -> None:
    said = bring(theirs, "--list")
    assert "larger alpha" in said and "not in the branch" in said and "to be measured here" in said
    assert "model.py: a symbolic link" in said and "sub.py: a submodule" in said
    assert "huge.py: larger than 256 KiB" in said and "benchmark.toml: not editable here" in said
    assert project.threads.count() == 1 and not Idea.objects.exists()
    with pytest.raises(CommandError, match="there is no project"):
        bring(theirs, "--list", project="nowhere")


@pytest.mark.django_db
def test_their_numbers_are_claims_and_their_tip_is_measured_here(world: World, project: Project, theirs: Path) -> None:
    bring(theirs)
    thread = Thread.objects.get(researcher="imported")
    tip = thread.ideas.get(state=Idea.State.IMPLEMENTED)
    assert constants(project, tip.candidate.commit)["ALPHA"] == 2.0 and not tip.candidate.trusted
    assert tip.candidate.diff.files[0]["path"] == "train.py" and len(tip.candidate.diff.files) == 1
    refused = thread.ideas.filter(state=Idea.State.REFUSED)
    assert refused.count() == 4 and "claiming 0.997900" in refused.get(title="baseline").refusal
    lessons = Lesson.objects.exclude(imported_from="")
    assert {(row.effect, row.error, row.binding, row.pairs) for row in lessons} == {(None, None, False, 0)}
    assert lessons.filter(kind="failure").get().title == "double width (OOM)"
    assert not Result.objects.exists() and AuditEntry.objects.filter(action="import autoresearch").exists()
    assert not (theirs.parent / "ran").exists(), "nothing of theirs was run"
    bring(theirs)
    assert Thread.objects.filter(researcher="imported").count() == 1 and thread.ideas.count() == 5
    assert lessons.count() == 4
    project.threads.get(number=1).pause()
    world.machine.isolation_level = 3
    world.machine.save()
    assert world.until_verdict(thread).kind == "improved"
    go(thread)
    assert Experiment.objects.filter(thread=thread).count() == 1, "it proposes nothing of its own"


@pytest.mark.django_db
def test_what_is_no_repository_or_branch_is_said_in_one_line(project: Project, theirs: Path, tmp_path: Path) -> None:
    common = {"results": table(theirs), "project": "question"}
    with pytest.raises(CommandError, match="is no git repository"):
        call_command("import_autoresearch", repo=tmp_path, **common)
    for branch in ("nowhere", "--all"):
        with pytest.raises(CommandError):
            call_command("import_autoresearch", repo=theirs, branch=branch, **common)
