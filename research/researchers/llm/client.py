"""The client of one model: the only importer of `openai` in the lab. One request, streamed, into one Reply.

It never tries again by itself: each attempt is a call of its own, on the account and in the transcript. What goes
wrong becomes one of wire.py's errors, in one line without the key. Keys are read from the environment when they are
used, and kept nowhere.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from research.researchers.llm import held
from research.researchers.llm.tokens import count, count_text
from research.researchers.llm.wire import (
    BadRequest,
    ContextFull,
    CutOff,
    Message,
    ModelError,
    ModelSpec,
    RateLimited,
    Refused,
    Reply,
    Tool,
    ToolCall,
    Unauthorized,
    Unavailable,
    Usage,
)

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI, Stream

LONGEST_REPLY = 400_000  # characters
LONGEST_SECONDS = 1_800.0  # of one reply
CONNECT_SECONDS = 10.0
SHOW_SECONDS = 0.2  # between two looks at a reply that comes: each puts all of it together
OVER_LENGTH = ("context_length", "maximum context", "context window", "too many tokens", "prompt is too long", "exceed")


class Client:
    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def ask(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), on_text: Callable[[str], None] | None = None
    ) -> Reply:
        """One reply. `on_text` gets all that has come so far, a few times a second. Raises a ModelError."""
        import openai  # a second and 40 MB that only the process of the sessions pays

        key = self._key()
        coming = _Coming(time.monotonic(), key)
        request = self._request(messages, tools)
        try:
            with self._open(key) as client, closing(client.chat.completions.create(**request)) as stream:
                self._read(stream, coming, on_text)
        except openai.APIStatusError as error:
            raise self._of_status(error, key) from None
        except openai.APITimeoutError:
            seconds = f"{self.spec.timeout_seconds:g}"
            raise Unavailable(f"{self.spec.name} sent nothing for {seconds} s", coming.seen, charged=True) from None
        except openai.APIConnectionError as error:
            words = _clean(str(error.__cause__ or error), key)
            if coming.any:
                raise CutOff(f"the line to {self.spec.name} broke: {words}", coming.seen) from None
            raise Unavailable(f"{self.spec.name} cannot be reached: {words}") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError) as error:
            words = _clean(str(error), key)  # no JSON, or JSON of another shape; or an error within the stream
            if (named := self._of_words(error, words)) is not None:
                raise named from None
            if coming.any:
                raise CutOff(f"the reply of {self.spec.name} broke off: {words}", coming.seen) from None
            raise Unavailable(f"{self.spec.name} sent what is no reply: {words}", charged=True) from None
        return self._reply(coming, messages, tools)

    def _read(self, stream: Stream[Any], coming: _Coming, on_text: Callable[[str], None] | None) -> None:
        """All chunks. A line kept alive with comments only is cut after the longest time that a reply may take."""
        shown = 0.0
        watch = threading.Timer(LONGEST_SECONDS, stream.response.close)
        watch.daemon = True
        watch.start()
        try:
            for chunk in stream:
                coming.take(chunk)
                if on_text is not None and (now := time.monotonic()) - shown > SHOW_SECONDS:
                    shown = now
                    on_text(coming.seen)
        finally:
            watch.cancel()

    def _key(self) -> str:
        name = self.spec.key_variable
        if not name:
            return "none"
        if not (key := os.environ.get(name, "").strip()):
            raise Unauthorized(f"the environment variable {name} is not set; {self.spec.name} needs its key there")
        if not key.isascii() or not key.isprintable() or " " in key:  # else the error would show it
            raise Unauthorized(f"what {name} holds is no key: it has characters that no key has")
        return key

    def _open(self, key: str) -> OpenAI:
        import openai

        timeout = openai.Timeout(self.spec.timeout_seconds, connect=min(CONNECT_SECONDS, self.spec.timeout_seconds))
        return openai.OpenAI(api_key=key, base_url=self.spec.base_url or None, max_retries=0, timeout=timeout)

    def _request(self, messages: Sequence[Message], tools: Sequence[Tool]) -> dict[str, Any]:
        spec, extra = self.spec, dict(self.spec.extra)
        request: dict[str, Any] = {"model": spec.model, "stream": True, "stream_options": {"include_usage": True}}
        if "max_completion_tokens" not in extra:  # what newer models of OpenAI want in its place
            request["max_tokens"] = spec.reply_tokens
        if spec.tools or not tools:
            request["messages"] = [_as_sent(message) for message in messages]
            if tools:
                request["tools"] = [{"type": "function", "function": _function(tool)} for tool in tools]
        else:
            request["messages"] = held.in_words(messages, tools)
            request |= held.held(held.schema_of(held.offered(messages, tools, spec.looks)), spec.schema)
        return request | ({"extra_body": extra} if extra else {})

    def _reply(self, coming: _Coming, messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        spec, seconds = self.spec, time.monotonic() - coming.started
        if coming.refusal or coming.finish == "content_filter":
            why = coming.refusal or "a filter of the endpoint stopped it"
            raise Refused(f"{spec.name} declined: {why[:200]}", coming.seen, charged=True)
        if not coming.finish:  # openai's iterator just ends where the server closed the line
            raise CutOff(f"the reply of {spec.name} ended before it was finished", coming.seen)
        said = coming.message()
        if tools and not spec.tools:
            said = held.call_in(said, len(messages))
        usage = coming.usage or Usage(count(messages, tools), 0, count_text(coming.seen) + 8, estimated=True)
        return Reply(said, usage, coming.finish, seconds, coming.first, coming.model)

    def _of_words(self, error: Exception, words: str) -> ModelError | None:
        """An error that came within a stream, where it says which it is."""
        code = str(getattr(error, "code", None) or "")
        line = f"{self.spec.name} says {code}: {words}"
        if code == "429" or "rate_limit" in code:
            return RateLimited(line, charged=True)
        if code in ("400", "413", "context_length_exceeded") and _is_over_length(code, words.lower()):
            return ContextFull(line, charged=True)
        if code in ("401", "402", "403", "insufficient_quota", "invalid_api_key"):
            return Unauthorized(f"{line} (its key is read from {self.spec.key_variable or 'no variable'})")
        return None

    def _of_status(self, error: APIStatusError, key: str) -> ModelError:
        """By status and code, as endpoints use them."""
        spec, words = self.spec, _clean(_words(error), key)
        code, text = str(error.code or ""), words.lower()
        line = f"{spec.name} says {error.status_code}: {words}"
        if code == "insufficient_quota" or error.status_code in (401, 402, 403):
            name = spec.key_variable or "no variable"
            return Unauthorized(f"{line} (its key is read from {name})")
        if error.status_code == 429:
            return RateLimited(line, wait=_wait(error))
        if error.status_code == 413 or code == "context_length_exceeded":
            return ContextFull(line)
        if error.status_code in (400, 422):
            if _is_over_length(code, text):
                return ContextFull(line)
            if code in ("content_filter", "content_policy_violation"):
                return Refused(line)
            return BadRequest(line)
        if error.status_code >= 500 or error.status_code in (408, 409, 425):
            return Unavailable(line, wait=_wait(error))
        return BadRequest(line)


@dataclass
class _Coming:
    """A reply as it arrives."""

    started: float
    key: str = ""
    text: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)  # id and name
    arguments: dict[int, list[str]] = field(default_factory=dict)
    single: bool = True  # every call so far had the index 0
    refusal: str = ""
    finish: str = ""
    model: str = ""
    first: float | None = None
    usage: Usage | None = None
    size: int = 0

    def take(self, chunk: Any) -> None:
        """One chunk of the stream. Raises CutOff where the reply grows without end."""
        self.model = self.model or str(getattr(chunk, "model", "") or "")
        if usage := getattr(chunk, "usage", None):
            details = getattr(usage, "prompt_tokens_details", None)
            prompt, completion = _tokens(usage.prompt_tokens), _tokens(usage.completion_tokens)
            self.usage = Usage(prompt, min(prompt, _tokens(getattr(details, "cached_tokens", None))), completion)
        for choice in getattr(chunk, "choices", None) or ():
            self.finish = choice.finish_reason or self.finish
            if choice.delta is not None:
                self._take_delta(choice.delta)
        if self.size > LONGEST_REPLY:
            raise CutOff(f"the reply has more than {LONGEST_REPLY:,} characters", self.seen[:20_000])
        if time.monotonic() - self.started > LONGEST_SECONDS:
            raise CutOff(f"the reply takes longer than {LONGEST_SECONDS:g} s", self.seen)

    def _take_delta(self, delta: Any) -> None:
        piece = delta.content or ""
        self.text.append(piece)
        self.size += len(piece)
        refusal = getattr(delta, "refusal", None) or ""
        self.refusal += refusal
        self.size += len(refusal)
        for part in delta.tool_calls or ():
            self._take_call(part)
        if self.first is None and self.any:
            self.first = time.monotonic() - self.started

    def _take_call(self, part: Any) -> None:
        at = part.index or 0
        if part.id and self.calls.get(at, {}).get("id", part.id) not in ("", part.id):
            at = max(self.calls) + 1  # some endpoints number every call 0
        elif not part.id and part.index == 0 and len(self.calls) > 1 and self.single:
            at = max(self.calls)
        self.single = self.single and (part.index or 0) == 0
        call = self.calls.setdefault(at, {"id": "", "name": ""})
        call["id"] = call["id"] or str(part.id or "")
        pieces = self.arguments.setdefault(at, [])
        if part.function is not None:
            name, arguments = part.function.name or "", part.function.arguments or ""
            call["name"] += name
            pieces.append(arguments)
            self.size += len(name) + len(arguments) + 1

    @property
    def any(self) -> bool:
        return bool(self.size or self.calls or self.refusal)

    @property
    def seen(self) -> str:
        """All that has come, tool calls too, for whoever watches."""
        calls = (f"{call['name']}({''.join(self.arguments[at])})" for at, call in sorted(self.calls.items()))
        return self._storable("\n".join(part for part in ("".join(self.text), *calls) if part))

    def message(self) -> Message:
        calls = tuple(
            ToolCall(
                self._storable(call["id"] or f"call_{at}")[:120], self._storable(call["name"])[:200],
                self._storable("".join(self.arguments[at])),
            )
            for at, call in sorted(self.calls.items())
        )  # fmt: skip
        return Message("assistant", self._storable("".join(self.text)), calls)

    def _storable(self, text: str) -> str:
        """What a database takes: no NUL, no half of a character; nor the key, should the endpoint echo it."""
        text = text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if len(self.key) > 4 else text


def _as_sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": _name(call), "arguments": held.arguments_of(call)}}
            for call in message.tool_calls
        ]
    elif not message.content:
        sent["content"] = "(nothing)"  # an empty reply, sent back as it was, is an error to some endpoints
    if message.role == "tool":
        sent["tool_call_id"] = message.tool_call_id
    return sent


def _name(call: ToolCall) -> str:
    """The name of a call as endpoints take it back; a model may have made one up."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", call.name)[:64] or "unnamed"


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _words(error: APIStatusError) -> str:
    body: dict[str, Any] = error.body if isinstance(error.body, dict) else {}
    wrapped = body.get("error")
    inner = wrapped if isinstance(wrapped, dict) else body
    return str(inner.get("message") or error.message)


def _is_over_length(code: str, text: str) -> bool:
    told = any(sign in text for sign in OVER_LENGTH) and ("token" in text or "context" in text)
    return told or code == "context_length_exceeded"


def _tokens(count_: Any) -> int:
    return max(0, int(count_)) if isinstance(count_, int | float) and math.isfinite(count_) else 0


def _wait(error: APIStatusError) -> float | None:
    """Seconds that the endpoint asks for, as a number or a date."""
    told = error.response.headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, min(seconds, 3_600.0)) if math.isfinite(seconds) else None


def _clean(text: str, key: str) -> str:
    """One line without the key."""
    line = " ".join(text.split())
    return (line.replace(key, "[key]") if len(key) > 4 else line)[:300]
