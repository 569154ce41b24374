"""The idea graph: nodes that never move, what each kind looks like, one node closer, filters, and its table."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from research.drawing.idea_graph import COLUMN, SHAPES, Mark, Window, draw
from research.drawing.lanes import Node, lay_out
from research.models import Idea, MergeRequest, Project, Thread
from research.views.graph_board import WORDS
from tests.cast import World, begin, go
from tests.stage import Stage

PART = {"part": "graph", "view": "graph"}


@st.composite
def searches(draw_: st.DrawFn) -> list[Node]:
    """Nodes in the order of arrival, each on some of those before it."""
    nodes = [Node("n0", 0)]
    for number in range(1, draw_(st.integers(1, 40))):
        parents = draw_(st.lists(st.integers(0, number - 1), min_size=1, max_size=2, unique=True))
        nodes.append(Node(f"n{number}", draw_(st.integers(0, 6)), tuple(f"n{parent}" for parent in parents)))
    return nodes


@given(searches(), st.data())
def test_nodes_that_arrive_never_move_one_that_is_there(nodes: list[Node], data: st.DataObject) -> None:
    earlier = lay_out(nodes[: data.draw(st.integers(1, len(nodes)))])
    later = lay_out(nodes)
    assert {key: later.places[key] for key in earlier.places} == earlier.places
    assert later.edges[: len(earlier.edges)] == earlier.edges
    assert len(set(later.places.values())) == len(nodes)  # no two in one place


@given(searches(), st.integers(0, 40), st.integers(1, 40))
def test_any_window_of_any_graph_is_drawn(nodes: list[Node], first: int, size: int) -> None:
    lanes, window = lay_out(nodes), Window(first, first + size)
    kinds = list(SHAPES)
    marks = {
        node.key: Mark(kinds[number % len(kinds)], f"<{node.key}>", "?a&b")
        for number, node in enumerate(nodes) if first <= number < first + size
    }  # fmt: skip
    svg = draw(lanes, marks, window, 7, "all", "n0")
    assert svg.count(" data-node=") == len(marks)
    assert "<n" not in svg and "nan" not in svg.lower()
    starts = [int(x) for x in re.findall(r"[HM](-\d+)", svg)]
    assert all(x > -COLUMN for x in starts)  # an edge from further left begins at the border


def test_every_kind_of_node_has_a_shape_and_a_word() -> None:
    assert set(SHAPES) == set(WORDS)


# ---- the page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


@pytest.fixture
def address(project: Project) -> str:
    return f"/p/{project.name}/graph/"


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha", "beta")


@pytest.fixture
def stacked(world: World, thread: Thread) -> MergeRequest:
    """Two gains, one on top of the other, and an idea that is being measured."""
    request = world.gain(thread, "alpha", "beta")
    go(thread)
    return request


def text(client: Client, address: str, **asked: str) -> str:
    reply = client.get(address, asked)
    assert reply.status_code == 200, reply.content[:300]
    return str(reply.content.decode())


def node(page: str, key: str) -> str:
    """The opening tag of a node."""
    found = re.search(rf'<a id="node-{key}" [^>]*>', page)
    assert found, key
    return found.group()


def test_before_the_first_idea_the_page_says_what_comes(seen: Client, toy: None) -> None:
    assert "No idea yet" in text(seen, f"/p/{begin('fresh').name}/graph/")


def test_gains_stack_from_the_start_and_land_on_main(
    seen: Client, address: str, stacked: MergeRequest, reviewer: User
) -> None:
    page = text(seen, address, **PART)
    upper, lower = (row.candidate.idea.public_id for row in (stacked, stacked.parent) if row)
    assert 'data-parents="start"' in node(page, lower) and f'data-parents="{lower}"' in node(page, upper)
    assert 'class="node improved"' in node(page, upper)
    running = Idea.objects.latest("pk")
    assert f'data-parents="{upper}"' in node(page, running.public_id)
    assert re.search(r'class="node (running|waiting|proposed)"', node(page, running.public_id))
    stacked.approve(stacked.commit)
    page = text(seen, address, **PART)
    assert 'class="node merged"' in node(page, upper)
    assert f'data-parents="start {lower}"' in node(page, f"main-{lower}")
    assert f'data-parents="main-{lower} {upper}"' in node(page, f"main-{upper}")


def test_a_combination_has_two_parents(seen: Client, world: World, reviewer: User) -> None:
    project = begin("pair", threads=2)
    one, two = project.threads.order_by("number")
    first, second = world.gain(one, "alpha"), world.gain(two, "beta")
    first.approve(first.commit)
    for _ in range(8):
        go(two)
        world.run()
        if combination := Idea.objects.filter(kind="combination", candidate__isnull=False).first():
            break
    page = text(seen, "/p/pair/graph/", **PART)
    main, own = f"main-{first.candidate.idea.public_id}", second.candidate.idea.public_id
    assert f'data-parents="{main} {own}"' in node(page, combination.public_id)


def test_a_node_closer_shows_claim_effect_seeds_cost_and_ways_on(
    seen: Client, address: str, stacked: MergeRequest
) -> None:
    idea = stacked.candidate.idea
    page = text(seen, address, part="node", node=idea.public_id)
    experiment = stacked.verdict.experiment
    assert idea.hypothesis in page and "e-value" in page and "±" in page and "device time" in page
    for href in (f"/e/{experiment.public_id}/", f"/e/{experiment.public_id}/#diff", f"/review/{stacked.public_id}/"):
        assert f'href="{href}"' in page
    parent = stacked.parent
    assert parent is not None
    assert f"/compare/?e={experiment.public_id},{parent.verdict.experiment.public_id}" in page
    whole = text(seen, address, node=idea.public_id, view="graph")
    assert 'aria-current="true"' in node(whole, idea.public_id)
    assert "is not what" not in text(seen, address, part="node", node="start")
    assert seen.get(address, {"node": "nobody"}).status_code == 404


def test_filters_leave_out_and_the_address_keeps_them(seen: Client, address: str, stacked: MergeRequest) -> None:
    key = stacked.candidate.idea.public_id
    page = text(seen, address, hide="open", view="graph")
    assert f'id="node-{key}"' not in page and 'id="node-start"' in page
    assert "hide=merged,open" in page  # the next filter adds to it
    Idea.objects.filter(public_id=key).update(state=Idea.State.REFUSED)
    assert f'id="node-{key}"' not in text(seen, address, **PART)
    assert 'class="node refused"' in node(text(seen, address, refused="1", **PART), key)


def test_the_table_says_the_same(seen: Client, address: str, stacked: MergeRequest) -> None:
    page = text(seen, address, view="table", part="graph")
    key = stacked.candidate.idea.public_id
    assert f'id="row-{key}"' in page and "improved, waits for review" in page and "<caption" in page
    assert stacked.parent is not None
    assert f'href="#row-{stacked.parent.candidate.idea.public_id}"' in page


def test_a_window_of_a_long_search_has_ways_to_older_and_newer(
    seen: Client, toy: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    thread = begin("long").threads.get()
    address = "/p/long/graph/"
    Idea.objects.bulk_create(
        Idea(thread=thread, number=n, kind="technique", researcher="catalogue", hypothesis=f"<b>idea {n}</b>", steps=[],
             expected_effect=0, fingerprint=str(n), public_id=f"idea{n}")
        for n in range(300)
    )  # fmt: skip
    with django_assert_max_num_queries(8):
        page = text(seen, address, **PART)
    assert page.count(" data-node=") == 120 and 'id="node-idea299"' in page and "<b>idea" not in page
    bar = text(seen, address, part="bar", to="150", n="50")
    assert 'rel="prev"' in bar and 'rel="next"' in bar and "101–150 of 301" in bar
    assert 'id="node-idea10"' in text(seen, address, node="idea10", **PART)  # its own address shows an old node


def test_an_outsider_does_not_learn_that_the_project_exists(client: Client, outsider: User, address: str) -> None:
    client.force_login(outsider)
    assert client.get(address).status_code == 404
