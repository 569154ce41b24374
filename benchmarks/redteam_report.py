"""What a run of the red team comes to: a row for each exploit, one for each honest candidate, and their sum."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from benchmarks.exploit import MECHANISMS


@dataclass(frozen=True)
class Row:
    """How one exploit fared."""

    name: str
    source: tuple[int | str, ...]
    mechanism: str
    guard: str
    expects: str
    caught: bool
    why: str
    score: float | None
    twin: float | None
    seconds: float
    wins_without: bool | None = None  # with its guard taken away; None where that was not played
    why_without: str = ""


@dataclass(frozen=True)
class Honest:
    """How one honest candidate fared; `lines` are its findings or its failure.

    One that only used up its budget (a preset may be too small for it) is accused of nothing, and passes nothing.
    """

    recipe: tuple[str, ...]
    score: float | None
    lines: tuple[str, ...]
    too_slow: bool = False

    @property
    def passed(self) -> bool:
        return self.score is not None and not self.lines


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)
    honest: list[Honest] = field(default_factory=list)
    isolation: int = 0

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.rows if not row.caught]

    @property
    def idle_guards(self) -> list[Row]:
        """Exploits that do not win although their guard is away."""
        return [row for row in self.rows if row.wins_without is False]

    @property
    def false_alarms(self) -> list[Honest]:
        return [honest for honest in self.honest if not honest.passed and not honest.too_slow]

    @property
    def too_slow(self) -> list[Honest]:
        return [honest for honest in self.honest if honest.too_slow]

    @property
    def clean(self) -> bool:
        return not (self.missed or self.false_alarms or self.idle_guards)

    def to_json(self) -> dict[str, object]:
        mechanisms = {
            name: {"planted": len(rows), "caught": sum(row.caught for row in rows)}
            for name in MECHANISMS
            if (rows := [row for row in self.rows if row.mechanism == name])
        }
        return {
            "planted": len(self.rows),
            "caught": len(self.rows) - len(self.missed),
            "missed": [{"name": row.name, "why": row.why} for row in self.missed],
            "honest": len(self.honest) - len(self.too_slow),
            "false_alarms": [asdict(honest) for honest in self.false_alarms],
            "too_slow": [" + ".join(honest.recipe) for honest in self.too_slow],
            "idle_guards": [{"name": row.name, "why": row.why_without} for row in self.idle_guards],
            "mechanisms": mechanisms,
            "exploits": [asdict(row) for row in self.rows],
            "isolation_level": self.isolation,
        }
