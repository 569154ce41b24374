"""Signing in by a link from the console: one click, once.

A browser says that a person navigates (`Sec-Fetch-Mode`, on HTTPS and on this machine) and is signed in at once. Who
does not say so may be the preview of a chat program, which must not use the link up: it is shown a page with a button.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from research.models import SignInLink


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def by_link(request: HttpRequest, token: str) -> HttpResponse:
    if request.method != "POST" and not _is_click(request):
        return render(request, "registration/link.html", {"usable": True})
    person = SignInLink.redeem(token)
    if person is not None:
        login(request, person, backend="django.contrib.auth.backends.ModelBackend")  # type: ignore[arg-type]
        return redirect(settings.LOGIN_REDIRECT_URL)
    if request.user.is_authenticated:  # the same link once more, by somebody who is in
        return redirect(settings.LOGIN_REDIRECT_URL)
    SignInLink.refuse(token)
    return render(request, "registration/link.html", {"usable": False}, status=410)


def _is_click(request: HttpRequest) -> bool:
    """A person's browser goes there now; it does not look ahead."""
    headers = request.headers
    ahead = "prefetch" in headers.get("Sec-Purpose", "") or "prefetch" in headers.get("Purpose", "")
    return request.method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate" and not ahead
