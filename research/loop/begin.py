"""Begin a project: its repository from the benchmark's tree, its rule, its threads. Safe to repeat under one name."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max

from benchmarks.contract import Benchmark, ContractError, load
from benchmarks.data import data_folder, data_id
from research.models import AuditEntry, Event, Membership, Project, Role, Thread
from research.repository import Repository
from research.researchers import RESEARCHERS
from research.validation.named import DEFAULT, Setting, named_rule
from research.validation.records import Direction, Rule, Scale


@dataclass(frozen=True)
class Budget:
    trials: int | None = None
    device_seconds: float | None = None
    wall_seconds: float | None = None
    money: Decimal | None = None  # of models
    tokens: int | None = None


def rule_for(benchmark: Benchmark, preset: str, name: str = DEFAULT, target: float | None = None) -> Rule:
    """The rule of evidence of a new project. On the CPU preset, futility is read from the first look on.

    Raises RuleError with one line where there is no such rule, or where it needs a target or has none.
    """
    metric, sizes = benchmark.metric, benchmark.preset(preset)
    setting = Setting(
        direction=Direction.LOWER if metric.lower_is_better else Direction.HIGHER,
        scale=Scale.of_unit(metric.unit),
        futility_from=4 if sizes.clock == "cpu" else 8,
        noise_trials=2 * sizes.noise_pairs,
        target=target,
    )
    return named_rule(name, setting)


def begin_project(
    name: str,
    benchmark: str,
    preset: str,
    start: str,
    researchers: list[str],
    budget: Budget,
    auto_approve: bool,
    started_by: User | None = None,
    single_person: bool = False,
    question: str = "",
    audit_every: int = 10,
    rule: str = DEFAULT,
    target: float | None = None,
    screen_preset: str | None = None,
) -> Project:
    """Create the project and its threads, one per entry of `researchers`; the existing one where the name is taken.

    `screen_preset`: under which candidates are screened; None takes what the preset names, its own name screens there.
    Raises ContractError or DataError with one line where benchmark, preset, start or data are not there, RuleError
    where the named rule of evidence is not or lacks its target, and NotAllowed where the person who starts it may not.
    """
    Membership.require(started_by, None, Role.MEMBER, "start a project")
    contract = load(benchmark)
    frozen = rule_for(contract, preset, rule, target)
    identity = data_id(benchmark, contract.preset(preset))
    data = data_folder(benchmark) / identity[:16]
    files = contract.start_files(start, preset, data)
    screening = contract.preset(preset).screen_preset if screen_preset is None else contract.preset(screen_preset).name
    if contract.preset(screening or preset).lane != contract.preset(preset).lane:
        raise ContractError(f"{screening} cannot screen for {preset}: it is of another lane")
    project, _ = Project.objects.get_or_create(
        name=name,
        defaults={
            "benchmark": benchmark, "preset": preset, "start": start, "rule": frozen.to_json(),
            "data_id": identity, "auto_approve": auto_approve, "problems": list(contract.problems(data)),
            "max_trials": budget.trials, "max_device_seconds": budget.device_seconds,
            "max_wall_seconds": budget.wall_seconds,
            "screen_preset": screening if frozen.screen_pairs and screening != preset else "",
            "max_money": budget.money, "max_tokens": budget.tokens,
            "question": question
            or f"Which changes to `{start}` improve {contract.metric.name} on {benchmark} {preset}?",
            "started_by": started_by, "single_person": single_person, "audit_every": audit_every,
        },
    )  # fmt: skip
    message = f"Start {start} of {benchmark}"
    repository = Repository.create(project.repository_path, files, message, project.created)
    root = repository.root_commit()
    with transaction.atomic():
        unborn = Project.objects.filter(pk=project.pk, start_commit="")
        if unborn.update(start_commit=root, start_tree=repository.tree_of(root), champion=root):
            Event.record(Event.Kind.STATE, f"the project began{_by(started_by)}", project=project, actor=started_by)
            if started_by is not None:
                AuditEntry.record(started_by, "start", project)
        for number, researcher in enumerate(researchers, start=1):
            if not project.threads.filter(number=number).exists():
                _begin_thread(project, number, researcher, root, project.started_by)
    project.refresh_from_db()
    return project


def spread(project: Project) -> None:
    """On many problems, let each thread that nobody has steered begin with families of its own, in turn.

    So that two catalogues do not race on one problem. Where there are more threads than families, some share one.
    """
    threads = list(project.threads.filter(researcher="catalogue", directives={}).order_by("number"))
    if not project.problems or len(threads) < 2:
        return
    project.list_techniques()
    families = list(dict.fromkeys(str(about["family"]) for about in project.described.values()))
    for place, thread in enumerate(threads):
        mine = families[place :: len(threads)] or [families[place % len(families)]]
        Thread.objects.filter(pk=thread.pk, directives={}).update(directives={"focus": sorted(mine), "forbid": []})
        Event.record(Event.Kind.STEERED, f"thread {thread.number} begins with {', '.join(mine)}", thread=thread)


def add_thread(project: Project, researcher: str, by: User) -> Thread:
    """One more line of inquiry, from where `main` stands. Raises ValueError where there is no such researcher."""
    Membership.require(by, project, Role.MEMBER, "add a thread")
    if researcher not in RESEARCHERS:
        raise ValueError(f"there is no researcher {researcher!r}; there are {', '.join(RESEARCHERS)}")
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=project.pk)
        number = (project.threads.aggregate(last=Max("number"))["last"] or 0) + 1
        AuditEntry.record(by, "add thread", project, thread=number, researcher=researcher)
        return _begin_thread(project, number, researcher, project.champion, by)


def _begin_thread(project: Project, number: int, researcher: str, head: str, by: User | None) -> Thread:
    thread = Thread.objects.create(project=project, number=number, researcher=researcher, head=head, steered_by=by)
    words = f"thread {number} began{_by(by)}, with researcher {researcher}"
    Event.record(Event.Kind.STATE, words, thread=thread, actor=by)
    return thread


def _by(person: User | None) -> str:
    return f" by {person}" if person else ""
