"""Signing in: by a password, and by a link from the console with one click, once.

Passwords cannot be tried out: after some failures in a while a name, and an address, has to wait. A link still works.

A browser says that a person navigates (`Sec-Fetch-Mode`, on HTTPS and on this machine) and is signed in at once. Who
does not say so may be the preview of a chat program, which must not use the link up: it is shown a page with a button.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME, login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from research.models import AuditEntry, SignInLink

WINDOW = timedelta(minutes=10)
FAILURES_A_NAME, FAILURES_AN_ADDRESS = 10, 50  # a whole office may come from one address


class SignIn(LoginView):
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if has_to_wait(request.POST.get("username", ""), request.META.get("REMOTE_ADDR", "")):
            filled = self.get_context_data(form=self.get_form_class()(request), wait=WINDOW)
            return self.render_to_response(filled, status=429, headers={"Retry-After": str(WINDOW.seconds)})
        return super().post(request, *args, **kwargs)


@login_not_required
def admin_door(request: HttpRequest) -> HttpResponse:
    """Django's admin has no sign-in page of its own: passwords are looked at in one place."""
    if request.user.is_authenticated:
        raise PermissionDenied("the admin is for staff of the lab")
    return redirect_to_login(request.GET.get(REDIRECT_FIELD_NAME) or "/admin/")


def has_to_wait(name: str, address: str) -> bool:
    """Whether there have been too many failures lately for this name or from this address to look at a password."""
    failures = AuditEntry.objects.failures(timezone.now() - WINDOW)
    of_name = failures.filter(detail__user=name[:150]).count()
    return of_name >= FAILURES_A_NAME or failures.filter(detail__address=address).count() >= FAILURES_AN_ADDRESS


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
