"""A scripted researcher over a long horizon: it repeats itself, forgets, and reads what its prompts say of the past.

Each idea adds one constant to the toy's training. What it proposes is planned by the number of its proposals; what
becomes worth another look it takes up when a prompt, or the answer of a tool, tells it so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.llm_play import purpose_of, turns_of
from tests.model_play import Answer, calls

LESSON = re.compile(r"^ ?\[\d+\] .*$", re.MULTILINE)


@dataclass(frozen=True)
class Told:
    """An idea as the researcher says it. `ask`: what it looks for among the lessons before it decides."""

    title: str
    constant: str
    tag: str
    hypothesis: str
    ask: str = ""

    @property
    def idea(self) -> dict[str, Any]:
        plan = f"add {self.constant} to train.py"
        return {"title": self.title, "hypothesis": self.hypothesis, "plan": plan, "expected_effect": 0.02,
                "tags": [self.tag]}  # fmt: skip


def words_of(body: dict[str, Any]) -> str:
    return "\n".join(str(message.get("content") or "") for message in body["messages"])


def lessons_of(text: str, told: Told) -> list[str]:
    """The lines on lessons that tell of this idea."""
    return [line for line in LESSON.findall(text) if told.hypothesis[:60] in line]


def is_open_again(text: str, told: Told) -> bool:
    return any("worth another look" in line for line in lessons_of(text, told))


@dataclass
class Researcher:
    """`plan`: the idea of this turn, given the number of proposals and the newest experiment that the prompt shows.
    `watched`: what it waits for to be open again, each taken up once."""

    plan: Callable[[int, int], Told]
    watched: list[Told] = field(default_factory=list)
    count: int = 0
    chosen: Told | None = None

    def __call__(self, body: dict[str, Any]) -> Answer:
        turn, text = turns_of(body), words_of(body)
        if purpose_of(body) == "change":
            name = re.findall(r"Plan: add ([A-Z]+) to train.py", text)[-1]
            edit = {"path": "train.py", "old": "BETA = 1.0", "new": f"BETA = 1.0\n{name} = 2.0"}
            return calls(finish_change={"summary": name}) if turn else calls(replace=edit)
        if turn == 0:
            self.chosen = self._choose(text)
            if self.chosen.ask:
                return calls(lessons={"query": self.chosen.ask})
        assert self.chosen is not None
        return calls(finish_idea=self.chosen.idea)

    def _choose(self, text: str) -> Told:
        for told in self.watched:
            if is_open_again(text, told):
                self.watched.remove(told)
                return told
        self.count += 1
        numbers = [int(number) for number in re.findall(r"^- experiment (\d+): ", text, re.MULTILINE)]
        return self.plan(self.count, max(numbers, default=0))
