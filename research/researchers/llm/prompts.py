"""Prompts: files with a version on top and {{places}} to fill, beside this module. A project may keep its own text.

A prompt has two parts, divided by a line `=== task ===`: what is said to every session of a project alike, which
endpoints can cache, and what changes from one session to the next.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "prompts"
NAMES = ("propose", "implement", "review")
PLACE = re.compile(r"\{\{(\w+)\}\}")
DIVIDER = "\n=== task ===\n"


@dataclass(frozen=True)
class Prompt:
    name: str
    version: str
    text: str
    digest: str

    @property
    def places(self) -> frozenset[str]:
        return frozenset(PLACE.findall(self.text))

    def __str__(self) -> str:
        """As sessions remember it."""
        return f"{self.name} {self.version} {self.digest[:8]}"


class PromptError(ValueError):
    """A text that cannot serve as this prompt. One line."""


@cache
def load(name: str) -> Prompt:
    """The prompt that ships with the lab."""
    first, _, text = (FOLDER / f"{name}.md").read_text(encoding="utf-8").partition("\n")
    return prompt_of(name, first.removeprefix("version:").strip(), text.strip())


def prompt_of(name: str, version: str, text: str) -> Prompt:
    return Prompt(name, version, text, hashlib.sha256(text.encode()).hexdigest())


def check(prompt: Prompt) -> None:
    """Raises PromptError where the text lacks the divider, or its places are not those of the shipped prompt."""
    if DIVIDER not in prompt.text:
        raise PromptError("the line `=== task ===` is missing: it divides what always holds from the task at hand")
    wanted = load(prompt.name).places
    if missing := sorted(wanted - prompt.places):
        raise PromptError(f"the place {{{{{missing[0]}}}}} is missing")
    if unknown := sorted(prompt.places - wanted):
        raise PromptError(f"there is no {{{{{unknown[0]}}}}} to fill in; there are {', '.join(sorted(wanted))}")


def fill(prompt: Prompt, **parts: str) -> str:
    """The text with its places filled. What is filled in is never searched for places again."""
    return PLACE.sub(lambda place: parts.get(place[1], ""), prompt.text)


def opening(prompt: Prompt, **parts: str) -> tuple[str, str]:
    """The system message and the task."""
    always, _, task = prompt.text.partition(DIVIDER)
    halves = (prompt_of(prompt.name, prompt.version, half.strip()) for half in (always, task))
    system, user = (fill(half, **parts) for half in halves)
    return system, user
