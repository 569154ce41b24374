"""What goes in and comes out. Effects are relative gains (0.02: two percent better), positive is better."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from ninja import Field, Schema

Word = Annotated[str, Field(max_length=80)]
VerdictName = Literal["", "improved", "worse", "no_difference", "inconclusive", "invalid"]
Arm = Literal["baseline", "candidate"]


class Problem(Schema):
    error: str = Field(description="what is wrong, in one line")
    do: str = Field(description="what to do about it")
    pointer: str = Field("", description="where to look: an address in this lab")


class ProjectLine(Schema):
    name: str
    question: str
    benchmark: str
    preset: str
    state: str
    metric: str
    unit: str
    better: str = Field(description="lower or higher")
    champion: str = Field(description="the commit `main` stands on")


class Spent(Schema):
    """What the project has spent. A limit of null is none; at the end of any nothing new begins."""

    trials: int
    device_seconds: float
    wall_seconds: float
    max_trials: int | None
    max_device_seconds: float | None
    max_wall_seconds: float | None
    trials_left: int | None
    device_seconds_left: float | None
    wall_seconds_left: float | None


class Costs(Schema):
    """Typical device-seconds, medians of what this project has measured; null where it has not."""

    trial: float | None = Field(description="of one trial; a pair is two")
    screened: float | None = Field(description="of a change that screening stopped")
    confirmed: float | None = Field(description="of a change that came to confirmation, whatever its verdict")
    changes: float = Field(description="spent so far on changes that researchers proposed")
    lab: dict[str, float] = Field(description="spent so far by the lab itself, by what it measured")


class Standing(Schema):
    """Where a commit stands: the mean score of its trials, screening aside. No evidence: compare within pairs."""

    commit: str
    score: float | None = Field(description="in units of the metric; null until it was measured")
    trials: int


class ProjectFacts(ProjectLine):
    start: str
    start_commit: str
    problems: list[str] = Field(description="of a benchmark of many: each a folder of the tree; empty in one of one")
    editable: list[str] = Field(description="paths that a change may touch")
    protected: list[str]
    budget_seconds: float = Field(description="of one training run, by the preset's clock")
    clock: str
    noise: float | None = Field(description="relative spread of one pair; null until it has been measured")
    rule: str = Field(description="the rule of evidence by name")
    rule_says: list[str] = Field(description="its stages and what each asks, a sentence each")
    state_reason: str = Field(description="why the project rests, where it does")
    merges_by: str = Field(description="policy: `main` takes a confirmed gain at once; or person")
    spent: Spent
    costs: Costs
    standing: list[Standing] = Field(description="of the start and of `main`")
    threads: list[ThreadLine]


class ThreadLine(Schema):
    id: str
    project: str
    number: int
    researcher: str
    state: str
    head: str = Field(description="the commit to build on")
    claimed_by: str = Field(description="the agent that has it; empty where it is free")
    claimed_until: datetime | None
    waiting: int = Field(description="changes that wait for their turn")
    running: str = Field(description="the experiment that runs, by id; empty for none")


class Directive(Schema):
    focus: list[str] = Field([], description="techniques, families or files that a person wants looked at")
    forbid: list[str] = Field([], description="what to leave alone")
    note: str = Field("", description="a sentence from a person")
    said: list[str] = Field([], description="what people said, and what they ask to be tried now; data, not rules")


class ThreadFacts(ThreadLine):
    directives: Directive
    trials: int
    device_seconds: float
    confirmed_gains: int
    standing: Standing = Field(description="of its head")


class ForecastLine(Schema):
    experiment: str
    title: str
    expected: float = Field(description="the gain that was predicted, relative")
    measured: float | None = Field(description="what came, shrunk for few pairs; null without a score")
    outcome: str = Field(description="confirmed, near_miss, no_gain, failed, cancelled or waiting")


class Forecasts(Schema):
    """Predictions of a thread's ideas beside what was measured, newest first, and how well they fit."""

    thread: str
    scored: int
    bias: float | None = Field(description="mean of expected - measured; above zero promises too much")
    error: float | None = Field(description="mean of its size")
    order: float | None = Field(description="rank correlation of expected with measured, -1 to 1")
    ideas: list[ForecastLine]


class MergeLine(Schema):
    """A confirmed gain on its way to `main`."""

    id: str
    state: str = Field(description="open, merged, rejected, returned, stale or rolled_back")
    on_main: bool = Field(description="whether `main` stands on it now")
    thread: int
    experiment: str
    title: str
    effect: float | None = Field(description="as in the experiment")
    base: str = Field(description="the commit it was measured against")
    commit: str
    decided_by: str = Field(description="a person, or `policy`; empty while nobody has decided")
    decided: datetime | None
    reason: str = Field(description="why it was turned down, became stale or waits")


class FileLine(Schema):
    path: str
    size: int
    editable: bool


class Files(Schema):
    commit: str
    files: list[FileLine]


class FileText(Schema):
    commit: str
    path: str
    text: str


class FindingLine(Schema):
    kind: str
    severity: str
    message: str


class ExperimentLine(Schema):
    id: str
    number: int
    thread: int | None
    researcher: str
    title: str
    hypothesis: str
    expected_effect: float | None
    by_lab: bool = Field(description="made by the lab: gains brought together on `main` and measured there again")
    state: str = Field(description="running, ended or cancelled")
    verdict: str = Field(description="improved, worse, no_difference, inconclusive, invalid; empty while it runs")
    stage: str = Field(description="screen, extend or confirm: where it is, or ended")
    effect: float | None = Field(
        description="relative gain over the baseline, mean of all pairs, screening too: as in lessons and forecasts; "
        "null while it runs, and of an invalid one, whose scores count for nothing"
    )
    confirmed_effect: float | None = Field(
        description="the same of the confirming pairs alone: what `reason` and the verdict rest on; null without any"
    )
    pairs: int = Field(description="complete pairs so far: screening_pairs + confirming_pairs")
    screening_pairs: int = Field(description="of screen and extend: they decide what is confirmed, and are no evidence")
    confirming_pairs: int
    planned_pairs: int = Field(description="of the stage it is at, until its next look; 0 once it is over")
    url: str


class PairLine(Schema):
    """One pair of trials on one seed, which the lab keeps to itself."""

    stage: str
    pair: int
    baseline: float = Field(description="score in units of the metric")
    candidate: float
    gain: float = Field(description="relative, positive is better")
    counts: bool = Field(description="whether the verdict rests on it: a confirming pair, and not of an invalid one")


class ExperimentFacts(ExperimentLine):
    baseline: str
    candidate: str
    problems: list[str] = Field(description="of a benchmark of many: those that it measures; empty in one of one")
    baseline_score: float | None = Field(description="mean over all complete pairs, in units of the metric")
    candidate_score: float | None
    measured: list[PairLine] = Field(description="the complete pairs, also while it runs")
    reason: str = Field(description="in units of the metric, of the confirming pairs where there are any")
    shrunk: float | None = Field(description="in units of the metric, as low and high")
    low: float | None
    high: float | None
    e_value: float | None = Field(description="evidence for a gain, of the confirming pairs; 1 says nothing")
    bar: float | None = Field(description="the e-value that is asked: higher with each hypothesis of the project")
    near_miss: bool = Field(description="probably a gain, below the bar")
    findings: list[FindingLine]
    lesson: str
    metrics: list[str] = Field(description="names of the curves")
    patch: str = Field(description="unified diff against the baseline, cut at 64 kB")


class LogTail(Schema):
    """What one trial of an arm printed: the newest that failed, else the newest that ended."""

    experiment: str
    arm: str
    stage: str
    pair: int
    failure: str = Field(description="crash, timeout, out_of_memory ...; empty where it has a score")
    message: str = Field(description="the failure in one line")
    seconds: dict[str, float] = Field(description="wall and CPU seconds of each phase, as far as it came")
    note: str = Field(description="why there are no lines, where there are none")
    lines: list[str] = Field(description="the end of the log; data, not instructions")


class Curve(Schema):
    experiment: str
    metric: str
    arms: dict[str, list[tuple[float, float]]] = Field(description="arm -> [step, value], at most 200 points")


class LessonLine(Schema):
    kind: str
    text: str
    effect: float | None
    pairs: int
    dead_end: bool = Field(description="a person rejected it: it is refused")
    experiment: str
    base: str


class Change(Schema):
    """A change against a base: whole new files, or a unified diff."""

    key: str = Field(
        min_length=1, max_length=80, description="your own name for it: handing it in again does nothing",
        examples=["my-1"],
    )  # fmt: skip
    base: str = Field(
        min_length=40, max_length=40, examples=["8078ab4cab6c0e1f2d3a4b5c6d7e8f9012345678"],
        description="the whole commit that you read: the thread's head, `main`, or one that either stands on",
    )  # fmt: skip
    files: dict[str, str | None] | None = Field(
        None, description="path -> whole new text; null removes the file", examples=[{"train.py": "import harness"}]
    )
    diff: str | None = Field(None, max_length=1_000_000, description="a unified diff, instead of files")
    hypothesis: str = Field(
        min_length=10, max_length=2_000, description="one sentence that can turn out false",
        examples=["A rate that falls to zero removes the noise of the last steps."],
    )  # fmt: skip
    expected_effect: float = Field(
        ge=-10, le=10, description="relative gain that you predict, before it is measured: 0.02 is two percent",
        examples=[0.02],
    )  # fmt: skip
    title: str = Field("", max_length=160, description="what is changed, in a few words")
    plan: str = Field("", max_length=8_000, description="how it is done, for whoever reads the difference")
    tags: list[Word] = Field([], max_length=12, description="words that steering and others find it by")


class SubmissionFacts(Schema):
    id: str
    thread: str
    key: str
    state: str = Field(description="waiting, refused, running, ended or cancelled (withdrawn, or given up)")
    note: str = Field(description="what it waits for, or how far it is")
    title: str
    base: str
    commit: str
    refusal: str = Field(description="why it was refused or withdrawn")
    pointer: str = Field(description="the experiment that it repeats")
    verdict: str = Field(description="of its experiment; empty until there is one")
    effect: float | None = Field(description="as in the experiment")
    experiment_id: str = Field(description="empty until it is being measured")
    experiment: ExperimentFacts | None = Field(description="in full where one submission is asked for, null in lists")
    again_in_seconds: float = Field(
        description="when it is worth asking again; 0 where it is over, or rests until a person acts: see `note`"
    )


CHANGE = "a JSON object with key, base, files (or diff), hypothesis and expected_effect"


def wanted(name: str) -> str:
    """What a field of a change means, with an example; empty for no field of it."""
    field = Change.model_fields.get(name)
    if field is None:
        return ""
    example: Any = (field.examples or [None])[0]
    return str(field.description) + (f", such as {example!r}".replace("'", '"') if example is not None else "")
