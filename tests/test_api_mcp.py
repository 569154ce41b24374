"""The MCP server as agents meet it: the official client, over the real web process and over stdio."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from research.models import ApiToken, Machine, Project, Role, Thread
from tests.agent_play import environment
from tests.bench.web import Web
from tests.cast import World, go, person
from tests.live_play import in_thread

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[1]
TOOLS = {"projects", "brief", "begin_thread", "claim", "release", "file", "lessons", "experiment", "submit", "verdict"}
TOOLS |= {"merges", "forecasts", "withdraw", "log", "curve"}


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(**environment()) as web:
        yield web


@pytest.fixture
def token(project: Project, world: World) -> str:
    Machine.objects.filter(pk=world.machine.pk).update(isolation_level=3)
    return ApiToken.make(person("rosa", Role.MEMBER, project), "coder", project, may_propose=True)


@asynccontextmanager
async def connected(web: Web, token: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        transport = streamable_http_client(f"http://{web.host}/mcp", http_client=http)
        async with Client(transport) as client:
            yield client


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    found = result.structured_content
    assert found is not None
    return found["result"] if set(found) == {"result"} else found


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


def test_an_agent_goes_from_brief_to_verdict_with_tools(web: Web, token: str, project: Project, world: World) -> None:
    async def work() -> tuple[Any, Any]:
        async with connected(web, token) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} >= TOOLS
            assert [row["name"] for row in await ask(client, "projects")] == ["question"]
            assert "expected_effect" in await ask(client, "brief", name="question")
            mine = await ask(client, "begin_thread", name="question")
            text = (await ask(client, "file", name="question", commit=mine["head"], path="train.py"))["text"]
            change = {
                "key": "one", "base": mine["head"], "files": {"train.py": text.replace("ALPHA = 1.0", "ALPHA = 2.0")},
                "hypothesis": "A larger ALPHA lowers the loss.", "expected_effect": 0.05,
            }  # fmt: skip
            handed = await ask(client, "submit", id=mine["id"], change=change)
            assert handed["state"] == "waiting"
            again = change | {"key": "two", "files": {"model.py": "DELTA = 3.0\n"}}
            second = await ask(client, "submit", id=mine["id"], change=again)
            assert (await ask(client, "withdraw", id=second["id"]))["state"] == "cancelled"
            assert await ask(client, "merges", name="question") == []
            assert (await ask(client, "forecasts", id=mine["id"]))["scored"] == 0
            over, _ = await asyncio.gather(
                ask(client, "verdict", id=handed["id"], wait=50), in_thread(play, mine["id"])
            )
            return handed, over

    def play(thread_id: str) -> None:
        thread = Thread.objects.get(public_id=thread_id)
        world.until_verdict(thread)
        go(thread)

    handed, over = asyncio.run(work())
    assert (over["id"], over["state"]) == (handed["id"], "ended")
    assert over["experiment"]["verdict"] == "improved"


def test_what_is_refused_is_a_result_with_one_line(web: Web, token: str, project: Project) -> None:
    other = project.threads.get().public_id

    async def work() -> list[str]:
        async with connected(web, token) as client:
            return [
                await refusal(client, "project", name="nowhere"),
                await refusal(client, "claim", id=other),
                await refusal(client, "submit", id=other, change={"key": "x"}),
                await refusal(client, "experiments", name="question", limit="many"),
            ]

    nowhere, claim, *invalid = asyncio.run(work())
    assert "there is no project 'nowhere'" in nowhere and "\n" not in nowhere
    assert "only threads of `external`" in claim
    assert all(invalid)


def test_the_door_is_closed_to_strangers_and_to_other_origins(web: Web, token: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream"}
    good = headers | {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=f"http://{web.host}", timeout=30) as http:  # the first request loads the server
        for shown in (
            headers,
            headers | {"Authorization": "Bearer lab_x_y"},
            headers | {"Authorization": "Basic eA=="},
        ):
            reply = http.post("/mcp", json=body, headers=headers | shown)
            assert reply.status_code == 401 and set(reply.json()) == {"error", "do", "pointer"}
        assert http.post("/mcp", json=body, headers=good).status_code == 200
        assert http.post("/mcp", json=body, headers=good | {"Origin": "https://evil.example"}).status_code == 403
        assert http.post("/mcp", json=body, headers=good | {"Host": "evil.example"}).status_code >= 400
        assert http.post("/mcp", content=b"{" * 5_000_000, headers=good).status_code == 413
        for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 50_000):
            reply = http.post("/mcp", content=content, headers=good | {"Content-Type": "application/json"})
            assert 400 <= reply.status_code < 500, content[:9]


def test_the_same_tools_come_over_stdio(token: str, project: Project) -> None:
    variables = dict(os.environ) | environment() | {"LAB_TOKEN": token}
    server = StdioServerParameters(command=sys.executable, args=["manage.py", "mcp"], env=variables, cwd=ROOT)

    async def work() -> Any:
        async with Client(server) as client:
            assert "thread" in await refusal(client, "thread", id="zzzzzzzzzz")
            return await ask(client, "project", name="question")

    found = asyncio.run(work())
    assert found["question"] and json.dumps(found)
