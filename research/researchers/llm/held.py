"""Models that cannot call tools: a call is a JSON object in text, held to a schema where the endpoint can.

Such models are often small, and a small one calls the first tool for ever. So a call that was made twice is not offered
again, and after some replies only what changes files or ends the session is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from research.researchers.llm.quoting import OPEN
from research.researchers.llm.tools import EDITS
from research.researchers.llm.wire import FormatError, Message, Tool, ToolCall

EFFECTS = (-0.02, 0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
LOOKS = frozenset({"list_files", "read_file", "search", "lessons", "results", "log", "curve", "check"})


def offered(messages: Sequence[Message], tools: Sequence[Tool], looks: int) -> tuple[Tool, ...]:
    """The tools of the next reply. `looks`: replies after which only edits and the end are among them.

    The end is always, but for that of a change before anything is changed.
    """
    made = Counter((call.name, call.arguments) for message in messages for call in message.tool_calls)
    worn = {name for (name, _), times in made.items() if times > 1}
    if sum(message.role == "assistant" for message in messages) >= looks:
        worn |= LOOKS
    edits = {tool.name for tool in tools}.intersection(EDITS)
    if edits and not any(message.name in edits and message.content.startswith(OPEN) for message in messages):
        return tuple(tool for tool in tools[:-1] if tool.name not in worn - edits)
    return tuple(tool for tool in tools[:-1] if tool.name not in worn) + tuple(tools[-1:])


def within(
    tools: Sequence[Tool], paths: Sequence[str], constants: Mapping[str, Mapping[str, float]]
) -> tuple[Tool, ...]:
    """The tools with these paths and constants as the only ones that an edit can name, and effects as steps of a scale.

    Small models make paths up, and expect a gain of 1,837,900 %.
    """
    path = {"type": "string", "enum": list(paths)}
    narrowed = []
    for tool in tools:
        parameters = tool.parameters
        if tool.name == "set_constant":
            if not any(constants.values()):
                continue
            parameters = {"anyOf": list(_settings(constants))}
        elif paths and tool.name in EDITS:
            parameters = {**parameters, "properties": {**parameters["properties"], "path": path}}
        elif "expected_effect" in parameters["properties"]:
            scale = {"enum": list(EFFECTS)}
            parameters = {**parameters, "properties": {**parameters["properties"], "expected_effect": scale}}
        narrowed.append(replace(tool, parameters=parameters))
    return tuple(narrowed)


def _settings(constants: Mapping[str, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """One schema for the whole numbers and one for the others of each file."""
    for path, numbers in constants.items():
        for kind, is_whole in (("integer", True), ("number", False)):
            names = [name for name, value in numbers.items() if isinstance(value, int) == is_whole]
            fields = {"path": {"enum": [path]}, "constant": {"enum": names}, "value": {"type": kind}}
            if names:
                yield {"type": "object", "properties": fields, "required": list(fields)}


def arguments_of(call: ToolCall) -> str:
    """The arguments as JSON: some endpoints parse what they get back, and fail on what a model wrote wrong."""
    try:
        call.parsed()
    except FormatError:
        return json.dumps({"malformed": call.arguments[:2_000]})
    return call.arguments or "{}"


def in_words(messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """For models without tool calls: a call is a JSON object in text, an answer is a message of the user."""
    named = "\n".join(f"- {tool.name}: {tool.description} {json.dumps(dict(tool.parameters))}" for tool in tools)
    how = f'\n\nYou act by one JSON object a reply: {{"tool": name, "arguments": {{...}}}}. The tools:\n{named}'
    sent: list[dict[str, Any]] = []
    for message in messages:
        content = message.content
        if message.role == "system":
            content += how
        if message.tool_calls:
            call = message.tool_calls[0]
            content = f'{{"tool": {json.dumps(call.name)}, "arguments": {arguments_of(call)}}}'
        role = "user" if message.role == "tool" else message.role
        if message.role == "tool":
            content = f"{message.name} answers:\n{content}"
        if sent and sent[-1]["role"] == role == "user":  # templates of small models want turns
            sent[-1]["content"] += f"\n\n{content}"
        else:
            sent.append({"role": role, "content": content})
    return sent


def held(schema: Mapping[str, Any], way: str) -> dict[str, Any]:
    """The field of a request that holds the reply to a schema. llama-cpp-python knows the second way only."""
    if way == "none":
        return {}
    if way == "json_object":
        return {"response_format": {"type": "json_object", "schema": schema}}
    named = {"name": "call", "schema": schema, "strict": False}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def schema_of(tools: Iterable[Tool]) -> dict[str, Any]:
    """One call of one of the tools."""
    calls = [
        {
            "type": "object",
            "properties": {"tool": {"type": "string", "enum": [tool.name]}, "arguments": _short(dict(tool.parameters))},
            "required": ["tool", "arguments"],
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _short(schema: Any) -> Any:
    """A schema whose bounded texts end sooner: llama.cpp breaks off at a grammar with more than 1,000 repeats."""
    if not isinstance(schema, dict):
        return schema
    longest = {"maxLength": min(schema["maxLength"], 900)} if "maxLength" in schema else {}
    return {name: _short(value) for name, value in schema.items()} | longest


def call_in(said: Message, turn: int) -> Message:
    """The call that a reply in JSON stands for; text that is none stays text, and is told so."""
    try:
        found = json.loads(said.content.strip().removeprefix("```json").removesuffix("```"), strict=False)
    except (ValueError, RecursionError):
        return said
    if not isinstance(found, dict) or not isinstance(found.get("tool"), str):
        return said
    return Message("assistant", "", (ToolCall(f"call_{turn}", found["tool"], json.dumps(found.get("arguments"))),))
