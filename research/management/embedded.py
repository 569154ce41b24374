"""What `campaign` and `lab` share: prepare data and database, begin projects, run control and one local worker."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from benchmarks.contract import load
from benchmarks.data import DataError, data_id
from runners.supervisor import AlreadyRunning, Supervisor, only_one


def choose_data(folder: str | None) -> None:
    """`--data DIR` must name the folder that the settings were read with: re-execute with LAB_DATA set."""
    if folder and Path(folder).absolute() != settings.DATA_DIR:
        os.environ["LAB_DATA"] = str(Path(folder).absolute())
        os.execv(sys.executable, [sys.executable, *sys.argv])


def ensure_data(benchmark: str) -> None:
    """Prepare the benchmark's default data where none is there yet."""
    load(benchmark)
    try:
        data_id(benchmark)
    except DataError:
        importlib.import_module(f"benchmarks.{benchmark}.__main__").install_data()


@contextmanager
def embedded_lab() -> Iterator[Supervisor]:
    """Migrate, then run control and a worker of this machine until the context is left."""
    try:
        with only_one(Path(settings.DATA_DIR)):
            for leftover in ("worktrees", "scratch"):  # of processes that were killed
                shutil.rmtree(Path(settings.DATA_DIR) / leftover, ignore_errors=True)
            call_command("migrate", verbosity=0, interactive=False)
            with Supervisor(Path(settings.DATA_DIR) / "logs") as supervisor:
                supervisor.add("control", "control")
                supervisor.add("worker", "attach", "--name", "local")
                yield supervisor
    except AlreadyRunning as error:
        raise CommandError(str(error), returncode=2) from error
