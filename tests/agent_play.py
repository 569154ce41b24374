"""Agents from outside: one that knocks in this process, and one of the standard library, an address and a token."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from django.db import connection
from django.test import Client


def environment() -> dict[str, str]:
    """Of a process of the lab that works on the rows of the running test."""
    name = str(connection.settings_dict["NAME"])
    return {"DJANGO_SETTINGS_MODULE": "tests.settings", "TESTS_DATABASE": name, "TESTS_TOY": "1"}


class Script:
    def __init__(self, address: str, token: str) -> None:
        self.address, self.headers = f"{address}/api/v1", {"Authorization": f"Bearer {token}"}

    def ask(self, path: str, body: Any = None, method: str = "") -> Any:
        content = None if body is None else json.dumps(body).encode()
        headers = self.headers | {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}{path}", content, headers, method=method or None)
        with urllib.request.urlopen(request, timeout=70) as reply:
            text = reply.read().decode()
        return json.loads(text) if reply.headers["Content-Type"].startswith("application/json") else text

    def improve(self, project: str, path: str, old: str, new: str) -> str:
        """Begin a thread, read, change one line, hand it in; the submission's id."""
        assert "How to take part" in self.ask(f"/projects/{project}/brief")
        thread = self.ask(f"/projects/{project}/threads", method="POST")
        text = self.ask(f"/projects/{project}/file?commit={thread['head']}&path={path}")["text"]
        change = {
            "key": "first", "base": thread["head"], "files": {path: text.replace(old, new)},
            "hypothesis": f"{new} is better than {old}.", "expected_effect": 0.05,
        }  # fmt: skip
        return str(self.ask(f"/threads/{thread['id']}/submissions", change)["id"])

    def verdict(self, submission: str) -> Any:
        while True:
            found = self.ask(f"/submissions/{submission}?wait=50")
            if not found["again_in_seconds"]:
                return found


GOOD = {
    "key": "one", "hypothesis": "A larger ALPHA lowers the loss.", "expected_effect": 0.05, "title": "larger ALPHA",
}  # fmt: skip


class Agent:
    """A program outside that holds a token."""

    def __init__(self, token: str) -> None:
        self.headers, self.client = {"Authorization": f"Bearer {token}"}, Client()

    def get(self, path: str, /, expect: int = 200, **query: Any) -> Any:
        return self._read(self.client.get(f"/api/v1/{path}", query, headers=self.headers), expect)

    def post(self, path: str, body: Any = None, expect: int = 200) -> Any:
        content = body if isinstance(body, str) else json.dumps(body)
        reply = self.client.post(f"/api/v1/{path}", content, content_type="application/json", headers=self.headers)
        return self._read(reply, expect)

    def delete(self, path: str, expect: int = 200) -> Any:
        return self._read(self.client.delete(f"/api/v1/{path}", headers=self.headers), expect)

    def _read(self, reply: Any, expect: int) -> Any:
        assert reply.status_code == expect, reply.content
        if not reply.headers["Content-Type"].startswith("application/json"):
            return reply.content.decode()
        found = json.loads(reply.content)
        if expect >= 400:
            assert set(found) == {"error", "do", "pointer"} and found["error"] and found["do"]
        return found


def change(head: str, **more: Any) -> dict[str, Any]:
    text = '"""The toy\'s training."""\n\nALPHA = 2.0\nGAMMA = 1.0\nBETA = 1.0\n'
    return {**GOOD, "base": head, "files": {"train.py": text}, **more}
