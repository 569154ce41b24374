"""Which models this lab may ask, as the pages say it; and what to set where there is none.

The web process asks no model. It reads the same environment as the process that does, never a key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from research.researchers import RESEARCHERS
from research.researchers.llm.models import ModelsError, models_from
from research.researchers.llm.wire import ModelSpec

EXAMPLE = ("LAB_LLM_MODEL=qwen2.5-coder-7b-instruct", "LAB_LLM_BASE_URL=http://127.0.0.1:8080/v1")


@dataclass(frozen=True)
class Configured:
    specs: tuple[ModelSpec, ...]
    problem: str = ""  # the configuration cannot be read: one line

    def __bool__(self) -> bool:
        return bool(self.specs)

    @cached_property
    def names(self) -> list[str]:
        return [spec.name for spec in self.specs]

    @property
    def example(self) -> str:
        """What to set for a server on this machine."""
        return "\n".join(EXAMPLE)

    @property
    def why_not(self) -> str:
        """Why no model can be asked; empty where one can."""
        if self.problem:
            return f"the models of this lab cannot be read: {self.problem}"
        return "" if self.specs else "no model is configured"

    def require(self, name: str) -> None:
        """Raises ValueError with one line where no model of this name can be asked; `""` stands for any."""
        if self.why_not:
            raise ValueError(f"{self.why_not}; set LAB_LLM_MODEL and LAB_LLM_BASE_URL, then start the lab again")
        if name and name not in self.names:
            raise ValueError(f"there is no model {name[:80]!r} here; there are {', '.join(self.names)}")


def why_not(researcher: str) -> str:
    """Why a thread of this researcher could not search here; empty where it can."""
    known = RESEARCHERS.get(researcher)
    return configured().why_not if known is not None and known.holds_sessions else ""


def configured() -> Configured:
    try:
        return Configured(models_from(os.environ))
    except ModelsError as error:
        return Configured((), str(error))
