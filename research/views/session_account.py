"""What calls of models have cost: of a session, a thread or a project. Sums of rows, one query each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Avg, Count, Q, QuerySet, Sum

from research.models import Call, Session

STATES = Call.State
# The prefix keeps them apart from fields of the same name, which the ones below would otherwise mean.
SUMS: dict[str, Any] = {
    "all_calls": Count("pk"),
    "all_failed": Count("pk", filter=Q(state=STATES.FAILED)),
    "all_lost": Count("pk", filter=Q(state=STATES.LOST)),
    "all_prompt": Sum("prompt_tokens"),
    "all_cached": Sum("cached_tokens"),
    "all_completion": Sum("completion_tokens"),
    "all_settled": Sum("price"),
    "all_reserved": Sum("reserved"),
    "all_unpriced": Count("pk", filter=Q(state=STATES.ANSWERED, price=None)),
    "all_estimated": Count("pk", filter=Q(estimated=True)),
    "all_seconds": Sum("seconds"),
    "all_latency": Avg("seconds", filter=Q(state=STATES.ANSWERED)),
    "all_first": Avg("first_seconds", filter=Q(state=STATES.ANSWERED)),
}


@dataclass(frozen=True)
class Account:
    calls: int = 0
    failed: int = 0
    lost: int = 0
    prompt: int = 0  # tokens, `cached` among them
    cached: int = 0
    completion: int = 0
    settled: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)  # of calls under way, and of lost ones for ever
    unpriced: int = 0  # answered calls whose price is not known
    estimated: int = 0
    seconds: float = 0.0
    latency: float | None = None  # mean seconds of an answered call
    first: float | None = None  # until its first token

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def committed(self) -> Decimal:
        """Settled, and what calls under way and lost ones can have cost at most."""
        return self.settled + self.reserved

    @property
    def is_priced(self) -> bool:
        return not self.unpriced or bool(self.settled)

    @property
    def cached_share(self) -> float | None:
        return self.cached / self.prompt if self.prompt else None


def account_of(calls: QuerySet[Call]) -> Account:
    return _account(calls.order_by().aggregate(**SUMS))


def accounts_of(sessions: Iterable[Session]) -> dict[int, Account]:
    """By the session's pk, in one query."""
    rows = list(sessions)
    grouped: Iterable[Any] = Call.objects.filter(session__in=rows).order_by().values("session").annotate(**SUMS)
    found = {row.pop("session"): _account(row) for row in grouped}
    return {row.pk: found.get(row.pk, Account()) for row in rows}


def _account(sums: dict[str, Any]) -> Account:
    found = {name.removeprefix("all_"): value for name, value in sums.items() if value is not None}
    return Account(**found)
