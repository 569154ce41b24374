"""Does watching change what is measured? A/A pairs with five live pages open in Chromium, against the stored floor.

A lab of its own with one project and no thread, so that nothing else runs. The noise floor comes first: the six pairs
that every project starts with and 24 more, because six know it to a factor of about two; all stored before anybody
watches. Then 24 A/A pairs with the pages open and, as a control of drift, 24 with them closed, in blocks of three by
turns. The rule, fixed beforehand: watched noise is inside the stored floor when the F test's chance of pairs this
noisy or noisier, if the floor holds for them too (`p_watched_over_floor`), is at least 0.05. Only when named: a
quarter of an hour on a machine that does nothing else.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.bench.first_run import free_port
from tests.bench.web import ROOT, in_a_folder

if TYPE_CHECKING:
    from research.models import Experiment, Project

ABOUT = "A/A noise with five live pages open, against the stored noise floor (15 minutes)"
COMMAND = "python -m tests.bench watched"
BLOCKS, PAIRS = 16, 3  # blocks of so many pairs; every second one is watched
FLOOR_PAIRS = 24  # pairs pooled into the stored floor before anybody watches


def measure() -> dict[str, object]:
    found = json.loads(in_a_folder("tests.bench.watched"))
    figure = found["watched_over_floor"]
    return {"figure": figure, "unit": "sigma of a pair, watched over the floor", "command": COMMAND, **found}


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from research.loop.begin import Budget, begin_project
    from research.management.embedded import ensure_data

    call_command("migrate", verbosity=0)
    ensure_data("nanochat", "cpu")
    project = begin_project("watched", "nanochat", "cpu", "vanilla", [], Budget(), auto_approve=False)
    port = free_port()
    command = [sys.executable, "manage.py", "lab", "--no-demo", "--port", str(port)]
    lab = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        print(json.dumps(compare(project, f"http://127.0.0.1:{port}")))
    finally:
        lab.send_signal(signal.SIGINT)
        lab.wait(60)


def compare(project: Project, address: str) -> dict[str, Any]:
    from research.models import NoiseFloor
    from research.validation.records import Scale

    while not NoiseFloor.objects.exists():
        time.sleep(0.5)
    floor = NoiseFloor.objects.get()
    first = floor.sigma_pair
    before = same_against_same("floor", project)
    run_until(before, FLOOR_PAIRS)
    floor.refresh(differences(before, BEFORE), Scale.LINEAR)
    experiment = same_against_same("watched", project)
    for block in range(BLOCKS):
        with ExitStack() as stack:
            if block % 2 == 0:
                stack.enter_context(five_pages(address, experiment))
            run_until(experiment, PAIRS * (block + 1))
        print(f"watched: block {block + 1} of {BLOCKS}", file=sys.stderr)
    watched, alone = differences(experiment, WATCHED), differences(experiment, ALONE)
    pages, closed, stored = root_mean_square(watched), root_mean_square(alone), floor.sigma_pair
    pooled = floor.freedom or 0
    return {
        "first_floor_sigma_pair": round(first, 5), "floor_sigma_pair": round(stored, 5), "floor_pairs": pooled,
        "watched_sigma_pair": round(pages, 5), "alone_sigma_pair": round(closed, 5), "pairs_each": len(watched),
        "watched_over_floor": round(pages / stored, 2), "alone_over_floor": round(closed / stored, 2),
        "p_watched_over_floor": chance(pages / stored, len(watched), pooled),
        "p_alone_over_floor": chance(closed / stored, len(alone), pooled),
        "p_watched_over_alone": chance(pages / closed, len(watched), len(alone)),
        "watched_mean_score": round(mean(watched), 4), "alone_mean_score": round(mean(alone), 4),
    }  # fmt: skip


def same_against_same(key: str, project: Project) -> Experiment:
    from research.models import Experiment

    return Experiment.objects.create(
        key=key, project=project, purpose=Experiment.Purpose.NOISE, number=project.next_experiment_number(),
        rule=project.rule, baseline_commit=project.start_commit, candidate_commit=project.start_commit,
    )  # fmt: skip


def run_until(experiment: Experiment, pairs: int) -> None:
    """Measure up to this many pairs in all and wait for them."""
    experiment.plan("noise", pairs)
    while not experiment.is_idle():
        time.sleep(0.2)


WATCHED, ALONE = (0,), (1,)  # turns of the blocks
BEFORE = (0, 1)
Pairs = list[tuple[float, float]]


def differences(experiment: Experiment, turns: tuple[int, ...]) -> Pairs:
    """Scores of both arms of the pairs of the blocks of these turns."""
    rows: dict[int, list[float]] = {}
    for trial in experiment.trials.filter(result__score__isnull=False).select_related("result").order_by("pk"):
        if trial.pair // PAIRS % 2 in turns:
            rows.setdefault(trial.pair, []).append(trial.result.value)
    return [(pair[0], pair[1]) for pair in rows.values() if len(pair) == 2]


def root_mean_square(pairs: Pairs) -> float:
    return math.sqrt(sum((one - other) ** 2 for one, other in pairs) / len(pairs))


def mean(pairs: Pairs) -> float:
    return sum(one + other for one, other in pairs) / (2 * len(pairs))


def chance(ratio: float, above: int, below: int) -> float:
    """The F test's chance of a ratio of two sigmas this large or larger, from so many pairs each, if they are equal."""
    from scipy.stats import f

    return round(float(f.sf(ratio**2, above, below)), 3)


class five_pages:
    """Overview, project, machines and the experiment with its live curves, twice, in one Chromium."""

    def __init__(self, address: str, experiment: Experiment) -> None:
        page = f"/e/{experiment.public_id}/"
        self.address, self.pages = address, ["/", f"/p/{experiment.project.name}/", "/machines/", page, page]

    def __enter__(self) -> None:
        from django.contrib.auth import get_user_model
        from playwright.sync_api import sync_playwright

        from research.models import SignInLink

        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        self.play = sync_playwright().start()
        self.browser = self.play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = self.browser.new_context(base_url=self.address)
        token = SignInLink.make(get_user_model().objects.get(is_superuser=True))
        for number, path in enumerate(self.pages):
            page = context.new_page()
            if number == 0:
                page.goto(f"/sign-in/{token}/")
            page.goto(path)
            page.wait_for_selector("#freshness[data-state=live]")

    def __exit__(self, *exception: object) -> None:
        self.browser.close()
        self.play.stop()


if __name__ == "__main__":
    main()
