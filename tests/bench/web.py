"""The lab's real web process on a data folder of its own, and what it costs. Parts of the table and tests use it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


def in_a_folder(module: str, *arguments: str) -> str:
    """Run a module on an empty data folder; its last line of stdout. Ends this process where that one fails."""
    with TemporaryDirectory(prefix="bench-") as folder:
        environment = os.environ | {"LAB_DATA": folder, "LAB_LOG_LEVEL": "WARNING", "LAB_HOSTS": "127.0.0.1,testserver"}
        environment |= {"DJANGO_SETTINGS_MODULE": "recursive_web.settings"}
        environment.pop("DATABASE_URL", None)  # the figures are those of the embedded lab
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{module} failed (exit code {done.returncode}); its error stands above")
    return done.stdout.splitlines()[-1]


def prepare() -> str:
    """Tables, and somebody who may see everything; the cookie that says so."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return cookie_of("vera")


def cookie_of(name: str) -> str:
    """Of somebody who may see everything and is signed in."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    from research.models import Membership

    user, _ = get_user_model().objects.get_or_create(username=name)
    Membership.objects.get_or_create(user=user, project=None)
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


class Web:
    """`manage.py web` on a free port, as long as the block lasts."""

    def __init__(self, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.environment = environment

    def __enter__(self) -> Web:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "manage.py", "web", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | self.environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError("the web process did not answer in 60 s")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def memory_mb(self) -> dict[str, float]:
        """Resident, and of that what is its own (without mapped files: SQLite maps the database)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        sizes: dict[str, Any] = dict(line.split(":", 1) for line in lines)
        return {
            key: round(int(sizes[name].split()[0]) / 1024, 1) for key, name in (("rss", "VmRSS"), ("own", "RssAnon"))
        }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
