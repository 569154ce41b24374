"""The experiment page: evidence, surroundings and logs, and that what a candidate printed stays text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from research.loop.advance import advance_project_until_idle
from research.models import (
    Artifact,
    AuditEntry,
    Event,
    Experiment,
    Idea,
    Lease,
    Project,
    Result,
    Role,
    Thread,
    Trial,
)
from tests.cast import World, focus, go, person, running
from tests.stage import Stage

PARTS = ("outcome", "pairs", "curves", "diff", "log", "more", "findings", "guards", "surroundings")


@pytest.fixture
def member(client: Client, project: Project) -> User:
    mira = person("mira", Role.MEMBER, project)
    client.force_login(mira)
    return mira


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.verdict("alpha")


@pytest.fixture
def improved(world: World, thread: Thread) -> Experiment:
    """An experiment that ended in a confirmed gain."""
    return thread.experiments.get(purpose=Experiment.Purpose.COMPARE)


def shown(client: Client, experiment: Experiment, query: str = "", status: int = 200) -> str:
    response = client.get(f"/e/{experiment.public_id}/{query}")
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


def begun(thread: Thread, technique: str) -> Experiment:
    """The next experiment of a thread, with its first pairs planned."""
    focus(thread, technique)
    go(thread)
    experiment = running(thread)
    assert experiment is not None
    return experiment


def keep_log(experiment: Experiment, content: bytes, **trial: object) -> Trial:
    result = Result.objects.filter(trial__experiment=experiment, **trial).first()
    assert result is not None
    Result.objects.filter(pk=result.pk).update(log=Artifact.store(content))
    return result.trial


def test_a_verdict_is_shown_with_what_it_rests_on(client: Client, member: User, improved: Experiment) -> None:
    text = shown(client, improved)
    verdict = improved.verdict
    assert verdict.reason in text and "Another ALPHA lowers the loss." in text
    assert "interval, holds at every look" in text and "noise of one pair" in text
    assert text.count('id="pair-confirm-') == 4
    for trial in improved.trials.all():
        assert str(trial.seed) in text
    assert "confirm: better in 4 of 4 pairs" in text  # the strip, in words
    assert f"e {verdict.e_value:.3g} / bar {verdict.bar:.3g}" in text  # the line that y copies
    assert improved.candidate_commit in text and "train.py" in text


def test_every_part_renders_alone(client: Client, member: User, improved: Experiment) -> None:
    for part in PARTS:
        assert f'id="{part}"' in shown(client, improved, f"?part={part}"), part
    assert "ALPHA" in shown(client, improved, "?part=file&n=0")
    shown(client, improved, "?part=file&n=9", 404)


def test_while_it_runs_the_page_says_what_must_happen(
    client: Client, member: User, world: World, thread: Thread
) -> None:
    focus(thread, "beta")
    go(thread)
    experiment = running(thread)
    assert experiment is not None
    text = shown(client, experiment)
    assert "screen: 0 of 1 pair." in text and "It ends if the candidate looks worse" in text
    assert f'data-live="experiment:{experiment.public_id}"' in text
    while running(thread) and not experiment.trials.filter(stage="confirm").exists():
        world.run(1)
        go(thread)
    text = shown(client, experiment, "?part=outcome")
    assert "confirm: 0 of 4 pairs." in text and "improved needs the e-value that the campaign asks" in text


def test_a_noise_floor_is_an_experiment_too(client: Client, member: User, thread: Thread, world: World) -> None:
    project = thread.project
    floor = Experiment.objects.create(
        key="noise-by-hand", project=project, purpose="noise", number=77, rule=project.rule,
        baseline_commit=thread.head, candidate_commit=thread.head,
    )  # fmt: skip
    floor.plan("noise", 6)
    text = shown(client, floor)
    assert "the start against itself" in text and "0 of 6 pairs" in text
    assert "nothing differs" in text


def test_who_may_not_see_the_project_finds_nothing(client: Client, outsider: User, improved: Experiment) -> None:
    trial = keep_log(improved, b"secret")
    log = f"/e/{improved.public_id}/log/{trial.public_id}/"
    assert client.get(log).status_code == 302
    client.force_login(outsider)
    shown(client, improved, status=404)
    assert client.get(log).status_code == 404
    assert client.post(f"/e/{improved.public_id}/more-seeds/").status_code == 404


def test_a_hostile_log_is_shown_as_text(client: Client, member: User, improved: Experiment) -> None:
    content = b"\x1b[31m<script>alert(1)</script>\x1b[0m\x00\n</pre><b>bold</b>\n" + b"y" * 1_000_000
    trial = keep_log(improved, content, trial__arm="candidate")
    text = shown(client, improved, f"?part=log&log={trial.public_id}")
    assert "<script>" not in text and "<b>bold" not in text and "\x1b" not in text and "\x00" not in text
    assert "… cut" in text and len(text) < 20_000
    short = keep_log(improved, content[:60], trial__arm="baseline")
    text = shown(client, improved, f"?part=log&log={short.public_id}")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;␀" in text and "&lt;/pre&gt;&lt;b&gt;bold" in text


def test_the_whole_log_is_a_download(client: Client, member: User, improved: Experiment) -> None:
    trial = keep_log(improved, b"<html>\x00\xff")
    response = client.get(f"/e/{improved.public_id}/log/{trial.public_id}/")
    assert b"".join(response.streaming_content) == b"<html>\x00\xff"  # type: ignore[arg-type]
    assert response["Content-Disposition"].startswith("attachment;")
    assert response["Content-Type"] == "application/octet-stream" and response["X-Content-Type-Options"] == "nosniff"


def test_a_log_of_another_experiment_or_a_lost_file_is_not_found(
    client: Client, member: User, improved: Experiment, thread: Thread, world: World
) -> None:
    focus(thread, "delta")
    other = world.until_verdict(thread).experiment
    trial = keep_log(other, b"theirs")
    assert client.get(f"/e/{improved.public_id}/log/{trial.public_id}/").status_code == 404
    Artifact.objects.get(size=6).path.unlink()
    assert client.get(f"/e/{other.public_id}/log/{trial.public_id}/").status_code == 404
    assert "no longer in the data folder" in shown(client, other, "?part=log")


def test_what_a_candidate_writes_is_text(client: Client, member: User, improved: Experiment) -> None:
    hostile = '"><svg onload=alert(1)>'
    Idea.objects.update(title=hostile, hypothesis=hostile + " claims")
    result = Result.objects.filter(trial__experiment=improved).first()
    assert result is not None
    Result.objects.filter(pk=result.pk).update(metrics={hostile: 1.0}, message=hostile)
    text = shown(client, improved)
    assert "<svg onload" not in text and "&lt;svg onload" in text


def test_a_member_asks_for_more_seeds(client: Client, member: User, improved: Experiment, world: World) -> None:
    response = client.post(f"/e/{improved.public_id}/more-seeds/", {"pairs": "2"})
    replicate = improved.replicates.get()
    assert response["Location"] == f"/e/{replicate.public_id}/"
    assert "0 of 2 pairs more" in shown(client, replicate)
    world.run()
    advance_project_until_idle(improved.project_id)
    replicate.refresh_from_db()
    text = shown(client, improved, "?part=more")
    assert f"#{replicate.number}" in text and "6 confirm pairs of all measurements" in text


@pytest.mark.parametrize("pairs", ["0", "9999", "many", ""])
def test_a_senseless_number_of_pairs_is_refused_in_words(
    client: Client, member: User, improved: Experiment, pairs: str
) -> None:
    response = client.post(f"/e/{improved.public_id}/more-seeds/", {"pairs": pairs}, follow=True)
    assert "ask for 2 to" in response.content.decode()
    assert not improved.replicates.exists()


def test_a_viewer_sees_the_evidence_and_asks_for_nothing(
    client: Client, project: Project, improved: Experiment
) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    assert "Measure more seeds" not in shown(client, improved)
    assert client.post(f"/e/{improved.public_id}/more-seeds/").status_code == 403


def test_a_member_stops_what_is_being_measured(client: Client, member: User, world: World, thread: Thread) -> None:
    experiment = begun(thread, "beta")
    assert "Stop measuring" in shown(client, experiment)
    refused = client.post(f"/e/{experiment.public_id}/stop/", {"reason": "  "}, follow=True)
    assert "say why" in refused.content.decode()
    assert running(thread) == experiment
    said = client.post(f"/e/{experiment.public_id}/stop/", {"reason": "it learns the text by heart"}, follow=True)
    assert f"#{experiment.number} is stopped" in said.content.decode()
    experiment.refresh_from_db()
    assert experiment.state == Experiment.State.CANCELLED and not hasattr(experiment, "verdict")
    assert not experiment.trials.waiting().exists()
    told = Event.objects.filter(experiment=experiment, kind=Event.Kind.EXPERIMENT).latest("seq")
    assert told.actor == member and told.text.endswith("mira stopped it: it learns the text by heart")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.actor, entry.action) == (member, "stop an experiment")
    assert entry.detail == {"experiment": experiment.number, "reason": "it learns the text by heart"}
    text = shown(client, experiment)
    assert "Stop measuring" not in text and "mira stopped it: it learns the text by heart. What was measured" in text
    assert begun(thread, "gamma").number > experiment.number, "the thread goes on"
    again = client.post(f"/e/{experiment.public_id}/stop/", {"reason": "twice"}, follow=True)
    assert "not being measured any more" in again.content.decode()


def test_more_pairs_are_stopped_too(client: Client, member: User, improved: Experiment) -> None:
    replicate = improved.more_seeds(member)
    assert "Stop measuring" in shown(client, replicate)
    client.post(f"/e/{replicate.public_id}/stop/", {"reason": "enough"})
    replicate.refresh_from_db()
    assert replicate.state == Experiment.State.CANCELLED
    assert improved.more_seeds(member, 2).wanted_pairs == 2


def test_only_comparisons_are_stopped_and_only_by_members(
    client: Client, member: User, project: Project, world: World, thread: Thread
) -> None:
    experiment = begun(thread, "beta")
    Experiment.objects.filter(pk=experiment.pk).update(purpose=Experiment.Purpose.NOISE)
    assert "Stop measuring" not in shown(client, experiment)
    response = client.post(f"/e/{experiment.public_id}/stop/", {"reason": "no"}, follow=True)
    assert "only what compares a candidate" in response.content.decode()
    Experiment.objects.filter(pk=experiment.pk).update(purpose=Experiment.Purpose.COMPARE)
    client.force_login(person("vera", Role.VIEWER, project))
    assert "Stop measuring" not in shown(client, experiment)
    assert client.post(f"/e/{experiment.public_id}/stop/", {"reason": "no"}).status_code == 403


def test_a_failed_trial_shows_why_and_its_log_first(client: Client, member: User, world: World, thread: Thread) -> None:
    focus(thread, "alpha")
    world.failure = lambda trial: "crash" if trial.arm == "candidate" else ""
    experiment = world.until_verdict(thread).experiment
    trial = keep_log(experiment, b"ZeroDivisionError", trial__arm="candidate")
    text = shown(client, experiment)
    assert "candidate: crash, the trial ended with crash" in text
    assert f"selected>{trial.name} (crash)" in text and "ZeroDivisionError" in text
    assert 'id="findings"' in text and "invalid" in text


def test_a_lost_lease_is_told_with_its_reason(client: Client, member: User, world: World, thread: Thread) -> None:
    go(thread)
    experiment = running(thread)
    assert experiment is not None
    Trial.objects.claim_pair(world.machine, "silent")
    Lease.objects.update(expires=timezone.now() - timedelta(seconds=1))
    Trial.objects.return_expired()
    text = shown(client, experiment, "?part=pairs")
    assert "2 leases ended without a result" in text and "the lease of silent expired" in text


def test_the_page_asks_a_bounded_number_of_questions(
    client: Client, member: User, improved: Experiment, django_assert_max_num_queries: object
) -> None:
    shown(client, improved)
    with django_assert_max_num_queries(38):  # type: ignore[operator]
        shown(client, improved)
    with django_assert_max_num_queries(14):  # type: ignore[operator]
        shown(client, improved, "?part=pairs")
