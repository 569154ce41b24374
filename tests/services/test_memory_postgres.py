"""Lessons are found by words on PostgreSQL as on SQLite, through its index: a real server, started here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.postgres import cluster, programs

pytest.importorskip("psycopg")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
]
ROOT = Path(__file__).resolve().parent.parent.parent
ASK = """
import json
from django.db import connection
from research.models import Lesson, Project
from research.models.lesson_words import ranks
project = Project.objects.create(name="asked", benchmark="toy", preset="quick", start="plain", data_id="x", rule={})
for number in range(300):
    Lesson.objects.create(project=project, kind="no_gain", text=f"No gain, number {number}", base="0" * 40,
                          techniques=[{"technique": f"other_{number}", "tunables": {}}])
wanted = Lesson.objects.create(
    project=project, kind="harm", text="Worse: a longer warmup of the learning rate", files=["train.py"],
    tags=["schedule"], techniques=[{"technique": "warmup_steps", "tunables": {}}], base="0" * 40)
def found(text):
    return list(Lesson.objects.search(text).values_list("pk", flat=True))
with connection.cursor() as cursor:
    cursor.execute("SET enable_seqscan = off")
print(json.dumps({
    "wanted": wanted.pk, "words": found("warmup learned"), "file": found("train.py"), "name": found("warmup_steps"),
    "beginning": found("sched"), "none": found("warmup nowhere"), "odd": found("' | & ! :* ("),
    "first": next(iter(ranks("does a warmup of the schedule help us", 5))),
    "plan": Lesson.objects.search("warmup").explain(),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with cluster() as url:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "DJANGO_"))}
        environ |= {"DATABASE_URL": url, "LAB_DATA": str(tmp_path_factory.mktemp("lab"))}

        def manage(*arguments: str) -> str:
            command = [sys.executable, "manage.py", *arguments]
            return subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout

        manage("migrate", "-v0")
        yield json.loads(manage("shell", "-v0", "-c", ASK).splitlines()[-1])


def test_words_stems_beginnings_files_and_names_are_found(found: dict[str, Any]) -> None:
    only = [found["wanted"]]
    assert found["words"] == found["file"] == found["name"] == found["beginning"] == only
    assert found["none"] == found["odd"] == []


def test_the_best_fit_comes_first_and_the_index_is_taken(found: dict[str, Any]) -> None:
    assert found["first"] == found["wanted"]
    assert "Index Scan on research_lesson_words" in found["plan"]
