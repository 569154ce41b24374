"""`manage.py signin [USER]`: a fresh link that signs one person in, once. Also what `lab` prints at every start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from research.models import SignInLink

FIRST = "admin"


class Command(BaseCommand):
    help = "Print a link that signs a person in, once."
    requires_system_checks = []

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("user", nargs="?", help="the person's name in the lab (default: the first superuser)")
        parser.add_argument("--address", help="where the lab is reached (default: where it runs now)")

    def handle(self, *args: Any, **options: Any) -> None:
        people = get_user_model().objects.filter(is_active=True)
        person = people.filter(username=options["user"]).first() if options["user"] else first_person()
        if person is None:
            names = ", ".join(people.order_by("pk").values_list("username", flat=True)[:20]) or "nobody yet"
            raise CommandError(f"there is no user {options['user']!r}; there are: {names}", returncode=2)
        file = address_file()
        address = options["address"] or (file.read_text() if file.is_file() else "")
        if not address:
            raise CommandError("the lab does not run here; start it, or name where it is with --address", returncode=2)
        self.stdout.write(link(person, address))


def first_person() -> User:
    """The first superuser; one without a password is made where there is none."""
    found = get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    return found or get_user_model().objects.create_superuser(FIRST)


def link(person: User, address: str) -> str:
    """Made by hand: `reverse` would load every page into the supervisor."""
    return f"{address.rstrip('/')}/sign-in/{SignInLink.make(person)}/"


def address_file() -> Path:
    return Path(settings.DATA_DIR) / "address"


@contextmanager
def remember_address(address: str) -> Iterator[str]:
    """While the lab runs, its folder says where."""
    file = address_file()
    file.write_text(address)
    try:
        yield address
    finally:
        file.unlink(missing_ok=True)
