"""The form that begins a project: which benchmark, what size, from which start, with how many threads and what budget.

Every field has a default that works; facts beside the sizes say what a verdict costs there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Avg, Count
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.text import slugify

from benchmarks.contract import Benchmark, ContractError, Preset, load, names
from benchmarks.data import DataError, data_id, prepare_command
from research import tasks
from research.loop.begin import Budget, begin_project, rule_for
from research.models import Machine, Membership, NoiseFloor, NotAllowed, Project, Result, Role
from research.models.pace import usual_pair_seconds
from research.researchers import OFFERED
from research.templatetags.lab import duration
from research.validation.named import DEFAULT, RULES, NamedRule, RuleError
from research.validation.records import Rule
from research.views.pages import go, render_page
from research.views.session_models import Configured, configured, why_not
from runners import preparing

MOST_THREADS = 16
HOUR = 3600.0
RECENT = timedelta(days=1)


@dataclass(frozen=True)
class Size:
    """A preset with what it means in seconds."""

    preset: Preset
    rule: Rule
    pair_seconds: float
    measured: int  # trials that `pair_seconds` was measured on; 0: an estimate
    floors: list[NoiseFloor]  # of classes of machines that are attached
    lacks: list[str]  # what must come before it can run: a line each
    work: str  # what a trial's budget goes into

    @property
    def trial(self) -> str:
        clock = "CPU-seconds on one core" if self.preset.clock == "cpu" else "seconds"
        together = ", both arms of a pair side by side" if self.preset.side_by_side else ""
        apart = f"; candidates are screened at {self.preset.screen_preset}" if self.preset.screen_preset else ""
        return f"{self.preset.budget_seconds:g} {clock} of {self.work} a trial{together}{apart}"

    @property
    def pair(self) -> str:
        basis = f"measured over {self.measured} trials here" if self.measured else "estimated"
        return f"{duration(self.pair_seconds)} a pair, {basis}"

    @property
    def verdict(self) -> str:
        screened = self.rule.screen_pairs + self.rule.extend_pairs
        gain = self.rule.screen_pairs + self.rule.looks[0]
        return (
            f"an idea that shows nothing ends within {screened} pairs ({duration(screened * self.pair_seconds)}); "
            f"a gain takes {gain} or more ({duration(gain * self.pair_seconds)})"
        )

    @property
    def smallest(self) -> list[tuple[NoiseFloor, float]]:
        """The stored floors, each with the smallest gain that the default rule confirms there with power 0.8."""
        return [(floor, floor.record().minimum_detectable_effect(self.rule)) for floor in self.floors]

    @property
    def noise(self) -> str:
        seconds = self.preset.noise_pairs * self.pair_seconds
        return f"{self.preset.noise_pairs} pairs of the start against itself come first, about {duration(seconds)}"


@dataclass(frozen=True)
class DataNeeded:
    """Whether the data of a preset are there; if not, what the lab does about it."""

    preset: str
    command: str  # that prepares them
    missing: str  # why nothing can begin; empty where they are there
    can_prepare: bool
    log: Path

    @cached_property
    def _last(self) -> preparing.Preparation | None:
        return preparing.last(self.log) if self.missing and self.can_prepare else None

    @property
    def running(self) -> bool:
        return self._last is not None and self._last.running

    @property
    def failed(self) -> bool:
        return self._last is not None and self._last.failed

    @property
    def line(self) -> str:
        return self._last.line if self._last else ""


class ProjectForm(forms.Form):
    preset = forms.ChoiceField()
    start = forms.ChoiceField()
    researcher = forms.ChoiceField(choices=[(name, name) for name in OFFERED])
    rule = forms.ChoiceField(choices=[(name, name) for name in RULES], initial=DEFAULT, required=False)
    target = forms.FloatField(required=False)
    threads = forms.IntegerField(min_value=1, max_value=MOST_THREADS, initial=2)
    name = forms.SlugField(max_length=80)
    question = forms.CharField(max_length=500, required=False)
    max_trials = forms.IntegerField(min_value=1, max_value=10**9, required=False)
    device_hours = forms.FloatField(min_value=0.01, max_value=10**6, required=False)
    wall_hours = forms.FloatField(min_value=0.01, max_value=10**6, required=False)
    max_money = forms.DecimalField(min_value=Decimal("0.0001"), max_digits=14, decimal_places=8, required=False)
    max_tokens = forms.IntegerField(min_value=1, max_value=10**15, required=False)
    single_person = forms.BooleanField(required=False)

    def __init__(self, contract: Benchmark, user: User, data: Any = None, preset: str = "") -> None:
        preset = preset if preset in contract.presets else next(iter(contract.presets))
        start = contract.lane_of(preset).starts[0]
        super().__init__(data, initial={"preset": preset, "start": start, "name": free_name(contract, preset, start)})
        self.contract, self.user = contract, user
        self.is_admin = Membership.role_of(user, None) >= Role.ADMIN
        self.fields["preset"].choices = [(name, name) for name in contract.presets]  # type: ignore[attr-defined]
        self.fields["start"].choices = [(name, name) for name in self.starts]  # type: ignore[attr-defined]
        self.fields["name"].error_messages["invalid"] = "Use letters, digits, - and _ only: the name is in addresses."

    @property
    def starts(self) -> dict[str, list[str]]:
        """Start -> the lanes that have it."""
        found: dict[str, list[str]] = {}
        for lane in self.contract.lanes.values():
            for start in lane.starts:
                found.setdefault(start, []).append(lane.name)
        return found

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if Project.objects.filter(name__iexact=name).exists():
            raise ValidationError(f"There is a project {name} already; choose another name.")
        return name

    def clean_researcher(self) -> str:
        name: str = self.cleaned_data["researcher"]
        if why := why_not(name):
            raise ValidationError(f"{name} cannot search here: {why}.")
        return name

    def clean_rule(self) -> str:
        return self.cleaned_data["rule"] or DEFAULT

    def clean(self) -> dict[str, Any]:
        """The rule has its target where it needs one; a target beside another rule is left alone."""
        chosen: dict[str, Any] = super().clean() or self.cleaned_data
        preset, start = chosen.get("preset"), chosen.get("start")
        if preset and start and start not in (starts := self.contract.lane_of(preset).starts):
            self.add_error("start", f"{preset} has no start {start}; choose {' or '.join(starts)}.")
        if "rule" in chosen and "target" in chosen:
            chosen["target"] = chosen["target"] if RULES[chosen["rule"]].needs_target else None
            try:
                rule_for(self.contract, chosen.get("preset") or next(iter(self.contract.presets)),
                         chosen["rule"], chosen["target"])  # fmt: skip
            except RuleError as error:
                self.add_error("target", f"{str(error)[0].upper()}{str(error)[1:]}.")
        return chosen

    @property
    def rules(self) -> list[tuple[str, NamedRule]]:
        return list(RULES.items())

    def clean_single_person(self) -> bool:
        return bool(self.cleaned_data["single_person"]) and self.is_admin

    def begin(self) -> Project:
        """Begin the project. Raises what `begin_project` raises."""
        chosen = self.cleaned_data
        hours, wall = chosen["device_hours"], chosen["wall_hours"]
        return begin_project(
            chosen["name"], self.contract.name, chosen["preset"], chosen["start"],
            [chosen["researcher"]] * chosen["threads"],
            Budget(chosen["max_trials"], hours and hours * HOUR, wall and wall * HOUR,
                   chosen["max_money"], chosen["max_tokens"]),
            auto_approve=False, started_by=self.user, single_person=chosen["single_person"],
            question=chosen["question"].strip(), rule=chosen["rule"], target=chosen["target"],
        )  # fmt: skip

    @property
    def sizes(self) -> list[Size]:
        """The presets with their costs: measured where trials of this size have run here."""
        machines = Machine.objects.filter(seen__gt=timezone.now() - RECENT)
        classes, devices = machines.values("machine_class"), {kind for machine in machines for kind in machine.devices}
        found = []
        for name, preset in self.contract.presets.items():
            results = Result.objects.filter(
                trial__project__benchmark=self.contract.name, trial__project__preset=name, score__isnull=False
            )
            seen = results.aggregate(seconds=Avg("device_seconds"), trials=Count("pk"))
            floors = NoiseFloor.objects.filter(
                benchmark=self.contract.name, preset=name, data_id=self._data(preset), machine_class__in=classes
            )
            seconds = seen["seconds"] or usual_pair_seconds(preset)
            rule = rule_for(self.contract, name)  # the default one: what the others cost, their own line says
            lacks = [line for line in (self._lacks_data(preset), _no_device(preset, devices)) if line]
            newest = list(floors.order_by("-measured")[:3])
            found.append(Size(preset, rule, seconds, seen["trials"], newest, lacks, self.contract.work))
        return found

    @property
    def researchers(self) -> list[tuple[str, str]]:
        """(name, why it cannot be chosen)"""
        return [(name, why_not(name)) for name in OFFERED]

    @property
    def unavailable(self) -> Configured | None:
        """What to set, where a researcher cannot be chosen for want of a model."""
        return configured() if any(why for _, why in self.researchers) else None

    @property
    def budgets(self) -> list[tuple[forms.BoundField, str]]:
        labels = {
            "max_trials": "Trials", "device_hours": "Device-hours", "wall_hours": "Hours of search",
            "max_money": "Money for models", "max_tokens": "Tokens of models",
        }  # fmt: skip
        return [(self[name], label) for name, label in labels.items()]

    @cached_property
    def data_needed(self) -> DataNeeded:
        """Of the preset that is chosen. Those of a CPU are there within minutes; others are for a person to fetch."""
        named = str(self["preset"].value())
        preset = self.contract.preset(named if named in self.contract.presets else next(iter(self.contract.presets)))
        command = " ".join(["python", *prepare_command(self.contract.name, preset.name, preset.data)])
        log = preparing.log_of(settings.DATA_DIR, self.contract.name, preset.data)
        return DataNeeded(preset.name, command, self._no_data(preset), preset.device == "cpu", log)

    def _data(self, preset: Preset) -> str:
        return "" if self._no_data(preset) else data_id(self.contract.name, preset)

    def _no_data(self, preset: Preset) -> str:
        """Which command prepares the data of a preset, where there is none."""
        try:
            data_id(self.contract.name, preset)
        except DataError as error:
            return str(error)
        return ""

    def _lacks_data(self, preset: Preset) -> str:
        """The same in a line of a size; nothing where the page says it once, with a button."""
        chosen = self.contract.preset(self.data_needed.preset)
        if preset.device == "cpu" and preset.data == chosen.data:
            return ""
        return self._no_data(preset)

    @property
    def missing(self) -> str:
        """The same of the first preset, where no preset has data."""
        said = [self._no_data(preset) for preset in self.contract.presets.values()]
        return said[0] if all(said) else ""


def _no_device(preset: Preset, devices: set[str]) -> str:
    if preset.device == "cpu" or preset.device in devices:
        return ""
    return "no machine with a GPU has been attached in the last day"


def new(request: HttpRequest) -> HttpResponse:
    user: User = request.user  # type: ignore[assignment]  # LoginRequiredMiddleware
    if Membership.role_of(user, None) < Role.MEMBER:
        raise PermissionDenied("only a member of the lab may start a project; an admin can give you that role")
    contracts = _contracts()
    chosen = (request.POST or request.GET).get("benchmark", "")
    contract = next((one for one in contracts if one.name == chosen), contracts[0] if contracts else None)
    if contract is None:
        return go(request, reverse("overview"), problem="no benchmark can be read; see benchmarks/ on the server")
    filled = request.POST if request.method == "POST" else None
    form = ProjectForm(contract, user, filled, request.GET.get("preset", ""))
    prepares = request.POST.get("act") == "prepare"
    if prepares:
        _prepare(form)
    elif form.is_bound and form.is_valid() and (project := _begun(form)):
        return go(request, reverse("project", args=[project.name]), said=f"{project.name} begins to search.")
    context = {"form": form, "contracts": contracts, "contract": contract, "shown_alone": "part" in request.GET}
    response = render_page(request, "project/new", context)
    response.status_code = 422 if form.is_bound and not prepares else 200
    return response


def _prepare(form: ProjectForm) -> None:
    """Let the control worker prepare the data, where they are missing and nobody is at it."""
    needed = form.data_needed
    if needed.missing and needed.can_prepare and preparing.ask(needed.log):
        tasks.prepare_data(form.contract.name, needed.preset)


def _begun(form: ProjectForm) -> Project | None:
    """The new project, its loop rung; None where it cannot begin, which the form then says."""
    try:
        project = form.begin()
    except (ContractError, DataError, NotAllowed, RuleError) as error:
        form.add_error(None, str(error))
        return None
    tasks.advance_project(project.pk)
    for pk in project.threads.values_list("pk", flat=True):
        tasks.advance_thread(pk)
    return project


def _contracts() -> list[Benchmark]:
    """The benchmarks that can be read. A broken one is left out: the lab goes on with the others."""
    found = []
    for name in names():
        try:
            found.append(load(name))
        except ContractError:
            continue
    return found


def free_name(contract: Benchmark, preset: str, start: str) -> str:
    base = slugify(f"{contract.name}-{preset}-{start}")[:70]
    taken = set(Project.objects.filter(name__startswith=base).values_list("name", flat=True))
    return next(name for n in range(1, len(taken) + 2) if (name := base if n == 1 else f"{base}-{n}") not in taken)
