"""How well the sandbox held stands beside every number; where nothing holds foreign code back, every page says so."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from research.models import AuditEntry, Experiment, Machine, MergeRequest, Project, Role, Thread
from research.templatetags.lab import isolation
from tests.cast import World, go, person


@pytest.fixture
def confirmed(world: World, thread: Thread) -> MergeRequest:
    """A gain measured at level 2."""
    world.machine.attach(2, [])
    return world.gain(thread, "alpha")


@pytest.fixture
def root(client: Client, db: None) -> User:
    ada = person("ada", Role.ADMIN)
    client.force_login(ada)
    return ada


@pytest.mark.parametrize(
    ("level", "tone", "words"),
    [(3, "good", "full sandbox"), (2, "warn", "sandbox without"), (1, "warn", "landlock only"), (0, "bad", "none")],
)
def test_the_badge_says_level_and_name_not_by_colour_alone(level: int, tone: str, words: str) -> None:
    for name in (True, False):
        badge = isolation(level, name)
        assert f'class="isolation {tone}"' in badge
        assert f"level {level}<" in badge and f", {words}" in badge
    assert isolation(None) == "–"


def test_the_badge_stands_wherever_a_number_of_an_experiment_is_shown(
    client: Client, root: User, confirmed: MergeRequest, project: Project, thread: Thread
) -> None:
    experiment = confirmed.verdict.experiment
    assert 'class="isolation warn"' in text_of(client, reverse("review") + "?part=queue")
    confirmed.approve(confirmed.commit, root)
    places = {
        "experiment": reverse("experiment", args=[experiment.public_id]),
        "merge request": reverse("merge-request", args=[confirmed.public_id]) + "?part=numbers",
        "thread's experiments": reverse("thread", args=[thread.public_id]) + "?part=experiments",
        "frontier": reverse("project", args=[project.name]) + "?part=frontier",
        "figures": reverse("project", args=[project.name]) + "?part=figures",
        "project's experiments": reverse("project", args=[project.name]) + "?part=experiments",
        "project": reverse("project", args=[project.name]) + "?part=head",
        "compare": f"{reverse('compare')}?e={experiment.public_id}",
        "machines": reverse("machines") + "?part=machines",
    }
    missing = [name for name, address in places.items() if 'class="isolation warn"' not in text_of(client, address)]
    assert missing == []
    assert "isolation level 2" in text_of(client, places["frontier"]).partition("</svg>")[0], "the step's tooltip too"


def test_an_admin_overrides_by_a_form_and_every_page_shows_it_in_red(
    client: Client, root: User, quick: Machine, project: Project, thread: Thread
) -> None:
    machines, override = reverse("machines"), reverse("override-machine", args=[quick.public_id])
    pages = [reverse("overview"), reverse("project", args=[project.name]), reverse("thread", args=[thread.public_id])]
    assert override in text_of(client, machines)
    assert not any("No sandbox:" in text_of(client, page) for page in pages)
    client.post(override, {"allowed": "yes"})
    quick.refresh_from_db()
    assert quick.override_level_zero
    assert AuditEntry.objects.filter(actor=root, action="override isolation").exists()
    assert all("<strong>No sandbox:</strong> quick runs" in text_of(client, page) for page in [*pages, machines])
    client.post(override, {"allowed": "no"})
    assert not any("No sandbox:" in text_of(client, page) for page in pages)


def test_nobody_else_can_and_a_machine_whose_sandbox_holds_offers_nothing(
    client: Client, reviewer: User, quick: Machine, project: Project
) -> None:
    client.force_login(reviewer)
    override = reverse("override-machine", args=[quick.public_id])
    assert override not in text_of(client, reverse("machines"))
    client.post(override, {"allowed": "yes"})
    quick.refresh_from_db()
    assert not quick.override_level_zero and not AuditEntry.objects.filter(action="override isolation").exists()
    assert client.post(reverse("override-machine", args=["nothing"]), {"allowed": "yes"}).status_code == 404
    client.force_login(person("ada", Role.ADMIN))
    quick.attach(2, [])
    assert override not in text_of(client, reverse("machines"))


def test_the_banner_goes_when_the_machine_has_a_sandbox_again(client: Client, root: User, quick: Machine) -> None:
    quick.override(root, True)
    assert "No sandbox:" in text_of(client, reverse("overview"))
    quick.attach(3, [])
    assert "No sandbox:" not in text_of(client, reverse("overview"))


def test_the_queue_says_which_machine_is_missing(client: Client, root: User, world: World, thread: Thread) -> None:
    go(thread)
    Experiment.objects.update(trusted=False)
    Machine.objects.update(seen=timezone.now())
    assert "waits for a machine with isolation level 1" in text_of(client, reverse("machines") + "?part=queue")


def text_of(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, address
    return response.content.decode()
