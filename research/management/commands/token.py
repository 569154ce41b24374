"""`manage.py token`: make, list and revoke tokens of agents from the shell."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from research.models import ApiToken, NotAllowed, Project


class Command(BaseCommand):
    help = "Make a token for an agent (printed once); or --list, or --revoke ID."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("name", nargs="?", help="which agent uses it")
        parser.add_argument("--owner", help="in whose name it acts (default: the first superuser)")
        parser.add_argument("--project", help="the one project that it opens (default: all its owner sees)")
        parser.add_argument("--read-only", action="store_true", help="it may not claim and submit")
        parser.add_argument("--days", type=float, help="how long it lives (default: until it is revoked)")
        parser.add_argument("--list", action="store_true")
        parser.add_argument("--revoke", metavar="ID")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list"]:
            return self._list()
        owner = self._owner(options["owner"])
        if options["revoke"]:
            return self._revoke(options["revoke"], owner)
        if not options["name"]:
            raise CommandError("name the agent that is to use the token", returncode=2)
        project = Project.objects.filter(name=options["project"]).first() if options["project"] else None
        if options["project"] and project is None:
            raise CommandError(f"there is no project {options['project']!r}", returncode=2)
        life = timedelta(days=options["days"]) if options["days"] else None
        try:
            text = ApiToken.make(owner, options["name"], project, not options["read_only"], life)
        except (NotAllowed, ValueError) as refusal:
            raise CommandError(str(refusal), returncode=2) from refusal
        self.stderr.write("keep it: it cannot be read again")
        self.stdout.write(text)
        return None

    def _owner(self, name: str | None) -> Any:
        people = get_user_model().objects.filter(is_active=True)
        found = people.filter(username=name) if name else people.filter(is_superuser=True).order_by("pk")
        owner = found.first()
        if owner is None:
            who = f"there is nobody called {name!r}" if name else "the lab has no superuser yet; start it once"
            raise CommandError(who, returncode=2)
        return owner

    def _list(self) -> None:
        for token in ApiToken.objects.select_related("owner", "project").order_by("pk"):
            used = (
                f"used {token.last_used:%Y-%m-%d %H:%M} from {token.last_address}" if token.last_used else "never used"
            )
            state = "" if token.is_usable else "dead, "
            may = "proposes" if token.may_propose else "reads"
            self.stdout.write(
                f"{token.public_id}  {token.name}  {token.owner}  {token.project or 'all'}  {may}  {state}{used}"
            )

    def _revoke(self, public_id: str, owner: Any) -> None:
        token = ApiToken.objects.filter(public_id=public_id).first()
        if token is None:
            raise CommandError(f"there is no token {public_id!r}; --list names them", returncode=2)
        try:
            token.revoke(owner)
        except NotAllowed as refusal:
            raise CommandError(str(refusal), returncode=2) from refusal
        self.stdout.write(f"{token.name} is shut out")
