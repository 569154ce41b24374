"""Version 1 of the HTTP API: the routes, and what each error looks like. The document is at /api/v1/openapi.json."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Annotated, Any

from asgiref.sync import sync_to_async
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import NinjaAPI, Path, Query
from ninja.errors import HttpError, ValidationError
from ninja.security import HttpBearer

from research.api import acting, books, measured, reading
from research.api.brief import brief as written
from research.api.door import TooOften, Unknown, token_of
from research.api.schemas import (
    CHANGE,
    Arm,
    Change,
    Curve,
    ExperimentFacts,
    ExperimentLine,
    Files,
    FileText,
    Forecasts,
    LessonLine,
    LogTail,
    MergeLine,
    Problem,
    ProjectFacts,
    ProjectLine,
    SubmissionFacts,
    ThreadFacts,
    VerdictName,
    wanted,
)
from research.loop.submit import Invalid, NotNow
from research.models import ApiToken, NotAllowed

ROOT, VERSION = "/api/v1/", "1.1.0"
LONGEST_WAIT = 60.0
LOOK_EVERY = 0.5

ASKED = {  # what a parameter is, for the document and for whoever gets it wrong
    "name": "the project's name, as /projects lists it",
    "id": "the id of the row, as lists and submissions give it",
    "limit": f"how many rows, newest first: 1 to {reading.MOST}",
    "commit": "`main`, `start`, or at least 7 characters of a commit such as a thread's `head`",
    "path": "a path as /files lists it, such as train.py",
    "folder": "only files below it, such as one problem of many; left out: all",
    "verdict": "only this one; left out: all, running ones too",
    "query": "words, such as learning rate: what matters for them comes first; left out: the newest",
    "arm": "baseline or candidate",
    "metric": "one of `metrics` of the experiment, such as loss",
    "wait": f"seconds to hold the answer back until it is over, 0 to {LONGEST_WAIT:g}; then ask again",
}

Name = Annotated[str, Path(max_length=80, description=ASKED["name"])]
Id = Annotated[str, Path(max_length=20, description=ASKED["id"])]
Limit = Annotated[int, Query(ge=1, le=reading.MOST, description=ASKED["limit"])]
Commit = Annotated[str, Query(max_length=200, description=ASKED["commit"])]
Folder = Annotated[str, Query(max_length=200, description=ASKED["folder"])]
FilePath = Annotated[str, Query(max_length=200, description=ASKED["path"])]
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description=ASKED["wait"])]
OneArm = Annotated[Arm, Query(description=ASKED["arm"])]
OneVerdict = Annotated[VerdictName, Query(description=ASKED["verdict"])]
Words = Annotated[str, Query(max_length=200, description=ASKED["query"])]
MetricName = Annotated[str, Query(max_length=200, description=ASKED["metric"])]


class Bearer(HttpBearer):
    """The token of a request, as `request.auth`."""

    openapi_name = "token"

    def __call__(self, request: HttpRequest) -> Any:
        return _in_thread_where_needed(token_of, request.headers.get("Authorization", ""), _address(request))

    def authenticate(self, request: HttpRequest, token: str) -> None:  # never called: `__call__` does it all
        return None


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def _in_thread_where_needed(call: Any, *arguments: Any) -> Any:
    """Rows must not be read on the event loop, where the one route that waits asks who is there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call(*arguments)
    return sync_to_async(call)(*arguments)


class Api(NinjaAPI):
    """Its addresses are looked up behind `entrance`, where Django's names do not reach."""

    def get_root_path(self, path_params: Any) -> str:
        return ROOT


STATUSES = (400, 401, 403, 404, 409, 413, 422, 429)
api = Api(
    title="Recursive Lab", version=VERSION, docs_url=None, urls_namespace="api-1", auth=Bearer(),
    description="Bring your own agent: claim a thread, read what is known, hand in changes, follow them to a verdict. "
    "Read /projects/NAME/brief first (markdown): a project on two pages. Effects are relative, positive is better.",
)  # fmt: skip


def _answers(schema: Any) -> dict[Any, Any]:
    return {200: schema, frozenset(STATUSES): Problem}


@api.get("/projects", response=_answers(list[ProjectLine]), summary="Projects that this token opens")
def projects(request: HttpRequest) -> Any:
    return reading.projects(_token(request))


@api.get("/projects/{name}", response=_answers(ProjectFacts), summary="Question, rules, budget and threads")
def project(request: HttpRequest, name: Name) -> Any:
    return books.project(_token(request), name)


@api.get("/projects/{name}/brief", summary="The project on one page, as markdown", include_in_schema=False)
def brief(request: HttpRequest, name: Name) -> HttpResponse:
    found = reading.project_of(_token(request), name)
    text = written(found, books.facts_of(found), f"{request.scheme}://{request.get_host()}")
    return HttpResponse(text, content_type="text/markdown; charset=utf-8")


@api.post("/projects/{name}/threads", response=_answers(ThreadFacts), summary="Begin a thread and claim it")
def begin(request: HttpRequest, name: Name) -> Any:
    return acting.begin_thread(_token(request), name)


@api.get("/projects/{name}/files", response=_answers(Files), summary="Files of a commit")
def files(request: HttpRequest, name: Name, commit: Commit = "main", folder: Folder = "") -> Any:
    return reading.files(_token(request), name, commit, folder)


@api.get("/projects/{name}/file", response=_answers(FileText), summary="The text of one file")
def file(request: HttpRequest, name: Name, path: FilePath, commit: Commit = "main") -> Any:
    return reading.file(_token(request), name, commit, path)


@api.get("/projects/{name}/experiments", response=_answers(list[ExperimentLine]), summary="Newest experiments")
def experiments(request: HttpRequest, name: Name, limit: Limit = 30, verdict: OneVerdict = "") -> Any:
    return measured.experiments(_token(request), name, limit, verdict)


@api.get("/projects/{name}/lessons", response=_answers(list[LessonLine]), summary="What was learned")
def lessons(request: HttpRequest, name: Name, query: Words = "", limit: Limit = 30) -> Any:
    return reading.lessons(_token(request), name, query, limit)


@api.get("/projects/{name}/merges", response=_answers(list[MergeLine]), summary="Gains, and who brought them to main")
def merges(request: HttpRequest, name: Name, limit: Limit = 30) -> Any:
    return books.merges(_token(request), name, limit)


@api.get("/experiments/{id}", response=_answers(ExperimentFacts), summary="An experiment with verdict and diff")
def experiment(request: HttpRequest, id: Id) -> Any:
    return measured.experiment(_token(request), id)


@api.get(
    "/experiments/{id}/log", response=_answers(LogTail), summary="What a trial of one arm printed, and how it ended"
)
def log(request: HttpRequest, id: Id, arm: OneArm = "candidate") -> Any:
    return measured.log(_token(request), id, arm)


@api.get("/experiments/{id}/curve", response=_answers(Curve), summary="One metric of the newest trial of each arm")
def curve(request: HttpRequest, id: Id, metric: MetricName) -> Any:
    return measured.curve(_token(request), id, metric)


@api.get("/threads/{id}", response=_answers(ThreadFacts), summary="Head, directives, claim")
def thread(request: HttpRequest, id: Id) -> Any:
    return books.thread(_token(request), id)


@api.get("/threads/{id}/forecasts", response=_answers(Forecasts), summary="Predictions beside what was measured")
def forecasts(request: HttpRequest, id: Id) -> Any:
    return books.forecasts(_token(request), id)


@api.post(
    "/threads/{id}/claim", response=_answers(ThreadFacts), summary="Work on it alone, until half an hour of silence"
)
def claim(request: HttpRequest, id: Id) -> Any:
    return acting.claim(_token(request), id)


@api.delete("/threads/{id}/claim", response=_answers(ThreadFacts), summary="Let go of it")
def release(request: HttpRequest, id: Id) -> Any:
    return acting.release(_token(request), id)


@api.post("/threads/{id}/submissions", response=_answers(SubmissionFacts), summary="Hand in a change")
def hand_in(request: HttpRequest, id: Id, change: Change) -> Any:
    return acting.hand_in(_token(request), id, change)


@api.get("/submissions", response=_answers(list[SubmissionFacts]), summary="What this token handed in")
def submissions(request: HttpRequest, limit: Limit = 30) -> Any:
    return acting.submissions(_token(request), limit)


@api.get("/submissions/{id}", response=_answers(SubmissionFacts), summary="How far it has come; waits for its end")
async def submission(request: HttpRequest, id: Id, wait: Wait = 0.0) -> Any:
    return await followed(_token(request), id, wait)


@api.delete("/submissions/{id}", response=_answers(SubmissionFacts), summary="Withdraw a change that waits")
def withdraw(request: HttpRequest, id: Id) -> Any:
    return acting.withdraw(_token(request), id)


async def followed(
    token: ApiToken, id: str, wait: float, look: Callable[[ApiToken, str], SubmissionFacts] = acting.submission
) -> SubmissionFacts:
    """A submission as it is, or as it comes to be once it is over or the time is."""
    deadline = time.monotonic() + wait
    while True:
        found = await sync_to_async(look)(token, id)
        if not found.again_in_seconds or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(LOOK_EVERY)


def _token(request: HttpRequest) -> ApiToken:
    return request.auth  # type: ignore[attr-defined,no-any-return]


def _problem(status: int, error: str, do: str, pointer: str = "", wait: float | None = None) -> HttpResponse:
    body = Problem(error=error, do=do, pointer=pointer)
    headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
    return HttpResponse(body.model_dump_json(), status=status, content_type="application/json", headers=headers)


def answer_to(error: Exception) -> tuple[int, str, str, str, float | None]:
    """Status, what is wrong, what to do, where to look, seconds to wait: of each error that an agent may meet."""
    words, pointer = str(error), ""
    if isinstance(error, Unknown):
        return 401, words, "ask a member for a token, or make one on the settings page", pointer, None
    if isinstance(error, TooOften):
        return 429, words, "wait, and ask with `wait` instead of in a loop", pointer, error.seconds
    if isinstance(error, reading.Missing):
        return 404, words, error.do, pointer, None
    if isinstance(error, acting.Forbidden | NotAllowed):
        return 403, words, "ask an admin of the project", pointer, None
    if isinstance(error, acting.Taken):
        return 409, words, "list the threads, or begin one", pointer, None
    if isinstance(error, Invalid | NotNow):
        if error.pointer is not None:
            pointer = reverse("experiment", args=[error.pointer.public_id])
        return 422 if isinstance(error, Invalid) else 409, words, error.do, pointer, None
    raise error


EXPECTED = (Unknown, TooOften, reading.Missing, acting.Forbidden, NotAllowed, acting.Taken, Invalid, NotNow)


def _known(request: HttpRequest, error: Exception) -> HttpResponse:
    return _problem(*answer_to(error))


def _not_valid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    first = error.errors[0] if error.errors else {}
    where = [str(part) for part in first.get("loc", ()) if part not in ("body", "change", "query", "path")]
    if first.get("loc", ())[-1:] == ("path",):  # the parameter of that name
        where = ["path"]
    if not where:
        return _problem(422, f"the body is no change: {first.get('msg', 'not valid')}"[:300], f"send {CHANGE}")
    name, meaning = ".".join(where), wanted(where[0]) or ASKED.get(where[0], "")
    wrong = "is missing" if first.get("type") == "missing" else f"is not valid: {first.get('msg', '')}"
    do = f"give `{name}`: {meaning}" if meaning else "see /api/v1/openapi.json"
    return _problem(422, f"`{name}` {wrong}"[:300], do)


def _too_large(request: HttpRequest, error: Exception) -> HttpResponse:
    return _problem(413, "the body is larger than 2.5 MB", "send only the files that change")


def _plain(request: HttpRequest, error: HttpError) -> HttpResponse:
    do = f"send {CHANGE}" if error.status_code == 400 else "see /api/v1/openapi.json"
    return _problem(error.status_code, str(error)[:300], do)


for _kind in EXPECTED:
    api.add_exception_handler(_kind, _known)  # type: ignore[arg-type]  # ninja's hint is of a class too
api.add_exception_handler(ValidationError, _not_valid)  # type: ignore[arg-type]
api.add_exception_handler(RequestDataTooBig, _too_large)  # type: ignore[arg-type]
api.add_exception_handler(HttpError, _plain)  # type: ignore[arg-type]
