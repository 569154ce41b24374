"""The lessons page: what was learned, found by words and filters, retracted by those who may."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from research.models import Lesson, MergeRequest, Project, Role, Thread
from research.views.lessons import A_PAGE
from tests.cast import World, begin, person


def page(client: Client, **asked: str) -> str:
    reply = client.get("/lessons/", asked)
    assert reply.status_code == 200
    return str(reply.content.decode())


@pytest.fixture
def seen(client: Client, member: User) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def gain(world: World, thread: Thread) -> Lesson:
    request: MergeRequest = world.gain(thread, "alpha")
    return Lesson.objects.get(experiment__verdict=request.verdict)


def lesson(thread: Thread, text: str, kind: str = "no_gain", **fields: object) -> Lesson:
    return Lesson.objects.create(
        project=thread.project, thread=thread, kind=kind, text=text, base="0" * 40,
        techniques=[{"technique": "beta", "tunables": {"rate": 2}}], **fields,
    )  # fmt: skip


def test_without_a_lesson_the_page_says_what_one_is(seen: Client, db: None) -> None:
    text = page(seen)
    assert "No lesson yet" in text and "dead end" in text


def test_a_lesson_shows_effect_error_pairs_scope_and_evidence(seen: Client, gain: Lesson) -> None:
    text = page(seen)
    assert gain.experiment is not None and gain.error is not None
    assert f"/e/{gain.experiment.public_id}/" in text and f"{gain.pairs} pairs" in text
    assert f"± {100 * gain.error:.1f} %" in text and gain.base[:8] in text and "quick cpu, 2 slots" in text


def test_filters_find_by_word_kind_technique_and_project(seen: Client, gain: Lesson, thread: Thread) -> None:
    lesson(thread, "Widening never helped", "harm")
    other = begin("elsewhere").threads.get()
    lesson(other, "Another place", "failure")
    assert "Widening" in page(seen, q="never widening") and gain.text not in page(seen, q="never widening")
    assert "1 lesson found" in page(seen, kind="harm")
    assert "2 lessons found" in page(seen, technique="beta")
    assert "Widening" not in page(seen, project="elsewhere") and "Another place" in page(seen, project="elsewhere")
    assert "No lesson fits" in page(seen, q="nowhere") and "No lesson fits" in page(seen, technique='be"ta')


def test_words_are_found_by_the_index_and_the_best_fit_comes_first(seen: Client, thread: Thread) -> None:
    lesson(thread, "Warmup is mentioned here, beside much else that has nothing to do with it")
    lesson(thread, "Something else", title="a longer warm-up", about="warmup")
    lesson(thread, "Warmup of the learning rate", title="warmup")
    lesson(thread, "Nothing of it")
    text = page(seen, q="warmup")
    assert "3 lessons found" in text and "best fit first" in text
    assert text.index("Warmup of the learning rate") < text.index("Warmup is mentioned here")
    assert "No lesson fits" in page(seen, q='"; --')


def test_facets_show_what_there_is_and_how_often(seen: Client, thread: Thread) -> None:
    lesson(thread, "In the optimizer", tags=["optimizer"], files=["optim.py"])
    lesson(thread, "In the model", tags=["architecture"], files=["model.py"])
    lesson(thread, "In both", tags=["optimizer", "architecture"], files=["optim.py", "model.py"])
    text = page(seen)
    assert "optimizer (2)" in text and "model.py (2)" in text and 'name="benchmark"' not in text
    assert "2 lessons found" in page(seen, tag="optimizer") and "2 lessons found" in page(seen, file="model.py")
    assert "1 lesson found" in page(seen, file="model.py", tag="optimizer")


def test_what_superseded_reopened_or_imported_a_lesson_is_shown(seen: Client, thread: Thread) -> None:
    assumption = {"preset": "quick", "recipe": [], "techniques": ["beta"], "labels": ["shape"]}
    old = lesson(thread, "It won", "gain", confidence=0.9)
    new = lesson(thread, "It won no more", "harm", confidence=0.6, assumption=assumption)
    new.supersede(old, Lesson.Superseded.CONTRARY)
    Lesson.objects.create(
        project=thread.project, kind="no_gain", text="From far away", base="1" * 40, techniques=[],
        imported_from="another-lab", origin="x/1", binding=False, confidence=0.25,
    )  # fmt: skip
    text = page(seen)
    assert "contradicted by" in text and "contradicts" in text and "0.60" in text
    assert "Refused until something changes" in text and "one of shape comes or goes" in text
    assert "from another-lab, in" in text and "0.25" in text
    new.reopen("shape is in the code now")
    assert "worth another look" in page(seen, state="reopened") and "1 lesson found" in page(seen, state="reopened")
    assert "1 lesson found" in page(seen, state="imported") and "No lesson fits" in page(seen, state="discard")
    assert "1 lesson found" in page(seen, state="superseded")


def test_a_member_retracts_a_lesson_and_lets_it_count_again(seen: Client, gain: Lesson) -> None:
    back = "/lessons/?q=gain"
    reply = seen.post(f"/lessons/{gain.pk}/", {"act": "retract", "next": back})
    assert reply.status_code == 302 and reply.headers["Location"] == back
    gain.refresh_from_db()
    assert gain.retracted and 'class="retracted' in page(seen) and "Restore" in page(seen)
    seen.post(f"/lessons/{gain.pk}/", {"act": "restore", "next": "https://elsewhere.example/"})
    gain.refresh_from_db()
    assert not gain.retracted


def test_an_address_elsewhere_is_never_followed(seen: Client, gain: Lesson) -> None:
    reply = seen.post(f"/lessons/{gain.pk}/", {"act": "retract", "next": "//elsewhere.example/"})
    assert reply.headers["Location"] == "/lessons/"


def test_a_dead_end_is_told_apart_and_opened_by_a_reviewer_alone(seen: Client, thread: Thread, reviewer: User) -> None:
    dead = lesson(thread, "Not in this house", "rejected")
    text = page(seen)
    assert "dead end" in text and "Retract" not in text
    assert "reviewer" in seen.post(f"/lessons/{dead.pk}/", {"act": "retract"}, follow=True).content.decode()
    seen.force_login(reviewer)
    assert "Open this dead end again?" in page(seen)
    seen.post(f"/lessons/{dead.pk}/", {"act": "retract"})
    dead.refresh_from_db()
    assert dead.retracted


def test_who_may_not_see_a_project_sees_none_of_its_lessons(
    client: Client, outsider: User, gain: Lesson, project: Project
) -> None:
    client.force_login(outsider)
    assert "No lesson yet" in page(client) and project.name not in page(client)
    assert client.post(f"/lessons/{gain.pk}/", {"act": "retract"}).status_code == 404
    vera = person("vera", Role.VIEWER, project)
    client.force_login(vera)
    assert "Retract" not in page(client)
    client.post(f"/lessons/{gain.pk}/", {"act": "retract"})
    gain.refresh_from_db()
    assert not gain.retracted


def test_a_text_is_never_markup_and_lists_are_paged_in_few_queries(
    seen: Client, thread: Thread, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(A_PAGE + 3):
        lesson(thread, f"<script>alert({number})</script>")
    page(seen)  # makes the person's preferences
    with django_assert_max_num_queries(16):  # the frame's too
        text = page(seen)
    assert "<script>alert" not in text and "&lt;script&gt;alert(52)" in text and "alert(2)" not in text
    assert 'rel="next"' in text
    with django_assert_max_num_queries(10):
        rest = page(seen, page="2", part="lessons")
    assert rest.startswith('<section id="lessons"') and "alert(2)" in rest and 'rel="prev"' in rest
