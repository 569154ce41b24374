"""Sessions in the browser: the transcript, what is under way, what it costs, asking again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.models import AuditEntry, Call, Event, Idea, Message, Project, Role, Session, Thread
from research.views.session_text import tool_uses
from tests.cast import World, person
from tests.session_play import (
    EVIL,
    IDEA,
    answer_tool,
    ask,
    begin_session,
    close,
    due,
    implement_session,
    reply,
    shown,
    whole_session,
)  # fmt: skip

PARTS = {"head": "session-head", "account": "account", "outcome": "outcome", "replays": "replays"}


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    """A member, signed in."""
    mira = person("mira", Role.MEMBER, project)
    client.force_login(mira)
    return mira


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model of a local server."""
    monkeypatch.setenv("LAB_LLM_MODEL", "small")
    monkeypatch.setenv("LAB_LLM_BASE_URL", "http://127.0.0.1:9/v1")


@pytest.fixture(autouse=True)
def no_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LAB_LLM_MODEL", "LAB_LLM_BASE_URL", "LAB_MODELS"):
        monkeypatch.delenv(name, raising=False)
    yield


def plain(page: str) -> str:
    """What a person reads of a page: without markup, spaces as one."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


def path(session: Session) -> str:
    return f"/s/{session.public_id}/"


# The transcript


def test_a_session_is_readable_from_its_prompt_to_its_answer(client: Client, mira: User, thread: Thread) -> None:
    session = whole_session(thread)
    page = shown(client, path(session))
    text = plain(page)
    for words in (
        "propose 3 (1f00ba2)", "the whole system prompt", "which changes improve the loss?", "I read the file first.",
        "→ calls read", "train.py", "small", "2,000 (1,500 cached) + 120 tokens", "0.0042", "3.2 s",
        "first token after 0.4 s", "Widen the model", "A wider model learns more per token", "explore",
        "+2.0 %", "40 s",
    ):  # fmt: skip
        assert words in text, words
    assert [f'id="m-{number}"' in page for number in range(session.messages.count())] == [True] * 10
    assert "price not known" in text  # of the one call whose model has no price


def test_failed_and_lost_calls_stand_where_they_happened(client: Client, mira: User, thread: Thread) -> None:
    page = shown(client, path(whole_session(thread)))
    places = [page.index(f'id="{name}"') for name in ("m-6", "c-2", "c-3", "m-7")]
    assert places == sorted(places)
    text = plain(page)
    assert "rate limited : 429: slow down" in text and "the process that asked was gone" in text
    assert "I would now" in text and "0.0100 stays on the account" in text


def test_refused_and_compacted_messages_are_marked(client: Client, mira: User, thread: Thread) -> None:
    page = shown(client, path(whole_session(thread)))
    assert page.count('class="chip bad">refused') == 1 and "../../etc/passwd is outside" in page
    assert page.count("no longer sent</span>") == 1


def test_an_edit_is_shown_as_the_change_it_makes(client: Client, mira: User, thread: Thread) -> None:
    page = shown(client, path(whole_session(thread)))
    (edit,) = re.findall(r'<code>replace</code>.*?<table class="code">(.*?)</table>', page, re.DOTALL)
    assert 'class="removed"' in edit and 'class="added"' in edit and "DEPTH" in edit


def test_nothing_that_a_model_or_a_tool_says_becomes_markup(client: Client, mira: User, thread: Thread) -> None:
    session = whole_session(thread)
    for page in (shown(client, path(session)), shown(client, f"{path(session)}?part=text&n=7")):
        assert "<script>alert" not in page and "&lt;script&gt;alert" in page
        assert "\x1b" not in page and "\u202e" not in page and "&lt;U+202E&gt;" in page
    assert EVIL in session.messages.get(number=7).content  # the record is as it came
    assert "not a JSON object" in shown(client, path(session))


def test_long_texts_are_folded_and_come_whole_when_asked_for(client: Client, mira: User, thread: Thread) -> None:
    session = whole_session(thread)
    page = shown(client, path(session))
    assert "line 3 of train.py" in page and "line 150 of train.py" not in page
    assert "line 150 of train.py" in shown(client, f"{path(session)}?part=text&n=3")
    assert "old" not in shown(client, f"{path(session)}?part=text&n=2&call=0&argument=path")
    for wrong in ("n=99", "n=2&call=7&argument=path", "n=2&call=0&argument=nothing", "n=x", ""):
        shown(client, f"{path(session)}?part=text&{wrong}", 404)


def test_every_part_is_the_same_element_alone_as_in_the_page(client: Client, mira: User, thread: Thread) -> None:
    session = whole_session(thread)
    page = shown(client, path(session))
    for part, wrapper in PARTS.items():
        alone = shown(client, f"{path(session)}?part={part}").lstrip()
        assert f'id="{wrapper}"' in alone[: alone.index(">")] and f'id="{wrapper}"' in page, part
    shown(client, f"{path(session)}?part=nonsense", 404)


@pytest.mark.parametrize(
    "calls", [None, "text", 7, [1], [{}], [{"name": None, "arguments": None}], [{"arguments": "[1]"}], {"a": 1},
              [{"name": "x", "arguments": '{"old": 1, "new": [2]}'}], [{"name": "x", "arguments": "[" * 100_000}]]
)  # fmt: skip
def test_whatever_is_stored_as_tool_calls_can_be_shown(calls: object) -> None:
    for use in tool_uses(calls):
        assert isinstance(use.brief, str)


def test_the_sessions_of_a_thread_are_one_step_apart(client: Client, mira: User, thread: Thread) -> None:
    first, second = whole_session(thread), begin_session(thread)
    assert f'rel="next" href="{path(second)}"' in shown(client, path(first))
    assert f'rel="prev" href="{path(first)}"' in shown(client, path(second))


def test_a_change_is_shown_as_a_diff_and_leads_to_its_experiment(
    client: Client, mira: User, thread: Thread, world: World
) -> None:
    world.until_verdict(thread)
    experiment = thread.experiments.latest("pk")
    idea = Idea.objects.get(candidate__experiment=experiment)
    page = shown(client, path(implement_session(thread, idea)))
    assert f'href="/e/{experiment.public_id}/"' in page and idea.name in unescape(page)
    assert "model.py" in page and "WIDTH" in page and 'class="removed"' in page


def test_the_advice_of_a_review_is_listed(client: Client, mira: User, thread: Thread) -> None:
    session = begin_session(thread, "review")
    findings = [{"severity": "high", "text": "it reads <the> answers", "path": "train.py", "line": 3}, "nonsense"]
    close(session, answer={"advice": "revise", "findings": findings})
    text = plain(shown(client, path(session)))
    assert "revise" in text and "it reads <the> answers" in text and "train.py:3" in text


def test_whoever_may_not_see_the_project_finds_no_session(client: Client, outsider: User, thread: Thread) -> None:
    session = whole_session(thread)
    client.force_login(outsider)
    shown(client, path(session), 404)
    shown(client, "/s/nothing/", 404)


def test_a_page_costs_the_same_number_of_queries_however_long_it_is(
    client: Client, mira: User, thread: Thread, django_assert_max_num_queries: pytest.FixtureRequest
) -> None:
    session = begin_session(thread)
    for number in range(60):
        reply(session, "", {"read": {"path": f"{number}.py"}})
        answer_tool(session, "x" * 5_000)
    with django_assert_max_num_queries(32):  # type: ignore[operator]
        shown(client, path(session))
    with django_assert_max_num_queries(14):  # type: ignore[operator]
        shown(client, f"{path(session)}?part=tail&after=121")


# What is under way


def test_an_open_session_streams_and_says_what_it_does(client: Client, mira: User, thread: Thread) -> None:
    session = begin_session(thread)
    assert "Is about to ask" in shown(client, path(session))
    call = ask(session, partial="I think that \x1b[1m<b>wider</b> layers")
    page = shown(client, path(session))
    assert 'data-live-poll="1000"' in page and "I think that &lt;b&gt;wider&lt;/b&gt; layers" in page
    assert "at most 0.0100" in page and "The model writes." in page
    Call.objects.filter(pk=call.pk).delete()
    reply(session, "", {"check": {}, "read": {"path": "train.py"}})
    page = shown(client, path(session))
    assert "Performs check()" in page and 'data-live-poll="2000"' in page
    answer_tool(session, "fine")
    assert "Performs read(path=train.py)" in plain(shown(client, path(session)))
    due(session, 30)
    assert "for the endpoint" in shown(client, path(session))
    close(session, "failed", failure="unauthorized", note="set OPENAI_API_KEY")
    page = shown(client, path(session))
    assert "data-live-poll" not in page and "unauthorized" in page and "set OPENAI_API_KEY" in page


def test_the_tail_brings_only_what_is_new(client: Client, mira: User, thread: Thread) -> None:
    session = begin_session(thread)
    ask(session, state="failed", failure="unavailable", note="502", reserved=Decimal(0))
    first = shown(client, f"{path(session)}?part=tail&after=1")
    assert 'id="c-0"' in first and 'id="m-' not in first and "after=1" in first
    reply(session, "Now I know.")
    ask(session, partial="more")
    tail = shown(client, f"{path(session)}?part=tail&after=1")
    assert re.findall(r'id="([mc]-\d+)"', tail) == ["c-0", "m-2"] and "after=2" in tail and "more" in tail
    assert re.findall(r'id="([mc]-\d+)"', shown(client, f"{path(session)}?part=tail&after=2")) == []


def test_the_thread_page_shows_the_model_at_work_and_what_it_costs(
    client: Client, mira: User, project: Project, thread: Thread, models: None
) -> None:
    Thread.objects.filter(pk=thread.pk).update(researcher="llm", max_money=Decimal("0.05"))
    project.set_budget(mira, max_money=Decimal(2), max_tokens=1_000_000)
    whole_session(thread)
    close(begin_session(thread), "failed", failure="refused", note="it declined\nmore")
    session = begin_session(thread, mode="combine")
    ask(session, partial="Two near misses", model="large")
    page = shown(client, f"/t/{thread.public_id}/?part=session")
    text = plain(page)
    for words in (
        "combine", "large", "call 1", "Two near misses", "Widen the model", "refused: it declined", "8,480",
        "money a confirmed gain (none yet)", "Money of this thread", "of 0.0500", "Tokens of the project", "of 1.00 M",
        "0.0326", "0.0200 is held for calls under way or lost", "1 call without a price",
    ):  # fmt: skip
        assert words in text, (words, text)
    assert 'data-live-poll="1000"' in page and path(session) in page


def test_money_a_gain_counts_the_gains_of_this_thread(client: Client, mira: User, world: World, thread: Thread) -> None:
    world.gain(thread, "alpha", "beta")
    session = begin_session(thread)
    reply(session, "one", price=Decimal("0.30"))
    assert "0.150 money a confirmed gain" in plain(shown(client, f"/t/{thread.public_id}/?part=session"))


def test_a_thread_that_asks_no_model_says_nothing_of_sessions(client: Client, mira: User, thread: Thread) -> None:
    assert "Sessions with models" not in shown(client, f"/t/{thread.public_id}/")


def test_without_a_model_a_thread_says_what_to_set(client: Client, mira: User, thread: Thread) -> None:
    Thread.objects.filter(pk=thread.pk).update(researcher="llm")
    page = shown(client, f"/t/{thread.public_id}/")
    assert "LAB_LLM_MODEL=" in page and "LAB_LLM_BASE_URL=http://127.0.0.1" in page


def test_earlier_sessions_are_a_page_away(client: Client, mira: User, thread: Thread, models: None) -> None:
    sessions = [close(begin_session(thread), answer={**IDEA, "title": f"idea {n}!"}) for n in range(9)]
    page = shown(client, f"/t/{thread.public_id}/")
    assert "idea 8!" in page and "idea 2!" not in page
    (older,) = re.findall(r"talk=(\d+)#session", page)
    assert int(older) == sessions[3].pk
    page = shown(client, f"/t/{thread.public_id}/?part=session&talk={older}")
    assert "idea 2!" in page and "idea 8!" not in page and "data-live-poll" not in page


# Asking again


def test_a_replay_asks_the_same_prompt_of_the_chosen_model(
    client: Client, mira: User, thread: Thread, models: None
) -> None:
    session = whole_session(thread)
    answer = client.post(f"{path(session)}replay/", {"model": "small"})
    again = Session.objects.get(replay_of=session)
    assert answer.status_code == 302 and answer["Location"] == path(again)
    assert (again.purpose, again.base, again.prompt, again.mode) == ("propose", session.base, session.prompt, "explore")
    assert again.chain == ["small"] and again.state == Session.State.OPEN
    said = [list(Message.objects.filter(session=one).values_list("role", "content")[:2]) for one in (session, again)]
    assert said[0] == said[1] and again.messages.count() == 2
    assert AuditEntry.objects.filter(action="replay", actor=mira, detail__session=session.public_id).exists()
    assert "replayed by mira with small" in Event.objects.filter(kind=Event.Kind.SESSION).latest("seq").text
    assert session.messages.count() == 10  # the first is as it was


def test_the_two_answers_stand_side_by_side(client: Client, mira: User, thread: Thread) -> None:
    session = whole_session(thread)
    again = close(session.replay(mira), answer={**IDEA, "title": "Deepen the model"})
    for one, other in ((session, again), (again, session)):
        page = shown(client, path(one))
        assert "Widen the model" in page and "Deepen the model" in page and path(other) in page
    assert "tried by nobody" in page and not thread.ideas.exists()


@pytest.mark.parametrize(("state", "model", "why"), [
    ("open", "", "still open"), ("ended", "gpt-9", "there is no model"), ("ended", "", "replayed already"),
])  # fmt: skip
def test_what_cannot_be_replayed_is_refused_in_a_line(
    client: Client, mira: User, thread: Thread, models: None, state: str, model: str, why: str
) -> None:
    session = whole_session(thread) if state == "ended" else begin_session(thread)
    if "already" in why:
        session.replay(mira)
    count = Session.objects.count()
    page = client.post(f"{path(session)}replay/", {"model": model}, follow=True).content.decode()
    assert why in page and Session.objects.count() == count


def test_a_replay_needs_a_model_and_a_member(client: Client, mira: User, project: Project, thread: Thread) -> None:
    session = whole_session(thread)
    page = client.post(f"{path(session)}replay/", follow=True).content.decode()
    assert "no model is configured" in page and not session.replays.exists()
    client.force_login(person("vera", Role.VIEWER, project))
    assert client.post(f"{path(session)}replay/").status_code == 403
    assert 'action="/s/' not in shown(client, path(session))
