"""The project page of 10,000 experiments: what it costs the web process, and when a person can use it.

The rows are made up but complete: ideas, candidates, verdicts with evidence, 44,000 trials with results, 8 threads,
60 merges on main. The real web process serves them. `first` is the first request after a start, which reads all
attempts; `page` and the parts are what every later one costs. In Chromium the page counts as interactive when its
scripts have run and no task keeps the main thread busy any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from datetime import timedelta
from http.client import HTTPConnection
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.bench.web import Web, in_a_folder, prepare

if TYPE_CHECKING:
    from research.models import Machine, Project, Thread

ABOUT = "project page of 10,000 experiments: server ms, interactive in Chromium"
COMMAND = "python -m tests.bench project_page"
EXPERIMENTS, THREADS, MERGES, REQUESTS, LOADS = 10_000, 8, 60, 20, 7
TARGET = {"server_ms": 250, "interactive_ms": 1_000}
PATH = "/p/long/"
PARTS = ("frontier", "threads", "experiments", "figures", "budget")
# Runs in the page: when the deferred scripts were done, and when the last task of 50 ms or more ended.
INTERACTIVE = """() => new Promise(done => {
  const long = [];
  new PerformanceObserver(list => long.push(...list.getEntries())).observe({type: "longtask", buffered: true});
  setTimeout(() => {
    const [page] = performance.getEntriesByType("navigation");
    const busy = Math.max(0, ...long.map(task => task.startTime + task.duration));
    done({answered: page.responseEnd, interactive: Math.max(page.domContentLoadedEventEnd, busy), long: long.length,
          rows: document.querySelectorAll("[data-row]").length});
  }, 1200);
})"""


def measure() -> dict[str, object]:
    found = json.loads(in_a_folder("tests.bench.pages"))
    browser = found.get("chromium", {})
    figure = browser.get("interactive_ms") if isinstance(browser, dict) else None
    return {
        "figure": figure if figure is not None else found["page"]["wall_ms"],
        "unit": "ms until interactive" if figure is not None else "ms of the server",
        "command": COMMAND,
        "target": TARGET,
        **found,
    }


def main() -> None:
    cookie = prepare()
    print("project_page: making rows", file=sys.stderr)
    rows = fill(int(os.environ.get("BENCH_EXPERIMENTS", EXPERIMENTS)))
    with Web() as web:
        found: dict[str, Any] = {"rows": rows, "first": ask(web, cookie, PATH, 1), "page": ask(web, cookie, PATH)}
        found["parts"] = {part: ask(web, cookie, f"{PATH}?part={part}") for part in PARTS}
        have = ask_text(web, cookie, f"{PATH}?part=frontier").split("have=")[1].split('"')[0]
        found["parts"]["frontier_unchanged"] = ask(web, cookie, f"{PATH}?part=frontier&have={have}")
        found["last_page"] = ask(web, cookie, f"{PATH}?page=200")
        found["overview"] = ask(web, cookie, "/")
        found["chromium"] = chromium(web, cookie)
        found["web_mb"] = web.memory_mb()
    print(json.dumps(found))


def ask(web: Web, cookie: str, path: str, requests: int = REQUESTS) -> dict[str, float]:
    """Medians of wall, mean of the web process's CPU, bytes as they travel."""
    connection = HTTPConnection(web.host)
    headers = {"Cookie": cookie, "Accept-Encoding": "gzip", "Host": web.host}
    walls, body, begun = [], b"", web.cpu_s()
    for _ in range(requests):
        at = time.perf_counter()
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        walls.append(time.perf_counter() - at)
        if response.status not in (200, 204):
            sys.exit(f"project_page: {path} answered {response.status}")
    cpu = (web.cpu_s() - begun) / requests
    return {
        "wall_ms": round(1_000 * median(walls), 1), "cpu_ms": round(1_000 * cpu, 1),
        "gzip_kb": round(len(body) / 1_000, 1),
    }  # fmt: skip


def ask_text(web: Web, cookie: str, path: str) -> str:
    connection = HTTPConnection(web.host)
    connection.request("GET", path, headers={"Cookie": cookie, "Host": web.host})
    return connection.getresponse().read().decode()


def chromium(web: Web, cookie: str) -> dict[str, object] | str:
    """Medians over LOADS loads, each in a browser context of its own: nothing is cached."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        return "not installed"
    from playwright.sync_api import sync_playwright

    name, value = cookie.split("=", 1)
    turns: list[dict[str, float]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(LOADS + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            context.add_cookies([{"name": name, "value": value, "url": f"http://{web.host}"}])
            page = context.new_page()
            page.goto(f"http://{web.host}{PATH}", wait_until="commit")
            page.wait_for_load_state("domcontentloaded")
            turns.append(page.evaluate(INTERACTIVE))
            context.close()
        browser.close()
    turns = turns[1:]  # the first one starts the browser's processes
    return {
        "interactive_ms": round(median(turn["interactive"] for turn in turns)),
        "answered_ms": round(median(turn["answered"] for turn in turns)),
        "worst_ms": round(max(turn["interactive"] for turn in turns)),
        "long_tasks": max(turn["long"] for turn in turns),
    }


def fill(count: int) -> dict[str, int]:
    """A long search: most ideas end after one pair, three in a hundred gain; every 1/MERGES of it `main` moves."""
    from django.utils import timezone

    from benchmarks.contract import load
    from research.loop.begin import rule_for
    from research.models import Lesson, Machine, NoiseFloor, Project, Result, Thread, Trial

    now = timezone.now()
    start = _commit("start")
    project = Project.objects.create(
        name="long", benchmark="nanochat", preset="cpu", start="vanilla", data_id="d" * 64, start_commit=start,
        start_tree="t", rule=rule_for(load("nanochat"), "cpu").to_json(), question="How far does it go?",
        created=now - timedelta(days=7), wall_seconds=6e5, max_trials=60_000,
    )  # fmt: skip
    machine = Machine.objects.create(name="local", machine_class="cpu, 2 slots", slots=2, seen=now, isolation_level=3)
    NoiseFloor.objects.create(
        machine_class=machine.machine_class, **project.noise_key, sigma_trial=0.01, sigma_pair=0.01, drift=0, trials=12
    )
    threads = [
        Thread.objects.create(project=project, number=n + 1, researcher="catalogue", head=start) for n in range(THREADS)
    ]
    _rows(project, machine, threads, count)
    return {
        "experiments": project.experiments.count(), "trials": Trial.objects.count(), "results": Result.objects.count(),
        "lessons": Lesson.objects.count(), "merges": project.merge_requests.filter(state="merged").count(),
    }  # fmt: skip


def _commit(name: object) -> str:
    return hashlib.sha1(str(name).encode()).hexdigest()


def _rows(project: Project, machine: Machine, threads: list[Thread], count: int) -> None:
    from django.db import transaction

    from research.models import Project as Projects

    chance, champion, every = random.Random(0), project.start_commit, max(1, count // MERGES)
    with transaction.atomic():
        for number in range(1, count + 1):
            gains = number % every == 0
            pairs = [("screen", 1)] if chance.random() < 0.7 and not gains else [("screen", 1), ("extend", 2)]
            if gains or (len(pairs) > 1 and chance.random() < 0.5):
                pairs.append(("confirm", 4))
            kind = "improved" if gains else "invalid" if chance.random() < 0.03 else "inconclusive"
            commit = _experiment(project, machine, threads[number % THREADS], number, champion, kind, pairs, chance)
            champion = commit if gains else champion
        Projects.objects.filter(pk=project.pk).update(champion=champion, experiments_begun=count)


def _experiment(
    project: Project, machine: Machine, thread: Thread, number: int, baseline: str, kind: str,
    stages: list[tuple[str, int]], chance: random.Random,
) -> str:  # fmt: skip
    from research.models import Candidate, Experiment, Idea, Lesson, MergeRequest, Result, Trial, Verdict

    commit, when = _commit(number), project.created + timedelta(seconds=60 * number)
    idea = Idea.objects.create(
        thread=thread, number=number, kind="technique", researcher="catalogue", title=f"technique {number % 97} again",
        hypothesis=f"Setting number {number} lowers the loss.", expected_effect=0.01, steps=[], fingerprint=commit,
        state="implemented",
    )  # fmt: skip
    candidate = Candidate.objects.create(
        project=project, thread=thread, idea=idea, parent=baseline, commit=commit, tree=commit
    )
    experiment = Experiment.objects.create(
        key=commit, project=project, thread=thread, candidate=candidate, number=number, baseline_commit=baseline,
        candidate_commit=commit, rule=project.rule, state="ended", created=when, ended=when + timedelta(seconds=55),
    )  # fmt: skip
    effect = 0.005 if kind == "improved" else chance.gauss(-0.01, 0.02)
    evidence, trials = [], []
    for stage, pairs in stages:
        for pair in range(pairs):
            seed = chance.getrandbits(31)
            evidence.append(
                {"stage": stage, "pair": pair, "seed": seed, "baseline": 2.0, "candidate": 2.0 * (1 - effect)}
            )
            for arm, sha in (("baseline", baseline), ("candidate", commit)):
                trials.append(
                    Trial(
                        project=project, experiment=experiment, arm=arm, stage=stage, pair=pair, slot=0, seed=seed,
                        commit=sha, split="val_screen", state="ended", created=when, ended=when,
                    )
                )  # fmt: skip
    Result.objects.bulk_create(
        Result(
            trial=trial, generation=1, machine=machine, score=2.0, device_seconds=9.0, isolation_level=3,
            machine_class=machine.machine_class, created=when, metrics={"parameters": 1e6}, seconds={"train_wall": 7},
        )
        for trial in Trial.objects.bulk_create(trials)
    )  # fmt: skip
    confirmed = any(stage == "confirm" for stage, _ in stages)
    verdict = Verdict.objects.create(
        experiment=experiment, kind=kind, stage=stages[-1][0], effect=2 * effect, relative=effect, bar=20,
        low=2 * effect - 0.01 if confirmed else None, high=2 * effect + 0.01 if confirmed else None, pairs=4,
        reason="made up", created=when,
        evidence={"pairs": evidence, "noise": {"sigma_pair": 0.01, "sigma_trial": 0.01, "drift": 0.0, "trials": 12}},
    )  # fmt: skip
    Lesson.objects.create(
        project=project, thread=thread, experiment=experiment, kind="gain" if kind == "improved" else "no_gain",
        text=f"Setting number {number} was measured.", techniques=[], base=baseline, effect=effect, error=0.005,
    )  # fmt: skip
    if kind == "improved":
        MergeRequest.objects.create(
            project=project, thread=thread, candidate=candidate, verdict=verdict, base=baseline, commit=commit,
            state="merged", decided=when, decided_by_policy=True,
            parent=MergeRequest.objects.filter(commit=baseline).first(),
        )  # fmt: skip
    return commit


if __name__ == "__main__":
    main()
