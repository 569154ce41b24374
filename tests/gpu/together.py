"""Many small changes in one sitting: each measured once, what gained brought together, then confirmed by the lab.

    python -m tests.gpu.together hand PROJECT SINGLES.json      # each on a thread of its own; before the sitting
    python -m tests.gpu.together steer PROJECT --pid PID        # beside `manage.py campaign`, as a person would act

A single is `{"title", "hypothesis", "expected", "steps": [[name, {tunable: value}], ...]}`. A name is that of a
technique of the catalogue, or `FILE:CONSTANT` with its `{"value": ...}`. In the place of steps stands `"folder"` for a
whole tree. `steer` waits for the first pair of each and stops it, takes the best folder, applies the steps of every
single that gained, and hands that in; where a sitting before left such a change half confirmed, it waits for that one
instead. Verdicts are the rule's alone, on fresh seeds. When it is on `main`, the singles of a file, if there is one, go
the same way from there; then `--rivals` ends the campaign and measures the start, the start at 2^17 tokens a step and
the other start against the champion.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recursive_web.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402

from benchmarks import edits  # noqa: E402
from benchmarks.edits import DoesNotApply  # noqa: E402
from research import tasks  # noqa: E402
from research.loop.advance import advance_until_idle  # noqa: E402
from research.loop.begin import add_thread  # noqa: E402
from research.loop.submit import EXTERNAL, Handed, NotAccepted, submit  # noqa: E402
from research.models import ApiToken, Experiment, Idea, NotMergeable, Project, Verdict  # noqa: E402
from research.repository import Repository  # noqa: E402
from research.validation.effects import relative_gain  # noqa: E402
from research.validation.records import Evidence, Rule, Stage  # noqa: E402

LEAST = 0.0008  # relative gain in one pair, below which a single is left out
STARTS = Path("benchmarks/nanochat/starts/gpu")
BEGAN = time.time()


def say(*words: object) -> None:
    print(round(time.time() - BEGAN), *words, flush=True)


def person(name: str) -> User:
    return User.objects.get_or_create(username=name, defaults={"is_superuser": True, "is_staff": True})[0]


def token_of(project: Project) -> ApiToken:
    """What changes are handed in with: of `engineer`, who approves none of them."""
    engineer = person("engineer")
    if not ApiToken.objects.filter(owner=engineer, project=project).exists():
        ApiToken.make(engineer, "engineer", project, True)
    return ApiToken.objects.filter(owner=engineer, project=project).latest("pk")


def sources_of(project: Project, commit: str) -> dict[str, str]:
    files = Repository(project.repository_path).files(commit)
    return {path: text.decode() for path, text in files.items() if path.endswith(".py")}


def with_steps(project: Project, files: Mapping[str, str], steps: Sequence[Sequence[Any]]) -> dict[str, str]:
    """A step is a technique with settings, or FILE:CONSTANT with its `value`. Raises DoesNotApply."""
    catalogue, files = project.contract.catalogue(project.preset, project.data_path), dict(files)
    for name, tunables in steps:
        path, _, constant = name.partition(":")
        if constant:
            files[path] = edits.constant(files[path], constant, tunables["value"])
            continue
        files = dict(catalogue[name].apply(files, {**catalogue[name].defaults(), **tunables}))
    return files


def hand_in(project: Project, files: Mapping[str, str], single: Mapping[str, Any]) -> Idea:
    """A change of `main` on a thread of its own; its steps stand in its plan. Raises NotAccepted."""
    token, base = token_of(project), sources_of(project, project.champion)
    thread = project.threads.filter(researcher=EXTERNAL, ideas=None).order_by("number").first()
    idea = submit(
        thread or add_thread(project, EXTERNAL, token.owner), token,
        Handed(
            key=single["title"][:60], base=project.champion,
            files={path: text for path, text in files.items() if base.get(path) != text},
            hypothesis=single["hypothesis"], expected_effect=single["expected"], title=single["title"][:150],
            plan=json.dumps(single["steps"]) if "steps" in single else "",
        ),
    )  # fmt: skip
    Idea.objects.filter(pk=idea.pk).update(model="engineer")
    return idea


def hand(project: Project, singles: Sequence[Mapping[str, Any]]) -> None:
    main = sources_of(project, project.champion)
    for single in singles:
        if "folder" in single:
            files = {path.name: path.read_text() for path in sorted(Path(single["folder"]).glob("*.py"))}
        else:
            files = with_steps(project, main, single["steps"])
        idea = hand_in(project, files, single)
        advance_until_idle(idea.thread_id)
        idea.refresh_from_db()
        say(idea.thread.number, idea.state, single["title"], idea.refusal)
    tasks.ring_machines()


def gain(experiment: Experiment) -> float | None:
    """Relative, of the pairs that there are; None without any."""
    evidence = Evidence(pairs=experiment.complete_pairs(), noise=None)
    return relative_gain(evidence, Rule.from_json(experiment.rule)).mean


def stop(experiment: Experiment, why: str) -> None:
    try:
        experiment.stop(person("operator"), why)
    except NotMergeable as ended:
        say(experiment.number, ended)
    tasks.advance_thread(experiment.thread_id)


def is_over(experiment: Experiment) -> bool:
    return experiment.state != Experiment.State.RUNNING or Verdict.objects.filter(experiment=experiment).exists()


def first_pairs(project: Project, main: str, until: float) -> list[tuple[Experiment, float]]:
    """Each change of an engineer that waits on `main`, with the gain of its first pair; what gave none is left out."""
    by_engineer = project.experiments.filter(baseline_commit=main, candidate__idea__model="engineer")
    numbers = list(by_engineer.running().values_list("number", flat=True))
    found: dict[int, float] = {}
    while time.time() < until:
        experiments = list(project.experiments.filter(number__in=numbers))
        over = all(map(is_over, experiments))  # before their gains are read: the last one may end in between
        for experiment in experiments:
            if experiment.number not in found and (measured := gain(experiment)) is not None:
                found[experiment.number] = measured
                say(experiment.number, f"{100 * measured:+.3f} %", idea_of(experiment).title, experiment.by_seed())
            if experiment.number in found and not is_over(experiment):
                stop(experiment, "measured once; what gained is brought together in one change")
        if over:
            break
        time.sleep(2)
    for experiment in project.experiments.filter(number__in=set(numbers) - set(found)).running():
        stop(experiment, "no pair of it ended in time; what gained is brought together without it")
    return [(project.experiments.get(number=number), one) for number, one in found.items()]


def brought_together(project: Project, main: str, found: Sequence[tuple[Experiment, float]]) -> Idea | None:
    """The best whole tree with the steps of all singles that gained; None where nothing did or it is not taken."""
    ranked = sorted((pair for pair in found if pair[1] > LEAST), key=lambda pair: -pair[1])
    whole = [(one, value) for one, value in ranked if not idea_of(one).plan]
    files, parts = sources_of(project, main), [*whole[:1]]
    if whole:
        files = sources_of(project, whole[0][0].candidate_commit)
    for experiment, value in ranked:
        if plan := idea_of(experiment).plan:
            try:
                files = with_steps(project, files, json.loads(plan))
            except DoesNotApply as error:
                say(experiment.number, "does not apply to the others:", error)
                continue
            parts.append((experiment, value))
    if not parts:
        return None
    names = ", ".join(idea_of(one).title for one, _ in parts)
    words = f"What gained alone in one pair gains together: {names}."
    single = {"title": f"together: {names}", "hypothesis": words, "expected": sum(value for _, value in parts)}
    try:
        idea = hand_in(project, files, single)
    except NotAccepted as error:
        say("not taken:", error)
        return None
    say("handed in", single["title"], "on thread", idea.thread.number)
    tasks.advance_thread(idea.thread_id)
    return idea


def idea_of(experiment: Experiment) -> Idea:
    assert experiment.candidate is not None
    idea: Idea = experiment.candidate.idea
    return idea


def wait(until: float, look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it is something; None when the time is over."""
    while not (seen := look()) and time.time() < until:
        time.sleep(2)
    return seen


def resume(project: Project) -> None:
    for thread in project.threads.filter(researcher="catalogue", state="paused"):
        thread.resume(person("operator"))
        tasks.advance_thread(thread.pk)
    say("the catalogue goes on")


def rivals(project: Project, pid: int, until: float) -> None:
    """End the campaign, and measure the starts against the champion."""
    os.kill(pid, signal.SIGINT)
    wait(time.time() + 40, lambda: not Path(f"/proc/{pid}").exists())
    other = Path(os.environ["LAB_DATA"]) / "modern-2-17"
    shutil.copytree(STARTS / "modern", other, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    text = (other / "train.py").read_text()
    (other / "train.py").write_text(re.sub(r"BATCH_TOKENS = 2\*\*19", "BATCH_TOKENS = 2**17", text))
    begin: list[tuple[Path, str, int]] = [
        (STARTS / "modern", "modern", 6), (other, "modern-2-17", 6), (STARTS / "vanilla", "vanilla", 4),
    ]  # fmt: skip
    for number, (folder, name, pairs) in enumerate(begin):
        now = ["--run", "--sitting", f"{(until - time.time()) / 60:.2f}"] if number == len(begin) - 1 else []
        command = [sys.executable, "manage.py", "rival", project.name, "--files", str(folder), "--name", name]
        done = subprocess.run([*command, "--pairs", str(pairs), *now], capture_output=True, text=True)
        say(name, done.returncode, done.stdout[-3000:], done.stderr[-600:])


def under_way(project: Project, main: str) -> Idea | None:
    """The change of an engineer that gains and has pairs on fresh seeds already, as a sitting before left it."""
    waiting = project.experiments.filter(baseline_commit=main, candidate__idea__model="engineer").running()
    half = [one for one in waiting if any(pair.stage == Stage.CONFIRM for pair in one.complete_pairs())]
    best = max(half, key=lambda one: gain(one) or 0.0, default=None)
    return idea_of(best) if best is not None and (gain(best) or 0.0) > LEAST else None


def merged(project: Project, idea: Idea, until: float) -> bool:
    """Wait for the verdict of a change, and for `main` to be what it improved."""
    main = project.champion

    def verdict() -> Verdict | None:
        return Verdict.objects.filter(experiment__candidate__idea=idea).first()

    def moved() -> bool:
        project.refresh_from_db()
        return project.champion != main

    seen = wait(until, verdict)
    say("verdict", seen, seen.experiment.by_seed() if seen else "")
    return seen is not None and str(seen.kind) == "improved" and bool(wait(time.time() + 60, moved))


def steer(project: Project, pid: int, first_by: float, until: float, with_rivals: bool, then: Sequence[Any]) -> None:
    main, until = project.champion, BEGAN + until

    def best_of_singles() -> Idea | None:
        return brought_together(project, project.champion, first_pairs(project, project.champion, BEGAN + first_by))

    idea = under_way(project, main) or best_of_singles()
    has_gained = idea is not None and merged(project, idea, until)
    if has_gained and then:
        hand(project, then)
        idea = best_of_singles()
        has_gained = idea is not None and merged(project, idea, until)
    if has_gained and with_rivals:
        rivals(project, pid, until)
    else:
        resume(project)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.together", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("act", choices=("hand", "steer"))
    parser.add_argument("project")
    parser.add_argument("singles", nargs="?", type=Path, help="of hand: singles; of steer: what comes after a gain")
    parser.add_argument("--pid", type=int, help="of steer: of the running campaign")
    parser.add_argument("--first-by", type=float, default=700, help="seconds until what has no first pair is left out")
    parser.add_argument("--until", type=float, default=1500, help="seconds until the sitting ends")
    parser.add_argument("--rivals", action="store_true", help="measure the starts against a new champion")
    options = parser.parse_args()
    project = Project.objects.get(name=options.project)
    if options.act == "hand":
        hand(project, json.loads(options.singles.read_text()))
    else:
        then = json.loads(options.singles.read_text()) if options.singles else ()
        steer(project, options.pid, options.first_by, options.until, options.rivals, then)
        say("done")


if __name__ == "__main__":
    main()
