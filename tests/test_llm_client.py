"""One request to a model, against a real HTTP server that answers word for word: replies, and every way they fail."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from research.researchers.llm import client as client_module
from research.researchers.llm import wire
from research.researchers.llm.client import Client, _Coming
from research.researchers.llm.tools import tools_for
from research.researchers.llm.wire import Message, ModelSpec, ToolCall
from tests.model_play import Answer, ScriptedModel, calls, say

KEY = "sk-planted-0987654321"
ASKED = (Message("system", "You help."), Message("user", "Go on."))
TOOLS = tools_for("propose")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)


def spec_at(model: ScriptedModel, **more: Any) -> ModelSpec:
    return ModelSpec("scripted", "scripted-1", model.url, "PLANTED_KEY", **{"timeout_seconds": 2, **more})


def ask(*answers: Answer, tools: Any = TOOLS, **more: Any) -> wire.Reply:
    with ScriptedModel(*answers) as model:
        return Client(spec_at(model, **more)).ask(ASKED, tools)


def error_of(answer: Answer, **more: Any) -> wire.ModelError:
    with pytest.raises(wire.ModelError) as caught:
        ask(answer, **more)
    assert KEY not in str(caught.value) and KEY not in caught.value.text and "\n" not in str(caught.value)
    return caught.value


def test_a_reply_brings_text_calls_and_usage() -> None:
    seen: list[str] = []
    with ScriptedModel(calls("I look.", read_file={"path": "train.py"}, search={"pattern": "lr"})) as model:
        reply = Client(spec_at(model)).ask(ASKED, TOOLS, seen.append)
        body, headers = model.last, {name.lower(): value for name, value in model.headers[0].items()}
    assert reply.message.content == "I look."
    assert [(call.name, call.parsed()) for call in reply.message.tool_calls] == [
        ("read_file", {"path": "train.py"}),
        ("search", {"pattern": "lr"}),
    ]
    assert reply.usage == wire.Usage(1000, 0, 50) and reply.finish == "tool_calls" and reply.first_seconds is not None
    assert body["stream"] and body["max_tokens"] == 4_096 and len(body["tools"]) == len(TOOLS)
    assert headers["authorization"] == f"Bearer {KEY}" and KEY not in json.dumps(body)
    assert seen


def test_usage_is_estimated_where_the_endpoint_says_nothing() -> None:
    reply = ask(say("words " * 50, usage=None))
    assert reply.usage.estimated and reply.usage.completion >= 50 and reply.usage.prompt > 100


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(status=429, error="slow down", headers={"Retry-After": "7"}), wire.RateLimited),
        (Answer(status=429, error="no money", code="insufficient_quota"), wire.Unauthorized),
        (Answer(status=500), wire.Unavailable),
        (Answer(status=503), wire.Unavailable),
        (Answer(status=401, error=f"wrong key {KEY}"), wire.Unauthorized),
        (Answer(status=404, error="no such model"), wire.BadRequest),
        (Answer(status=400, error="what is `tools`?"), wire.BadRequest),
        (Answer(status=400, code="context_length_exceeded", error="too long"), wire.ContextFull),
        (Answer(status=400, error="the request exceeds the available context size"), wire.ContextFull),
        (Answer(status=400, code="content_filter", error="no"), wire.Refused),
        (say("half of it", finish="content_filter"), wire.Refused),
        (Answer(refusal="I will not."), wire.Refused),
        (say("a text that breaks off", cut=12), wire.CutOff),
        (Answer(calls=(("read_file", '{"path": "t'),), cut=5), wire.CutOff),
        (Answer(body=b"<html>welcome</html>"), wire.ModelError),
        (Answer(body=b'data: {"choices": 7}\n\n'), wire.ModelError),
        (Answer(body=b'data: {"error": {"code": "rate_limit_exceeded", "message": "slow"}}\n\n'), wire.RateLimited),
    ],
    ids=lambda found: found.__name__ if isinstance(found, type) else "",
)
def test_every_failure_has_its_class(answer: Answer, kind: type[wire.ModelError]) -> None:
    error = error_of(answer)
    assert isinstance(error, kind)
    assert "scripted" in str(error)


def test_a_rate_limit_says_how_long() -> None:
    assert error_of(Answer(status=429, headers={"Retry-After": "7"})).wait == 7
    assert error_of(Answer(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})).wait == 0
    assert error_of(Answer(status=429, headers={"Retry-After": "nan"})).wait is None
    assert error_of(Answer(status=429)).wait is None


def test_what_had_come_is_kept_and_never_acted_on() -> None:
    error = error_of(say("a text that breaks off", cut=12))
    assert error.text == "a text that " and error.charged


def test_a_silent_endpoint_is_given_up_after_its_time() -> None:
    error = error_of(say("late", wait=1.0), timeout_seconds=0.2)
    assert isinstance(error, wire.Unavailable) and error.charged and "0.2 s" in str(error)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with ScriptedModel(say("")) as model:
        gone = spec_at(model)
    with pytest.raises(wire.Unavailable, match="cannot be reached"):
        Client(gone).ask(ASKED)


def test_a_reply_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_REPLY", 40_000)
    error = error_of(say("x" * 100_000))
    assert isinstance(error, wire.CutOff) and len(error.text) <= 20_000


def test_a_missing_or_broken_key_names_the_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", "sk-one two\x07")
    broken = error_of(say("x"))
    monkeypatch.delenv("PLANTED_KEY")
    missing = error_of(say("x"))
    for error in (broken, missing):
        assert isinstance(error, wire.Unauthorized) and "PLANTED_KEY" in str(error) and "sk-one" not in str(error)


def test_an_endpoint_that_echoes_the_key_does_not_get_it_into_the_transcript() -> None:
    reply = ask(say(f"your key is {KEY}, \0 and \ud800"))
    assert reply.message.content == "your key is [key], \N{SYMBOL FOR NULL} and ?"


def test_calls_that_are_all_numbered_0_stay_apart() -> None:
    coming = _Coming(0.0)
    for id_, name, arguments in (("a", "read_file", "{}"), ("b", "search", '{"pat'), ("", "", 'tern": "x"}')):
        chunk = {"index": 0, "id": id_ or None, "function": {"name": name, "arguments": arguments}}
        coming._take_call(_Record(chunk))
    assert [(call.id, call.arguments) for call in coming.message().tool_calls] == [
        ("a", "{}"),
        ("b", '{"pattern": "x"}'),
    ]


class _Record:
    def __init__(self, content: dict[str, Any]) -> None:
        for name, value in content.items():
            setattr(self, name, _Record(value) if isinstance(value, dict) else value)


def test_what_a_model_wrote_wrong_is_sent_back_in_a_form_that_endpoints_read() -> None:
    wrong = Message("assistant", "", (ToolCall("1", "functions.read file", '{"path": '),))
    talk = (*ASKED, wrong, Message("tool", "no", tool_call_id="1", name="read_file"), Message("assistant", ""))
    with ScriptedModel(say("ok")) as model:
        Client(spec_at(model)).ask(talk, TOOLS)
        sent = model.last["messages"]
    function = sent[2]["tool_calls"][0]["function"]
    assert function["name"] == "functions_read_file" and json.loads(function["arguments"]) == {"malformed": '{"path": '}
    assert sent[3]["tool_call_id"] == "1" and sent[4]["content"] == "(nothing)"


@pytest.mark.parametrize("way", ["json_schema", "json_object", "none"])
def test_a_model_without_tools_calls_by_json(way: str) -> None:
    written = json.dumps({"tool": "read_file", "arguments": {"path": "train.py"}})
    before = (
        Message("assistant", "", (ToolCall("1", "list_files", "{}"),)),
        Message("tool", "train.py", tool_call_id="1", name="list_files"),
    )
    with ScriptedModel(say(f"```json\n{written}\n```")) as model:
        reply = Client(spec_at(model, tools=False, schema=way)).ask((*ASKED, *before), TOOLS)
        body = model.last
    assert [(call.name, call.parsed()) for call in reply.message.tool_calls] == [("read_file", {"path": "train.py"})]
    assert "tools" not in body and (way == "none") == ("response_format" not in body)
    assert way == "none" or body["response_format"]["type"] == way
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert "finish_idea" in body["messages"][0]["content"]
    assert json.loads(body["messages"][2]["content"]) == {"tool": "list_files", "arguments": {}}


@pytest.mark.parametrize("text", ["just words", "[1, 2]", '{"tool": 7}', "[" * 100_000])
def test_json_that_is_no_call_stays_text(text: str) -> None:
    with ScriptedModel(say(text)) as model:
        reply = Client(replace(spec_at(model), tools=False)).ask(ASKED, TOOLS)
    assert reply.message.content == text and not reply.message.tool_calls
