"""Whatever is sent to the HTTP API is answered as its document says, and never with a failure of the server."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks, openapi
from schemathesis.specs.openapi import checks as openapi_checks

from research.api import door
from research.api.http import api
from research.loop.begin import add_thread
from research.models import ApiToken, Project, Role
from tests.cast import World, go, person

CHECKS = [
    checks.not_a_server_error, openapi_checks.status_code_conformance, openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]  # fmt: skip
DOCUMENT = json.loads(json.dumps(api.get_openapi_schema(path_prefix="/api/v1/")))
OPERATIONS = [
    (method, path) for path, methods in DOCUMENT["paths"].items() for method in methods if method != "parameters"
]


@cache
def schema() -> Any:
    found = openapi.from_dict(DOCUMENT)
    found.app = get_wsgi_application()
    return found


def played(examples: int) -> Any:
    """The same examples each time: a test that fails now and then teaches nobody."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=health,
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip


@pytest.fixture
def outside(project: Project, world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A token that may all, and names of rows that are there."""
    monkeypatch.setattr(door, "knocks", door.Knocks(requests=10**9))
    for signal in (request_started, request_finished):  # as Django's own test client does
        monkeypatch.setattr(signal, "receivers", [])
        signal.sender_receivers_cache.clear()
    rosa = person("rosa", Role.MEMBER, project)
    thread = project.threads.get()
    world.until_verdict(thread)
    go(thread)
    external = add_thread(project, "external", rosa)
    experiment = project.experiments.filter(candidate__isnull=False).earliest("pk")
    ids = {"threads": external.public_id, "experiments": experiment.public_id, "projects": project.name}
    return {"token": ApiToken.make(rosa, "fuzz", project, may_propose=True), "ids": ids, "head": external.head}


def play(method: str, path: str, outside: dict[str, Any], data: st.DataObject) -> None:
    case: schemathesis.Case = data.draw(schema()[path][method].as_strategy())
    known = outside["ids"].get(path.split("/")[3])
    if known and case.path_parameters and data.draw(st.booleans()):
        case.path_parameters = dict.fromkeys(case.path_parameters, known)
    if isinstance(case.body, dict) and data.draw(st.booleans()):
        case.body["base"] = outside["head"]  # or hardly any would come further than the first gate
    plain = {"Authorization": f"Bearer {outside['token']}", "Accept-Encoding": "identity"}
    case.call_and_validate(headers=plain, checks=CHECKS)


def play_all(outside: dict[str, Any], examples: int) -> None:
    """Every route in turn, on the same rows: they cost more than the requests."""
    for operation in OPERATIONS:
        play_one(operation, outside, examples)


def play_one(operation: tuple[str, str], outside: dict[str, Any], examples: int) -> None:
    @played(examples)
    @given(data=st.data())
    def once(data: st.DataObject) -> None:
        play(*operation, outside, data)

    once()


def test_each_route_keeps_what_the_document_says(outside: dict[str, Any]) -> None:
    play_all(outside, 6)


@pytest.mark.slow
def test_each_route_keeps_it_for_many_more(outside: dict[str, Any]) -> None:
    play_all(outside, 150)
