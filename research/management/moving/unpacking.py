"""Unpack a project: the same rows under new keys, in one transaction. What is wrong with the file is one line."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import shutil
import zipfile
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError, models, transaction

from benchmarks.contract import ContractError, load
from research.management.moving import BUNDLE, CURVES, FORMAT, LOGS, MANIFEST, ROWS, NotMovable
from research.management.moving.older import bring_up
from research.management.moving.packing import LOG_BYTES, POINTS
from research.management.moving.tables import TABLES, Row, is_reference, name_of
from research.models import (
    Artifact,
    AuditEntry,
    Chunk,
    DataUse,
    Event,
    Machine,
    MergeRequest,
    NoiseFloor,
    Project,
    Series,
)
from research.models.audit import CONSOLE
from research.models.event import next_seq
from research.repository import GitError, Repository

MOST_BYTES = 1 << 30  # of one member, unpacked
MOST_CURVES = 8 << 20  # of one trial's curves, unpacked

DAMAGES = (KeyError, TypeError, AttributeError, ValueError)  # what reading rows that are not as they should be raises

Keys = dict[str, dict[int, int]]  # model -> key in the file -> key here


def unpack(source: Path, replace: bool = False, without_data: bool = False) -> Project:
    """The project of the file, here. Raises NotMovable.

    `replace`: put it in the place of an older copy of itself. `without_data`: even where its data is not prepared.
    """
    try:
        with zipfile.ZipFile(source) as file:
            about = _read_manifest(file)
            _check(about, without_data)
            packed = json.loads(_member(file, about, ROWS, MOST_BYTES))
            bring_up(packed["rows"], about["migration"])
            bundle = _member(file, about, BUNDLE, MOST_BYTES)
            curves = {name: content for name in about["sha256"] if name.startswith(CURVES)
                      for content in [_xz(_member(file, about, name, MOST_CURVES), MOST_CURVES)]}  # fmt: skip
            logs = {name.removeprefix(LOGS): _xz(_member(file, about, name, LOG_BYTES), LOG_BYTES)
                    for name in about["sha256"] if name.startswith(LOGS)}  # fmt: skip
    except (OSError, zipfile.BadZipFile, lzma.LZMAError, EOFError) as error:
        raise NotMovable(f"{source} cannot be read: {error}") from error
    except DAMAGES as error:
        raise NotMovable(f"{source} is not a packed project, or is damaged: {error!r}"[:300]) from error
    repository = _unbundle(packed["rows"]["Project"][0]["public_id"], bundle)
    try:
        with transaction.atomic():
            _make_room(about, replace)
            project = _insert(packed, curves, logs, source, about)
            repository(project)
    except (*DAMAGES, DatabaseError) as error:
        raise NotMovable(f"{source} is not a packed project, or is damaged: {error!r}"[:300]) from error
    finally:
        repository.throw_away()
    return project


def _read_manifest(file: zipfile.ZipFile) -> dict[str, Any]:
    if MANIFEST not in file.namelist() or file.getinfo(MANIFEST).file_size > 64 << 20:
        raise NotMovable("there is no manifest in it: not a packed project")
    about: dict[str, Any] = json.loads(file.read(MANIFEST))
    if about["format"] != FORMAT:
        raise NotMovable(f"it has format {about['format']}, this lab reads format {FORMAT}")
    return about


def _check(about: dict[str, Any], without_data: bool) -> None:
    """What the project needs to go on: its benchmark, preset and data."""
    try:
        load(about["benchmark"]).preset(about["preset"])
    except ContractError as error:
        raise NotMovable(str(error)) from error
    data = Project(benchmark=about["benchmark"], data_id=about["data_id"]).data_path
    if not without_data and not data.is_dir():
        raise NotMovable(
            f"its data {about['data_id'][:16]} is not prepared here; run `python -m benchmarks.{about['benchmark']} "
            "prepare` on the same text, or unpack --without-data to look only"
        )


def _make_room(about: dict[str, Any], replace: bool) -> None:
    """An older copy of the same project goes where that is asked for; anything else in the way is left alone."""
    there = Project.objects.filter(name=about["project"]).first()
    mine = Project.objects.filter(public_id=about["public_id"]).first()
    if there is not None and there != mine:
        raise NotMovable(f"another project is named {about['project']!r} here")
    if mine is None:
        return
    if not replace:
        raise NotMovable(f"{mine.name} is here already; --replace puts the packed one in its place")
    if mine.experiments_begun > about["experiments_begun"]:
        raise NotMovable(
            f"{mine.name} went on here, to experiment {mine.experiments_begun}; the packed one ends at "
            f"{about['experiments_begun']}: remove it by hand if it is to be lost"
        )
    mine.remove()


def _insert(
    packed: dict[str, Any], curves: dict[str, bytes], logs: dict[str, bytes], source: Path, about: dict[str, Any]
) -> Project:
    rows, beside = packed["rows"], packed["beside"]
    machines = {row["public_id"]: _machine(row) for row in beside["Machine"]}
    artifacts = {digest: Artifact.store(content) for digest, content in logs.items()}
    people = dict(User.objects.values_list("username", "pk"))
    keys: Keys = {}
    for model, _ in TABLES:
        _insert_table(model, rows.get(name_of(model), []), keys, machines, artifacts, people)
    for model, _ in TABLES:
        _refer(model, rows.get(name_of(model), []), keys)
    for key, found in beside["combines"].items():
        requests = keys["MergeRequest"]
        MergeRequest.objects.get(pk=requests[int(key)]).combines.set([requests[one] for one in found])
    for row in beside["NoiseFloor"]:
        _floor(row)
    for row in beside["DataUse"]:
        _use(about["data_id"], row)
    for name, content in curves.items():
        _curves(keys["Trial"][int(name.removeprefix(CURVES))], content)
    project = Project.objects.get(public_id=about["public_id"])
    words = f"unpacked from {source.name}, packed {about['packed'][:16].replace('T', ' ')} UTC"
    Event.record(Event.Kind.STATE, words, project=project)
    AuditEntry.of_nobody(CONSOLE, "unpack", project, file=source.name, rows=about["sha256"][ROWS])
    return project


def _insert_table(
    model: type[models.Model], rows: list[Row], keys: Keys, machines: dict[str, Machine],
    artifacts: dict[str, Artifact], people: dict[str, int],
) -> None:  # fmt: skip
    """Rows of one table; what refers to a table that comes later stays empty until `_refer`."""
    made, mine = [], keys.setdefault(name_of(model), {})
    for row in rows:
        fields: Row = {}
        for field in model._meta.concrete_fields:
            value = row[field.name]
            if field.primary_key:
                value = next_seq() if model is Event else None
            elif is_reference(field, model):
                value = keys.get(name_of(field.related_model), {}).get(value)  # type: ignore[arg-type]
            elif isinstance(field, models.ForeignKey):
                value = _outside(field, value, machines, artifacts, people)
            else:
                value = field.to_python(value)
            fields[field.attname] = value
        made.append(model(**fields))
    for at in range(0, len(made), 200):
        for row, new in zip(rows[at:], model._base_manager.bulk_create(made[at : at + 200]), strict=False):
            mine[row[model._meta.pk.name]] = new.pk


def _outside(
    field: models.ForeignKey[Any, Any], value: Any, machines: dict[str, Machine], artifacts: dict[str, Artifact],
    people: dict[str, int],
) -> int | None:  # fmt: skip
    if value is None:
        return None
    if field.related_model is Machine:
        return machines[value].pk
    if field.related_model is Artifact:
        return artifacts[value].pk if value in artifacts else None
    if issubclass(field.related_model, User):
        return people.get(value)
    return None


def _refer(model: type[models.Model], rows: list[Row], keys: Keys) -> None:
    """References to rows of tables that came later, or of the same one."""
    known = [table for table, _ in TABLES]
    late = [
        field for field in model._meta.concrete_fields
        if is_reference(field, model) and known.index(field.related_model) >= known.index(model)  # type: ignore[arg-type]
    ]  # fmt: skip
    for field in late:
        of = keys[name_of(field.related_model)]  # type: ignore[arg-type]
        for row in rows:
            if (value := row[field.name]) is not None:
                mine = model._base_manager.filter(pk=keys[name_of(model)][row[model._meta.pk.name]])
                mine.update(**{field.attname: of.get(value)})


def _machine(row: Row) -> Machine:
    """A machine of another lab: known again by its public id. Its name gets that id, for each lab has a `local`."""
    known = Machine.objects.filter(public_id=row["public_id"]).first()
    if known is not None:
        return known
    taken = Machine.objects.filter(name=row["name"]).exists()
    name = f"{row['name'][:60]}-{row['public_id'][:8]}" if taken or row["name"] == "local" else row["name"]
    return Machine.objects.create(**{**row, "name": name})


def _floor(row: Row) -> None:
    """The floor that was measured more often holds."""
    fields = {field.name: field.to_python(row[field.name]) for field in NoiseFloor._meta.concrete_fields}
    fields.pop("id")
    key = {name: fields.pop(name) for name in ("benchmark", "preset", "start_tree", "data_id", "machine_class")}
    known = NoiseFloor.objects.filter(**key).first()
    if known is None or known.trials < fields["trials"]:
        NoiseFloor.objects.update_or_create(**key, defaults=fields)


def _use(data: str, row: Row) -> None:
    known, _ = DataUse.objects.get_or_create(data_id=data, split=row["split"])
    DataUse.objects.filter(pk=known.pk, uses__lt=row["uses"]).update(uses=row["uses"])


def _curves(trial: int, content: bytes) -> None:
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for at, (metric, generation) in enumerate(json.loads(str(arrays["names"]))):
            steps, values = arrays[f"steps{at}"].astype("<i8"), arrays[f"values{at}"].astype("<f8")
            if not steps.ndim == values.ndim == 1 or not len(steps) == len(values) <= POINTS:
                raise NotMovable("a curve in it is not as it should be")
            series = Series.objects.create(
                trial_id=trial, metric=metric, generation=generation, next_seq=len(steps), is_compact=True
            )
            if len(steps):
                Chunk.objects.create(
                    series=series, first_seq=0, count=len(steps), steps=steps.tobytes(), values=values.tobytes()
                )


class _unbundle:  # noqa: N801
    """The repository beside its place, checked by git; moved there once the rows are in."""

    def __init__(self, public_id: str, bundle: bytes) -> None:
        if not public_id.isalnum():
            raise NotMovable("the project's id is not one")
        self.partial = Project(public_id=f"{public_id}.unpacking").repository_path
        try:
            Repository.from_bundle(self.partial, bundle)
        except GitError as error:
            self.throw_away()
            raise NotMovable(f"its repository cannot be read: {error}") from error

    def __call__(self, project: Project) -> None:
        repository = Repository(self.partial)
        heads = {project.start_commit, project.champion, *project.threads.values_list("head", flat=True)}
        if missing := [commit for commit in heads if commit and not repository.resolve(commit)]:
            raise NotMovable(f"commit {missing[0][:10]} is not in its repository")
        shutil.rmtree(project.repository_path, ignore_errors=True)
        self.partial.rename(project.repository_path)

    def throw_away(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)


def _member(file: zipfile.ZipFile, about: dict[str, Any], name: str, most: int) -> bytes:
    """The bytes of a member, as the manifest has their hash."""
    if file.getinfo(name).file_size > most:
        raise NotMovable(f"{name} in it is larger than {most >> 20} MiB")
    content = file.read(name)
    if hashlib.sha256(content).hexdigest() != about["sha256"][name]:
        raise NotMovable(f"{name} in it is damaged: its hash is another")
    return content


def _xz(content: bytes, most: int) -> bytes:
    """Unpacked, and never more than `most` bytes of it."""
    reader = lzma.LZMADecompressor()
    plain = reader.decompress(content, most + 1)
    if len(plain) > most:
        raise NotMovable("a member of it is too large when it is unpacked")
    return plain
