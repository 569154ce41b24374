"""People: who may do what in which project, how each likes the pages, and the links that sign them in once."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from research.models.audit import CONSOLE, FAILED, NOBODY, AuditEntry
from research.models.event import Event
from research.models.refusals import NotAllowed

if TYPE_CHECKING:
    from research.models.project import Project
    from research.models.thread import Thread

LINK_LIFE = timedelta(hours=12)


class Role(models.IntegerChoices):
    """Each role may do all that the ones below it may."""

    VIEWER = 1, "viewer"  # sees the project
    MEMBER = 2, "member"  # starts, steers, asks for more seeds
    REVIEWER = 3, "reviewer"  # approves and rejects merge requests
    ADMIN = 4, "admin"  # settings of the project, members


class Membership(models.Model):
    """A person's role in one project, or in all of them (`project` empty)."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    project = models.ForeignKey("Project", models.CASCADE, null=True, blank=True, related_name="memberships")
    role = models.PositiveSmallIntegerField(choices=Role, default=Role.VIEWER)
    given = models.DateTimeField(default=timezone.now, null=True, blank=True)
    given_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "project"], name="one_role"),
            models.UniqueConstraint(fields=["user"], condition=Q(project=None), name="one_role_in_all"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.get_role_display()} of {self.project or 'every project'}"

    @classmethod
    def role_of(cls, user: AbstractUser, project: Project | None) -> int:
        """The highest role that a person has in a project (`None`: in the lab as a whole); 0 for none."""
        if not user.is_active:
            return 0
        if user.is_superuser:
            return Role.ADMIN
        everywhere_or_here = Q(project=None) | Q(project=project)
        roles = cls.objects.filter(everywhere_or_here, user=user.pk).values_list("role", flat=True)
        return max(roles, default=0)

    @classmethod
    def require(cls, user: AbstractUser | None, project: Project | None, role: Role, act: str) -> None:
        """Raises NotAllowed where the person's role is too low. `None` stands for the lab itself: it may."""
        if user is not None and cls.role_of(user, project) < role:
            raise NotAllowed(
                f"only a {role.label} of {project or 'the lab'} may {act}; an admin can give you that role"
            )

    @classmethod
    def require_second_person(
        cls, user: AbstractUser, project: Project, threads: models.QuerySet[Thread], act: str
    ) -> None:
        """Raises NotAllowed where the person asked for what is judged here. A single-person project lets them."""
        if project.single_person:
            return
        if project.started_by_id == user.pk:
            raise NotAllowed(f"you started this project; somebody else has to {act}")
        own = threads.filter(steered_by=user.pk).first()
        if own is not None:
            raise NotAllowed(f"you started or steered thread {own.number} last; somebody else has to {act}")
        handed = threads.filter(ideas__submission__token__owner=user.pk).first()
        if handed is not None:
            raise NotAllowed(f"an agent of yours works on thread {handed.number}; somebody else has to {act}")

    @classmethod
    def projects_of(cls, user: AbstractUser) -> models.QuerySet[Project]:
        """The projects that a person may see."""
        projects: models.QuerySet[Project] = apps.get_model("research", "Project").objects.all()
        if not user.is_active:
            return projects.none()
        mine = cls.objects.filter(user=user.pk)
        if user.is_superuser or mine.filter(project=None).exists():
            return projects
        return projects.filter(pk__in=mine.values("project"))

    @classmethod
    def projects_seen_with(cls, project: Project) -> models.QuerySet[Project]:
        """Projects that everybody who sees this one may see too; it is among them."""
        projects: models.QuerySet[Project] = apps.get_model("research", "Project").objects.all()
        everywhere = Q(user__is_superuser=True) | Q(user__in=cls.objects.filter(project=None).values("user"))
        for user in cls.objects.filter(project=project).exclude(everywhere).values_list("user", flat=True):
            projects = projects.filter(pk__in=cls.objects.filter(user=user).values("project"))
        return projects

    @classmethod
    def give(cls, by: AbstractUser, user: AbstractUser, project: Project | None, role: int) -> None:
        """Set a person's role in a project, or in all of them (`None`); 0 takes it away. ADMIN of it alone may.

        Raises NotAllowed also where nobody would be left who was given the role of an admin there.
        """
        cls.require(by, project, Role.ADMIN, "change who is a member")
        with transaction.atomic():
            mine = cls.objects.select_for_update().filter(user=user, project=project)
            before = mine.values_list("role", flat=True).first() or 0
            if before == role:
                return
            if by.pk == user.pk and before == Role.ADMIN and not cls._others_administer(user, project):
                where = project or "the lab"
                raise NotAllowed(f"you are the last admin of {where}; make somebody else an admin of it first")
            if role:
                fields = {"role": role, "given": timezone.now(), "given_by": by}
                cls.objects.update_or_create(user=user, project=project, defaults=fields)
            else:
                mine.delete()
            AuditEntry.record(by, "member", project, user=user.get_username(), role=role, before=before)
            now = f"is {Role(role).label}" if role else "has no role any more"
            where = f"in {project or 'every project'}"
            Event.record(Event.Kind.MEMBER, f"{user} {now} {where}, by {by}", project=project, actor=by)

    @classmethod
    def invite(cls, by: AbstractUser, name: str, project: Project | None, role: int) -> str:
        """A new account with a role; returns the token of the link that signs that person in, once.

        Again for the same person, before they came and while they have no other role: a fresh link. Raises NotAllowed
        where the account is in use, for a link would sign its maker in as somebody else.
        """
        cls.require(by, project, Role.ADMIN, "invite people")
        if not role:
            raise ValueError("choose a role for whom you invite")
        people = get_user_model()
        with transaction.atomic():
            user = people.objects.filter(username__iexact=name).first()
            if user is None:
                _check_name(name)
                user = people.objects.create_user(name)
            elif not cls._is_still_invited(by, user, project):
                raise NotAllowed(f"{user} has an account already: give a role; `manage.py signin {user}` prints a link")
            cls.give(by, user, project, role)
            return SignInLink.make(user, by, project)

    @classmethod
    def _is_still_invited(cls, by: AbstractUser, user: AbstractUser, project: Project | None) -> bool:
        """Never signed in, without a password, and known only by what this person gave them here."""
        roles = list(cls.objects.filter(user=user.pk).values_list("project", "given_by"))
        only_this = roles == [(project.pk if project else None, by.pk)]
        is_new = user.last_login is None and not user.has_usable_password()
        return only_this and is_new and user.is_active and not (user.is_staff or user.is_superuser)

    @classmethod
    def _others_administer(cls, user: AbstractUser, project: Project | None) -> bool:
        admins = cls.objects.filter(Q(project=None) | Q(project=project), role=Role.ADMIN, user__is_active=True)
        return admins.exclude(user=user.pk).exists()


class Preferences(models.Model):
    """How one person likes the pages, and when they last looked."""

    class Theme(models.TextChoices):
        SYSTEM = "system"
        LIGHT = "light"
        DARK = "dark"

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="preferences")
    theme = models.CharField(max_length=8, choices=Theme, default=Theme.SYSTEM)
    shortcuts = models.BooleanField(default=True, help_text="single-letter keys")
    split_diff = models.BooleanField(default=False, help_text="old and new side by side")
    seen = models.DateTimeField(default=timezone.now, help_text="the newest visit of the overview")
    away_since = models.DateTimeField(default=timezone.now, help_text="the visit before the last long absence")

    class Meta:
        verbose_name_plural = "preferences"

    def __str__(self) -> str:
        return f"preferences of {self.user}"

    @classmethod
    def of(cls, user: models.Model) -> Preferences:
        return cls.objects.get_or_create(user=user)[0]

    def visit(self, now: datetime, absence: timedelta) -> bool:
        """Note a visit of the overview. True where it ends a long absence, which then began at `away_since`."""
        returned = now - self.seen > absence
        if returned:
            self.away_since = self.seen
        self.seen = now
        self.save(update_fields=["seen", "away_since"])
        return returned

    def mark_seen(self) -> None:
        """What happened until now is known; the next digest begins here."""
        self.seen = self.away_since = timezone.now()
        self.save(update_fields=["seen", "away_since"])


class SignInLink(models.Model):
    """A link that signs one person in, once. Only its hash is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="sign_in_links")
    token_hash = models.CharField(max_length=64, unique=True)
    expires = models.DateTimeField()
    used = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user} until {self.expires:%Y-%m-%d %H:%M}"

    @classmethod
    def make(cls, user: AbstractUser, by: AbstractUser | None = None, project: Project | None = None) -> str:
        """A new token for this person; the only time that it can be read. `by=None`: asked for on the console."""
        token = secrets.token_urlsafe(24)
        with transaction.atomic():
            cls.objects.create(user=user, token_hash=_digest(token), expires=timezone.now() + LINK_LIFE)
            if by is None:
                AuditEntry.of_nobody(CONSOLE, "sign-in link", project, user=user.get_username())
            else:
                AuditEntry.record(by, "sign-in link", project, user=user.get_username())
        return token

    @classmethod
    def redeem(cls, token: str) -> AbstractUser | None:
        """The person whom the token signs in; None where it is unknown, used or too old."""
        now = timezone.now()
        link = cls.objects.filter(token_hash=_digest(token)).select_related("user").first()
        fresh = cls.objects.filter(pk=link.pk, used=None, expires__gt=now) if link else cls.objects.none()
        if link is None or not link.user.is_active or not fresh.update(used=now):
            return None
        return link.user

    @classmethod
    def refuse(cls, token: str) -> None:
        """Write down that somebody tried a link that is of no use any more; what never was one costs no row."""
        if link := cls.objects.filter(token_hash=_digest(token)).select_related("user").first():
            AuditEntry.of_nobody(NOBODY, FAILED, None, user=link.user.get_username(), by="a dead link")


def _check_name(name: str) -> None:
    try:
        get_user_model()._meta.get_field("username").run_validators(name)
    except ValidationError as wrong:
        raise ValueError(f"{name[:40]!r} cannot be a name here: {wrong.messages[0]}") from wrong
    if not name:
        raise ValueError("name whom you invite")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
