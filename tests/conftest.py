"""Fixtures that more than one file uses. tests/settings.py makes the data folder, before Django's settings load."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Two files are tested at a time: torch's threads, which wait for each other busily, would take turns on a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.data import data_folder
from benchmarks.nanochat import prepare
from tests.text import write_corpus

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or what tests start would never hear a Ctrl-C

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from pytest_django import DjangoDbBlocker

    from benchmarks.nanochat import evaluate
    from research.models import Machine, Project, Thread
    from runners.sandbox import Sandbox
    from tests.cast import World
    from tests.problem_play import Bench
    from tests.stage import Stage


LONG = {
    "test_ahead", "test_api_fuzz", "test_api_mcp", "test_api_web", "test_bad_machine", "test_every_page",
    "test_evidence", "test_found", "test_gpu_start_trials", "test_gpu_worker", "test_kernel_suite", "test_kernel_sweep",
    "test_kernels", "test_kill", "test_live_parts", "test_loop_near_misses", "test_nanochat_cli",
    "test_page_kernels_large", "test_redteam", "test_redteam_kernels", "test_review_talk", "test_run_demo",
    "test_session_changes", "test_session_kill", "test_session_loop", "test_story", "test_two_people",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, files of few and long tests come first, of few and short ones last: no core waits at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (item.path.stem not in LONG, -tests[item.path], item.path))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded by now stays: the collector need not walk through it again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def prepared_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two megabytes of text, split by the real preparation, as the data of the toy benchmark."""
    text, root = tmp_path_factory.mktemp("text"), data_folder("toy")
    write_corpus(text)
    manifest = prepare.prepare(root / "text", text, lambda line: None)
    (root / manifest.data_id[:16]).symlink_to("text")
    (root / "current").write_text("text")
    return root / "text"


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    """A sandbox for trials of small models, for all files that need no more of it: it imports torch once.

    It has half of the usual memory: what fills it is over sooner.
    """
    from benchmarks.nanochat import evaluate
    from runners.sandbox import Limits, Sandbox

    slot = 20 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with Sandbox.start(
        slot, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
        limits=Limits(memory_bytes=2 << 30),
    ) as box:  # fmt: skip
        yield box


@pytest.fixture(scope="session")
def evaluator() -> Iterator[evaluate.Evaluator]:
    """Its judge is started anew where the data are others."""
    from benchmarks.nanochat import evaluate

    evaluator = evaluate.Evaluator()
    yield evaluator
    evaluator.close()


@pytest.fixture
def toy(prepared_text: Path) -> Iterator[None]:
    from tests.cast import toy_benchmarks

    with toy_benchmarks():
        yield


@pytest.fixture(scope="module")
def stage(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, prepared_text: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:  # fmt: skip
    """A project, its thread and its world, to be `played` once for all tests of a file: see tests/stage.py."""
    from django.db import transaction

    from tests.cast import toy_benchmarks
    from tests.stage import Stage

    with toy_benchmarks(), django_db_blocker.unblock(), transaction.atomic():
        yield Stage(tmp_path_factory.mktemp("stage"))
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def played() -> Stage | None:
    """The stage of a file whose tests share one; where none is set, each test begins anew."""
    return None


@pytest.fixture
def quick(db: None, played: Stage | None) -> Machine:
    """A machine that answers at once."""
    from research.models import Machine

    if played is not None:
        return played.machine
    return Machine.objects.create(name="quick", machine_class="quick cpu, 2 slots", slots=2)


@pytest.fixture
def many(db: None) -> Iterator[Project]:
    """A project on the toy of many problems, with one thread."""
    from tests.cast import toy_benchmarks
    from tests.problem_play import begin_problems, prepare_problems

    prepare_problems()
    with toy_benchmarks():
        yield begin_problems()


@pytest.fixture
def bench(quick: Machine, many: Project, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The quick machine, that runs the evaluator of the toy of many problems; its noise floor is stored."""
    from tests.problem_play import Bench, quiet_floor

    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)  # it would end the test's transaction
    quiet_floor(many, quick)
    return Bench(quick)


@pytest.fixture
def project(db: None, toy: None, played: Stage | None) -> Project:
    """A project with one thread."""
    from tests.cast import begin

    if played is not None:
        played.put_back()
        return played.project
    return begin()


@pytest.fixture
def thread(project: Project) -> Thread:
    return project.threads.get()


@pytest.fixture
def world(quick: Machine, project: Project, played: Stage | None) -> World:
    """The quick machine with its noise floor stored: ALPHA and BETA are worth 5 % each, DELTA does harm."""
    from tests.cast import World, store_floor
    from tests.stage import GAINS

    if played is None:
        store_floor(project, quick)
    return World(quick, dict(GAINS), gained=played.gained if played else {})


@pytest.fixture
def reviewer(db: None) -> User:
    """Rosa may approve and reject in every project."""
    from research.models import Role
    from tests.cast import person

    return person("rosa", Role.REVIEWER)


@pytest.fixture
def member(db: None) -> User:
    """Mia may start and steer, not approve."""
    from research.models import Role
    from tests.cast import person

    return person("mia", Role.MEMBER)


@pytest.fixture
def outsider(db: None) -> User:
    """Otto has an account and no role."""
    from tests.cast import person

    return person("otto", None)
