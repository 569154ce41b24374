"""The client against a real model and a real server: `python -m tests.local_model` makes both, once."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from research.researchers.llm.answers import IdeaAnswer
from research.researchers.llm.client import Client
from research.researchers.llm.tokens import count, count_text
from research.researchers.llm.tools import tools_for
from research.researchers.llm.wire import ContextFull, CutOff, FormatError, Message, ModelSpec
from tests import local_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(local_model.missing()), reason=local_model.missing())]
TASK = (
    Message("system", "You propose one small change to the training of a small language model."),
    Message("user", "The learning rate is 0.01 and the loss goes up and down. Propose one change."),
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    with local_model.serving(tmp_path_factory.mktemp("model") / "server.log") as url:
        yield local_model.spec_at(url)


def test_a_small_model_held_to_the_schema_gives_an_idea(spec: ModelSpec) -> None:
    """Its JSON always has the shape; that the effect is a share of the score takes it a few tries."""
    for seed in range(6):
        seen: list[str] = []
        asked = replace(spec, extra={"seed": seed})
        reply = Client(asked).ask(TASK, tools_for("propose")[-1:], seen.append)
        assert seen and reply.finish == "stop" and reply.usage.completion > 0
        assert [call.name for call in reply.message.tool_calls] == ["finish_idea"]
        try:
            idea = IdeaAnswer.from_json(reply.message.tool_calls[0].parsed())
        except FormatError:
            continue
        assert idea.title and idea.hypothesis and idea.plan
        return
    raise AssertionError("six replies, and none of them an idea")


def test_a_prompt_longer_than_the_model_takes_brings_no_reply(spec: ModelSpec) -> None:
    """This server just closes the stream; the lab never gets there, since its own count leans upward."""
    long = Message("user", "one two three " * 4_000)
    with pytest.raises((ContextFull, CutOff), match="local"):
        Client(spec).ask((TASK[0], long))


def test_a_reply_cut_at_its_longest_says_so(spec: ModelSpec) -> None:
    reply = Client(replace(spec, reply_tokens=5)).ask((Message("user", "Tell a long story."),))
    assert reply.finish == "length" and reply.message.content


@pytest.mark.parametrize(
    "text",
    [
        "0.123456 3.14159 2.71828 " * 40,
        "def f(x):\n    return x * 2\n" * 40,
        "ein schönes Straßenfest 日本語 " * 30,
        "{}[]();:=<>" * 60,
    ],
)
def test_the_estimate_of_tokens_leans_upward(spec: ModelSpec, text: str) -> None:
    address = spec.base_url.removesuffix("/v1") + "/extras/tokenize/count"
    body = json.dumps({"input": text, "model": "smollm2"}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        real = json.load(answer)["count"]
    assert real <= count_text(text) < 3 * real
    assert count([Message("user", text)]) > real
