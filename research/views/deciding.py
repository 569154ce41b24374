"""When a thread is given up, and what device time counts for: the forms."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.models import Role, Thread
from research.tasks import advance_thread
from research.views.pages import checked, go, project_for


@require_POST
def criteria(request: HttpRequest, id: str) -> HttpResponse:
    """Set the limits and kill criteria of a thread; an empty field lifts one."""
    thread = checked(request, Thread.objects.filter(public_id=id).select_related("project"), Role.MEMBER)
    url = reverse("thread", args=[id])
    try:
        given = limits_of(request.POST)
        trials, money = whole(request.POST, "max_trials"), decimal(request.POST, "max_money")
        thread.set_criteria(request.user, given, trials, money)  # type: ignore[arg-type]  # auth.User
    except ValueError as refused:
        return go(request, url, problem=str(refused))
    advance_thread(thread.pk)
    return go(request, url, said="The limits are set; they are looked at before anything new begins.")


@require_POST
def price(request: HttpRequest, name: str) -> HttpResponse:
    """What a device-hour counts for when researchers are chosen by yield per cost."""
    project = project_for(request, name, Role.MEMBER)
    url = reverse("project", args=[name])
    try:
        project.set_device_price(request.user, decimal(request.POST, "device_price"))  # type: ignore[arg-type]
    except ValueError as refused:
        return go(request, url, problem=str(refused))
    return go(request, url, said="The price of a device-hour is set.")


def limits_of(form: QueryDict) -> dict[str, object]:
    """Criteria as typed. Raises ValueError with one line where a field is no number."""
    hours, money = decimal(form, "device_hours"), decimal(form, "money_without_gain")
    given: dict[str, object | None] = {
        "experiments_without_gain": whole(form, "experiments_without_gain"),
        "money_without_gain": None if money is None else float(money),
        "device_seconds_without_gain": None if hours is None else float(hours) * 3600,
        "until": form.get("until", "").strip() or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def whole(form: QueryDict, name: str) -> int | None:
    value = decimal(form, name)
    if value is not None and (value != value.to_integral_value() or not 0 < value < 1_000_000_000):
        raise ValueError(f"{name.replace('_', ' ')}: a whole number above 0; leave it empty for no limit")
    return None if value is None else int(value)


def decimal(form: QueryDict, name: str) -> Decimal | None:
    text = form.get(name, "").strip().replace(",", "")
    if not text:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or abs(value) >= 1_000_000:
        raise ValueError(f"{name.replace('_', ' ')}: {text[:20]!r} is not a number below a million")
    return round(value, 8)
