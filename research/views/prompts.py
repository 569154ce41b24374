"""The prompts of a project: what ships with the lab, the project's own text instead, and what it was before."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from research.logtext import said
from research.models import Membership, NotAllowed, Project, ProjectPrompt, Role
from research.researchers.llm import prompts
from research.views.difftext import FileDiff
from research.views.pages import go, project_for, render_page
from research.views.session_text import diff_of

NAMES = {
    "propose": "asks for the next idea",
    "implement": "asks for the change that an idea needs",
    "review": "asks for an opinion of a change, before any device time",
}
HISTORY = 30


def page(request: HttpRequest, name: str) -> HttpResponse:
    project = project_for(request, name)
    return render_page(request, "prompts", _context(request, project, _known(request.GET.get("prompt", "propose"))))


@require_POST
def change(request: HttpRequest, name: str, prompt: str) -> HttpResponse:
    """Save the project's own text, or go back to the shipped one."""
    project, prompt = project_for(request, name, Role.MEMBER), _known(prompt)
    text = "" if request.POST.get("act") == "reset" else _typed(request)
    base = request.POST.get("base", "")
    try:
        if request.POST.get("act") != "reset":
            check(prompt, text)
        row = ProjectPrompt.change(request.user, project, prompt, text, int(base) if base.isdigit() else 0)  # type: ignore[arg-type]
    except (NotAllowed, ValueError) as refused:
        context = {**_context(request, project, prompt), "refused": str(refused), "typed": text}
        response = render_page(request, "prompts", context)
        response.status_code = 422
        return response
    url = f"{reverse('prompts', args=[name])}?prompt={prompt}"
    done = "The shipped text holds again" if row.is_shipped else f"Version {row.version} holds from the next session on"
    return go(request, url, said=done)


def check(name: str, text: str) -> None:
    """Raises ValueError with one line where a text could not serve as this prompt."""
    if not text:
        raise ValueError("an own prompt cannot be empty; go back to the shipped one instead")
    prompts.check(prompts.prompt_of(name, "own", text))


class PromptBoard:
    def __init__(self, project: Project, name: str, version: int | None) -> None:
        self.project, self.name, self.version = project, name, version

    @cached_property
    def shipped(self) -> prompts.Prompt:
        return prompts.load(self.name)

    @cached_property
    def own(self) -> ProjectPrompt | None:
        return ProjectPrompt.of(self.project, self.name)

    @property
    def text(self) -> str:
        """What models are told now."""
        return self.own.text if self.own else self.shipped.text

    @cached_property
    def history(self) -> list[ProjectPrompt]:
        rows = ProjectPrompt.objects.filter(project=self.project, name=self.name).select_related("by")
        return list(rows.order_by("-version")[:HISTORY])

    @property
    def base(self) -> int:
        """The newest version, which a change is made to."""
        return self.history[0].version if self.history else 0

    @property
    def needs(self) -> list[str]:
        return sorted(self.shipped.places)

    @cached_property
    def chosen(self) -> ProjectPrompt | None:
        """An older version that is looked at."""
        return next((row for row in self.history if row.version == self.version and not row.is_shipped), None)

    @property
    def difference(self) -> FileDiff:
        """Of the chosen or the own text to the shipped one."""
        row = self.chosen or self.own
        return diff_of(f"{self.name}.md", self.shipped.text, row.text if row else self.shipped.text)

    @property
    def shown_text(self) -> str:
        return said(self.text)

    @cached_property
    def all(self) -> list[tuple[str, str, ProjectPrompt | None, prompts.Prompt]]:
        """(name, what it is for, own text, shipped) of every prompt."""
        return [
            (name, words, ProjectPrompt.of(self.project, name), prompts.load(name)) for name, words in NAMES.items()
        ]


def _typed(request: HttpRequest) -> str:
    return request.POST.get("text", "").replace("\r\n", "\n").strip()


def _known(name: str) -> str:
    if name not in NAMES:
        raise Http404("there is no such prompt")
    return name


def _context(request: HttpRequest, project: Project, name: str) -> dict[str, Any]:
    version = request.GET.get("version", "")
    return {
        "project": project,
        "board": PromptBoard(project, name, int(version) if version.isdigit() and len(version) < 9 else None),
        "may_change": Membership.role_of(request.user, project) >= Role.MEMBER,  # type: ignore[arg-type]
    }
