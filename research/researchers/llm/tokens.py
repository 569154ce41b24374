"""How many tokens a request is, before the endpoint has counted it: an estimate that leans upward.

A tokenizer makes about one token of 3.5 to 4 bytes of code and prose, small vocabularies one of fewer; here it is one
of 2.6 letters, so that a prompt that fits by this count fits. Many take digits and signs one by one, and know few
characters outside ASCII: a digit, a sign, the space before one, and a byte of such a character count one each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

from research.researchers.llm.wire import Message, Tool

BYTES_A_TOKEN = 2.6
CHARACTERS_A_TOKEN = 1.9  # of code, by this count
DENSE = re.compile(r"[!-@\[-`{-~]|\s(?=[^A-Za-z\s])")
A_MESSAGE, A_TOOL, A_REQUEST = 8, 16, 16  # what endpoints wrap around each


def count_text(text: str) -> int:
    size, plain = len(text.encode("utf-8", "surrogatepass")), len(text.encode("ascii", "ignore"))
    dense = len(DENSE.findall(text))
    return dense + (size - plain) + math.ceil(max(0, plain - dense) / BYTES_A_TOKEN)


def count(messages: Iterable[Message], tools: Sequence[Tool] = ()) -> int:
    """Tokens of a whole prompt."""
    total = A_REQUEST
    for message in messages:
        total += A_MESSAGE + count_text(message.content)
        total += sum(A_MESSAGE + count_text(call.name + call.arguments) for call in message.tool_calls)
    for tool in tools:
        total += A_TOOL + count_text(tool.name + tool.description + json.dumps(dict(tool.parameters)))
    return total
