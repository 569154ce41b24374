"""What `campaign` and `lab` share: prepare data and database, run the processes of a lab on this machine."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from benchmarks.contract import load
from benchmarks.data import DataError, data_id
from research.loop.asking import models
from research.models import Project
from research.researchers.llm.models import ModelsError
from runners.device import gpus, missing
from runners.supervisor import AlreadyRunning, PortTaken, Supervisor, listening, only_one

DEMO, DEMO_BENCHMARK, DEMO_PRESET = "demo", "nanochat", "cpu"
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}  # glibc's heap for every thread keeps what requests and trials have freed


def choose_data(folder: str | None) -> None:
    """`--data DIR` must name the folder that the settings were read with: re-execute with LAB_DATA set."""
    if folder and Path(folder).absolute() != settings.DATA_DIR:
        os.environ["LAB_DATA"] = str(Path(folder).absolute())
        os.execv(sys.executable, [sys.executable, *sys.argv])


def has_data(benchmark: str, preset: str) -> bool:
    try:
        data_id(benchmark, load(benchmark).preset(preset))
    except DataError:
        return False
    return True


def ensure_device(benchmark: str, preset: str) -> None:
    """Refuse a preset that no trial of could run here. Raises CommandError with one line."""
    if why := missing(load(benchmark).preset(preset).device):
        raise CommandError(f"{preset} cannot run on this machine: {why}", returncode=2)


def ensure_data(benchmark: str, preset: str) -> None:
    """Prepare the preset's default data where none is there yet, with progress on stderr.

    Text for a GPU takes gigabytes or is the user's own, so it is only asked for: DataError says by which command.
    """
    if has_data(benchmark, preset):
        return
    sizes = load(benchmark).preset(preset)
    if sizes.device != "cpu":
        data_id(benchmark, sizes)
    importlib.import_module(f"benchmarks.{benchmark}.__main__").install(preset)


def migrate() -> None:
    """Bring the database up to date. Asking first: where nothing is to be done, the command costs half a second."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", verbosity=0, interactive=False)


@contextmanager
def embedded_lab(
    serve: tuple[str, int] | None = None, demo: bool = False, until: float | None = None
) -> Iterator[Supervisor]:
    """Migrate, then run control, a worker for the CPU of this machine and one a GPU, and the web where `serve` says.

    The web comes first: its page should answer while the others still start. `demo` begins the demo project, once.
    Workers begin nothing that would last beyond `until` (of time.time).
    """
    folder = Path(settings.DATA_DIR)
    try:
        asks_models = bool(models())
    except ModelsError as error:
        raise CommandError(str(error), returncode=2) from error
    try:
        with ExitStack() as stack:
            stack.enter_context(only_one(folder))
            listener = stack.enter_context(listening(*serve)) if serve else None
            with contextlib.suppress(PermissionError):  # a folder that somebody else made
                folder.chmod(0o700)
            for leftover in ("worktrees", "scratch"):  # of processes that were killed
                shutil.rmtree(folder / leftover, ignore_errors=True)
            migrate()
            supervisor = stack.enter_context(Supervisor(folder / "logs", ENVIRONMENT))
            if listener is not None:
                supervisor.add("web", "web", "--fd", str(listener.fileno()), sockets=(listener.fileno(),))
            begins = demo and not (Project.objects.filter(name=DEMO).exists() and has_data(DEMO_BENCHMARK, DEMO_PRESET))
            if begins:
                supervisor.add("demo", "demo", until_done=True)
            limit = [] if until is None else ["--until", f"{until:.0f}"]
            warm = ["--warm", DEMO_BENCHMARK] if begins else []
            supervisor.add("worker", "attach", "--name", "local", *warm, *limit)
            for gpu in gpus() if not missing("cuda") else ():
                supervisor.add(
                    f"worker-gpu{gpu.number}", "attach", "--name", f"local-gpu{gpu.number}",
                    "--devices", f"cuda:{gpu.number}", *limit,
                )  # fmt: skip
            supervisor.add("control", "control")
            if asks_models:
                supervisor.add("sessions", "sessions")
            yield supervisor
    except (AlreadyRunning, PortTaken) as error:
        raise CommandError(str(error), returncode=2) from error
