"""What a person asked of a thread in words: one entry of `say` or `try_this` in its directives, and how it stands.

Words are data: kept as they came, bounded, with who and when; what a researcher is shown quotes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from research.models.ids import new_id

LONGEST = 500  # characters
MOST = 12  # of one kind that are kept; the oldest that is done goes first
SAY, TRY = "say", "try_this"
ASKED, SEEN, DONE, CANNOT = "asked", "acknowledged", "done", "cannot"
AS_ASKED = "as-asked"  # the tag of an idea that is what `try_this` asked for

Entry = dict[str, Any]


def entry(by: User, text: str) -> Entry:
    """A new one. Raises ValueError with one line where it says nothing or too much."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if not words:
        raise ValueError("say what you want: a sentence")
    if len(words) > LONGEST:
        raise ValueError(f"{len(words)} characters are too many; at most {LONGEST}")
    return {"id": new_id(), "text": words, "by": str(by), "at": timezone.now().isoformat(), "state": ASKED}


def added(entries: Sequence[Entry], new: Entry) -> list[Entry]:
    """With one more. Raises ValueError where too many still wait."""
    kept = list(entries)
    while len(kept) >= MOST:
        settled = next((old for old in kept if old["state"] in (DONE, CANNOT, SEEN)), None)
        if settled is None:
            raise ValueError(f"{MOST} wait already; withdraw one first")
        kept.remove(settled)
    return [*kept, new]


def seen(entries: Iterable[Entry], number: int) -> tuple[list[Entry], list[Entry]]:
    """All of them after idea `number` was made under them, and those that it is the first to answer."""
    fresh = [old for old in entries if old["state"] == ASKED]
    return [old | {"state": SEEN, "idea": number} if old in fresh else old for old in entries], fresh


def next_wish(entries: Iterable[Entry]) -> Entry | None:
    """One at a time: the oldest that was not answered."""
    return next((old for old in entries if old["state"] == ASKED), None)


def answered(entries: Iterable[Entry], wish: Entry, number: int, why_not: str) -> list[Entry]:
    """After idea `number` took the wish, or said why it cannot."""
    answer = {"state": CANNOT, "answer": why_not[:300]} if why_not else {"state": DONE}
    return [old | answer | {"idea": number} if old["id"] == wish["id"] else old for old in entries]


def takes(wish: Entry, techniques: Iterable[str], tags: Iterable[str]) -> bool:
    return wish["text"] in techniques or AS_ASKED in tags


def lines_of(directives: Mapping[str, Any]) -> list[str]:
    """What a researcher is shown, the newest last."""
    rows = [f"{said['by']} says: {said['text']}" for said in directives.get(SAY, ())]
    if wish := next_wish(directives.get(TRY, ())):
        rows.append(
            f"{wish['by']} asks to try this now: {wish['text']} (if your idea is this, put {AS_ASKED} among its tags; "
            "if it cannot be done, say why in the first line of the plan)"
        )
    return rows
