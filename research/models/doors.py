"""What is written down where people come in: signing in and out, failed tries, and what they do in Django's admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import post_save
from django.http import HttpRequest

from research.models.audit import FAILED, NOBODY, AuditEntry
from research.models.event import Event

DID = {ADDITION: "added", CHANGE: "changed", DELETION: "deleted"}


def watch() -> None:
    """Called once, when the lab's models are ready."""
    user_logged_in.connect(_came, dispatch_uid="audit came")
    user_logged_out.connect(_left, dispatch_uid="audit left")
    user_login_failed.connect(_failed, dispatch_uid="audit failed")
    post_save.connect(_administered, sender=LogEntry, dispatch_uid="audit admin")
    if "delete_selected" in [name for name, _ in admin.site.actions]:
        admin.site.disable_action("delete_selected")  # it deletes many at once, of which Django tells nobody


def _came(sender: object, request: HttpRequest | None, user: AbstractUser, **_: object) -> None:
    AuditEntry.record(user, "sign in", None, **_from(request))


def _left(sender: object, request: HttpRequest | None, user: AbstractUser | None, **_: object) -> None:
    if user is not None:
        AuditEntry.record(user, "sign out", None, **_from(request))


def _failed(sender: object, credentials: dict[str, Any], request: HttpRequest | None = None, **_: object) -> None:
    """An unknown name is not kept: people type passwords into the wrong field."""
    name = str(credentials.get("username", ""))
    known = get_user_model().objects.filter(username=name[:150]).exists()
    tried = name if known else "an unknown name"
    AuditEntry.of_nobody(NOBODY, FAILED, None, user=tried, **_from(request))


def _administered(sender: object, instance: LogEntry, created: bool, **_: object) -> None:
    """Users, their passwords and flags: whoever is signed in is looked at again."""
    if created:
        what = f"{instance.content_type.name if instance.content_type else ''} {instance.object_repr}".strip()
        did = DID.get(instance.action_flag, "changed")
        AuditEntry.record(instance.user, "administer", None, did=did, what=what, how=instance.get_change_message())
        Event.record(Event.Kind.MEMBER, f"{what} was {did} by {instance.user}", actor=instance.user)


def _from(request: HttpRequest | None) -> dict[str, str]:
    address = request.META.get("REMOTE_ADDR", "") if request is not None else ""
    return {"address": address} if address else {}
