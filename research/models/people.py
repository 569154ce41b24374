"""People: who may do what in which project, how each likes the pages, and the links that sign them in once."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from research.models.audit import AuditEntry
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
    def give(cls, by: AbstractUser, user: AbstractUser, project: Project | None, role: int) -> None:
        """Set a person's role in a project, or in all of them (`None`); 0 takes it away. ADMIN of it alone may."""
        cls.require(by, project, Role.ADMIN, "change who is a member")
        with transaction.atomic():
            if role:
                cls.objects.update_or_create(user=user, project=project, defaults={"role": role})
            else:
                cls.objects.filter(user=user, project=project).delete()
            AuditEntry.record(by, "member", project, user=user.get_username(), role=role)


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


class SignInLink(models.Model):
    """A link that signs one person in, once. Only its hash is stored."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="sign_in_links")
    token_hash = models.CharField(max_length=64, unique=True)
    expires = models.DateTimeField()
    used = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user} until {self.expires:%Y-%m-%d %H:%M}"

    @classmethod
    def make(cls, user: models.Model) -> str:
        """A new token for this person; the only time that it can be read."""
        token = secrets.token_urlsafe(24)
        cls.objects.create(user=user, token_hash=_digest(token), expires=timezone.now() + LINK_LIFE)
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


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
