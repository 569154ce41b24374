"""The commands that make a project's measurements again, read from its rows."""

from __future__ import annotations

import re

from research.models import Experiment, Project
from research.repository import Repository
from research.validation.named import DEFAULT

USUAL_AUDIT = 10


def commands_of(project: Project) -> list[str]:
    """The campaign's own, then what was asked for beside it. A project that a person began has none of the first."""
    return [*_campaign(project), *_transfers(project), *_beside(project)]


def _campaign(project: Project) -> list[str]:
    if not project.name.startswith("campaign-"):
        return []
    researchers = list(project.threads.order_by("number").values_list("researcher", flat=True))
    said = [
        f"manage.py campaign --benchmark {project.benchmark} --preset {project.preset} --start {project.start}",
        f"--researcher {researchers[0]} --threads {researchers.count(researchers[0])}",  # others joined it later
    ]
    if project.screen_preset:
        said.append(f"--screen-preset {project.screen_preset}")
    if project.rule["name"] != DEFAULT:
        said.append(f"--rule {project.rule['name']}")
    for name, limit in (
        ("minutes", (project.max_wall_seconds or 0) / 60), ("max-trials", project.max_trials),
        ("max-device-seconds", project.max_device_seconds), ("max-money", project.max_money),
        ("max-tokens", project.max_tokens),
    ):  # fmt: skip
        if limit:
            said.append(f"--{name} {limit:g}")
    if project.audit_every != USUAL_AUDIT:
        said.append(f"--audit-every {project.audit_every}")
    said += ["--auto-approve"] * project.auto_approve + ["--no-memory"] * (not project.memory)
    return [" ".join(said)]


def _transfers(project: Project) -> list[str]:
    rivals = set(project.experiments.filter(purpose=Experiment.Purpose.RIVAL).values_list("label", flat=True))
    found = []
    for row in project.experiments.filter(purpose=Experiment.Purpose.TRANSFER).order_by("number"):
        name, _, rest = row.label.partition(" against the start at ")
        constants = rest.split(", ")[1:]
        said = f"manage.py transfer {project.name} --preset {row.preset or project.preset} --pairs {row.wanted_pairs}"
        said += f" --rival {name}" if name in rivals else ""
        found.append(said + "".join(f" --set {_place(row, one)}" for one in constants) + " --run")
    return found


def _place(row: Experiment, constant: str) -> str:
    """`model.py:DEPTH=12` of what its label calls `DEPTH=12`: the file of both arms that sets it otherwise."""
    repository, name = Repository(row.project.repository_path), constant.partition("=")[0]
    change = repository.diff(row.project.start_commit, row.baseline_commit)
    files = repository.files(row.baseline_commit)
    sets = re.compile(rf"^{re.escape(name)}\b.*=", re.MULTILINE)
    return ":".join([*(path for path in change.paths if sets.search(files[path].decode()))][:1] + [constant])


def _beside(project: Project) -> list[str]:
    found = [f"manage.py ablate {project.name} --pairs {row.pairs}" for row in project.ablations.order_by("pk")]
    measured = project.experiments.filter(purpose=Experiment.Purpose.FIDELITY)
    if count := measured.count():
        pairs = measured.order_by("number").values_list("wanted_pairs", flat=True)[0]
        found.append(f"manage.py fidelity {project.name} --measure {count} --pairs {pairs}")
    return found
