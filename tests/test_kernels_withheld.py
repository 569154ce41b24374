"""Problems that others wrote stay on this machine: what a project publishes leaves their texts out, and says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from django.core.management import call_command

from benchmarks.kernels.__main__ import main
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.prepare import is_own, prepare
from research.loop.begin import Budget, begin_project
from research.loop.commit import commit_candidate
from research.management.record import page
from research.management.record.files import read
from research.management.record.withheld import lines_of
from research.models import Experiment, Idea, MergeRequest, Project
from research.repository import Repository
from tests.kernel_board_play import Player

THEIRS = "root_of_mean_square"
MARK, KEPT = "every row by the root of its mean square", "a line of theirs that the change keeps"
REFERENCE = f'''"""{MARK}"""

import torch


def run(x, gain):
    # {KEPT}
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
    return ((x.float() * scale) * gain.float()).to(x.dtype)
'''


def strangers(folder: Path) -> Path:
    """A folder with one problem: a small norm, which is none of ours."""
    place = folder / THEIRS
    place.mkdir(parents=True)
    raw = json.loads((OWN / "rms_norm" / "definition.json").read_text())
    text = {"name": THEIRS, "reference": REFERENCE, "description": f"Scales {MARK}."}
    (place / "definition.json").write_text(json.dumps(raw | text))
    shutil.copy(OWN / "rms_norm" / "workload.cpu.jsonl", place / "workload.jsonl")
    return place


@pytest.fixture
def mixed(db: None, tmp_path: Path) -> Project:
    """One problem of ours and one of others."""
    ours = load_problem(OWN / "rms_norm", "workload.cpu.jsonl")
    theirs = load_problem(strangers(tmp_path))
    prepare([(ours, "workload.cpu.jsonl"), (theirs, "workload.jsonl")], "")
    return begin_project("mixed", "kernels", "cpu", "reference", ["external"], Budget(), auto_approve=False)


def gain(project: Project, name: str, text: str) -> None:
    """A merged gain that puts this text in the place of the last line of a solution."""
    thread = project.threads.get()
    path, number = f"{name}/solution.py", Idea.next_number(thread)
    before = Repository(project.repository_path).files(thread.head)[path].decode()
    idea = Idea.add(
        thread, number, kind="change", title=f"faster {name}", hypothesis="One pass.", expected_effect=0.1, steps=[],
        fingerprint=f"{name}-{number}",
    )  # fmt: skip
    after = before[: before.rstrip().rindex("\n") + 1] + text
    made = commit_candidate(idea, thread.head, {path: after}, [])
    assert made is not None
    experiment = Experiment.objects.create(
        key=made.commit, project=project, thread=thread, candidate=made, rule=project.rule, baseline_commit=thread.head,
        candidate_commit=made.commit, number=project.next_experiment_number(), problems=[name],
    )  # fmt: skip
    player = Player(project)
    player.measure(experiment, {name: 2.0}, "confirm", 4)
    verdict = player.verdict(experiment)
    verdict.evidence |= {"findings": [], "bar": None, "wanted": 0, "screening": None}
    verdict.save()
    assert thread.advance_head(thread.head, made.commit)
    request = MergeRequest.open_for(verdict, thread)
    request.approve(request.commit)
    project.refresh_from_db()


def published(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_prepared_data_say_which_problems_are_ours(mixed: Project, tmp_path: Path) -> None:
    manifest = json.loads((mixed.data_path / "manifest.json").read_text())
    assert manifest["problems"] == ["rms_norm", THEIRS] and manifest["own"] == ["rms_norm"]
    assert mixed.withheld == [THEIRS]
    copied = shutil.copytree(OWN / "rms_norm", tmp_path / "elsewhere" / "rms_norm")
    assert is_own(load_problem(copied, "workload.cpu.jsonl"), "workload.cpu.jsonl"), "from wherever it is read"
    altered = copied / "definition.json"
    altered.write_text(altered.read_text() + "\n")
    assert not is_own(load_problem(copied, "workload.cpu.jsonl"), "workload.cpu.jsonl")


def test_data_of_an_older_manifest_say_it_once_they_are_prepared_again(mixed: Project, tmp_path: Path) -> None:
    path = mixed.data_path / "manifest.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "own"}))
    assert mixed.withheld == mixed.problems == ["rms_norm", THEIRS], "nothing says that any is ours"
    ours = load_problem(OWN / "rms_norm", "workload.cpu.jsonl")
    prepare([(ours, "workload.cpu.jsonl"), (load_problem(tmp_path / THEIRS), "workload.jsonl")], "")
    assert mixed.withheld == [THEIRS]


def test_a_record_holds_no_line_of_theirs_and_all_of_ours(mixed: Project, tmp_path: Path) -> None:
    gain(mixed, THEIRS, "    return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, 1e-6)  # ours\n")
    gain(mixed, "rms_norm", "    return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, 1e-6)  # ours\n")
    target = tmp_path / "out" / "mixed.json"
    target.parent.mkdir()
    call_command("record", "mixed", out=target)
    text, patch = published(target.parent), (target.with_suffix("") / "champion.patch").read_text()
    ours = load_problem(OWN / "rms_norm").definition.reference
    assert not [line for line in REFERENCE.splitlines() if line not in ours and line.strip() in text]
    their_part, our_part = sorted(patch.split("--- a/")[1:], reverse=True)
    assert their_part.startswith(THEIRS) and "+    return torch.nn.functional.rms_norm(" in their_part
    assert our_part.startswith("rms_norm/solution.py") and "-    " in our_part and "\n def run(" in our_part
    said = target.with_suffix(".md").read_text()
    assert said.count("Left out:") == 1
    assert f"1 problem that others wrote, whose licence may forbid to pass them on ({THEIRS})" in said
    assert "python -m benchmarks.kernels prepare --problems DIR --preset cpu" in said and mixed.data_id[:16] in said
    assert read(target)["withheld"] == [THEIRS]
    assert "Left out" not in page.page(read(target) | {"withheld": []}, "mixed", [])


def test_their_reference_is_no_solution_to_export(
    mixed: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(out: str) -> set[str]:
        tree = tmp_path / f"tree-{out}"
        for path, content in Repository(mixed.repository_path).files(mixed.champion).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
        assert main(["export", "--tree", str(tree), "--out", str(tmp_path / out)]) == 0
        return {path.parent.name for path in (tmp_path / out).glob("*/solution.json")}

    assert export("start") == {"rms_norm"}
    assert f"{THEIRS} is left out" in capsys.readouterr().err
    gain(mixed, THEIRS, "    return torch.nn.functional.rms_norm(x, x.shape[-1:], gain, 1e-6)  # ours\n")
    assert export("changed") == {"rms_norm", THEIRS}


def test_without_the_data_nothing_is_taken_for_ours(mixed: Project) -> None:
    shutil.rmtree(mixed.data_path.resolve())
    assert mixed.withheld == ["rms_norm", THEIRS]


def test_whoever_packs_a_project_is_told_that_it_is_not_to_be_published(
    mixed: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("pack", "mixed", out=tmp_path / "mixed.zip")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["private"] == "it holds 1 problem that others wrote: move it, but do not publish it"


def test_a_diff_of_theirs_shows_added_lines_alone() -> None:
    patch = "\n".join([
        "diff --git a/a/solution.py b/a/solution.py", "index 1..2 100644", "--- a/a/solution.py", "+++ b/a/solution.py",
        "@@ -1,5 +1,6 @@ def theirs():", " kept", "-gone", "+new", "++++ b/plus", " kept too", "-gone too", "+last",
        " end",
        "diff --git a/b/solution.py b/b/solution.py", "index 1..2 100644", "--- a/b/solution.py", "+++ b/b/solution.py",
        "@@ -1,2 +1,2 @@", " kept", "-gone", "+new", "",
    ])  # fmt: skip
    assert lines_of(patch, ()) == patch.splitlines()
    lines = lines_of(patch, ["a"])
    assert lines[:8] == [
        "--- a/a/solution.py", "+++ b/a/solution.py",
        "@@ added from line 2 on; what stood there is left out @@", "+new", "++++ b/plus",
        "@@ added from line 5 on; what stood there is left out @@", "+last",
        "diff --git a/b/solution.py b/b/solution.py",
    ]  # fmt: skip
    assert lines[7:] == patch.splitlines()[13:]
