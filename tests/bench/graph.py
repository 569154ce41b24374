"""The idea graph: laying out 2,000 nodes, drawing the widest window, and the page's fragment from a database of them.

The figure is the pure function on nodes of eight threads; `fragment_ms` is everything a live refetch costs the web
process (rows, layout, drawing, template), with 120 and with 500 columns shown. CPU time, medians of ROUNDS.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from research.drawing.lanes import Node, lay_out

ABOUT = "idea graph of 2,000 nodes: layout, and CPU of its live fragment"
COMMAND = "python -m tests.bench graph"
NODES, THREADS, ROUNDS, TARGET_MS = 2_000, 8, 15, 50


def measure() -> dict[str, object]:
    nodes = graph(NODES)
    turns = []
    for _ in range(ROUNDS):
        start = time.process_time()
        lay_out(nodes)
        turns.append(1000 * (time.process_time() - start))
    layout = round(median(turns), 2)
    return {"figure": layout, "unit": "ms", "command": COMMAND, "target": TARGET_MS, "nodes": NODES, **_fragment()}


def graph(count: int) -> list[Node]:
    """As a search makes it: one idea in five moves its thread's head, one head in two lands on main."""
    chance, main = random.Random(0), "start"
    heads = dict.fromkeys(range(1, THREADS + 1), "start")
    nodes = [Node("start", 0)]
    while len(nodes) < count:
        thread, key = chance.randint(1, THREADS), f"n{len(nodes)}"
        nodes.append(Node(key, thread, (heads[thread],)))
        if chance.random() < 0.2:
            heads[thread] = key
            if chance.random() < 0.5:
                nodes.append(Node(f"main-{key}", 0, (main, key)))
                main = f"main-{key}"
                heads = {number: main for number in heads}
    return nodes


def _fragment() -> dict[str, object]:
    """In a process with a data folder of its own."""
    with TemporaryDirectory(prefix="bench-") as folder:
        environment = os.environ | {"LAB_DATA": folder, "LAB_LOG_LEVEL": "WARNING"}
        environment.pop("DATABASE_URL", None)
        command = [sys.executable, "-m", "tests.bench.graph"]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"graph: failed (exit code {done.returncode}); its error stands above")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _fill() -> str:
    """A project of NODES ideas with candidates, experiments, verdicts and merges; returns its name."""
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from research.models import Candidate, Experiment, Idea, MergeRequest, Project, Thread, Verdict

    get_user_model().objects.create_superuser("admin")
    project = Project.objects.create(
        name="bench", benchmark="nanochat", preset="cpu", start="vanilla", data_id="none", rule={},
        start_commit="start", champion="start",
    )  # fmt: skip
    threads = {n: Thread.objects.create(project=project, number=n, researcher="catalogue", head="start")
               for n in range(1, THREADS + 1)}  # fmt: skip
    nodes = graph(NODES)
    landed = {node.parents[1] for node in nodes if node.lane == 0 and node.parents}
    commits = {node.key: node.key.removeprefix("main-") for node in nodes}
    ideas = [node for node in nodes if node.lane]
    sentence = "A row for each pair of bytes adds what no sum of single bytes can hold, at the price of a look-up."
    Idea.objects.bulk_create(
        Idea(thread=threads[node.lane], number=n, kind="technique", researcher="catalogue", hypothesis=sentence,
             expected_effect=0.01, steps=[], fingerprint=str(n), state="implemented", public_id=node.key)
        for n, node in enumerate(ideas)
    )  # fmt: skip
    rows = dict(zip([node.key for node in ideas], Idea.objects.order_by("pk"), strict=True))
    Candidate.objects.bulk_create(
        Candidate(project=project, thread=threads[node.lane], idea=rows[node.key], parent=commits[node.parents[0]],
                  commit=node.key, tree=node.key)
        for node in ideas
    )  # fmt: skip
    candidates = list(Candidate.objects.order_by("pk"))
    Experiment.objects.bulk_create(
        Experiment(key=str(n), project=project, thread=candidate.thread, candidate=candidate, number=n, rule={},
                   baseline_commit=candidate.parent, candidate_commit=candidate.commit, state="ended")
        for n, candidate in enumerate(candidates)
    )  # fmt: skip
    experiments = list(Experiment.objects.order_by("pk"))
    Verdict.objects.bulk_create(
        Verdict(experiment=experiment, kind="improved" if experiment.candidate_commit in landed else "inconclusive",
                stage="confirm", bar=20, reason="", relative=0.01, evidence={})
        for experiment in experiments
    )  # fmt: skip
    MergeRequest.objects.bulk_create(
        MergeRequest(project=project, thread=experiment.thread, candidate=experiment.candidate, verdict=verdict,
                     state="merged", base=experiment.baseline_commit, commit=experiment.candidate_commit,
                     decided=timezone.now())
        for experiment, verdict in zip(experiments, Verdict.objects.order_by("pk"), strict=True)
        if verdict.kind == "improved"
    )  # fmt: skip
    return project.name


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.test import Client

    call_command("migrate", verbosity=0)
    address = f"/p/{_fill()}/graph/?part=graph&view=graph"
    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.get())
    found: dict[str, object] = {}
    for columns in (120, 500):
        turns = []
        for _ in range(ROUNDS):
            start = time.process_time()
            reply = client.get(f"{address}&n={columns}")
            turns.append(1000 * (time.process_time() - start))
        drawn = reply.content.count(b" data-node=")
        if reply.status_code != 200 or drawn != columns:
            sys.exit(f"graph: status {reply.status_code}, {drawn} nodes instead of {columns}")
        found[f"fragment_ms_{columns}"] = round(median(turns), 1)
        found[f"fragment_kb_gzip_{columns}"] = round(len(gzip.compress(reply.content, 4)) / 1000, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
