"""What comes next in a session, read off its messages alone; and which of them still fit into a request.

Pure: the same transcript gives the same next step, so a session goes on in any process where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from research.researchers.llm.tokens import BYTES_A_TOKEN, CHARACTERS_A_TOKEN, count, count_text
from research.researchers.llm.tools import EDITS, MALFORMED, Quotas
from research.researchers.llm.wire import ContextFull, Message, ModelSpec, Tool, ToolCall

FORMAT_TRIES = 3  # replies in a row that are no answer, before the session gives up
SAME_CALLS = 4  # identical calls in a row, before it does
SHORTEST_TOKENS = 200  # of an answer of a tool that is cut to fit


@dataclass(frozen=True)
class Ask:
    """Ask the model."""


@dataclass(frozen=True)
class Perform:
    call: ToolCall


@dataclass(frozen=True)
class Tell:
    """Add this message of the lab, then ask."""

    text: str


@dataclass(frozen=True)
class Give:
    """Give up: the session fails with this kind and reason."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Fitted:
    """What is sent. `left_out`: indices of the given messages that no longer are."""

    messages: tuple[Message, ...]
    left_out: tuple[int, ...]
    tokens: int


def next_step(messages: Sequence[Message], tools: Sequence[Tool], quotas: Quotas) -> Ask | Perform | Tell | Give:
    """Reads the whole transcript, what was compacted too."""
    finish = tools[-1].name
    if waiting := unanswered(messages):
        return Perform(waiting)
    if (bad := _malformed_in_a_row(messages)) >= FORMAT_TRIES:
        return Give("format", f"{bad} replies in a row were no answer to what was asked")
    if _repeats_itself(messages):
        return Give("repeats", f"the model made the same call {SAME_CALLS} times in a row")
    if sum(message.role == "assistant" for message in messages) >= quotas.turns:
        return Give("turns", f"no answer came within {quotas.turns} replies")
    last = messages[-1]
    if last.role == "assistant" and not last.tool_calls:
        return Tell(f"{MALFORMED}call a tool. When you are done, call {finish}; words alone end nothing.")
    return Ask()


def unanswered(messages: Sequence[Message]) -> ToolCall | None:
    """The next call of the newest reply that no tool has answered yet. Some endpoints use an id again later."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "assistant":
            done = sum(message.role == "tool" for message in messages[at + 1 :])
            return messages[at].tool_calls[done] if done < len(messages[at].tool_calls) else None
    return None


def left(messages: Sequence[Message], quotas: Quotas) -> Quotas:
    """What of the quotas the transcript leaves."""
    answers = [message for message in messages if message.role == "tool"]
    return Quotas(
        turns=quotas.turns - sum(message.role == "assistant" for message in messages),
        calls=quotas.calls - len(answers),
        characters=quotas.characters - sum(len(message.content) for message in answers),
        edits=quotas.edits - sum(message.name in EDITS for message in answers),
        checks=quotas.checks - sum(message.name == "check" for message in answers),
    )


def fit(messages: Sequence[Message], tools: Sequence[Tool], spec: ModelSpec, gone: int = 0) -> Fitted:
    """Leave out whole exchanges, the oldest first, until the prompt fits beside the reply.

    Never the messages before the first reply, nor the newest exchange; where that one is too long, what tools answered
    in it is cut in the middle. `gone`: how many were left out before. A message
    of the lab says so. Raises ContextFull where what must stay does not fit.
    """
    room = spec.context_tokens - spec.reply_tokens
    opening, exchanges = _exchanges(messages)
    dropped: list[int] = []
    while True:
        kept = [at for at in range(len(messages)) if at not in set(dropped)]
        said = [messages[at] for at in kept]
        if gone + len(dropped):
            said.insert(opening, Message("user", _note(gone + len(dropped))))
        tokens = count(said, tools)
        if tokens <= room:
            return Fitted(tuple(said), tuple(dropped), tokens)
        if len(exchanges) > 1:
            dropped += exchanges.pop(0)
        elif shorter := _shortened(said, tokens, room):
            return Fitted(shorter, tuple(dropped), count(shorter, tools))
        else:
            raise ContextFull(
                f"the task alone takes about {tokens:,} tokens; {spec.name} takes {room:,} beside its reply"
            )


def _shortened(messages: Sequence[Message], tokens: int, room: int) -> tuple[Message, ...]:
    """The answers of tools cut in their middle, so that all fits; nothing where they would be too short to be of use.

    The longest are cut first, to one length. A cut never makes a line of its own out of the middle of one.
    """
    sizes = sorted((count_text(message.content) for message in messages if message.role == "tool"), reverse=True)
    spare = sum(sizes) - (tokens - room)  # what the answers of tools may take together
    for number in range(1, len(sizes) + 1):  # the `number` longest share what the others leave
        most = (spare - sum(sizes[number:])) // number
        if most >= SHORTEST_TOKENS and (number == len(sizes) or sizes[number] <= most):
            return tuple(
                replace(message, content=_cut(message.content, most)) if message.role == "tool" else message
                for message in messages
            )
    return ()


def _cut(text: str, most: int) -> str:
    """At most so many tokens, beginning and end kept: the marks of a quotation stand there."""
    if count_text(text) <= most:
        return text
    keep, mark = int((most - 24) * BYTES_A_TOKEN), "\n[... cut to fit ...] "
    while keep > 0:
        cut = f"{text[: keep // 2]}{mark}{text[len(text) - keep // 2 :]}"
        if count_text(cut) <= most:
            return cut
        keep = keep * 3 // 4
    return mark.strip()


def _note(number: int) -> str:
    return (
        f"[{number} earlier messages were left out to stay within what the model takes. Your edits stand; read again "
        "what you need.]"
    )


def _exchanges(messages: Sequence[Message]) -> tuple[int, list[list[int]]]:
    """How many messages open the session, and the indices of each exchange after them: a reply and what answers it."""
    first = next((at for at, message in enumerate(messages) if message.role == "assistant"), len(messages))
    found: list[list[int]] = []
    for at in range(first, len(messages)):
        if messages[at].role == "assistant":
            found.append([])
        found[-1].append(at)
    return first, found


def _malformed_in_a_row(messages: Sequence[Message]) -> int:
    """How many of the newest replies were answered with nothing but words on what was wrong."""
    _, exchanges = _exchanges(messages)
    count_ = 0
    for exchange in reversed(exchanges):
        answers = [messages[at].content for at in exchange[1:]]
        if not answers or not all(text.startswith(MALFORMED) for text in answers):
            break
        count_ += 1
    return count_


def _repeats_itself(messages: Sequence[Message]) -> bool:
    calls = [(call.name, call.arguments) for message in messages for call in message.tool_calls]
    return len(calls) >= SAME_CALLS and len(set(calls[-SAME_CALLS:])) == 1


def room_for_files(spec: ModelSpec) -> int:
    """Characters of files that an opening may hold, so that most of the context is left for the work."""
    return int(0.35 * CHARACTERS_A_TOKEN * (spec.context_tokens - spec.reply_tokens))


def room_for_words(spec: ModelSpec, most: int) -> int:
    """Characters of lessons or of results that an opening may hold."""
    return min(most, int(0.1 * CHARACTERS_A_TOKEN * (spec.context_tokens - spec.reply_tokens)))
