"""What goes between the lab and a model: messages, tool calls, replies, usage, and what can go wrong.

Plain records. The client makes replies of them, the conversation decides by them, the loop stores them.

    ModelError
        RateLimited     429, or "slow down" in words: waits as long as the endpoint says, then asks again
        Unavailable     5xx, no connection, no answer in time: backs off, then the next model of the chain
        CutOff          the reply ended in the middle of the stream; what came is kept, never acted on
        ContextFull     the prompt is longer than the model takes: compacts, then asks again
        Refused         the model declined, or a filter did: told to the thread, the next model of the chain
        Unauthorized    a missing, wrong or exhausted key: stops the session with one line that says which variable
        BadRequest      the endpoint does not understand the request: stops the session, never tried again as it is
    FormatError         a reply that is no answer to what was asked; told to the model, a bounded number of times
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

MILLION = Decimal(1_000_000)


class ModelError(Exception):
    """A call that brought no usable reply. One line; `text` holds what had come.

    `wait`: seconds that the endpoint asks for. `charged`: it may charge for the call, although nothing is to be had.
    """

    kind = "model_error"

    def __init__(self, message: str, text: str = "", wait: float | None = None, charged: bool = False) -> None:
        super().__init__(message)
        self.text, self.wait, self.charged = text, wait, charged or bool(text)


class RateLimited(ModelError):
    kind = "rate_limited"


class Unavailable(ModelError):
    kind = "unavailable"


class CutOff(ModelError):
    kind = "cut_off"

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message, text, charged=True)


class ContextFull(ModelError):
    kind = "context_full"


class Refused(ModelError):
    kind = "refused"


class Unauthorized(ModelError):
    kind = "unauthorized"


class BadRequest(ModelError):
    kind = "bad_request"


class FormatError(Exception):
    """A reply that is no answer to what was asked. The text is what the model is told."""


@dataclass(frozen=True)
class ModelSpec:
    """One model of one endpoint. Prices are per million tokens; None: unknown, so no cap on money can be kept."""

    name: str  # as people call it here; unique
    model: str  # as the endpoint calls it
    base_url: str = ""  # empty: the openai package's default
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key; "" for none
    roles: tuple[str, ...] = ("propose", "implement", "review")
    context_tokens: int = 32_768  # prompt and reply together
    reply_tokens: int = 4_096
    price_in: Decimal | None = None
    price_cached: Decimal | None = None  # of prompt tokens that the endpoint had cached; None: as `price_in`
    price_out: Decimal | None = None
    timeout_seconds: float = 120.0  # without a byte
    tools: bool = True  # False: tool calls are asked for as JSON in text, held to a schema where the endpoint can
    schema: str = "json_schema"  # how it is told the schema; json_object: as llama-cpp-python; none: not at all
    looks: int = 12  # without tool calls: replies that may look around, before only edits and the end are offered
    edits: tuple[str, ...] = ("replace", "write_file", "set_constant")  # tools by which it may change files
    extra: Mapping[str, Any] = field(default_factory=dict)  # more fields of the request body

    @property
    def priced(self) -> bool:
        return self.price_in is not None and self.price_out is not None

    def price(self, usage: Usage) -> Decimal | None:
        """What a call cost, in the unit of the prices; None where they are unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        cached = self.price_in if self.price_cached is None else self.price_cached
        fresh = usage.prompt - usage.cached
        return (fresh * self.price_in + usage.cached * cached + usage.completion * self.price_out) / MILLION

    def reserve(self, prompt_tokens: int) -> Decimal | None:
        """The most that a call with so long a prompt can cost."""
        return self.price(Usage(prompt_tokens, 0, self.reply_tokens))


@dataclass(frozen=True)
class Usage:
    """Tokens of one call. `cached` are among `prompt`. `estimated`: the endpoint did not say."""

    prompt: int
    cached: int
    completion: int
    estimated: bool = False


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # JSON, as the model wrote it

    def parsed(self) -> dict[str, Any]:
        """Raises FormatError where it is no JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise FormatError(
                f"the arguments of {self.name} are not JSON ({error}); a reply that is too long is cut off: write less"
            ) from error
        if not isinstance(found, dict):
            raise FormatError(f"the arguments of {self.name} must be a JSON object")
        return found


@dataclass(frozen=True)
class Message:
    """One message of a conversation. `tool_call_id` and `name` belong to an answer of a tool."""

    role: str  # system, user, assistant, tool
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Tool:
    """What a model may call: its name, what it does in a sentence, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    message: Message
    usage: Usage
    finish: str  # stop, tool_calls, length
    seconds: float
    first_seconds: float | None = None  # until the first token
    model: str = ""  # as the endpoint calls what answered
