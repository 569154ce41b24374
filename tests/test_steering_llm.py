"""A person steers by words: said, acknowledged, tried once or answered; what is forbidden is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.loop.asking import directives
from research.loop.submit import submit
from research.models import AuditEntry, Event, Idea, NotAllowed, Project, Thread
from research.models.asked import MOST
from tests.cast import World, go, step
from tests.found_play import handed, outside_thread

pytestmark = pytest.mark.django_db


def states(thread: Thread, kind: str) -> list[tuple[str, str]]:
    thread.refresh_from_db()
    return [(row["text"], row["state"]) for row in thread.directives[kind]]


def test_a_sentence_is_kept_shown_and_acknowledged_by_the_next_idea(thread: Thread, world: World, member: User) -> None:
    thread.say(member, "  look at\nthe\x00 schedule ")
    assert states(thread, "say") == [("look at the schedule", "asked")]
    assert directives(thread) == "mia says: look at the schedule"
    assert thread.steered_by == member and AuditEntry.objects.get().detail["text"] == "look at the schedule"
    assert step(thread) == "propose"
    assert states(thread, "say") == [("look at the schedule", "acknowledged")]
    told = Event.objects.get(kind=Event.Kind.OBEYED)
    assert told.text == "idea 1 was made after mia said: look at the schedule"
    thread.steer(member, ["alpha"], [])
    assert states(thread, "say") == [("look at the schedule", "acknowledged")], "it holds until it is withdrawn"
    thread.withdraw(member, thread.directives["say"][0]["id"])
    assert thread.directives["say"] == []
    with pytest.raises(ValueError, match="no longer there"):
        thread.withdraw(member, "nothing")


def test_words_are_bounded_and_a_members(thread: Thread, member: User, outsider: User) -> None:
    for text, words in (("", "say what you want"), ("x" * 501, "at most 500")):
        with pytest.raises(ValueError, match=words):
            thread.say(member, text)
    with pytest.raises(NotAllowed):
        thread.say(outsider, "do as I say")
    for number in range(MOST):
        thread.say(member, f"sentence {number}")
    with pytest.raises(ValueError, match="withdraw one first"):
        thread.say(member, "one more")


def test_a_wish_is_taken_by_an_idea_that_is_it_or_answered(thread: Thread, world: World, member: User) -> None:
    thread.steer(member, ["alpha", "beta"], [])
    thread.try_this(member, "alpha")
    thread.try_this(member, "something quite different")
    assert "asks to try this now: alpha" in directives(thread)
    step(thread)
    first, second = thread.ideas.get(), states(thread, "try_this")
    assert first.techniques == ["alpha"] and second[0] == ("alpha", "done")
    world.until_verdict(thread)
    go(thread)
    assert states(thread, "try_this")[1] == ("something quite different", "cannot")
    assert thread.directives["try_this"][1]["answer"].startswith("instead, idea 2: ")


def test_what_is_forbidden_is_refused_at_the_commit(project: Project, world: World, member: User) -> None:
    project.threads.get().pause()
    thread, token = outside_thread(project)
    thread.steer(member, [], ["train.py"])
    idea = submit(thread, token, handed(thread))
    go(thread)
    idea.refresh_from_db()
    assert (idea.state, idea.refusal) == (Idea.State.REFUSED, "steering by mia forbids train.py")
    thread.steer(member, ["schedules"], [])
    other = submit(thread, token, handed(thread, key="two"))
    go(thread)
    other.refresh_from_db()
    assert other.refusal == "steering by mia keeps to schedules; this changes train.py"
    tagged = submit(thread, token, handed(thread, key="three", tags=("schedules",)))
    go(thread)
    tagged.refresh_from_db()
    assert tagged.state == Idea.State.IMPLEMENTED
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        thread.steer(member, ["<b>"], [])


def test_a_raised_budget_wakes_the_thread(thread: Thread, member: User) -> None:
    with pytest.raises(ValueError, match="no limit of trials"):
        thread.raise_budget(member, max_trials=9)
    Thread.objects.update(max_trials=4, max_money=Decimal("1.5"))
    thread.finish("its budget of 4 trials is spent")
    with pytest.raises(ValueError, match="no more than the 4"):
        thread.raise_budget(member, max_trials=4)
    with pytest.raises(ValueError, match="say how many"):
        thread.raise_budget(member)
    thread.raise_budget(member, max_trials=9, max_money=Decimal("2"))
    assert (thread.max_trials, thread.max_money, thread.state) == (9, 2, Thread.State.ACTIVE)
    assert AuditEntry.objects.latest("pk").detail == {"thread": 1, "max_trials": 9, "max_money": "2"}


def test_the_panel_says_shows_and_takes_back(thread: Thread, member: User) -> None:
    client, url = Client(), reverse("ask", args=[thread.public_id])
    client.force_login(member)
    assert client.post(url, {"act": "say", "text": "<script>look</script>"}).status_code == 302
    page = client.get(reverse("thread", args=[thread.public_id])).content.decode()
    assert "&lt;script&gt;look" in page and "<script>look" not in page and 'data-key="w"' in page
    thread.refresh_from_db()
    assert client.post(url, {"act": "withdraw", "id": thread.directives["say"][0]["id"]}).status_code == 302
    part = client.get(reverse("thread", args=[thread.public_id]), {"part": "words"}).content.decode()
    assert "look" not in part
    assert client.post(url, {"act": "budget", "max_money": "NaN"}).status_code == 302
    assert client.post(url, {"act": "dance"}).status_code == 404
