"""Pack a project: what it needs to go on first, then curves and logs, the newest first, while there is room."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import zipfile
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from research.management.moving import BUNDLE, CURVES, FORMAT, LOGS, MANIFEST, ROWS, NotMovable
from research.management.moving.tables import TABLES, encode, name_of, rows_of
from research.models import Artifact, DataUse, Machine, NoiseFloor, Project, Result, Series
from research.repository import Repository

POINTS = 200  # of a curve that are kept; for charts and for taking gains apart
LOG_BYTES = 32 << 10  # the end of a log
MANIFEST_BYTES = 64 << 10


def pack(project: Project, target: Path, most_bytes: int) -> dict[str, Any]:
    """Write the file; its manifest. A consistent moment, whatever runs meanwhile. Raises NotMovable."""
    when = timezone.now()
    with transaction.atomic():
        rows = {name_of(model): [encode(row) for row in rows_of(model, way, project)] for model, way in TABLES}
        combines = {row.pk: list(row.combines.values_list("pk", flat=True)) for row in project.merge_requests.all()}
        beside = {
            "Machine": [_machine(row) for row in Machine.objects.filter(results__trial__project=project).distinct()],
            "NoiseFloor": [encode(row) for row in floors_of(project)],
            "DataUse": list(DataUse.objects.filter(data_id=project.data_id).values("split", "uses")),
            "combines": {key: found for key, found in combines.items() if found},
        }
        bundle = Repository(project.repository_path).bundle()  # after the rows: refs only ever come in addition
    text = json.dumps({"rows": rows, "beside": beside}, default=_plain).encode()
    about = _about(project, rows, when)
    with _whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_LZMA) as file:
        for name, content in ((ROWS, text), (BUNDLE, bundle)):
            _put(file, name, content, about)
        if partial.tell() > most_bytes:
            raise NotMovable(
                f"rows and repository alone take {partial.tell() / (1 << 20):.1f} MiB; allow more with --most-mib"
            )
        kept = {}
        for what, parts in (("curves", curves_of(project)), ("logs", logs_of(project))):
            kept[what] = _fill(file, partial, parts, about, most_bytes - MANIFEST_BYTES)
        about["kept"] = kept
        file.writestr(MANIFEST, json.dumps(about, indent=1))
    return about | {"bytes": target.stat().st_size}


def floors_of(project: Project) -> list[NoiseFloor]:
    keys = [project.noise_key_at(preset) for preset in project.measured_presets]
    return [floor for key in keys for floor in NoiseFloor.objects.filter(**key)]


def curves_of(project: Project) -> Iterator[tuple[str, bytes]]:
    """A member for each finished trial, the newest first: its thinned curves."""
    newest = Series.objects.newest().filter(trial__project=project, trial__result__isnull=False)
    by_trial: dict[int, list[Series]] = {}
    for series in newest.order_by("-trial"):
        by_trial.setdefault(series.trial_id, []).append(series)
    for trial, found in by_trial.items():
        yield f"{CURVES}{trial}", _curves(found)


def _curves(found: list[Series]) -> bytes:
    """Names, and of each metric steps int64 (n,) and values float32 (n,): n at most POINTS."""
    import numpy as np

    arrays: dict[str, Any] = {"names": np.array(json.dumps([[one.metric, one.generation] for one in found]))}
    for at, series in enumerate(found):
        steps, values = series.read()
        places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int))
        with np.errstate(over="ignore"):
            arrays[f"steps{at}"], arrays[f"values{at}"] = steps[places], values[places].astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def logs_of(project: Project) -> Iterator[tuple[str, bytes]]:
    """The end of each log, the newest first; failed trials before the others."""
    results = Result.every.filter(trial__project=project, log__isnull=False).select_related("log")
    for result in sorted(results, key=lambda result: (result.score is not None, -result.pk)):
        log: Artifact | None = result.log
        if log and log.path.is_file():
            yield f"{LOGS}{log.sha256}", log.read()[-LOG_BYTES:]


def _about(project: Project, rows: dict[str, Any], when: datetime) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "migration": newest_migration(),
        "project": project.name,
        "public_id": project.public_id,
        "benchmark": project.benchmark,
        "preset": project.preset,
        "start_tree": project.start_tree,
        "data_id": project.data_id,
        "champion": project.champion,
        "experiments_begun": project.experiments_begun,
        "packed": when.isoformat(),
        "rows": {name: len(found) for name, found in rows.items() if found},
        "sha256": {},
    }


def _plain(value: object) -> str:
    """Times to the microsecond: Django's own encoder would cut them."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def newest_migration() -> str:
    applied = MigrationRecorder(connection).applied_migrations()
    return max(name for app, name in applied if app == "research")


def _machine(machine: Machine) -> dict[str, Any]:
    kept = ("public_id", "name", "machine_class", "slots", "isolation_level", "description")
    return {name: getattr(machine, name) for name in kept}


def _put(file: zipfile.ZipFile, name: str, content: bytes, about: dict[str, Any], how: int = zipfile.ZIP_LZMA) -> None:
    file.writestr(name, content, how)
    about["sha256"][name] = hashlib.sha256(content).hexdigest()


def _fill(
    file: zipfile.ZipFile, partial: Any, parts: Iterator[tuple[str, bytes]], about: dict[str, Any], most: int
) -> dict[str, int]:
    """Add members while there is room, each as an xz stream."""
    put = left = 0
    names = set(file.namelist())
    for name, content in parts:
        if name in names:
            continue
        small = lzma.compress(content)
        directory = 400 * (len(names) + 1)  # the zip's own and the manifest grow with every member
        if partial.tell() + len(small) + directory > most:
            left += 1
            continue
        _put(file, name, small, about, zipfile.ZIP_STORED)
        names.add(name)
        put += 1
    return {"kept": put, "left_out": left}


class _whole:  # noqa: N801  a context manager reads as a word
    """A file that appears complete or not at all."""

    def __init__(self, target: Path) -> None:
        self.target, self.partial = target, target.with_name(f".{target.name}.{os.getpid()}")

    def __enter__(self) -> Any:
        self.file = self.partial.open("wb")
        return self.file

    def __exit__(self, kind: object, *_: object) -> None:
        self.file.close()
        if kind is None:
            self.partial.replace(self.target)
        else:
            self.partial.unlink(missing_ok=True)
