"""200 experiments of a model that also repeats itself: the prompt stays under its cap, nothing is measured twice."""

from __future__ import annotations

from typing import Any

import pytest

from research.loop.advance import advance_project_until_idle
from research.models import Candidate, Experiment, Idea, Message, Project, Session, Thread
from research.researchers.llm import tokens
from research.researchers.llm.wire import Message as Said
from tests.cast import World, go, store_floor
from tests.llm_play import IDEA, asked, begin_llm, calls, purpose_of, spec_of, talk, turns_of
from tests.model_play import Answer, ScriptedModel

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.timeout(1_500)]
EXPERIMENTS, CONTEXT = 200, 16_000
LETTERS = "QWERTYUIOP"


def letters(number: int) -> str:
    return "N" + "".join(LETTERS[int(digit)] for digit in str(number))


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


GOOD = {letters(number) for number in range(7, 1_000, 15)}


class Worth(dict[str, float]):
    """Every fifteenth constant gains, so that no plateau ends the thread; each other does harm: a verdict is clear."""

    def get(self, name: str, default: Any = 0.0) -> Any:
        return 0.01 if name in GOOD else -0.05


class Tireless:
    """A new constant each time; every tenth proposal is an old one, in other words."""

    def __init__(self) -> None:
        self.count = 0
        self.name = ""

    def __call__(self, body: dict[str, Any]) -> Answer:
        if purpose_of(body) == "idea":
            self.count += 1
            again = self.count % 10 == 0
            self.name = letters(self.count - 3 if again else self.count)
            words = (
                f"The constant {self.name} {'surely' if again else 'perhaps'} lowers the loss by mechanism {self.name}."
            )
            plan = f"add {self.name} to train.py"
            return calls(finish_idea=IDEA | {"title": f"constant {self.name}", "hypothesis": words, "plan": plan})
        edit = {"path": "train.py", "old": "BETA = 1.0", "new": f"BETA = 1.0\n{self.name} = 2.0"}
        return calls(replace=edit) if turns_of(body) == 0 else calls(finish_change={"summary": self.name})


def test_200_experiments_stay_under_the_context_and_repeat_nothing(
    thread: Thread, project: Project, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.attach(3, [])
    store_floor(project, quick)
    world = World(quick, Worth())  # a verdict that could not tell is no dead end: it may be tried again
    with ScriptedModel(script=Tireless()) as model, asked(monkeypatch, spec := spec_of(model, context_tokens=CONTEXT)):
        for _ in range(EXPERIMENTS * 4):
            go(thread), talk(spec), world.run()
            advance_project_until_idle(project.pk)
            if Experiment.objects.filter(verdict__isnull=False).count() >= EXPERIMENTS:
                break
    thread.refresh_from_db()
    assert Experiment.objects.filter(verdict__isnull=False).count() >= EXPERIMENTS, (thread.state, thread.note)
    assert thread.merge_requests.exists()
    trees = list(Candidate.objects.values_list("parent", "tree"))
    assert len(trees) == len(set(trees))
    assert Idea.objects.filter(state=Idea.State.REFUSED).count() >= EXPERIMENTS // 20
    assert not Session.objects.filter(failure="context_full").exists()
    for session in Session.objects.order_by("-pk")[:20]:
        opening = [Said(m.role, m.content) for m in Message.objects.filter(session=session, number__lt=2)]
        assert tokens.count(opening) < CONTEXT - spec.reply_tokens
