"""A scripted model behind a real HTTP server: the OpenAI-compatible endpoint of the tests, word for word.

    with ScriptedModel(say("hello"), calls(read={"path": "train.py"}), Answer(status=429)) as model:
        ... model.url, model.requests

Each request takes the next answer; when they are used up, the last one again. A function in the place of the answers
gets the request's body and returns an Answer, so that a script can answer what it is asked.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One reply of the endpoint. `cut`: characters of text (or of the first arguments) after which the line breaks."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()  # (name, arguments as they are written)
    finish: str = ""  # stop, tool_calls, length, content_filter; "" for what fits
    status: int = 200
    error: str = ""  # the message of an error status
    code: str = ""  # its code, as context_length_exceeded
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    wait: float = 0.0  # seconds before the first byte
    pace: float = 0.0  # seconds between chunks
    usage: tuple[int, int, int] | None = (1000, 0, 50)  # prompt, cached, completion; None: the endpoint does not say
    body: bytes | None = None  # sent as it is, whatever was asked for
    refusal: str = ""


Script = Callable[[dict[str, Any]], Answer]


def say(text: str, **more: Any) -> Answer:
    return Answer(text=text, **more)


def calls(text: str = "", /, **tools: Mapping[str, Any] | str) -> Answer:
    """Tool calls by name; arguments as a mapping, or as raw text where they are to be malformed."""
    written = tuple((name, with_ if isinstance(with_, str) else json.dumps(with_)) for name, with_ in tools.items())
    return Answer(text=text, calls=written)


class ScriptedModel:
    def __init__(self, *answers: Answer, script: Script | None = None) -> None:
        self.answers, self.script = list(answers), script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"model": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> ScriptedModel:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def next(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self.lock:
            self.requests.append(body)
            self.headers.append(headers)
            if self.script is not None:
                return self.script(body)
            return self.answers[min(len(self.requests), len(self.answers)) - 1]

    @property
    def last(self) -> dict[str, Any]:
        return self.requests[-1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ScriptedModel

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.model.next(body, dict(self.headers))
        time.sleep(answer.wait)
        if answer.status != 200:
            words = {"message": answer.error or "no", "type": "error", "code": answer.code or None}
            self.whole(answer.status, json.dumps({"error": words}).encode(), answer.headers)
        elif answer.body is not None:
            self.whole(200, answer.body, answer.headers)
        elif body.get("stream"):
            self.stream(answer, body)
        else:
            self.whole(200, json.dumps(_completion(answer, body)).encode(), answer.headers)

    def whole(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, answer: Answer, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        left = answer.cut
        try:
            for chunk in _chunks(answer, body):
                size = _size(chunk)
                if left is not None and size > left:
                    return  # the line breaks: no [DONE], no usage
                left = None if left is None else left - size
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
                time.sleep(answer.pace)
            if left is None:
                self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # whoever asked is gone


def _finish(answer: Answer) -> str:
    return answer.finish or ("tool_calls" if answer.calls else "stop")


def _usage(answer: Answer) -> dict[str, Any] | None:
    if answer.usage is None:
        return None
    prompt, cached, completion = answer.usage
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **details}


def _completion(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    tools = [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(answer.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": answer.refusal or None}
    if tools:
        message["tool_calls"] = tools
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
    return whole | ({"usage": _usage(answer)} if answer.usage else {})


def _chunks(answer: Answer, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The reply in pieces of a few characters, as endpoints send it; usage last, where it was asked for."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]}

    found = [chunk({"role": "assistant", "content": ""})]
    found += [chunk({"content": piece}) for piece in _pieces(answer.text)]
    if answer.refusal:
        found.append(chunk({"refusal": answer.refusal}))
    for at, (name, arguments) in enumerate(answer.calls):
        function = {"name": name, "arguments": ""}
        found.append(
            chunk({"tool_calls": [{"index": at, "id": f"call_{at}", "type": "function", "function": function}]})
        )
        for piece in _pieces(arguments):
            found.append(chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]}))
    found.append(chunk({}, _finish(answer)))
    if answer.usage and (body.get("stream_options") or {}).get("include_usage"):
        found.append({**head, "choices": [], "usage": _usage(answer)})
    return found


def _pieces(text: str) -> list[str]:
    size = 12 if len(text) < 10_000 else 4_000
    return [text[at : at + size] for at in range(0, len(text), size)]


def _size(chunk: dict[str, Any]) -> int:
    delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
    called = delta.get("tool_calls") or [{}]
    return len(delta.get("content") or "") + len(called[0].get("function", {}).get("arguments") or "")
