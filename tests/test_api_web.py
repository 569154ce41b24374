"""The HTTP API through the real web process: a script on its way to a verdict, and many who wait at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from research.models import ApiToken, Idea, Machine, Project, Role
from tests.agent_play import Script, environment
from tests.bench.web import Web
from tests.cast import World, go, person

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def script(project: Project, world: World) -> Iterator[Script]:
    Machine.objects.filter(pk=world.machine.pk).update(isolation_level=3)
    token = ApiToken.make(person("rosa", Role.MEMBER, project), "script", project, may_propose=True)
    with Web(**environment()) as web:
        yield Script(f"http://{web.host}", token)


def test_a_script_waits_for_its_verdict_and_holds_nobody_up(script: Script, world: World) -> None:
    submission = script.improve("question", "train.py", "ALPHA = 1.0", "ALPHA = 2.0")
    with ThreadPoolExecutor(20) as waiting:
        told = [waiting.submit(script.verdict, submission) for _ in range(20)]
        time.sleep(0.5)
        began = time.monotonic()
        assert script.ask("/projects")
        assert time.monotonic() - began < 5 and not any(one.done() for one in told)
        thread = Idea.objects.get(public_id=submission).thread
        world.until_verdict(thread)
        go(thread)
        over = [one.result(timeout=30) for one in told]
    assert {one["state"] for one in over} == {"ended"}
    assert over[0]["experiment"]["verdict"] == "improved"
