"""Two people at two browsers: a member steers to a gain that only a reviewer may merge, while main moves beneath it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from research.loop.advance import advance_project_until_idle, advance_until_idle
from research.models import AuditEntry, Membership, MergeRequest, Project, Role, Thread
from tests.browser.conftest import Errors
from tests.browser.test_story import live
from tests.cast import World, begin, constants, person, repository_of

State = MergeRequest.State
ROUNDS = 60
POST = """([url, data]) => fetch(url, {
    method: "POST", body: new URLSearchParams(data), headers: JSON.parse(document.body.getAttribute("hx-headers")),
}).then((reply) => reply.status)"""
WATCH = """(topics) => new Promise((done) => {
    const refused = [], socket = new WebSocket(`ws://${location.host}/ws/`);
    socket.onmessage = ({data}) => {
        const said = JSON.parse(data);
        if (said.hello) [{watch: topics, since: 0}, {ping: 1}].forEach((each) => socket.send(JSON.stringify(each)));
        if (said.refused) refused.push(said.refused);
        if (said.pong) { socket.close(); done(refused.sort()); }
    };
})"""


def post(page: Page, url: str, data: Mapping[str, str]) -> int:
    """A form that no button of the page sends, as somebody could who writes it by hand; the answer's status."""
    return int(page.evaluate(POST, [url, dict(data)]))


def until_open(world: World, thread: Thread) -> MergeRequest:
    """The loop goes on until a request of this thread waits that was measured on where main stands."""
    for _ in range(ROUNDS):
        advance_until_idle(thread.pk)
        advance_project_until_idle(thread.project_id)
        main = Project.objects.get(pk=thread.project_id).champion
        found = thread.merge_requests.open().filter(base=main).first()
        if found:
            return found
        world.run()
    thread.refresh_from_db()
    raise AssertionError(f"no request: {thread.state} {thread.note}")


def steer(page: Page, thread: Thread, label: str) -> None:
    page.goto(f"/t/{thread.public_id}/")
    live(page)
    page.keyboard.press("s")
    page.locator("#steer-find").fill(label)
    page.get_by_label(f"{label}: focus").check()
    page.get_by_role("button", name="Steer", exact=True).click()
    expect(page.locator("#messages")).to_contain_text("the next idea follows it")


def approve(page: Page, request: MergeRequest) -> None:
    page.goto(f"/review/{request.public_id}/")
    live(page)
    page.keyboard.press("a")
    expect(page.get_by_role("dialog")).to_contain_text(request.commit[:8])
    page.keyboard.press("Enter")
    expect(page.locator("#messages")).to_contain_text(f"main moved to {request.commit[:7]}")


@pytest.mark.slow
def test_a_member_steers_and_a_reviewer_merges_while_main_moves(
    signed_in: Callable[..., Page], errors: Errors, project: Project, thread: Thread, world: World
) -> None:
    mia, rosa = person("mia", Role.MEMBER, project), person("rosa", Role.REVIEWER, project)
    vera, other = person("vera", Role.VIEWER, project), begin("other")
    second = Thread.objects.create(project=project, number=2, researcher="catalogue", head=thread.head)
    at_mia, at_rosa = signed_in(mia), signed_in(rosa)

    # Mia steers to a gain. She sees her request and cannot approve it, nor by hand.
    steer(at_mia, thread, "alpha")
    mine = until_open(world, thread)
    at_mia.goto(f"/review/{mine.public_id}/")
    live(at_mia)
    expect(at_mia.locator("#bar")).to_contain_text("only a reviewer of question may approve")
    expect(at_mia.get_by_role("button", name="Approve")).to_be_disabled()
    assert post(at_mia, f"/review/{mine.public_id}/decide/", {"act": "approve", "commit": mine.commit}) == 403

    # Vera, who may look, can do none of it, and hears nothing of another project.
    viewer_can_do_nothing(signed_in(vera), mine, second, other)
    errors.expect("403|404")

    # In the other browser, Rosa merges what the second thread found: main moves, and Mia's page says so by itself.
    world.gain(second, "beta")
    theirs = second.merge_requests.open().get()
    approve(at_rosa, theirs)
    expect(at_mia.locator("#bar")).to_contain_text("stale", ignore_case=True)
    mine.refresh_from_db()
    assert mine.state == State.STALE

    # It is measured again, on main as it is now, and merged.
    again = until_open(world, thread)
    assert again.base == theirs.commit and again.verdict.experiment.baseline_commit == theirs.commit
    at_mia.goto(f"/p/{project.name}/audit/")
    live(at_mia)
    approve(at_rosa, again)
    project.refresh_from_db()
    assert project.champion == again.commit
    assert constants(project, again.commit).items() >= {"ALPHA": 2.0, "BETA": 2.0}.items()

    # All of it is in the audit, which Mia had open.
    newest = at_mia.locator("#entries tbody tr").first
    expect(newest).to_contain_text(f"merged request {again.commit[:8]}")
    expect(newest).to_contain_text("rosa")

    # It turns out badly; one act takes main back, which Mia sees, too.
    again.refresh_from_db()
    again.roll_back(rosa, "it is slower on the big machine")
    expect(newest).to_contain_text(f"rolled back request {again.commit[:8]}")
    expect(newest).to_contain_text("it is slower on the big machine")
    project.refresh_from_db()
    advance_until_idle(thread.pk)
    assert project.champion == repository_of(project).resolve("main") == theirs.commit
    found = list(AuditEntry.objects.filter(project=project).order_by("pk").values_list("who", "action"))
    assert found == [("mia", "steer"), ("rosa", "merge"), ("rosa", "merge"), ("rosa", "roll back")]
    assert AuditEntry.objects.first_broken() is None


def viewer_can_do_nothing(page: Page, request: MergeRequest, thread: Thread, other: Project) -> None:
    events = AuditEntry.objects.count()
    page.goto(f"/review/{request.public_id}/")
    live(page)
    for name in ("Request changes", "Reject", "More seeds"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    decide = f"/review/{request.public_id}/decide/"
    for act in ("approve", "reject", "return", "more"):
        assert post(page, decide, {"act": act, "commit": request.commit, "note": "no"}) == 403
    page.goto(f"/t/{thread.public_id}/")
    expect(page.get_by_text("Change the steering")).to_have_count(0)
    assert post(page, f"/t/{thread.public_id}/steer/", {"focus": "beta"}) == 403
    assert post(page, f"/t/{thread.public_id}/state/", {"act": "pause"}) == 403
    assert post(page, f"/p/{other.name}/state/", {"action": "pause"}) == 404
    foreign = [f"project:{other.public_id}", f"thread:{other.threads.get().public_id}"]
    own = [f"project:{request.project.public_id}", f"thread:{thread.public_id}", "lab", "review", "machines"]
    assert page.evaluate(WATCH, [*own, *foreign]) == sorted(foreign)
    assert AuditEntry.objects.count() == events


def test_a_page_of_somebody_whose_role_is_taken_away_stops_and_the_members_page_says_so(
    signed_in: Callable[..., Page], errors: Errors, thread: Thread, project: Project, world: World
) -> None:
    """An admin invites somebody by a link, and takes the role away again while that person watches."""
    at_ada = signed_in(person("ada", Role.ADMIN, project))
    at_ada.goto(f"/p/{project.name}/members/")
    live(at_ada)
    at_ada.get_by_label("Name of a person").fill("nemo")
    at_ada.get_by_label("Role", exact=True).select_option("member")
    at_ada.get_by_role("button", name="Invite somebody new").click()
    link = str(at_ada.locator(".invitation code").text_content())
    at_nemo = signed_in(person("nobody", None))
    at_nemo.context.clear_cookies()
    at_nemo.goto(link)
    expect(at_nemo.get_by_role("heading", level=1)).to_contain_text("Overview")
    at_nemo.goto(f"/t/{thread.public_id}/")
    live(at_nemo)
    at_ada.goto(f"/p/{project.name}/members/")
    live(at_ada)
    row = at_ada.locator("#members tr", has_text="nemo")
    row.get_by_role("button", name="Remove").click()
    at_ada.keyboard.press("Enter")
    expect(at_ada.locator("#messages")).to_contain_text("nemo has no role in question now")
    assert not Membership.objects.filter(user=User.objects.get(username="nemo")).exists()
    assert at_nemo.reload() is not None
    expect(at_nemo.get_by_role("heading", level=1)).to_contain_text("Not found")
    errors.expect("404")
