"""Packs of an earlier version of the lab: columns that its tables have gained since get their defaults."""

from __future__ import annotations

from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelOptions,
    RemoveConstraint,
    RemoveIndex,
)

from research.management.moving import NotMovable
from research.management.moving.tables import Row

# These move no value of a row; what a row may no longer be, the database says when it is put in.
HARMLESS = (AddField, AlterField, AlterModelOptions, AddIndex, RemoveIndex, AddConstraint, RemoveConstraint)


def bring_up(rows: dict[str, list[Row]], migration: str) -> None:
    """Rows packed at an earlier migration as they would be now, in place. Raises NotMovable where that cannot be."""
    tables = {name.lower(): found for name, found in rows.items()}
    for table, column in _added_since(migration):
        for row in tables.get(table, []):
            row.setdefault(column.name, column.field.get_default())


def _added_since(migration: str) -> list[tuple[str, AddField]]:
    """(table, column) of every column that a later migration adds."""
    there = {name: one for (app, name), one in MigrationLoader(None).disk_migrations.items() if app == "research"}
    known = there.keys() | {name for one in there.values() for _, name in one.replaces}
    later = [operation for name, one in sorted(there.items()) if name > migration for operation in one.operations]
    added = [operation for operation in later if isinstance(operation, AddField)]
    if migration not in known or not all(isinstance(operation, HARMLESS) for operation in later):
        raise NotMovable(
            f"it was packed at migration {migration}, which this lab cannot bring up to {max(known)}: "
            "use the same version of the lab on both machines"
        )
    return [(operation.model_name_lower, operation) for operation in added]
