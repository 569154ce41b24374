"""History of points over HTTP: buckets for charts (in the container of docs/decisions/0007), or raw points as CSV."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.views.decorators.http import require_safe

from research.live.frames import HISTORY, Line, frame, history_block
from research.models import Membership, Series, Trial
from research.models.series import SeriesQuerySet, between, bucket

MAX_TRIALS, MAX_BUCKETS = 100, 10_000
MAX_STEP = 2**63 - 1
GZIP = 16 + zlib.MAX_WBITS  # the container; with Z_RLE, for byte planes hold runs and no repeated words: half the time
CSV_POINTS = 10_000  # of one piece


class BadQuestion(ValueError):
    """The request cannot be answered; the message is one line."""


@dataclass(frozen=True)
class Question:
    """What the query string asks for."""

    trials: Sequence[str]
    metrics: Sequence[str]
    n: int
    start: int | None
    end: int | None

    @classmethod
    def of(cls, request: HttpRequest) -> Question:
        trials = list(dict.fromkeys(request.GET.getlist("trial")))
        if not 0 < len(trials) <= MAX_TRIALS:
            raise BadQuestion(f"name 1 to {MAX_TRIALS} trials")
        n = _number(request, "n", 1_000)
        if n is None or not 0 < n <= MAX_BUCKETS:
            raise BadQuestion(f"n is 1 to {MAX_BUCKETS}")
        return cls(trials, request.GET.getlist("metric"), n, _number(request, "from"), _number(request, "to"))

    def series(self, trials: Sequence[Trial]) -> SeriesQuerySet:
        found = Series.objects.newest().filter(trial__in=trials).order_by("trial", "metric")
        return found.filter(metric__in=self.metrics) if self.metrics else found


def _number(request: HttpRequest, name: str, otherwise: int | None = None) -> int | None:
    text = request.GET.get(name)
    if not text:
        return otherwise
    try:
        return max(min(int(text[:30]), MAX_STEP), -MAX_STEP)
    except ValueError:
        raise BadQuestion(f"{name} is not a whole number") from None


@require_safe
def history(request: HttpRequest) -> HttpResponseBase:
    try:
        question = Question.of(request)
    except BadQuestion as error:
        return _line(str(error), 400)
    visible = Trial.objects.filter(project__in=Membership.projects_of(request.user))  # type: ignore[arg-type]
    trials = list(visible.filter(public_id__in=question.trials).order_by("pk"))
    if len(trials) < len(question.trials):
        missing = set(question.trials) - {trial.public_id for trial in trials}
        return _line(f"no trial {min(missing)[:20]!r}, or not yours", 404)
    if request.GET.get("format") == "csv":
        return _csv(trials, question)
    return _binary(request, trials, question)


def _line(text: str, status: int) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")


def _binary(request: HttpRequest, trials: Sequence[Trial], question: Question) -> HttpResponseBase:
    series = question.series(trials)
    generations = {trial.pk: trial.generation for trial in trials}
    rows = list(series.values_list("pk", "trial", "metric", "generation", "next_seq"))
    known = {pk: (trial, metric) for pk, trial, metric, generation, _ in rows if generation == generations[trial]}
    state = repr((generations, rows, question))
    etag = f'W/"{hashlib.sha256(state.encode()).hexdigest()[:24]}"'
    response = get_conditional_response(request, etag=etag)
    if response is None:
        lines: dict[int, list[Line]] = {trial.pk: [] for trial in trials}
        for pk, points in series.points():
            if pk in known:  # else it, or its lease, began just now
                trial, metric = known[pk]
                steps, values = between(*points, question.start, question.end)
                lines[trial].append(Line(metric, len(points[0]), len(steps), bucket(steps, values, question.n)))
        blocks = [history_block(f"trial:{trial.public_id}", trial.generation, lines[trial.pk]) for trial in trials]
        response = _packed(request, frame(HISTORY, blocks))
    response["ETag"], response["Cache-Control"] = etag, "private, no-cache"
    patch_vary_headers(response, ["Accept-Encoding"])
    return response


def _packed(request: HttpRequest, content: bytes) -> HttpResponse:
    response = HttpResponse(content_type="application/octet-stream")
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        packer = zlib.compressobj(1, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
        content = packer.compress(content) + packer.flush()
        response["Content-Encoding"] = "gzip"
    response.content = content
    return response


def _csv(trials: Sequence[Trial], question: Question) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_csv_lines(trials, question), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="series.csv"'
    return response


async def _csv_lines(trials: Sequence[Trial], question: Question) -> AsyncIterator[str]:
    """One line a point, a piece of a series at a time: a million points take no more memory than a few."""
    yield "trial,arm,seed,metric,step,value\n"
    by_pk = {trial.pk: trial for trial in trials}
    rows = question.series(trials).values_list("pk", "trial", "metric", "next_seq")
    async for pk, trial, metric, end in rows:
        begin = f"{by_pk[trial].public_id},{by_pk[trial].arm},{by_pk[trial].seed},{metric}"
        for first in range(0, end, CSV_POINTS):
            piece = (pk, first, min(first + CSV_POINTS, end))
            points = (await sync_to_async(Series.objects.pieces)([piece]))[piece]
            steps, values = between(*points, question.start, question.end)
            yield "".join(
                f"{begin},{step},{value!r}\n" for step, value in zip(steps.tolist(), values.tolist(), strict=True)
            )
