"""`manage.py review PROJECT`: open merge requests with their evidence; decide one from the shell."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from research import tasks
from research.models import MergeRequest, NotMergeable, Project

ACTS = ("approve", "reject", "request_changes", "more_seeds", "override", "roll_back")


class Command(BaseCommand):
    help = "List a project's open merge requests; approve one (with all it stacks on), reject it, or ask for more."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("project")
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--approve", metavar="REQUEST", help="merge this request and those it stacks on")
        choice.add_argument("--reject", metavar="REQUEST", help="its techniques become a dead end")
        choice.add_argument("--request-changes", metavar="REQUEST", help="tried once more, with other settings")
        choice.add_argument("--more-seeds", metavar="REQUEST", help="measure more pairs before anybody decides")
        choice.add_argument("--override", metavar="REQUEST", help="its findings that ask for a look, with --reason")
        choice.add_argument("--roll-back", metavar="REQUEST", help="main goes back to before this merge")
        parser.add_argument(
            "--reason", default="", help="why it is rejected, overridden or rolled back; what should change"
        )
        parser.add_argument("--pairs", type=int, default=4, help="with --more-seeds: how many")
        parser.add_argument("--by", metavar="USER", help="who decides: the name of a user of the lab")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            names = ", ".join(Project.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"no project named {options['project']!r}; there are: {names}", returncode=2)
        wanted = next((options[act] for act in ACTS if options[act]), None)
        if not wanted:
            return self.show(project)
        request = MergeRequest.objects.filter(project=project, public_id=wanted).first()
        person = User.objects.filter(username=options["by"]).first()
        if request is None or person is None:
            missing = f"request {wanted!r}" if request is None else f"user {options['by']!r}; name one with --by"
            raise CommandError(f"there is no {missing}", returncode=2)
        try:
            self.stdout.write(self.act(request, person, options))
        except NotMergeable as error:
            raise CommandError(str(error), returncode=2) from error
        for thread in project.threads.all():
            tasks.advance_thread(thread.pk)
        return None

    def act(self, request: MergeRequest, person: User, options: dict[str, Any]) -> str:
        commit = request.commit[:10]
        if options["approve"]:
            merged = request.approve(request.commit, person)
            return "\n".join(f"merged {each.commit[:10]}: {each.candidate.idea.hypothesis}" for each in merged)
        if options["reject"]:
            request.reject(person, options["reason"])
            return f"rejected {commit}"
        if options["request_changes"]:
            request.request_changes(person, options["reason"])
            return f"changes requested to {commit}"
        if options["override"]:
            standing = list(request.verdict.experiment.findings.standing())
            for finding in standing:
                finding.override(person, options["reason"])
            return "\n".join(f"overridden: {finding}" for finding in standing) or f"nothing asks for a look at {commit}"
        if options["roll_back"]:
            undone = request.roll_back(person, options["reason"])
            return f"main stands on {request.base[:10]} again; {len(undone)} taken back"
        experiment = request.more_seeds(person, options["pairs"])
        return f"experiment {experiment.number} measures {experiment.wanted_pairs} more pairs of {commit}"

    def show(self, project: Project) -> None:
        self.stdout.write(f"main stands on {project.champion[:10]}")
        for request in project.merge_requests.open().select_related("verdict", "candidate__idea").order_by("pk"):
            below = f", on top of {request.parent.public_id}" if request.parent else ""
            self.stdout.write(f"{request.public_id}  {request.commit[:10]}{below}  {request.candidate.idea.hypothesis}")
            self.stdout.write(f"    {request.verdict.reason}")
            for finding in request.verdict.experiment.findings.standing():
                self.stdout.write(f"    forbids a merge: {finding}")
