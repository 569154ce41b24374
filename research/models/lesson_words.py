"""Words in lessons: the full-text index of the database in use behind two functions, `matching` and `ranks`.

SQLite: an FTS5 table beside the lessons, kept by triggers. PostgreSQL: a GIN index over an expression. Where SQLite
was built without FTS5, `LIKE` does it, slower and without ranks; that is logged once. `install` is called by the
migration and after every `migrate`: Django rebuilds SQLite tables to alter them, and a rebuilt table has lost its
triggers.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.expressions import RawSQL

from research.validation.similar import FILLING

log = logging.getLogger("lab.memory")

TABLE, INDEX = "research_lesson", "research_lesson_words"
COLUMNS = ("title", "labels", "text", "about")
WEIGHTS = (4.0, 4.0, 2.0, 1.0)  # of a word found in each
MOST_WORDS = 24  # of a query: the longest ones
# Constant text, so that PostgreSQL takes its index: by column from the heaviest weight to the lightest. Its parser
# would keep `train.py` and `warm-up` in one piece.
VECTOR = " || ".join(
    f"setweight(to_tsvector('english', translate(coalesce({TABLE}.{column}, ''), './-_', '    ')), '{weight}')"
    for column, weight in zip(COLUMNS, "AABC", strict=True)
)


def words_of(text: str) -> list[str]:
    """Words to look for; `weight_decay` is two, as the index has them. Too many: the longest say most."""
    found = dict.fromkeys(word.lower() for word in re.findall(r"[^\W_]+", text))
    return sorted(sorted(found, key=len, reverse=True)[:MOST_WORDS], key=list(found).index)


def telling(text: str) -> list[str]:
    """The words of a question that tell lessons apart."""
    return [word for word in words_of(text) if word not in FILLING]


def matching(text: str) -> Q:
    """Lessons in which every word occurs, each as the beginning of a word."""
    words = words_of(text)
    if not words:
        return Q(pk__in=())
    if connection.vendor == "postgresql":
        query = f"SELECT id FROM {TABLE} WHERE {VECTOR} @@ to_tsquery('english', %s)"
        return Q(pk__in=RawSQL(query, [" & ".join(f"{word}:*" for word in words)]))
    if is_installed():
        query = f"SELECT rowid FROM {INDEX} WHERE {INDEX} MATCH %s"
        return Q(pk__in=RawSQL(query, [" AND ".join(f'"{word}"*' for word in words)]))
    fitting = Q()
    for word in words:
        fitting &= _like(word)
    return fitting


def ranks(text: str, most: int) -> dict[int, float]:
    """pk -> how well a lesson fits a question of several words, the best ones; above 0, higher is better."""
    words = telling(text)
    if not words:
        return {}
    if connection.vendor == "postgresql":
        query = (
            f"SELECT id, ts_rank({VECTOR}, asked) AS fit FROM {TABLE}, to_tsquery('english', %s) AS asked"
            f" WHERE {VECTOR} @@ asked ORDER BY fit DESC, id DESC LIMIT %s"
        )
        return _fetch(query, " | ".join(words), most)
    if is_installed():
        weights = ", ".join(f"{weight}" for weight in WEIGHTS)
        query = (
            f"SELECT rowid, -bm25({INDEX}, {weights}) AS fit FROM {INDEX} WHERE {INDEX} MATCH %s"
            f" ORDER BY fit DESC, rowid DESC LIMIT %s"
        )
        return _fetch(query, " OR ".join(f'"{word}"' for word in words), most)
    return _ranks_by_like(words, most)


def is_installed() -> bool:
    """Whether SQLite has the index."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM sqlite_master WHERE name = %s", [INDEX])
        there = cursor.fetchone() is not None
    return there or _without_index()


def install(using: str = DEFAULT_DB_ALIAS) -> None:
    """Make the index and what keeps it, where they are missing, and fill it. Safe to repeat."""
    database = connections[using]
    with database.cursor() as cursor:
        if not _has_the_columns(database, cursor):
            return  # migrated to an earlier state
        if database.vendor == "postgresql":
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {INDEX} ON {TABLE} USING gin (({VECTOR}))")
        elif database.vendor == "sqlite":
            try:
                _install_sqlite(cursor)
            except OperationalError as error:
                if "no such module" not in str(error):
                    raise
                _without_index()


def after_migrate(using: str, **_: object) -> None:
    """Of Django's signal."""
    install(using)


def uninstall(using: str = DEFAULT_DB_ALIAS) -> None:
    with connections[using].cursor() as cursor:
        if connections[using].vendor == "postgresql":
            cursor.execute(f"DROP INDEX IF EXISTS {INDEX}")
        else:
            for name in TRIGGERS:
                cursor.execute(f"DROP TRIGGER IF EXISTS {INDEX}_{name}")
            cursor.execute(f"DROP TABLE IF EXISTS {INDEX}")


def _has_the_columns(database: BaseDatabaseWrapper, cursor: Any) -> bool:
    if TABLE not in database.introspection.table_names(cursor):
        return False
    there = {column.name for column in database.introspection.get_table_description(cursor, TABLE)}
    return set(COLUMNS) <= there


_ADD = "INSERT INTO {index}(rowid, {names}) VALUES (new.id, {new});"
_TAKE = "INSERT INTO {index}({index}, rowid, {names}) VALUES ('delete', old.id, {old});"
TRIGGERS = {
    "added": f"AFTER INSERT ON {TABLE} BEGIN {_ADD} END",
    "gone": f"AFTER DELETE ON {TABLE} BEGIN {_TAKE} END",
    "changed": f"AFTER UPDATE OF {', '.join(COLUMNS)} ON {TABLE} BEGIN {_TAKE} {_ADD} END",
}


def _install_sqlite(cursor: Any) -> None:
    parts = {
        "index": INDEX, "names": ", ".join(COLUMNS), "new": ", ".join(f"new.{name}" for name in COLUMNS),
        "old": ", ".join(f"old.{name}" for name in COLUMNS),
    }  # fmt: skip
    cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE %s", [f"{INDEX}_%"])
    if len(cursor.fetchall()) == len(TRIGGERS):
        return
    cursor.execute(
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {INDEX} USING fts5({parts['names']}, content='{TABLE}',"
        " content_rowid='id', tokenize='porter unicode61')"
    )
    for name, body in TRIGGERS.items():
        cursor.execute(f"CREATE TRIGGER IF NOT EXISTS {INDEX}_{name} {body.format(**parts)}")
    cursor.execute(f"INSERT INTO {INDEX}({INDEX}) VALUES ('rebuild')")


@cache
def _without_index() -> bool:
    """Said once a process. False: there is no index."""
    log.warning("this SQLite has no FTS5 index of lessons; they are searched with LIKE, slower and without ranks")
    return False


def _like(word: str) -> Q:
    fitting = Q()
    for column in COLUMNS:
        fitting |= Q(**{f"{column}__icontains": word})
    return fitting


def _ranks_by_like(words: list[str], most: int) -> dict[int, float]:
    """By the number of words that occur."""
    from research.models.lesson import Lesson  # the model asks this module

    found: dict[int, float] = {}
    for word in words:
        for pk in Lesson.objects.filter(_like(word)).values_list("pk", flat=True):
            found[pk] = found.get(pk, 0.0) + 1.0
    return dict(sorted(found.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)[:most])


def _fetch(query: str, asked: str, most: int) -> dict[int, float]:
    with connection.cursor() as cursor:
        cursor.execute(query, [asked, most])
        return {pk: float(fit) for pk, fit in cursor.fetchall()}
