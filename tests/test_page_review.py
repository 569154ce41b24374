"""The review queue and the merge page: what they show to whom, and that a decision does what it says."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from research.drawing import strip
from research.loop.advance import advance_project_until_idle
from research.models import (
    Experiment,
    Finding,
    Idea,
    Lesson,
    MergeRequest,
    Project,
    Role,
    Thread,
)
from research.views.review_board import RequestPage
from tests.cast import World, begin, person
from tests.stage import Stage

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def rosa(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


def as_user(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def read(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.content[:400]
    return response.content.decode()


def words(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def address(request: MergeRequest) -> str:
    return reverse("merge-request", args=[request.public_id])


def decide(client: Client, request: MergeRequest, act: str, **fields: str) -> str:
    """Post a decision; the messages and the title of the page it leads to."""
    fields = {"commit": request.commit, "act": act, **fields}
    response = client.post(reverse("decide", args=[request.public_id]), fields, follow=True)
    assert response.status_code == 200
    return words(response.content.decode())


# The queue


def test_the_queue_shows_the_gain_with_its_evidence(rosa: Client, thread: Thread, world: World) -> None:
    lower = world.gain(thread, "alpha")
    upper = world.gain(thread, "beta")
    page = read(rosa, reverse("review"))
    text = words(page)
    assert text.index(lower.candidate.idea.name) < text.index("Decided lately")
    assert "on top of 1" in text and text.count("your turn") >= 2
    assert f"{upper.verdict.pairs} pairs" in text and page.count('class="strip small"') == 2


def test_what_was_decided_lately_stays_with_its_reason(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    decide(rosa, request, "reject", note="it buys speed with memory")
    text = words(read(rosa, f"{reverse('review')}?part=decided"))
    assert "rejected" in text and "by rosa: it buys speed with memory" in text


def test_the_queue_costs_the_same_for_more_requests(rosa: Client, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    one = count(rosa, f"{reverse('review')}?part=queue")
    world.gain(thread, "beta", "gamma")
    assert count(rosa, f"{reverse('review')}?part=queue") == one <= 11


def count(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        read(client, url)
    return len(queries)


# The merge page


def test_the_page_states_claim_evidence_and_checks(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    page = read(rosa, address(request))
    text = words(page)
    assert request.candidate.idea.hypothesis in text
    assert re.search(r"moves \w+ by −0\.0\d+ ± 0\.\d+", text), text
    assert f"over {request.verdict.pairs} fresh pairs" in text
    for check in ("effect", "fresh seeds", "protected files untouched", "no findings", "on main", "second person"):
        assert check in text
    assert "4 more pairs would narrow the interval to about" in text and "normal approximation" in text
    assert f"Merge {request.commit[:8]} into main" in page  # what the approval confirms


def test_the_drawing_holds_every_pair_and_says_so_in_words(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    page = read(rosa, f"{address(request)}?part=evidence")
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    pairs = request.verdict.evidence["pairs"]
    assert len([part for part in svg if part.get("class", "").startswith("pair ")]) == len(pairs)
    assert "confirm: better in 4 of 4 pairs; mean gain +0.0" in str(svg.get("aria-label"))


@pytest.mark.parametrize("part", ["top", "evidence", "stack", "bar"])
def test_each_live_part_renders_alone(rosa: Client, thread: Thread, world: World, part: str) -> None:
    request = world.gain(thread, "alpha")
    page = read(rosa, f"{address(request)}?part={part}")
    assert f'id="{part}"' in page and "<html" not in page
    assert count(rosa, f"{address(request)}?part={part}") <= 26


def test_the_diff_comes_by_file(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    url = reverse("request-diff", args=[request.public_id, 0])
    assert url in read(rosa, address(request))
    fragment = rosa.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "ALPHA" in fragment and "<html" not in fragment
    assert "<html" in read(rosa, url)  # a page of its own, without scripts
    assert rosa.get(reverse("request-diff", args=[request.public_id, 9])).status_code == 404


def test_text_of_candidates_is_never_markup(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    Idea.objects.filter(pk=request.candidate.idea_id).update(title=HOSTILE, hypothesis=HOSTILE)
    Finding.objects.create(
        experiment=request.verdict.experiment, kind="network", severity="review", message=HOSTILE, evidence=[HOSTILE]
    )
    for url in (reverse("review"), address(request)):
        page = read(rosa, url)
        assert "<img src=x" not in page and "onerror=&quot;" in page
    assert "1 finding" in words(read(rosa, reverse("review")))


def test_other_threads_are_told_what_a_merge_does_to_them(rosa: Client, world: World, reviewer: User) -> None:
    project = begin("two", threads=2)
    idle, busy = project.threads.order_by("number")
    request = world.gain(busy, "alpha")
    fate = RequestPage(request, reviewer).fates
    assert [(row.thread, row.what) for row in fate] == [(idle, "follows main; it has no open gain of its own")]
    world.gain(idle, "beta")
    text = words(read(rosa, f"{address(request)}?part=stack"))
    assert re.search(r"its gains (merge cleanly|conflict) with it", text)


# Who may do what


def test_a_viewer_sees_and_decides_nothing(thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    vera = as_user(person("vera", Role.VIEWER))
    text = words(read(vera, address(request)))
    assert "You cannot approve this: only a reviewer" in text and "Request changes" not in text.split("Diff")[1]
    for act in ("approve", "reject", "return", "more"):
        reply = vera.post(reverse("decide", args=[request.public_id]), {"act": act, "note": "no"})
        assert reply.status_code == 403 and "this needs the role" in reply.content.decode()
    request.refresh_from_db()
    assert request.state == MergeRequest.State.OPEN
    assert not Experiment.objects.filter(purpose=Experiment.Purpose.REPLICATE).exists()


def test_an_outsider_finds_nothing_and_a_stranger_signs_in(thread: Thread, world: World, outsider: User) -> None:
    request = world.gain(thread, "alpha")
    otto = as_user(outsider)
    pages = [address(request), reverse("request-diff", args=[request.public_id, 0])]
    assert [otto.get(url).status_code for url in pages] == [404, 404]
    assert otto.post(reverse("decide", args=[request.public_id]), {"act": "approve"}).status_code == 404
    assert request.candidate.idea.name not in read(otto, reverse("review"))
    assert Client().get(address(request)).status_code == 302


def test_who_steered_is_told_why_somebody_else_decides(thread: Thread, world: World, reviewer: User) -> None:
    request = world.gain(thread, "alpha")
    Thread.objects.filter(pk=thread.pk).update(steered_by=reviewer)
    rosa = as_user(reviewer)
    assert "not your turn" in words(read(rosa, reverse("review")))
    page = read(rosa, address(request))
    assert "somebody else has to approve" in page
    assert re.search(r'form="approve"[^>]* disabled', page)
    assert "Nothing was changed" in decide(rosa, request, "approve")


# Decisions


def test_an_approval_moves_main_and_goes_to_the_next_request(rosa: Client, thread: Thread, world: World) -> None:
    lower = world.gain(thread, "alpha")
    upper = world.gain(thread, "beta")
    text = decide(rosa, lower, "approve")
    assert f"main moved to {lower.commit[:7]}" in text and upper.candidate.idea.name in text
    thread.project.refresh_from_db()
    assert thread.project.champion == lower.commit
    assert "with 0 below" not in text
    assert "Nothing waits for you" in decide(rosa, upper, "approve")


def test_an_approval_names_what_it_approves_below(rosa: Client, thread: Thread, world: World) -> None:
    lower = world.gain(thread, "alpha")
    upper = world.gain(thread, "beta")
    page = read(rosa, address(upper))
    assert f"This also approves 1 below it: {lower.commit[:8]}" in html.unescape(page)
    assert "Merged, with 1 below it" in decide(rosa, upper, "approve")
    assert MergeRequest.objects.filter(state=MergeRequest.State.MERGED).count() == 2


def test_an_approval_of_another_commit_changes_nothing(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    before = thread.project.champion
    text = decide(rosa, request, "approve", commit="0" * 40)
    assert "Nothing was changed: the approval names 0000000000" in text
    thread.project.refresh_from_db()
    assert thread.project.champion == before


def test_an_approval_after_main_moved_changes_nothing(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    Project.objects.filter(pk=thread.project_id).update(champion="f" * 40)
    assert "main moved" in words(read(rosa, f"{address(request)}?part=top"))
    assert "Nothing was changed: main has moved" in decide(rosa, request, "approve")


def test_a_rejection_needs_a_reason_and_leaves_a_dead_end(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    assert "say why" in decide(rosa, request, "reject", note="  ")
    assert "recorded as a dead end" in decide(rosa, request, "reject", note="unreadable")
    assert "unreadable" in Lesson.objects.get(kind=Lesson.Kind.REJECTED).text


def test_a_request_is_sent_back_with_a_note(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    assert "Sent back" in decide(rosa, request, "return", note="smaller, please")
    request.refresh_from_db()
    assert (request.state, request.reason) == (MergeRequest.State.RETURNED, "smaller, please")


def test_more_seeds_are_measured_and_pooled(thread: Thread, world: World, member: User) -> None:
    request = world.gain(thread, "alpha")
    mia = as_user(member)
    assert "More pairs are being measured" in decide(mia, request, "more")
    assert "running" in words(read(mia, f"{address(request)}?part=evidence"))
    replicate = Experiment.objects.get(purpose=Experiment.Purpose.REPLICATE)
    world.run()
    advance_project_until_idle(thread.project_id)
    replicate.refresh_from_db()
    assert replicate.state == Experiment.State.ENDED
    text = words(read(mia, f"{address(request)}?part=evidence"))
    assert f"All {request.verdict.pairs + 4} confirm pairs pooled" in text and "replicate" in text
    request.refresh_from_db()
    assert request.state == MergeRequest.State.OPEN


def test_an_unknown_decision_is_not_found(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    assert rosa.post(reverse("decide", args=[request.public_id]), {"act": "delete"}).status_code == 404
    assert rosa.get(reverse("decide", args=[request.public_id])).status_code == 405


def test_a_decided_request_keeps_its_page(rosa: Client, thread: Thread, world: World) -> None:
    request = world.gain(thread, "alpha")
    decide(rosa, request, "approve")
    text = words(read(rosa, address(request)))
    assert "merged by rosa" in text and "nothing is left to decide" in text
    assert 'id="approve"' not in read(rosa, address(request))


# The drawing by itself


def pairs(*scores: tuple[float, float], stage: str = "confirm", lower: bool = True) -> list[strip.Pair]:
    return [
        strip.Pair(stage, seed, baseline, candidate, baseline - candidate if lower else candidate - baseline)
        for seed, (baseline, candidate) in enumerate(scores)
    ]


@pytest.mark.parametrize("lower", [True, False])
def test_better_is_to_the_right_in_both_directions(lower: bool) -> None:
    scores = (2.0, 1.0) if lower else (1.0, 2.0)
    drawn = strip.strip(pairs(scores, lower=lower), None, None, "loss", lower)
    places = {kind: float(x) for kind, x in re.findall(r'<circle class="(\w+)" cx="([\d.]+)%"', drawn)}
    assert places["candidate"] > places["baseline"]


def test_drawings_are_well_formed_and_escaped() -> None:
    effect = strip.Effect(0.5, 0.4, 0.1, 0.9)
    drawn = strip.strip(pairs((2.0, 1.5), (2.1, 2.2)), effect, 0.05, '<b onclick="x">', True)
    ElementTree.fromstring(drawn)
    assert "<b " not in drawn and 'class="worse"' in drawn and "style=" not in drawn
    ElementTree.fromstring(strip.small([0.5, -0.1], effect, 0.05))


@pytest.mark.parametrize("scores", [[(1.0, 1.0)], [(1.0, 1.0), (1.0, 1.0)], [(0.0, 0.0)]])
def test_pairs_without_any_difference_are_drawn(scores: list[tuple[float, float]]) -> None:
    ElementTree.fromstring(strip.strip(pairs(*scores), strip.Effect(0.0), 0.0, "loss", True))


def test_nothing_is_drawn_of_nothing() -> None:
    assert strip.strip([], None, None, "loss", True) == "" == strip.small([], None, None)


def test_a_guessed_address_is_not_found(rosa: Client) -> None:
    assert rosa.get(reverse("merge-request", args=["nothing"])).status_code == 404
