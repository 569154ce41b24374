"""kill -9 of the process of the sessions in the middle of a reply: nothing is lost, nothing stored is asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from research.models import Call, Session, Thread
from tests.cast import step
from tests.llm_play import IDEA, KEY, asked, begin_llm, calls, spec_of
from tests.model_play import ScriptedModel

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def start() -> Iterator[Callable[[ScriptedModel], subprocess.Popen[bytes]]]:
    """Begin the process of the sessions on the database of this test, with this endpoint as its model."""
    begun: list[subprocess.Popen[bytes]] = []

    def process(model: ScriptedModel) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "LAB_DATA": str(settings.DATA_DIR),
            "TESTS_DATABASE": str(connection.settings_dict["NAME"]), "LAB_LLM_MODEL": "scripted",
            "LAB_LLM_BASE_URL": model.url, "LAB_LLM_KEY_VARIABLE": "TESTS_MODEL_KEY", "TESTS_MODEL_KEY": KEY,
            "LAB_LLM_PRICE_IN": "1", "LAB_LLM_PRICE_OUT": "2",
        }  # fmt: skip
        code = (
            "import django; django.setup()\n"
            "from tests.cast import toy_benchmarks\n"
            "from django.core.management import execute_from_command_line\n"
            "with toy_benchmarks(): execute_from_command_line(['manage.py', 'sessions', '--threads', '1'])"
        )
        begun.append(subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment))
        return begun[-1]

    yield process
    for one in begun:
        one.kill()
        one.wait()


def wait_for(met: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, list(Session.objects.values()) + list(Call.objects.values())
        time.sleep(0.05)


def test_kill_9_in_the_middle_of_a_reply_loses_nothing_and_asks_no_stored_reply_again(
    toy: None, start: Callable[[ScriptedModel], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(calls("thinking aloud, " * 60, finish_idea=IDEA), pace=0.1)
    answers = [calls(read_file={"path": "train.py"}), slow, calls(finish_idea=IDEA)]
    with ScriptedModel(*answers) as model, asked(monkeypatch, spec_of(model)):
        thread = begin_llm().threads.get()
        assert step(thread) == "propose"
        first = start(model)
        wait_for(lambda: Call.objects.filter(number=1).exclude(partial="").exists())
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert Call.objects.get(number=1).state == Call.State.ASKED and len(model.requests) == 2
        start(model)
        wait_for(lambda: Session.objects.get().state == Session.State.ENDED)
        assert len(model.requests) == 3
        assert model.requests[1]["messages"] == model.requests[2]["messages"]  # the same turn, with the stored reply
        assert step(thread) == "propose"
    states = list(Call.objects.order_by("number").values_list("state", flat=True))
    assert states == [Call.State.ANSWERED, Call.State.LOST, Call.State.ANSWERED]
    lost = Call.objects.get(state=Call.State.LOST)
    assert lost.reserved > 0 and "thinking aloud" in lost.partial and lost.reply is None
    session = Session.objects.get()
    assert session.spent().reserved == lost.reserved and session.spent().lost == 1
    assert list(session.messages.values_list("role", flat=True)) == [
        "system", "user", "assistant", "tool", "assistant", "tool",
    ]  # fmt: skip
    assert Thread.objects.get().ideas.count() == 1
