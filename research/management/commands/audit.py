"""`manage.py audit`: is every entry of the audit as it was written, and is none missing between them?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research.models import AuditEntry


class Command(BaseCommand):
    help = "Check the chain of hashes over all audit entries; prints the newest, to be compared with a noted one."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--noted", metavar="HASH", help="a newest hash of an earlier check: it must still be there")

    def handle(self, *args: Any, **options: Any) -> None:
        entries, noted = AuditEntry.objects.all(), options["noted"]
        if (broken := entries.first_broken()) is not None:
            problem = "was changed, or entries before it are gone"
            raise CommandError(f"entry {broken.pk} ({broken}) {problem}", returncode=1)
        if noted and not entries.filter(hash=noted).exists():
            raise CommandError(f"no entry has the hash {noted}: entries were taken off the end", returncode=1)
        self.stdout.write(f"{entries.count()} entries, none changed; newest hash {entries.newest_hash() or 'none'}")
