"""200 experiments of a model that repeats itself: prompts stay under their cap, what was learned early is there late,
nothing is measured twice, and what was discarded is measured again once what spoke against it has changed."""

from __future__ import annotations

from typing import Any

import pytest

from research.loop.advance import advance_project_until_idle
from research.models import Candidate, Experiment, Idea, Lesson, Message, Project, Session, Thread
from research.researchers.llm import tokens
from research.researchers.llm.wire import Message as Said
from tests.cast import World, go, store_floor
from tests.horizon_play import Researcher, Told, is_open_again, lessons_of
from tests.llm_play import asked, begin_llm, spec_of, talk
from tests.model_play import ScriptedModel

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.timeout(2_400)]
EXPERIMENTS, CONTEXT = 200, 16_000
LETTERS = "QWERTYUIOP"
PARTS = ("optimizer", "schedule", "data", "shape", "loss")


def letters(number: int) -> str:
    return "N" + "".join(LETTERS[int(digit)] for digit in str(number))


ROTARY = Told("rotary positions", "ROTARY", "positions", "Rotary positions tell a short context apart.")
LEARNED = Told("a table of positions", "TABLE", "positions", "A learned table of positions is read at once.",
               ask="positions in attention")  # fmt: skip
SLOW = Told(
    "slow averages", "SLOW", "averaging", "Averaging weights over many steps keeps what a late step would lose."
)
LIKE_SLOW = Told(
    "slow averages, once more", "SLOW", "averaging",
    "Averaging weights over many steps retains what a late step would lose.",
)  # fmt: skip
DECAY = Told("a decay that rises", "DECAY", "averaging", "A decay that rises during training suits short runs.")
BLEND = Told("blended embeddings", "BLEND", "embedding", "Blending the embeddings of two bytes shares what is rare.",
             ask="embeddings of bytes")  # fmt: skip
PLANNED = {3: ROTARY, 5: SLOW, 9: LIKE_SLOW, 11: BLEND, 13: SLOW, 15: BLEND, 18: DECAY, 20: BLEND, 28: BLEND, 32: BLEND,
           35: LIKE_SLOW}  # fmt: skip
GOOD = {letters(number) for number in range(7, 1_000, 15)}


class Worth(dict[str, float]):
    """Every fifteenth constant gains, so that no plateau ends the thread; each other does harm: a verdict is clear."""

    def get(self, name: str, default: Any = 0.0) -> Any:
        return 0.01 if name in GOOD or name == "DECAY" else -0.05


class Tireless:
    """A new constant each time; every tenth proposal is an old one, in the same words or in others."""

    def __init__(self) -> None:
        self.learned = False

    def __call__(self, count: int, newest: int) -> Told:
        if newest >= EXPERIMENTS - 5 and not self.learned:
            self.learned = True
            return LEARNED
        if count in PLANNED:
            return PLANNED[count]
        again = count % 10 == 0
        number = count - 3 if again else count
        name, sure = letters(number), "surely" if again and count % 20 else "perhaps"
        words = f"The constant {name} {sure} lowers the loss by mechanism {name}."
        return Told(f"constant {name}", name, PARTS[number % len(PARTS)], words)


@pytest.fixture
def project(db: None, toy: None) -> Project:
    return begin_llm()


def test_200_experiments_stay_under_the_context_remember_and_repeat_nothing(
    thread: Thread, project: Project, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.attach(3, [])
    store_floor(project, quick)
    world = World(quick, Worth(), together={("SLOW", "DECAY"): 0.1})
    researcher = Researcher(Tireless(), [SLOW])
    with ScriptedModel(script=researcher) as model, asked(monkeypatch, spec := spec_of(model, context_tokens=CONTEXT)):
        for _ in range(EXPERIMENTS * 4):
            go(thread), talk(spec), world.run()
            advance_project_until_idle(project.pk)
            if Experiment.objects.filter(verdict__isnull=False).count() >= EXPERIMENTS and of(LEARNED):
                break
    thread.refresh_from_db()
    assert Experiment.objects.filter(verdict__isnull=False).count() >= EXPERIMENTS, (thread.state, thread.note)
    assert thread.merge_requests.exists()
    prompts_stay_under_their_cap(spec.reply_tokens)
    nothing_is_measured_twice()
    a_related_gain_opens_a_discard_again()
    a_head_that_moved_on_opens_a_discard_again()
    the_lesson_of_experiment_3_is_there_where_it_matters()


def of(told: Told) -> list[Experiment]:
    """The experiments with a verdict on this idea."""
    rows = Experiment.objects.filter(candidate__idea__hypothesis=told.hypothesis, verdict__isnull=False)
    return list(rows.select_related("candidate__idea", "verdict", "lesson").order_by("number"))


def refused(told: Told) -> list[Idea]:
    return list(Idea.objects.filter(hypothesis=told.hypothesis, state=Idea.State.REFUSED).order_by("number"))


def opening_of(idea: Idea, purpose: str) -> str:
    """What the session of an idea was begun with."""
    session = idea.sessions.filter(purpose=purpose).order_by("pk")[0]
    return "\n".join(content for _, content in session.opening())


def prompts_stay_under_their_cap(reply_tokens: int) -> None:
    assert not Session.objects.filter(failure="context_full").exists()
    for session in Session.objects.order_by("-pk")[:20]:
        opening = [Said(m.role, m.content) for m in Message.objects.filter(session=session, number__lt=2)]
        assert tokens.count(opening) < CONTEXT - reply_tokens


def nothing_is_measured_twice() -> None:
    """Neither code nor idea, but for the two that were opened again."""
    trees = list(Candidate.objects.values_list("parent", "tree"))
    assert len(trees) == len(set(trees))
    compared = Experiment.objects.filter(candidate__isnull=False).order_by("number")
    titles = list(compared.values_list("candidate__idea__title", flat=True))
    assert sorted(title for title in set(titles) if titles.count(title) > 1) == [BLEND.title, SLOW.title]
    assert (titles.count(BLEND.title), titles.count(SLOW.title)) == (2, 2) and LIKE_SLOW.title not in titles
    assert Idea.objects.filter(state=Idea.State.REFUSED).count() >= EXPERIMENTS // 20


def a_related_gain_opens_a_discard_again() -> None:
    first, second = of(SLOW)
    (decay,) = of(DECAY)
    assert first.number < decay.number < second.number
    assert (first.verdict.kind, decay.verdict.kind, second.verdict.kind) == ("inconclusive", "improved", "improved")
    assert first.lesson.reopened and decay.created < first.lesson.reopened < second.created
    assert f"“{DECAY.title}” is in the code now" in first.lesson.reopened_why
    assert is_open_again(opening_of(second.candidate.idea, "propose"), SLOW)  # type: ignore[union-attr]
    assert (first.lesson.superseded_by, first.lesson.superseded_why) == (second.lesson, Lesson.Superseded.CONTRARY)
    before = [idea for idea in (*refused(LIKE_SLOW), *refused(SLOW)) if idea.created < first.lesson.reopened]
    assert len(before) == 2 and {idea.pointer for idea in before} == {first}
    later = refused(LIKE_SLOW)[-1]
    assert later.pointer == second and "the head has it" in later.refusal


def a_head_that_moved_on_opens_a_discard_again() -> None:
    first, second = of(BLEND)
    assert first.lesson.reopened and first.lesson.reopened < second.created
    assert first.lesson.reopened_why.startswith("the code has moved by 3 techniques")
    told = Message.objects.get(session__idea=second.candidate.idea, session__purpose="propose", name="lessons")  # type: ignore[union-attr]
    assert is_open_again(told.content, BLEND)
    *before, after = refused(BLEND)
    assert [(idea.created < first.lesson.reopened, idea.pointer) for idea in before] == [(True, first)] * 2
    assert after.created > second.created and after.pointer == second, "measured again, it holds again"


def the_lesson_of_experiment_3_is_there_where_it_matters() -> None:
    (rotary,), (table,) = of(ROTARY), of(LEARNED)
    assert rotary.number == 3 and abs(table.number - EXPERIMENTS) <= 5
    idea = table.candidate.idea  # type: ignore[union-attr]
    answer = Message.objects.get(session__idea=idea, session__purpose="propose", role="tool", name="lessons")
    for text in (answer.content, opening_of(idea, "implement")):
        (line,) = lessons_of(text, ROTARY)
        assert "experiment 3;" in line
    assert not lessons_of(opening_of(idea, "propose"), ROTARY), "not before it matters"
    others = Idea.objects.filter(candidate__experiment__number__range=(rotary.number + 100, table.number - 1))
    assert not any(lessons_of(opening_of(other, "implement"), ROTARY) for other in others)
