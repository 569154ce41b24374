"""`manage.py review PROJECT`: open merge requests with their evidence; approve or reject one from the shell."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.models import MergeRequest, NotMergeable, Project


class Command(BaseCommand):
    help = "List a project's open merge requests; approve one (with all it stacks on) or reject one."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--approve", metavar="REQUEST", help="merge this request and those it stacks on")
        choice.add_argument("--reject", metavar="REQUEST")
        parser.add_argument("--reason", default="", help="why it is rejected")
        parser.add_argument("--by", metavar="USER", help="who decides: the name of a user of the lab")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            names = ", ".join(Project.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"no project named {options['project']!r}; there are: {names}", returncode=2)
        wanted = options["approve"] or options["reject"]
        if not wanted:
            return self.show(project)
        request = MergeRequest.objects.filter(project=project, public_id=wanted).first()
        person = get_user_model().objects.filter(username=options["by"]).first()
        if request is None or person is None:
            missing = f"request {wanted!r}" if request is None else f"user {options['by']!r}; name one with --by"
            raise CommandError(f"there is no {missing}", returncode=2)
        try:
            if options["approve"]:
                for merged in request.approve(request.commit, person):
                    self.stdout.write(f"merged {merged.commit[:10]}: {merged.candidate.idea.hypothesis}")
            else:
                request.reject(person, options["reason"])
                self.stdout.write(f"rejected {request.commit[:10]}")
        except NotMergeable as error:
            raise CommandError(str(error), returncode=2) from error
        for thread in project.threads.all():
            tasks.advance_thread(thread.pk)
        return None

    def show(self, project: Project) -> None:
        self.stdout.write(f"main stands on {project.champion[:10]}")
        for request in project.merge_requests.open().select_related("verdict", "candidate__idea").order_by("pk"):
            below = f", on top of {request.parent.public_id}" if request.parent else ""
            self.stdout.write(f"{request.public_id}  {request.commit[:10]}{below}  {request.candidate.idea.hypothesis}")
            self.stdout.write(f"    {request.verdict.reason}")
