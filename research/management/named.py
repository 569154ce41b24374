"""What commands that take a project's name share."""

from __future__ import annotations

from django.core.management.base import CommandError

from research.models import Project


def project_named(name: str) -> Project:
    """Raises CommandError with the names that there are."""
    project = Project.objects.filter(name=name).first()
    if project is None:
        names = ", ".join(Project.objects.order_by("name").values_list("name", flat=True)) or "none yet"
        raise CommandError(f"no project named {name!r}; there are: {names}", returncode=2)
    return project
