"""The strip of checks on the merge page: what was verified of a gain, each in a few words with what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from research.models import Finding, MergeRequest, Result
from research.templatetags.lab import evalue
from research.validation import integrity
from research.validation.records import Rule, Severity, VerdictKind
from runners.isolation import NAMES


@dataclass(frozen=True)
class Check:
    """`tone` is good, warn, bad or quiet."""

    tone: str
    title: str
    detail: str

    @property
    def glyph(self) -> str:
        return {"good": "✔", "warn": "▲", "bad": "×"}.get(self.tone, "·")


def checks(request: MergeRequest, results: Sequence[Result], findings: Sequence[Finding]) -> list[Check]:
    found = [effect(request), seeds(request), same_data(results), protected(request, results), audits(results)]
    return [*found, isolation(results), observed(findings), on_main(request), people(request)]


def effect(request: MergeRequest) -> Check:
    verdict = request.verdict
    if verdict.p_value is not None:
        bar = Rule.from_json(verdict.experiment.rule).p_bar
        return Check("good" if verdict.kind == VerdictKind.IMPROVED else "bad", "effect",
                     f"p = {verdict.p_value:.3g}, asked below {bar:g}")  # fmt: skip
    passed = verdict.e_value >= verdict.bar
    return Check("good" if passed else "bad", "effect", f"e-value {evalue(verdict.e_value)}, bar {verdict.bar:.4g}")


def seeds(request: MergeRequest) -> Check:
    verdict = request.verdict
    confirm = [pair for pair in verdict.evidence["pairs"] if pair["stage"] == "confirm"]
    lower = verdict.experiment.rule["direction"] == "lower"
    better = sum((pair["candidate"] < pair["baseline"]) == lower for pair in confirm)
    return Check("good", "fresh seeds", f"better in {better} of {len(confirm)} confirm pairs, seeds fixed beforehand")


def same_data(results: Sequence[Result]) -> Check:
    data = _hashes(results, "data")
    if len(data) == 1:
        return Check("good", "same data", f"both arms, data {data[0][:8]}")
    return Check("bad", "same data", f"{len(data)} data sets among its trials") if data else _unknown("same data")


def protected(request: MergeRequest, results: Sequence[Result]) -> Check:
    """No protected path in the change, one evaluator for every trial."""
    contract = request.project.contract
    paths = [str(file["path"]) for file in request.candidate.diff.files]
    broken = [
        finding.message
        for finding in integrity.check_paths(paths, contract.editable, contract.protected)
        if finding.severity is Severity.STRUCTURAL
    ]
    judges = _hashes(results, "judge")
    if broken or len(judges) > 1:
        return Check("bad", "protected files", "; ".join(broken) or f"{len(judges)} versions of the judge were used")
    return Check("good", "protected files untouched", f"judge {judges[0][:8]} scored every trial" if judges else "")


def audits(results: Sequence[Result]) -> Check:
    """Answers that were asked again with the future cut off, and in another order."""
    run = [result for result in results if any(name.startswith("audit_") for name in result.metrics)]
    if not run:
        return _unknown("audits")
    worst = max(value for result in run for name, value in result.metrics.items() if name.startswith("audit_"))
    return Check("good", "audits", f"{len(run)} of {len(results)} trials, worst difference {worst:.2g} nats")


def isolation(results: Sequence[Result]) -> Check:
    level = min((result.isolation_level for result in results), default=None)
    if level is None:
        return _unknown("isolation")
    return Check("good" if level >= 3 else "warn" if level else "bad", f"isolation level {level}", NAMES.get(level, ""))


def observed(findings: Sequence[Finding]) -> Check:
    look = [finding for finding in findings if finding.severity != Severity.INFO]
    standing = [finding for finding in look if finding.overridden_at is None]
    if standing:
        return Check("warn", f"{len(standing)} finding{'s' if len(standing) > 1 else ''}", "asks for your look, below")
    if look:
        names = ", ".join(sorted({str(finding.overridden_by or "somebody") for finding in look}))
        return Check("good", f"{len(look)} finding{'s' if len(look) > 1 else ''}", f"overridden by {names}, below")
    return Check("good", "no findings", "nothing in the change or its trials asks for a look")


def on_main(request: MergeRequest) -> Check:
    if request.state == MergeRequest.State.MERGED:
        return Check("good", "on main", f"merged as {request.commit[:8]}")
    chain = request.stack()
    base = chain[0].base if chain else request.base
    if base != request.project.champion:
        return Check("bad", "main moved", f"measured on {base[:8]}, main is {request.project.champion[:8]}")
    if len(chain) > 1:
        return Check("good", "on main", f"on top of {len(chain) - 1} open, the lowest measured on {base[:8]}")
    return Check("good", "on main", f"measured on {base[:8]}, where main stands")


def people(request: MergeRequest) -> Check:
    """Two pairs of eyes, or the plain statement that there is one."""
    if request.project.single_person:
        return Check("warn", "single-person mode", "whoever steers may also approve")
    asked = request.thread.steered_by or request.project.started_by
    return Check("good", "second person", f"not {asked}, who asked for this" if asked else "no person asked for this")


def _hashes(results: Sequence[Result], name: str) -> list[str]:
    return sorted({str(result.hashes[name]) for result in results if name in result.hashes})


def _unknown(title: str) -> Check:
    return Check("quiet", title, "not reported by this benchmark")
