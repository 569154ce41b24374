"""A PostgreSQL cluster of its own, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    return Path(found).parent if found else next((place for place in PLACES if (place / "initdb").exists()), None)


@contextmanager
def cluster() -> Iterator[str]:
    """Its `DATABASE_URL`. PostgreSQL refuses to run as root: there it runs as the user `postgres`."""
    binaries = programs()
    assert binaries is not None
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="lab-postgres-") as folder:
        if as_user:
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data, options = f"{folder}/data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

        def run(program: str, *arguments: str) -> None:
            command = [*as_user, str(binaries / program), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

        run("initdb", "-D", data, "-A", "trust", "-U", "lab", "--no-sync")
        run("pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql://lab@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
