"""Does watching change what is measured? A/A pairs with five live pages open in Chromium, against the stored floor.

A lab of its own with one project and no thread, so that nothing else runs: its noise floor first (six pairs), then
24 A/A pairs with the pages open and 24 with them closed, in blocks of three by turns. A floor of six pairs is itself
known to a factor of about two only, so "inside the floor" is an F test: `p_watched` is the chance of watched pairs this
noisy or noisier if the floor's truth holds for them. Only when named: nine minutes.
"""

from __future__ import annotations

import json
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

ABOUT = "A/A noise with five live pages open, against the stored noise floor (nine minutes)"
COMMAND = "python -m tests.bench watched"
BLOCKS, PAIRS = 16, 3  # blocks of so many pairs; every second one is watched


def measure() -> dict[str, object]:
    found = json.loads(in_a_folder("tests.bench.watched"))
    figure = round(found["watched_sigma_pair"] / found["alone_sigma_pair"], 2)
    return {"figure": figure, "unit": "sigma of a pair, watched over alone", "command": COMMAND, **found}


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from research.loop.begin import Budget, begin_project
    from research.management.embedded import ensure_data

    call_command("migrate", verbosity=0)
    ensure_data("nanochat")
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
    from research.models import Experiment, NoiseFloor

    while not NoiseFloor.objects.exists():
        time.sleep(0.5)
    floor = NoiseFloor.objects.get()
    experiment = Experiment.objects.create(
        key="watched", project=project, purpose=Experiment.Purpose.NOISE, number=project.next_experiment_number(),
        rule=project.rule, baseline_commit=project.start_commit, candidate_commit=project.start_commit,
    )  # fmt: skip
    for block in range(BLOCKS):
        with ExitStack() as stack:
            if block % 2 == 0:
                stack.enter_context(five_pages(address, experiment))
            experiment.plan("noise", PAIRS * (block + 1))
            while not experiment.is_idle():
                time.sleep(0.2)
        print(f"watched: block {block + 1} of {BLOCKS}", file=sys.stderr)
    watched, alone = sigma(experiment, 0), sigma(experiment, 1)
    floor_pairs = floor.trials // 2
    return {
        "floor_sigma_pair": round(floor.sigma_pair, 5), "floor_trials": floor.trials,
        "watched_sigma_pair": round(watched[0], 5), "alone_sigma_pair": round(alone[0], 5), "pairs_each": watched[2],
        "watched_over_floor": round(watched[0] / floor.sigma_pair, 2),
        "alone_over_floor": round(alone[0] / floor.sigma_pair, 2),
        "p_watched": chance(watched[0] / floor.sigma_pair, watched[2], floor_pairs),
        "p_alone": chance(alone[0] / floor.sigma_pair, alone[2], floor_pairs),
        "p_watched_over_alone": chance(watched[0] / alone[0], watched[2], alone[2]),
        "watched_mean_score": round(watched[1], 4), "alone_mean_score": round(alone[1], 4),
    }  # fmt: skip


def sigma(experiment: Experiment, turn: int) -> tuple[float, float, int]:
    """Root mean square difference of the pairs of the watched (0) or unwatched (1) blocks, mean score, pairs."""
    rows: dict[int, list[float]] = {}
    for trial in experiment.trials.filter(result__score__isnull=False).select_related("result"):
        if trial.pair // PAIRS % 2 == turn:
            rows.setdefault(trial.pair, []).append(trial.result.value)
    pairs = [pair for pair in rows.values() if len(pair) == 2]
    square = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    return float(square**0.5), sum(a + b for a, b in pairs) / (2 * len(pairs)), len(pairs)


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
