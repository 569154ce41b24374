"""Leave-one-out ablation: build the champion without each of its changes, and measure it against the champion."""

from __future__ import annotations

from django.db import transaction

from benchmarks.catalogue import is_change
from benchmarks.edits import DoesNotApply
from research.loop.beside import begin, bring_to
from research.loop.memory import catalogue_of, changes, recipe_of, sources_of
from research.models import Ablation, AblationPart, Experiment, MergeRequest, Project
from research.repository import Conflict, Repository
from research.validation.rules import Stage


def step(project: Project) -> bool:
    """Go on with every ablation that was asked for. True where rows changed."""
    return any([go_on(ablation) for ablation in project.ablations.filter(ended=None).order_by("pk")])


def go_on(ablation: Ablation) -> bool:
    """Build what is missing, measure what is built; end once every part has its pairs or its refusal."""
    changed = name_parts(ablation)
    parts = list(ablation.parts.select_related("experiment", "request").order_by("number"))
    for part in parts:
        part.ablation = ablation
        changed |= any([build(part), measure(part)])
    if any(part.commit and not _is_over(part) for part in parts):
        return changed
    rows = ablation.rows()
    worth = [row.label for row in rows if row.sign > 0]
    words = f"of {len(rows)} changes of {ablation.champion[:7]}, {len(worth)} are shown to be worth something"
    return ablation.end(f"ablation: {words}" + (f": {', '.join(worth)}" if worth else "")) or changed


def name_parts(ablation: Ablation) -> bool:
    """One part for each technique of the recipe, and one for each merge that brought none."""
    if ablation.parts.exists():
        return False
    project = ablation.project
    line = MergeRequest.objects.line(project, ablation.champion)
    brought = {name: request for request in reversed(line) for name in request.candidate.idea.techniques}
    recipe = recipe_of(project, ablation.champion)
    own = changes(project, [step.technique for step in recipe])
    names = {
        step.technique: own[step.technique].name[:160] if step.technique in own else step.technique for step in recipe
    }
    parts = [AblationPart(label=label, technique=name, request=brought.get(name)) for name, label in names.items()]
    parts += [
        AblationPart(label=request.candidate.idea.name[:160], request=request)
        for request in line
        if not request.candidate.idea.steps
    ]
    with transaction.atomic():
        for number, part in enumerate(parts):
            part.ablation, part.number = ablation, number
        AblationPart.objects.bulk_create(parts)
    return bool(parts)


def build(part: AblationPart) -> bool:
    """The champion without this change: its recipe applied again without it, else its merge undone by git."""
    if part.commit or part.refusal:
        return False
    ablation = part.ablation
    repository = Repository(ablation.project.repository_path)
    try:
        part.built(_without(part, repository))
    except (DoesNotApply, Conflict) as error:
        part.refuse(f"it cannot be left out alone: {error}")
    else:
        repository.keep(part.ref, part.commit)
    return True


def measure(part: AblationPart) -> bool:
    if not part.commit:
        return False
    ablation = part.ablation
    if part.experiment is None:
        label = f"the champion without {part.label}"
        purpose, champion = Experiment.Purpose.ABLATION, ablation.champion
        part.measured_by(begin(ablation.project, part.key, purpose, label, champion, part.commit))
    assert part.experiment is not None
    return bring_to(part.experiment, str(Stage.CONFIRM), ablation.pairs)


def _without(part: AblationPart, repository: Repository) -> str:
    ablation = part.ablation
    project, champion = ablation.project, ablation.champion
    message = f"Without {part.label}\n\nAblation: {ablation.public_id}\n"
    recipe = recipe_of(project, champion)
    applies = not any(is_change(step.technique) for step in recipe)  # code of a researcher's own only git can undo
    line = MergeRequest.objects.line(project, champion)
    if part.technique and applies and all(merge.candidate.idea.steps for merge in line):
        rest = [step for step in recipe if step.technique != part.technique]
        try:
            sources = catalogue_of(project).apply(dict(sources_of(project.repository_path, project.start_commit)), rest)
        except DoesNotApply:
            if part.request is None:
                raise
        else:
            files = repository.files(champion) | {path: text.encode() for path, text in sources.items()}
            return repository.commit_files(files, champion, message, ablation.created)
    if part.request is None or (part.technique and part.request.candidate.idea.techniques != [part.technique]):
        raise DoesNotApply(f"no merge brought {part.technique} alone")
    return repository.rebase(part.request.commit, part.request.base, champion, message, ablation.created)


def _is_over(part: AblationPart) -> bool:
    if part.experiment is None:
        return False
    part.experiment.refresh_from_db(fields=["state"])
    return part.experiment.state != Experiment.State.RUNNING
