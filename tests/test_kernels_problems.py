"""Which problems a project has: its row says so, and the board needs nothing but rows and the repository for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client

from benchmarks.data import data_folder
from research.models import Experiment, Project
from research.views import kernels_problems
from tests.cast import toy_benchmarks
from tests.kernel_board_play import FEW, Player, begin, candidate, prepare

ADDRESS = "/p/kernels/kernels/"


@pytest.fixture
def kernels(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare()
        yield begin()


@pytest.fixture
def seen(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


def text(client: Client, address: str = ADDRESS, **asked: str) -> str:
    reply = client.get(address, asked)
    assert reply.status_code == 200, reply.content[:300]
    main = reply.content.decode().partition("<main")[2]
    return re.sub(r'csrfmiddlewaretoken" value="\w+"|<time.*?</time>', "", main)


def row(page: str, problem: str) -> str:
    found = re.search(rf'<tr id="row-{problem}".*?</tr>', page, re.DOTALL)
    assert found, problem
    return found.group()


def cells(page: str, problem: str) -> list[str]:
    return sorted(re.findall(r"<li [^>]*>(?:<i>.</i>)?([^<]*)</li>", row(page, problem)))


def measure(project: Project) -> None:
    """One experiment on rms_norm whose baseline is main's code."""
    player = Player(project)
    player.measure(candidate(project.threads.order_by("number")[0], {"rms_norm": "# twice as fast"}), {"rms_norm": 2.0})


def test_without_the_prepared_data_the_board_is_the_same(seen: Client, kernels: Project) -> None:
    measure(kernels)
    before = text(seen, problem="rms_norm")
    assert "rows 1, width 8" in before and ">attention <" in before
    shutil.rmtree(data_folder("toy_kernels"))
    assert text(seen, problem="rms_norm") == before
    assert 'href="/p/kernels/kernels/"' in text(seen, "/p/kernels/")


def test_data_prepared_anew_change_no_project(seen: Client, kernels: Project) -> None:
    prepare(("rms_norm", "swiglu_gate_up"))
    page = text(seen)
    assert "swiglu_gate_up" not in page and all(row(page, name) for name in FEW)


def test_without_the_repository_the_cells_are_those_that_were_measured(seen: Client, kernels: Project) -> None:
    measure(kernels)
    measured = cells(text(seen), "rms_norm")
    shutil.move(kernels.repository_path, kernels.repository_path.with_suffix(".away"))
    shutil.rmtree(data_folder("toy_kernels"))
    kernels_problems._known.cache_clear()
    page = text(seen, problem="rms_norm")
    assert cells(page, "rms_norm") == measured and "not measured; counts as its reference" in row(page, "moe_gating")
    assert "Its files cannot be read here" in text(seen, problem="moe_gating")
    shutil.move(kernels.repository_path.with_suffix(".away"), kernels.repository_path)
    assert len(cells(text(seen), "moe_gating")) == 3  # what could not be read is not kept


def test_what_a_floor_measured_is_drawn_as_mains(seen: Client, kernels: Project) -> None:
    floor = Experiment.objects.create(
        key="floor", project=kernels, purpose=Experiment.Purpose.NOISE, number=1, rule=kernels.rule,
        baseline_commit=kernels.start_commit, candidate_commit=kernels.start_commit, problems=["rms_norm"],
    )  # fmt: skip
    assert "No trial has timed it yet" in text(seen, problem="rms_norm")
    Player(kernels).measure(floor, {"rms_norm": 1.0}, "noise")
    page = text(seen, problem="rms_norm").partition('id="kernel-problem"')[2]
    assert "No trial has timed it yet" not in page and ">main<" in page and ">reference<" in page


def test_before_its_repository_is_made_a_project_has_a_board(seen: Client, kernels: Project) -> None:
    Project.objects.filter(pk=kernels.pk).update(start_commit="", champion="")
    page = text(seen)
    assert "Nothing is measured yet" in page and all(row(page, name) for name in FEW)


def test_names_from_files_and_rows_are_escaped(seen: Client, kernels: Project) -> None:
    source = data_folder("toy_kernels") / "few" / "problems" / "rms_norm"
    raw = json.loads((source / "definition.json").read_text()) | {"description": "<script>alert(1)</script>"}
    folder = prepare(identity="odd") / "problems"
    (folder / "rms_norm" / "definition.json").write_text(json.dumps(raw))
    shutil.copytree(folder / "moe_gating", folder / "x<b>y")
    odd = begin("odd")
    page = text(seen, f"/p/{odd.name}/kernels/", problem="rms_norm")
    page += text(seen, f"/p/{odd.name}/kernels/", problem="x<b>y")
    assert "alert(1)" in page and "<script>alert" not in page and "x<b>" not in page and "x&lt;b&gt;y" in page
    assert text(seen, ADDRESS)
