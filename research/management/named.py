"""What commands that take a project's name share."""

from __future__ import annotations

from django.conf import settings
from django.core.management.base import CommandError
from django.db.utils import OperationalError, ProgrammingError

from research.models import Project


def project_named(name: str) -> Project:
    """Raises CommandError with the names that there are."""
    try:
        project = Project.objects.filter(name=name).first()
    except (OperationalError, ProgrammingError) as error:
        if "project" not in str(error):  # not a table that is missing: a full disk, a server that is away
            raise
        words = f"there is no lab in {settings.DATA_DIR} yet: `manage.py campaign` or `manage.py lab` begins one"
        raise CommandError(words, returncode=2) from None
    if project is None:
        names = ", ".join(Project.objects.order_by("name").values_list("name", flat=True)) or "none yet"
        raise CommandError(f"no project named {name!r}; there are: {names}", returncode=2)
    return project
