"""The evidence page of a verdict: every look, what the numbers are, what they cost; the line that `y` copies."""

from __future__ import annotations

import re
import struct
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.loop.advance import advance_project_until_idle
from research.models import (
    Experiment,
    Finding,
    Idea,
    Lease,
    Membership,
    Project,
    Result,
    Role,
    Series,
    Thread,
    Trial,
    Verdict,
)
from research.models.series import Outcome
from research.validation.named import Setting, named_rule
from research.validation.records import Direction
from runners.points import Stretch
from tests.cast import World, begin, focus, go, person, running
from tests.stage import Stage

PARTS = ("head", "summary", "seeds", "looks", "pairs", "deciding", "sets", "split", "costs", "audits", "where")


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    user = person("mira", Role.MEMBER, project)
    client.force_login(user)
    return user


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.verdict("alpha")


@pytest.fixture
def improved(world: World, thread: Thread) -> Experiment:
    return thread.experiments.get(purpose=Experiment.Purpose.COMPARE)


def shown(client: Client, experiment: Experiment, query: str = "", status: int = 200) -> str:
    response = client.get(f"/e/{experiment.public_id}/evidence/{query}")
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def log_curve(trial: Trial, lease: Lease, end: int, better: float) -> None:
    steps = range(0, end + 1, 10)
    values = [3.0 - 0.001 * step - better for step in steps]
    count = len(values)
    stretch = Stretch(
        trial.pk, lease.generation, "loss", 0, struct.pack(f"<{count}q", *steps), struct.pack(f"<{count}d", *values)
    )
    assert Series.objects.append([stretch]) == [Outcome.STORED]


def weaken(experiment: Experiment, gains: list[float]) -> None:
    """The same experiment, had its confirm pairs gained this much."""
    evidence = experiment.verdict.evidence
    confirm = [pair for pair in evidence["pairs"] if pair["stage"] == "confirm"]
    assert len(confirm) == len(gains)
    for pair, gain in zip(confirm, gains, strict=True):
        pair["candidate"] = pair["baseline"] - gain
    Verdict.objects.filter(pk=experiment.verdict.pk).update(evidence=evidence, kind="inconclusive")


def test_a_verdict_is_told_look_by_look(client: Client, mira: User, improved: Experiment) -> None:
    text = words(shown(client, improved))
    verdict = improved.verdict
    assert verdict.reason in text
    assert f"Hypothesis t = {improved.hypothesis} of this campaign, D = 0 confirmed before it" in text
    assert f"= {verdict.bar:.3g} , fixed at the first look" in text
    assert "1 look in numbers" in text and "✔ improved" in text
    assert "screen: better in 1 of 1 pairs, not counted" in shown(client, improved)
    assert "val_screen; discarded" in text and "fresh seeds, counted" in text
    for trial in improved.trials.all():
        assert str(trial.seed) in text


def test_every_part_renders_alone(client: Client, mira: User, improved: Experiment) -> None:
    for part in PARTS:
        html = shown(client, improved, f"?part={part}")
        assert f'id="{part if part != "head" else "evidence-head"}"' in html, part
    shown(client, improved, "?part=nothing", 404)


def test_what_stopped_while_screening_has_no_e_value_and_says_why(
    client: Client, mira: User, world: World, thread: Thread
) -> None:
    focus(thread, "delta")
    text = words(shown(client, world.until_verdict(thread).experiment))
    assert "It stopped while screening" in text and "No pair was confirmed" in text


def test_the_page_lives_while_the_experiment_runs(client: Client, mira: User, world: World) -> None:
    project = begin("unmeasured")
    Membership.objects.create(user=mira, project=project, role=Role.MEMBER)
    thread = project.threads.get()
    focus(thread, "alpha")
    go(thread)
    experiment = running(thread)
    assert experiment is not None
    html = shown(client, experiment)
    assert html.count(f'data-live="experiment:{experiment.public_id}"') == len(PARTS)
    assert "before the noise floor is measured" in html and "No pair is measured yet" in html
    world.run(1)
    assert "first read at 4 confirm pairs" in shown(client, experiment, "?part=looks")
    while running(thread) and not experiment.trials.filter(stage="confirm", result__isnull=False).exists():
        world.run(1)
        go(thread)
    text = words(shown(client, experiment))
    assert "Told from the first confirm pair on" not in text and "being measured" in shown(client, experiment)


def test_the_line_that_is_copied_is_the_same_on_every_page(client: Client, mira: User, improved: Experiment) -> None:
    go(improved.thread)
    verdict = improved.verdict
    request = improved.candidate.merge_request
    pages = [f"/e/{improved.public_id}/evidence/", f"/e/{improved.public_id}/", f"/review/{request.public_id}/"]
    lines = []
    for address in pages:
        html = client.get(address).content.decode()
        found = re.search(r'data-key="y"[^>]*data-copy="([^"]+)"', html) or re.search(r'data-copy="([^"]+)"[^>]*', html)
        assert found and 'data-key="y"' in html, address
        lines.append(unescape(found.group(1)).rsplit(", ", 1)[0])
    assert len(set(lines)) == 1
    line = lines[0]
    half = (verdict.high - verdict.low) / 2
    for part in (
        f"question #{improved.number}: improved", f"{verdict.effect:+.4f} ± {half:.4f}", "4 confirm pairs",
        f"/ bar {verdict.bar:.3g}", "val_confirm", "isolation 0", "rule funnel",
        f"commit {improved.candidate_commit[:8]}",
    ):  # fmt: skip
        assert part in line, part
    assert "\n" not in line


def test_m_asks_for_as_many_pairs_as_would_decide_with_their_price(
    client: Client, mira: User, improved: Experiment
) -> None:
    weaken(improved, [0.0028, 0.0002, 0.0026, 0.0008])
    needed = improved.pairs_to_decide()
    assert needed and 2 <= needed <= 24
    html = shown(client, improved, "?part=deciding")
    # a trial of this machine costs one device-second
    assert f"{needed} more pairs would decide" in html and f"{2 * needed / 60:.1f}</span> device minutes" in html
    assert f'name="pairs" value="{needed}"' in html and 'data-key="m"' in html
    client.post(f"/e/{improved.public_id}/more-seeds/", {"pairs": str(needed)})
    assert improved.replicates.get().wanted_pairs == needed
    assert 'data-key="m"' not in shown(client, improved, "?part=deciding"), "they are being measured"


def test_where_no_affordable_number_decides_the_page_says_so(client: Client, mira: User, improved: Experiment) -> None:
    weaken(improved, [0.0014, -0.0010, 0.0013, -0.0012])
    html = shown(client, improved, "?part=deciding")
    assert "No affordable number would" in html and 'data-key="m"' not in html


def test_what_is_settled_asks_for_nothing(client: Client, mira: User, improved: Experiment) -> None:
    html = shown(client, improved, "?part=deciding")
    assert "It is settled." in html and 'data-key="m"' not in html


def test_faster_and_better_are_told_apart_from_the_curves(
    client: Client, mira: User, world: World, thread: Thread
) -> None:
    focus(thread, "alpha")
    finish = world.finish

    def with_curve(lease: Lease) -> bool:
        is_candidate = lease.trial.arm == "candidate"
        log_curve(lease.trial, lease, 1100 if is_candidate else 1000, 0.04 if is_candidate else 0.0)
        return finish(lease)

    world.finish = with_curve  # type: ignore[method-assign]
    experiment = world.until_verdict(thread).experiment
    html = shown(client, experiment, "?part=split")
    assert "at equal steps: modelling +0.040 ± 0.000; more steps: throughput +0.10" in html
    assert "1,000" in html and "1,100" in html and "+10.0 %" in html
    costs = words(shown(client, experiment, "?part=costs"))
    assert "steps in the budget 1,000 1,100 +10.0 %" in costs


def test_without_curves_the_split_is_not_known(client: Client, mira: User, improved: Experiment) -> None:
    assert "Not known" in shown(client, improved, "?part=split")


def test_an_overridden_finding_says_who_and_why(
    client: Client, mira: User, improved: Experiment, reviewer: User
) -> None:
    about = {"kind": "network", "severity": "review", "message": "it opens a socket"}
    finding = Finding.objects.create(experiment=improved, **about)
    assert "overridden" not in words(shown(client, improved, "?part=audits"))
    finding.override(reviewer, "only imported")
    audits = words(shown(client, improved, "?part=audits"))
    assert "it opens a socket" in audits and "Overridden by rosa" in audits and "only imported" in audits


def test_costs_audits_and_hashes_come_from_the_results(client: Client, mira: User, improved: Experiment) -> None:
    for result in Result.objects.filter(trial__experiment=improved):
        more = 1.1 if result.trial.arm == "candidate" else 1.0
        Result.objects.filter(pk=result.pk).update(
            metrics={"weight_bytes": 2**20 * more, "audit_random_worst": 1e-5 * more, "audit_streamed_worst": 0.0},
            seconds={"train_cpu": 7.0 * more, "train_wall": 7.0}, hashes={"judge": "j" * 64, "weights": "w" * 64},
        )  # fmt: skip
    costs = words(shown(client, improved, "?part=costs"))
    assert "weights 1.00 MB 1.10 MB +10.0 %" in costs and "training, CPU 7.0 s 7.7 s +10.0 %" in costs
    assert f"lines of code +{improved.candidate.diff.added}" in costs
    audits = words(shown(client, improved, "?part=audits"))
    assert "random future cut off, at random positions 8" in audits and "streamed" in audits
    where = shown(client, improved, "?part=where")
    assert "jjjjjjjjjjjj" in where and "Hashes of the" in where and "wwwwwwwwwwwwwwww" in where


def test_a_replicate_has_a_page_and_the_pooled_answer_stands_on_both(
    client: Client, mira: User, improved: Experiment, world: World
) -> None:
    client.post(f"/e/{improved.public_id}/more-seeds/", {"pairs": "2"})
    world.run()
    advance_project_until_idle(improved.project_id)
    replicate = improved.replicates.get()
    assert "All 6 confirm pairs" in words(shown(client, replicate))
    assert "All 6 confirm pairs" in words(shown(client, improved, "?part=deciding"))


def test_a_rule_that_reads_once_is_told_by_its_p_value(
    client: Client, mira: User, world: World, thread: Thread
) -> None:
    rule = named_rule("ten_seeds", Setting(Direction.LOWER))
    Project.objects.update(rule=rule.to_json())
    focus(thread, "alpha")
    verdict = world.until_verdict(Thread.objects.get(pk=thread.pk))
    text = words(shown(client, verdict.experiment))
    assert "The rule ten_seeds reads once, at 10 pairs, by a p-value" in text
    assert "reads its pairs once: more of them would be another experiment" in text
    assert f"p {verdict.p_value:.3g} / asked below 0.01, 10 confirm pairs" in shown(client, verdict.experiment)
    assert "of this campaign" not in text and "e-value" not in words(shown(client, verdict.experiment, "?part=summary"))


def test_a_noise_floor_has_a_page_that_says_there_is_no_rule(
    client: Client, mira: User, thread: Thread, world: World
) -> None:
    floor = Experiment.objects.create(
        key="noise-by-hand", project=thread.project, purpose="noise", number=77, rule=thread.project.rule,
        baseline_commit=thread.head, candidate_commit=thread.head, state="ended",
    )  # fmt: skip
    floor.plan("noise", 2)
    assert "No rule reads these pairs" in shown(client, floor)


def test_who_may_not_see_the_project_finds_nothing(client: Client, outsider: User, improved: Experiment) -> None:
    assert client.get(f"/e/{improved.public_id}/evidence/").status_code == 302
    client.force_login(outsider)
    shown(client, improved, status=404)


def test_a_viewer_reads_and_asks_for_nothing(client: Client, project: Project, improved: Experiment) -> None:
    client.force_login(person("vera", Role.VIEWER, project))
    assert "<form" not in shown(client, improved, "?part=deciding")


def test_what_a_candidate_writes_is_text(client: Client, mira: User, improved: Experiment) -> None:
    hostile = '"><svg onload=alert(1)>'
    Idea.objects.update(title=hostile, hypothesis=hostile)
    result = Result.objects.filter(trial__experiment=improved, trial__stage="confirm").first()
    assert result is not None
    Result.objects.filter(pk=result.pk).update(metrics={f"audit_{hostile}_worst": 1.0}, hashes={"weights": hostile})
    assert "<svg onload" not in shown(client, improved)


def test_every_page_that_shows_a_verdict_leads_to_its_evidence(
    client: Client, mira: User, improved: Experiment
) -> None:
    go(improved.thread)
    address = f"/e/{improved.public_id}/evidence/"
    request = improved.candidate.merge_request
    for page in (
        f"/e/{improved.public_id}/", f"/t/{improved.thread.public_id}/", f"/review/{request.public_id}/", "/lessons/",
    ):  # fmt: skip
        assert address in client.get(page).content.decode(), page


def test_the_page_asks_a_bounded_number_of_questions(
    client: Client, mira: User, improved: Experiment, django_assert_max_num_queries: object
) -> None:
    shown(client, improved)
    with django_assert_max_num_queries(40):  # type: ignore[operator]
        shown(client, improved)
    with django_assert_max_num_queries(14):  # type: ignore[operator]
        shown(client, improved, "?part=looks")
