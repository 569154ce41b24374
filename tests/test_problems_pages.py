"""Many problems on pages and in the summary: what an experiment measured, and one number that means something."""

from __future__ import annotations

import math

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.loop.advance import advance_project_until_idle
from research.loop.begin import spread
from research.loop.beside import calibration_of
from research.loop.champion import begin_audit, end_baselines
from research.loop.floors import relative_sigma
from research.loop.headline import headline_of
from research.management.summary import summary
from research.models import Experiment, NoiseFloor, Project, Thread
from research.views.frontier import frontier_of
from tests.cast import focus, go
from tests.problem_play import SIGMA, Bench, begin_problems

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(many: Project) -> Thread:
    return many.threads.get()


def merged(bench: Bench, thread: Thread, *techniques: str) -> Project:
    for name in techniques:
        request = bench.gain(thread, name)
        focus(thread, "nothing")
        request.approve(request.commit)
        go(thread)
    return Project.objects.get(pk=thread.project_id)


def near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(math.log(value / wanted)) < 0.03


def test_merges_multiply_and_what_nothing_improved_counts_as_one(thread: Thread, bench: Bench) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile", "big_gemm_fuse")
    headline = headline_of(project)
    assert headline is not None and headline.improved == 2
    assert near(headline.ratios["layer_norm"], 0.7) and near(headline.ratios["big_gemm"], 0.4)
    assert headline.ratios["rms_norm"] == headline.ratios["small_gemm"] == 1
    assert near(headline.mean, (0.7 * 0.4) ** 0.25)
    seen = frontier_of(project)
    assert seen.problems == 4 and seen.gain is not None and near(1 - seen.gain.height, headline.mean)
    heights = zip(seen.steps, (0.7**0.25, 0.35**0.25, 0.28**0.25), strict=True)
    assert all(near(1 - step.height, wanted) for step, wanted in heights)
    assert near(1 - seen.steps[0].gain, 0.7), "its own gain is of its own problem"
    said = summary(project)
    assert (said["problems"], said["problems_improved"]) == (4, 2) and near(said["mean_ratio"], headline.mean)
    assert summary(begin_problems("fresh"))["problems_improved"] == 0


def test_an_audit_holds_promises_against_what_it_measures_together(thread: Thread, bench: Bench) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile")
    project.audit_every = 1
    Project.objects.filter(pk=project.pk).update(audit_every=1)
    begin_audit(project)
    bench.run()
    advance_project_until_idle(project.pk)
    point = calibration_of(project.experiments.get(purpose=Experiment.Purpose.AUDIT))
    assert near(1 - point.promised, 0.35**0.5) and near(1 - (point.realised.effect or 0), 0.35**0.5)


def test_the_noise_of_a_champion_is_no_difference_between_problems(thread: Thread, bench: Bench) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile")
    advance_project_until_idle(project.pk)
    bench.run()
    end_baselines(project)
    floor = NoiseFloor.objects.get()
    assert floor.trials > 12 and floor.level is not None and abs(floor.level - 1) < 0.01
    assert floor.sigma_trial < 2 * SIGMA and abs(floor.drift) < 1
    assert 0.5 * SIGMA < relative_sigma(project) < 2 * SIGMA


def test_pages_name_the_problems_and_say_that_inputs_are_drawn_anew(
    thread: Thread, bench: Bench, member: User, client: Client
) -> None:
    project = merged(bench, thread, "layer_norm_tile", "big_gemm_tile")
    client.force_login(member)
    page = client.get(reverse("project", args=[project.name])).content.decode()
    assert "2 <small>of 4</small>" in page and "problems improved" in page and "inputs drawn anew" in page
    assert "in the mean of 4 problems" in page and '<span class="muted small"><span>layer_norm</span>' in page
    experiment = project.experiments.filter(purpose=Experiment.Purpose.COMPARE).order_by("pk").first()
    assert experiment is not None
    for name in ("experiment", "evidence"):
        page = client.get(reverse(name, args=[experiment.public_id])).content.decode()
        assert "inputs drawn anew" in page and "val_" not in page, name
    page = client.get(reverse("experiment", args=[experiment.public_id])).content.decode()
    assert "<span>layer_norm</span>" in page
    page = client.get(reverse("thread", args=[thread.public_id])).content.decode()
    assert "<span>big_gemm</span>" in page and "<h3>Problems</h3>" in page
    for name in ("graph", "worth", "review"):
        arguments = [] if name == "review" else [project.name]
        assert client.get(reverse(name, args=arguments)).status_code == 200, name


def test_a_thread_is_steered_to_a_problem_by_its_name(thread: Thread, bench: Bench, member: User) -> None:
    assert {"layer_norm", "norm", "layer_norm/solution.py"} <= thread.project.labels["layer_norm_tile"]
    thread.steer(member, ["layer_norm"], [])
    verdict = bench.until_verdict(thread)
    assert verdict.experiment.problems == ["layer_norm"]


def test_threads_of_a_campaign_begin_with_families_of_their_own(many: Project) -> None:
    two, three = begin_problems("two", threads=2), begin_problems("three", threads=3)
    spread(two), spread(three), spread(many)
    focus_of = {
        project.name: [thread.directives.get("focus") for thread in project.threads.order_by("number")]
        for project in (two, three, many)
    }
    assert focus_of == {"two": [["gemm"], ["norm"]], "three": [["gemm"], ["norm"], ["gemm"]], "kernels": [None]}
