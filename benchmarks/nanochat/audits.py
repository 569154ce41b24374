"""How much a trial is audited, and what of the judge's report becomes a finding."""

from __future__ import annotations

from typing import Any

from benchmarks.contract import Assignment, Observation, Outcome

# Rows fed byte by byte to a model that offers step(): one batch, 4,096 positions at 128 bytes a row. If 0.1 % of all
# positions were peeked at, 98 % of such draws would hold one.
STREAM_ROWS = 32

FUTURE = "scores change when the text after a position is cut off"
FINDINGS = (
    ("targeted", "future_leak", FUTURE),
    ("random", "future_leak", FUTURE),
    ("rescored", "unstable_scores", "the same text scores differently in another process and order"),
    ("streamed", "step_disagrees", "fed byte by byte, the model's step() scores unlike its forward()"),
)


def sizes(task: Assignment) -> dict[str, int]:
    """How many positions and rows the judge asks again."""
    preset = task.preset
    if task.confirming:
        asked = {"targeted": preset.audit_confirm_targeted, "random": preset.audit_confirm_random}
        return asked | {"stream_rows": STREAM_ROWS}
    return {"targeted": preset.audit_targeted, "random": preset.audit_random, "stream_rows": 0}


def record(report: dict[str, Any], outcome: Outcome) -> None:
    """Every mismatch is a structural finding; the worst difference of each part is a metric."""
    for part, kind, meaning in FINDINGS:
        seen = report[part]
        if not seen["asked"]:
            continue
        outcome.metrics[f"audit_{part}_worst"] = seen["worst"]
        if part == "streamed":
            outcome.metrics["streamed_positions"] = float(seen["asked"])
        if "mean" in seen:
            outcome.metrics[f"audit_{part}_mean"] = seen["mean"]
        if seen["failed"] or seen.get("drifted"):
            line = f"{part}: {seen['failed']} of {seen['asked']} positions differ, worst {seen['worst']:.3g}"
            if seen.get("drifted"):
                line += f"; {seen['mean']:.3g} nats are lost on average"
            limit = f"tolerance {seen.get('tolerance', report['tolerance']):g} nats"
            outcome.observations.append(Observation(kind, "structural", meaning, (line, limit)))
