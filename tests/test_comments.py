"""Comments on the merge page: who may say something of what, how a thread is settled, and where its line goes."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.models import AuditEntry, Comment, Event, MergeRequest, NotAllowed, NotMergeable, Role, Thread
from research.views.difftext import files_of
from research.views.review_talk import Talk, followed
from tests.cast import World, person
from tests.stage import Stage
from tests.test_page_review import HOSTILE, address, as_user, count, decide, read, words
from tests.test_patch_sets import measured_again

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def request_(thread: Thread) -> MergeRequest:
    return thread.merge_requests.get()


@pytest.fixture
def mia(member: User) -> Client:
    return as_user(member)


def changed_line(request: MergeRequest, side: str = "new") -> tuple[str, int]:
    """Path and number of the line that the change adds (or removes)."""
    (file,) = files_of(request.candidate.diff.patch)
    kind = "added" if side == "new" else "removed"
    row = next(row for hunk in file.hunks for row in hunk.rows if row.kind == kind)
    return file.path, row.anchor[1]


def say(client: Client, request: MergeRequest, text: str = "why?", htmx: bool = True, **place: object) -> str:
    headers = {"HX-Request": "true"} if htmx else {}
    response = client.post(
        reverse("comments", args=[request.public_id]), {"text": text, **place}, follow=not htmx, headers=headers
    )
    assert response.status_code in (200, 204), response.content[:300]
    return response.content.decode() or response.headers["HX-Redirect"]


def settle(client: Client, request: MergeRequest, comment: Comment, act: str, **fields: str) -> int:
    url = reverse("comment", args=[request.public_id, comment.public_id])
    return client.post(url, {"act": act, **fields}, headers={"HX-Request": "true"}).status_code


def test_a_comment_stands_below_its_line(request_: MergeRequest, mia: Client) -> None:
    path, line = changed_line(request_)
    fragment = say(mia, request_, "why two?", path=path, side="new", line=line)
    row = re.search(rf'data-at="new:{line}".*?</tr><tr class="talk">.*?</article>', fragment, re.DOTALL)
    assert row and "why two?" in row.group() and "mia" in row.group()
    comment = Comment.objects.get()
    assert (comment.place, comment.quote) == (f"{path}:{line}", "ALPHA = 2.0")
    assert "<html" not in fragment and f"{path}:{line}" in read(mia, f"{address(request_)}?part=talk")


def test_the_removed_line_the_file_and_the_whole_change_can_be_commented(request_: MergeRequest, mia: Client) -> None:
    path, line = changed_line(request_, "old")
    say(mia, request_, "it was fine", path=path, side="old", line=line)
    say(mia, request_, "the file", path=path)
    assert 'id="talk"' in say(mia, request_, "all of it")
    assert [row.place for row in Comment.objects.order_by("pk")] == [
        f"{path}:{line} (removed)",
        path,
        "the whole change",
    ]
    fragment = mia.get(reverse("request-diff", args=[request_.public_id, 0]), headers={"HX-Request": "true"})
    text = fragment.content.decode()
    assert text.index("the file") < text.index("<table") < text.index("it was fine")


def test_a_line_that_the_page_does_not_show_cannot_be_commented(request_: MergeRequest, mia: Client) -> None:
    path, line = changed_line(request_)
    for place in (
        {"path": path, "side": "new", "line": 9_999}, {"path": path, "side": "old", "line": line + 500},
        {"path": path, "side": "both", "line": line}, {"path": "other.py"}, {"path": path, "side": "new", "line": "x"},
        {"path": "other.py", "side": "new", "line": 1},
    ):  # fmt: skip
        assert "Nothing was said" in words(say(mia, request_, htmx=False, **place)), place
    assert not Comment.objects.exists()


def test_a_thread_is_answered_resolved_and_opened_again(request_: MergeRequest, mia: Client, reviewer: User) -> None:
    say(mia, request_, "why?")
    comment, rosa = Comment.objects.get(), as_user(reviewer)
    assert settle(rosa, request_, comment, "reply", text="because") == 200
    assert "1 unresolved" in words(read(rosa, f"{address(request_)}?part=bar"))
    assert settle(rosa, request_, comment, "resolve") == 200
    assert "unresolved" not in words(read(rosa, f"{address(request_)}?part=bar"))
    text = words(read(rosa, f"{address(request_)}?part=talk"))
    assert "resolved by rosa" in text and "because" in text
    assert settle(rosa, request_, comment, "reopen") == 200
    comment.refresh_from_db()
    assert comment.resolved_at is None and comment.replies.get().author == reviewer
    entries = AuditEntry.objects.filter(project=request_.project).order_by("pk")
    assert list(entries.values_list("action", flat=True)) == [
        "comment", "reply", "resolve a comment", "reopen a comment",
    ]  # fmt: skip
    event = Event.objects.filter(kind=Event.Kind.COMMENT).earliest("seq")
    assert event.text == "mia: comment on the whole change: why?" and "review" in event.topics


def test_a_second_click_changes_nothing(request_: MergeRequest, member: User) -> None:
    comment = Comment.make(request_, member, "why?")
    comment.resolve(member), Comment.objects.get(pk=comment.pk).resolve(member)
    assert AuditEntry.objects.filter(action="resolve a comment").count() == 1
    reply = comment.reply(member, "see above")
    assert reply.reply(member, "and below").parent == comment
    with pytest.raises(NotMergeable, match="a reply is settled with"):
        reply.resolve(member)


def test_what_says_nothing_or_too_much_is_refused(request_: MergeRequest, member: User) -> None:
    with pytest.raises(NotMergeable, match="an empty comment"):
        Comment.make(request_, member, " \x00 ")
    with pytest.raises(NotMergeable, match="at most 4000"):
        Comment.make(request_, member, "x" * 4_001)


def test_viewers_read_and_outsiders_find_nothing(request_: MergeRequest, mia: Client, outsider: User) -> None:
    say(mia, request_, "why?")
    comment, vera, otto = Comment.objects.get(), person("vera", Role.VIEWER), as_user(outsider)
    page = read(as_user(vera), address(request_))
    assert "why?" in page and "say-line" not in page and 'data-key="c"' not in page and "/comments/" not in page
    with pytest.raises(NotAllowed, match="only a member"):
        Comment.make(request_, vera, "me too")
    assert as_user(vera).post(reverse("comments", args=[request_.public_id]), {"text": "me too"}).status_code == 403
    assert settle(as_user(vera), request_, comment, "resolve") == 403
    comment.refresh_from_db()
    assert comment.resolved_at is None and Comment.objects.count() == 1
    assert otto.post(reverse("comments", args=[request_.public_id]), {"text": "hi"}).status_code == 404
    assert settle(otto, request_, comment, "resolve") == 404


def test_a_comment_of_another_request_is_not_found(
    request_: MergeRequest, thread: Thread, world: World, mia: Client, member: User
) -> None:
    other = world.gain(thread, "beta")
    comment = Comment.make(other, member, "here")
    assert settle(mia, request_, comment, "resolve") == 404 == settle(mia, other, comment, "delete")


def test_text_is_never_markup(request_: MergeRequest, member: User, mia: Client) -> None:
    path, line = changed_line(request_)
    comment = Comment.make(request_, member, HOSTILE, path, "new", line, HOSTILE)
    comment.reply(member, HOSTILE)
    page = read(mia, address(request_)) + read(mia, reverse("request-diff", args=[request_.public_id, 0]))
    assert "<img src=x" not in page and page.count(html.escape(HOSTILE)) >= 2


def test_the_queue_counts_what_is_unresolved(request_: MergeRequest, member: User, mia: Client) -> None:
    before = count(mia, f"{reverse('review')}?part=queue")
    Comment.make(request_, member, "one"), Comment.make(request_, member, "two").resolve(member)
    assert "1 unresolved" in words(read(mia, reverse("review")))
    assert count(mia, f"{reverse('review')}?part=queue") == before


def test_requesting_changes_quotes_what_is_unresolved(request_: MergeRequest, member: User, reviewer: User) -> None:
    path, line = changed_line(request_)
    Comment.make(request_, member, "too large", path, "new", line)
    Comment.make(request_, member, "settled").resolve(member)
    assert "Sent back" in decide(as_user(reviewer), request_, "return", note="")
    request_.refresh_from_db()
    assert (request_.state, request_.reason) == ("returned", f"mia on {path}:{line}: too large")


# In the next patch set


@pytest.fixture
def again(request_: MergeRequest, thread: Thread, world: World, member: User, reviewer: User) -> MergeRequest:
    """The second try of a request with four comments: on the changed line, beside it, on the file, on the whole."""
    path, line = changed_line(request_)
    Comment.make(request_, member, "too large", path, "new", line, "ALPHA = 2.0")
    Comment.make(request_, member, "a neighbour", path, "new", line + 1)
    Comment.make(request_, member, "of the file", path)
    Comment.make(request_, member, "of it all")
    request_.request_changes(reviewer, "smaller")
    return measured_again(world, thread)


def test_comments_are_carried_over_where_their_line_survives(again: MergeRequest, mia: Client) -> None:
    line = Comment.objects.get(text="a neighbour").line
    talk = Talk(again.patch_sets(), [changed_line(again)[0]])
    assert {(row.comment.text, row.line, row.is_outdated) for row in talk.threads} == {
        ("too large", None, True), ("a neighbour", line, False),
        ("of the file", None, False), ("of it all", None, False),
    }  # fmt: skip
    fragment = read(mia, reverse("request-diff", args=[again.public_id, 0]))
    assert "a neighbour" in fragment and "too large" not in fragment and "of patch set 1" in fragment
    text = words(read(mia, f"{address(again)}?part=talk"))
    assert "outdated" in text and "ALPHA = 2.0" in text and "4 unresolved" in text
    assert "4 unresolved" in words(read(mia, reverse("review")))


def test_a_carried_comment_is_settled_where_it_is_seen(again: MergeRequest, mia: Client) -> None:
    comment = Comment.objects.get(text="a neighbour")
    assert settle(mia, again, comment, "resolve") == 200
    comment.refresh_from_db()
    assert comment.resolved_at is not None


def test_a_line_of_the_interdiff_is_commented_on_its_new_side_only(again: MergeRequest, mia: Client) -> None:
    path, line = changed_line(again)
    chosen = {"path": path, "line": line, "from": "1"}
    assert "Nothing was said" in words(say(mia, again, htmx=False, side="old", **chosen))
    assert "again?" in say(mia, again, "again?", side="new", **chosen)


PATCH = """diff --git a/a.py b/a.py
index 1..2 100644
--- a/a.py
+++ b/a.py
@@ -2,4 +2,5 @@
 two
-three
+3
+and a half
 four
 five
@@ -20,3 +21,2 @@
 twenty
-twenty-one
 twenty-two
"""


@pytest.mark.parametrize(
    ("line", "now"), [(1, 1), (2, 2), (3, None), (4, 5), (10, 11), (20, 21), (21, None), (22, 22), (90, 90)]
)
def test_a_line_is_followed_through_a_diff(line: int, now: int | None) -> None:
    (file,) = files_of(PATCH)
    assert followed(file, line) == now
    assert followed(None, line) == line
