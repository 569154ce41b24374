"""What agents cost the web process: resident memory at rest, after the HTTP API was asked, after the MCP server was.

python -m tests.bench.agents
"""

from __future__ import annotations

import json
import urllib.request

from tests.bench.web import Web, in_a_folder, prepare


def ask(web: Web, path: str, body: object = None, **headers: str) -> int:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{web.host}{path}", content, headers)
    with urllib.request.urlopen(request) as reply:
        reply.read()
        return int(reply.status)


def measure() -> dict[str, float]:
    cookie = prepare()
    from django.contrib.auth import get_user_model

    from research.models import ApiToken

    token = ApiToken.make(get_user_model().objects.get(username="vera"), "bench", None, may_propose=False)
    key = {"Authorization": f"Bearer {token}"}
    found: dict[str, float] = {}
    with Web() as web:
        found["started_mb"] = web.memory_mb()["rss"]
        for path in ("/", "/settings/", "/review/", "/machines/", "/lessons/") * 5:
            ask(web, path, Cookie=cookie)
        found["pages_mb"] = web.memory_mb()["rss"]
        for _ in range(50):
            ask(web, "/api/v1/projects", **key)
        ask(web, "/api/v1/openapi.json")
        found["http_mb"] = web.memory_mb()["rss"]
        mcp = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **key}
        for _ in range(50):
            ask(web, "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, **mcp)
        found["mcp_mb"] = web.memory_mb()["rss"]
    return found


if __name__ == "__main__":
    import sys

    if "--inside" in sys.argv:
        print(json.dumps(measure()))
    else:
        print(in_a_folder("tests.bench.agents", "--inside"))
