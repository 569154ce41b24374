"""How fresh a project's validation data are, in words: which part confirms, how many experiments used what."""

from __future__ import annotations

from dataclasses import dataclass

from research.models import DataUse, Project
from research.models.data_use import FINAL, SCREEN

ANEW = "inputs drawn anew"


@dataclass(frozen=True)
class DataUsed:
    parts: tuple[str, ...]  # of the confirm data, in the order they are used; none where inputs are drawn anew
    turn: int  # number of the part that confirms next, from 1; 0: there is none
    counts: dict[str, int]

    @property
    def confirm_uses(self) -> int:
        return self.counts.get(self.parts[self.turn - 1], 0)

    @property
    def screen_uses(self) -> int:
        return self.counts.get(SCREEN, 0)

    @property
    def final_uses(self) -> int:
        return self.counts.get(FINAL, 0)

    def said(self, split: str) -> str:
        """Of one split: what it is and how many experiments have used it."""
        if not split:
            return ANEW
        uses = self.counts.get(split, 0)
        used = f"used by {uses} experiment{'s' * (uses != 1)}"
        if split in self.parts and len(self.parts) > 1:
            return f"{split}: confirm part {1 + self.parts.index(split)} of {len(self.parts)}, {used}"
        if split == FINAL and uses > 1:
            return f"{split}: {used}, so it was not fresh for the last"
        return f"{split}: {used}"


def data_used(project: Project) -> DataUsed:
    parts = project.confirm_parts
    if not parts:
        return DataUsed((), 0, {})
    part = DataUse.objects.part_in_turn(project.data_id, parts)
    return DataUsed(parts, 1 + parts.index(part), DataUse.objects.counts(project.data_id))
