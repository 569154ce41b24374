"""Where the HTTP API begins. The rest of it is loaded by its first request: pydantic and ninja cost a process 14 MB."""

from __future__ import annotations

import json
from functools import cache
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, ResolverMatch, URLResolver
from django.urls.resolvers import RoutePattern
from django.views.decorators.csrf import csrf_exempt


def problem(error: str, do: str) -> bytes:
    """What every answer looks like that is no success; see `schemas.Problem`."""
    return json.dumps({"error": error, "do": do, "pointer": ""}).encode()


@csrf_exempt  # a token stands for the person, not a session
@login_not_required
async def version_1(request: HttpRequest, rest: str) -> HttpResponseBase:
    try:
        found = await sync_to_async(_route)(rest)
    except Resolver404:
        body = problem(f"there is nothing under {request.path_info[:80]}", "see /api/v1/openapi.json")
        return HttpResponse(body, status=404, content_type="application/json")
    call: Any = found.func if iscoroutinefunction(found.func) else sync_to_async(found.func)
    answer: HttpResponseBase = await call(request, *found.args, **found.kwargs)
    return answer


def _route(rest: str) -> ResolverMatch:
    return _routes().resolve(rest)


@cache
def _routes() -> URLResolver:
    from research.api.http import api

    return URLResolver(RoutePattern(""), api.urls[0])
