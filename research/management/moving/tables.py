"""Which rows of a project travel, and how one row becomes JSON and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import models

from research.models import (
    Ablation,
    AblationPart,
    Artifact,
    Call,
    Candidate,
    Comment,
    Diff,
    Event,
    Experiment,
    Finding,
    FoundTechnique,
    Idea,
    Lease,
    Lesson,
    Machine,
    MergeRequest,
    Message,
    Project,
    ProjectPrompt,
    Result,
    Session,
    Thread,
    Trial,
    Verdict,
)

# Each with the way from it to its project. Rows come after those that they cannot be without.
TABLES: tuple[tuple[type[models.Model], str], ...] = (
    (Project, "pk"),
    (Thread, "project"),
    (Idea, "thread__project"),
    (Candidate, "project"),
    (Diff, "candidate__project"),
    (Experiment, "project"),
    (Trial, "project"),
    (Result, "trial__project"),
    (Lease, "trial__project"),
    (Verdict, "experiment__project"),
    (Finding, "experiment__project"),
    (MergeRequest, "project"),
    (Session, "project"),
    (Message, "session__project"),
    (Call, "session__project"),
    (Lesson, "project"),
    (Ablation, "project"),
    (AblationPart, "ablation__project"),
    (FoundTechnique, "project"),
    (Comment, "request__project"),
    (ProjectPrompt, "project"),
    (Event, "project"),
)
ELSEWHERE = {
    "Machine": "by its public id, where a result or lease of it travels",
    "NoiseFloor": "by what it was measured on",
    "DataUse": "by data and split: the larger count holds",
    "Artifact": "logs by their hash, as far as they fit; losses are measured again",
    "Series": "thinned, as far as they fit",
    "Chunk": "with its series",
}
STAYS = {
    "ApiToken": "a secret of this lab",
    "AuditEntry": "a chain of this lab",
    "Claim": "belongs to a token",
    "Feed": "a counter of this lab",
    "Membership": "people are members of a lab",
    "Preferences": "of a person",
    "SignInLink": "a secret of this lab",
    "Submission": "belongs to a token",
    "Viewed": "of a person",
}
FORGOTTEN: Mapping[str, Mapping[str, Any]] = {  # what holds only where it was
    "Thread": {"held_by": "", "held_until": None},
    "Session": {"held_by": "", "held_until": None},
    "Result": {"losses": None},
}

Row = dict[str, Any]


def name_of(model: type[models.Model]) -> str:
    return model.__name__


def rows_of(model: type[models.Model], way: str, project: Project) -> models.QuerySet[Any]:
    rows = model._base_manager.filter(**{way: project.pk}).order_by("pk")
    return rows.filter(released__isnull=False) if model is Lease else rows


def encode(row: models.Model) -> Row:
    """JSON of a row. People by name, machines by public id, artifacts by hash; other rows by their key."""
    fields: Row = {}
    for field in row._meta.concrete_fields:
        if isinstance(field, models.ForeignKey):
            fields[field.name] = _encode_reference(row, field)
        else:
            fields[field.name] = field.value_from_object(row)
    fields |= FORGOTTEN.get(name_of(type(row)), {})
    if isinstance(row, Trial) and row.state == Trial.State.LEASED:
        fields |= {"state": Trial.State.WAITING.value, "note": "packed while it ran"}
    return fields


def _encode_reference(row: models.Model, field: models.ForeignKey[Any, Any]) -> Any:
    if issubclass(field.related_model, User):
        return getattr(getattr(row, field.name), "username", None)
    if field.related_model is Machine:
        return getattr(row, field.name).public_id
    if field.related_model is Artifact:
        return getattr(getattr(row, field.name), "sha256", None)
    return field.value_from_object(row)


def is_reference(field: models.Field[Any, Any], model: type[models.Model]) -> bool:
    """Whether a field refers to another row that travels, so that its key changes on the way."""
    known = {table for table, _ in TABLES}
    return isinstance(field, models.ForeignKey) and field.related_model in known and model in known
