"""Begin a project: its repository from the benchmark's tree, its rule, its threads. Safe to repeat under one name."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from benchmarks.contract import Benchmark, load
from benchmarks.data import data_id
from research.models import Project, Thread
from research.repository import Repository
from research.validation.rules import Direction, Rule


@dataclass(frozen=True)
class Budget:
    trials: int | None = None
    device_seconds: float | None = None
    wall_seconds: float | None = None


def rule_for(benchmark: Benchmark, preset: str) -> Rule:
    """The rule of evidence of a new project. On the CPU preset, futility is read from the first look on."""
    direction = Direction.LOWER if benchmark.metric.lower_is_better else Direction.HIGHER
    sizes = benchmark.preset(preset)
    return Rule(
        direction=direction,
        futility_from=4 if sizes.clock == "cpu" else 8,
        noise_trials=2 * sizes.noise_pairs,
    )


def begin_project(
    name: str,
    benchmark: str,
    preset: str,
    start: str,
    researchers: list[str],
    budget: Budget,
    auto_approve: bool,
) -> Project:
    """Create the project and its threads, one per entry of `researchers`; the existing one where the name is taken.

    Raises ContractError or DataError with one line where benchmark, preset, start or data are not there.
    """
    contract = load(benchmark)
    rule = rule_for(contract, preset)
    files = contract.start_files(start)
    project, _ = Project.objects.get_or_create(
        name=name,
        defaults={
            "benchmark": benchmark, "preset": preset, "start": start, "data_id": data_id(benchmark),
            "rule": rule.to_json(), "auto_approve": auto_approve, "max_trials": budget.trials,
            "max_device_seconds": budget.device_seconds, "max_wall_seconds": budget.wall_seconds,
            "question": f"Which changes to `{start}` improve {contract.metric.name} on {benchmark} {preset}?",
        },
    )  # fmt: skip
    message = f"Start {start} of {benchmark}"
    repository = Repository.create(project.repository_path, files, message, project.created)
    root = repository.root_commit()
    with transaction.atomic():
        Project.objects.filter(pk=project.pk, start_commit="").update(
            start_commit=root, start_tree=repository.tree_of(root), champion=root
        )
        for number, researcher in enumerate(researchers, start=1):
            Thread.objects.get_or_create(
                project=project, number=number, defaults={"researcher": researcher, "head": root}
            )
    project.refresh_from_db()
    return project
