"""The kernel board: what each cell says and rests on, what is beside it, and one problem closer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from benchmarks.kernels.cells import CellTimes, metrics
from research.models import Experiment, Finding, Project, Role, Thread, Trial
from research.views.kernels_read import reading_of
from tests.cast import person, toy_benchmarks
from tests.kernel_board_play import FEW, Player, begin, candidate, prepare

ADDRESS = "/p/kernels/kernels/"
FAMILIES = ["attention", "decode attention", "elementwise", "norm", "top k gating"]


@pytest.fixture
def many() -> Iterator[None]:
    with toy_benchmarks():
        yield


@pytest.fixture
def kernels(db: None, many: None) -> Project:
    prepare()
    return begin()


@pytest.fixture
def player(kernels: Project) -> Player:
    return Player(kernels)


@pytest.fixture
def threads(kernels: Project) -> list[Thread]:
    return list(kernels.threads.order_by("number"))


@pytest.fixture
def seen(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


def text(client: Client, address: str = ADDRESS, **asked: str) -> str:
    reply = client.get(address, asked)
    assert reply.status_code == 200, reply.content[:300]
    return str(reply.content.decode())


def row(page: str, problem: str) -> str:
    found = re.search(rf'<tr id="row-{problem}".*?</tr>', page, re.DOTALL)
    assert found, problem
    return found.group()


def cells(page: str, problem: str) -> list[str]:
    return re.findall(r"<li [^>]*>(?:<i>.</i>)?([^<]*)</li>", row(page, problem))


def column(page: str, problem: str, label: str) -> str:
    found = re.search(rf'<td class="[^"]*" data-label="{label}">(.*?)</td>', row(page, problem))
    assert found
    return re.sub(r"<[^>]*>", "", found.group(1)).strip()


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


# ---- the map -------------------------------------------------------------------------------------------------------


def test_before_the_first_trial_every_problem_stands_as_its_reference(seen: Client, kernels: Project) -> None:
    page = text(seen)
    assert "Nothing is measured yet" in page and "No bounds yet" in page
    assert re.findall(r'scope="rowgroup">([\w ]+?) <', page) == FAMILIES
    assert sorted(re.findall(r'<tr id="row-(\w+)"', page)) == sorted(FEW)
    for name in FEW:
        assert set(cells(page, name)) == {".50"} and column(page, name, "mean") == ".50"
    assert ">0.500<" in page and 'title="rows 1, width 8: not measured, its reference"' in page


def test_cells_say_what_mains_code_is_worth_between_its_reference_and_its_bound(
    seen: Client, player: Player, threads: list[Thread], kernels: Project
) -> None:
    exact = {uuid: CellTimes(0.5, 1.0, 0.25) for uuid in player.times("rms_norm", 1.0)}
    lease = player.start(candidate(threads[0], {"moe_gating": "# anything"}))[0]
    assert lease.trial.arm == Trial.Arm.BASELINE  # of main's code, so also for rms_norm
    player.finish(lease, {"rms_norm": exact})
    page = text(seen)
    assert cells(page, "rms_norm") == [".75", ".75", ".75"] and column(page, "rms_norm", "mean") == ".75"
    assert "500 µs, reference 1 ms" not in page and "500 µs, reference 1000 µs, 2.00×, bound 250 µs, score .75" in page
    assert ">0.550<" in page  # (.75 + 4 * .5) / 5
    faster = text(seen, show="speedup")
    assert set(cells(faster, "rms_norm")) == {"2.00×"} and set(cells(faster, "moe_gating")) == {"1.00×"}
    micros = text(seen, show="latency")
    assert set(cells(micros, "rms_norm")) == {"500"} and column(micros, "moe_gating", "mean") == "–"
    assert 'data-problem="rms_norm"' in micros.split('class="roofline"')[1]


def test_a_gain_stands_beside_main_until_it_is_merged_and_then_in_the_cells(
    seen: Client, player: Player, threads: list[Thread], kernels: Project
) -> None:
    request = player.gain(threads[0], {"rms_norm": 3.0})
    page = text(seen)
    assert column(page, "rms_norm", "mean") in (".49", ".50", ".51")
    assert re.fullmatch(r"t-1 \.8\d", column(page, "rms_norm", "best thread"))
    assert f'href="/review/{request.public_id}/"' in row(page, "rms_norm") and "waits for review" in row(
        page, "rms_norm"
    )
    assert "ago" in column(page, "rms_norm", "improved") and column(page, "rms_norm", "gain since the start") == "–"
    request.approve(request.commit)
    page = text(seen)
    assert column(page, "rms_norm", "mean").startswith(".8")
    assert re.fullmatch(r"\+\.3\d", column(page, "rms_norm", "gain since the start"))
    assert column(page, "rms_norm", "best thread") == "–" and "review/" not in row(page, "rms_norm")
    request.roll_back(None, "it was too good")
    page = text(seen)
    assert column(page, "rms_norm", "mean") in (".49", ".50", ".51") and column(page, "rms_norm", "best thread") == "–"


def test_a_measurement_of_main_holds_when_another_problem_is_merged(
    seen: Client, player: Player, threads: list[Thread], kernels: Project
) -> None:
    first = player.gain(threads[0], {"rms_norm": 3.0})
    first.approve(first.commit)
    before = cells(text(seen), "rms_norm")
    threads[1].advance_head(threads[1].head, first.commit)
    threads[1].refresh_from_db()
    second = player.gain(threads[1], {"gqa_decode": 2.0})
    second.approve(second.commit)
    page = text(seen)
    assert cells(page, "rms_norm") == before and column(page, "gqa_decode", "mean").startswith(".7")


def test_rows_say_what_is_measured_now_and_what_came_out_wrong(
    seen: Client, player: Player, threads: list[Thread]
) -> None:
    experiment = candidate(threads[0], {"gqa_decode": "# tiles"})
    leases = player.start(experiment)
    page = text(seen)
    assert f"measuring #{experiment.number}" in row(page, "gqa_decode") and "measuring" not in row(page, "rms_norm")
    for lease in leases:
        wrong = lease.trial.arm == Trial.Arm.CANDIDATE
        player.finish(lease, {"gqa_decode": player.times("gqa_decode", 1.0)}, "bad_output" if wrong else "")
    page = text(seen)
    assert "measuring" not in row(page, "gqa_decode") and f"wrong: #{experiment.number}" in row(page, "gqa_decode")
    player.measure(candidate(threads[0], {"gqa_decode": "# other tiles"}), {"gqa_decode": 1.5})
    assert "wrong" not in row(text(seen), "gqa_decode")


def test_without_bounds_the_board_shows_speed_ups_and_says_why(
    seen: Client, kernels: Project, threads: list[Thread]
) -> None:
    request = Player(kernels, bounded=False).gain(threads[0], {"rms_norm": 2.0})
    request.approve(request.commit)
    page = text(seen)
    assert "no known bound" in page and "mean SOL score" not in page
    assert all(cell.endswith("×") for cell in cells(page, "rms_norm"))
    assert "tell of no bound" in page
    asked = text(seen, show="score")
    assert cells(asked, "rms_norm") == cells(page, "rms_norm") and "<i>∅</i>" in row(asked, "rms_norm")


def test_problems_sort_by_score_gain_and_time(seen: Client, player: Player, threads: list[Thread]) -> None:
    for name, worth in (("silu_backward", 2.0), ("gqa_decode", 6.0), ("rms_norm", 1.3)):
        request = player.gain(threads[0], {name: worth})
        request.approve(request.commit)

    def order(sort: str) -> list[str]:
        return re.findall(r'<tr id="row-(\w+)"', text(seen, sort=sort, part="map"))

    assert order("recent")[:3] == ["rms_norm", "gqa_decode", "silu_backward"]
    assert order("gain")[:3] == ["gqa_decode", "silu_backward", "rms_norm"]
    assert order("score")[-3:] == ["rms_norm", "silu_backward", "gqa_decode"]
    assert "data-live-hold" in text(seen, sort="gain", part="map")  # its rows move


def test_an_unchanged_map_is_not_sent_again(seen: Client, player: Player, threads: list[Thread]) -> None:
    def have() -> str:
        return text(seen, part="map").split("have=")[1].split('"')[0]

    before = have()
    assert have() == before and seen.get(ADDRESS, {"part": "map", "have": before}).status_code == 204
    player.start(candidate(threads[0], {"rms_norm": "# more"}))
    page = text(seen, part="map", have=before)
    assert '<tr id="row-gqa_decode" data-same></tr>' in page and "measuring #1" in row(page, "rms_norm")
    assert page.count(" data-same>") == len(FEW) - 1 and have() != before
    assert "data-same" not in text(seen, part="map", have="0" * 16) + text(seen, have=before)


def test_only_new_results_are_read_and_what_is_kept_is_what_all_of_them_say(
    kernels: Project, player: Player, threads: list[Thread], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    reading_of(kernels)
    for name in ("rms_norm", "gqa_decode", "rms_norm"):
        player.gain(threads[0], {name: 2.0})
        step_by_step = reading_of(kernels)
    player.measure(candidate(threads[1], {"moe_gating": "# bad"}), {"moe_gating": 1.0}, failure="crash")
    step_by_step = reading_of(kernels)
    with django_assert_num_queries(1):
        assert reading_of(kernels) is step_by_step
    Project.objects.filter(pk=kernels.pk).update(public_id="afresh")  # as another process reads it
    afresh = reading_of(Project.objects.get(pk=kernels.pk))
    assert afresh == step_by_step
    assert afresh.outcomes["moe_gating"].failure == "crash" and len(afresh.newest["rms_norm"]) == 3


def test_a_floor_over_many_problems_measures_each_and_a_failure_hides_nothing(
    seen: Client, kernels: Project, player: Player
) -> None:
    floor = Experiment.objects.create(
        key="floor", project=kernels, purpose=Experiment.Purpose.NOISE, number=1, rule=kernels.rule,
        baseline_commit=kernels.start_commit, candidate_commit=kernels.start_commit, problems=list(FEW),
    )  # fmt: skip
    for pair, lease in enumerate(sorted(player.start(floor, "noise", len(FEW)), key=lambda lease: lease.trial.pk)):
        name = FEW[pair // 2]
        assert lease.trial.problems == [name]
        if not pair % 2:
            assert row(text(seen), name).count("measuring #1") == 1
        player.finish(lease, {name: player.times(name, 1.0)}, "timeout" if pair == 3 else "")
    page = text(seen)
    assert "○" not in page.split("<table")[1].split("<footer")[0] and "timeout" not in page


def test_times_of_a_wrong_solution_count_for_nothing(seen: Client, player: Player, threads: list[Thread]) -> None:
    leases = player.start(candidate(threads[0], {"rms_norm": "# wrong"}))
    for lease in leases:
        told: dict[str, float] = {}
        for uuid, times in player.times("rms_norm", 50.0).items():
            told |= metrics("rms_norm", uuid, times)
        lease.trial.finish(
            lease, machine=player.machine, score=None, failure="bad_output", message="wrong", isolation_level=3,
            machine_class="cpu", metrics=told,
        )  # fmt: skip
    assert set(cells(text(seen), "rms_norm")) == {".50"} and "wrong: #1" in row(text(seen), "rms_norm")


# ---- one problem ---------------------------------------------------------------------------------------------------


def test_a_problem_closer_shows_times_checks_experiments_and_its_change(
    seen: Client, player: Player, threads: list[Thread]
) -> None:
    merged = player.gain(threads[0], {"rms_norm": 3.0, "gqa_decode": 2.0})
    merged.approve(merged.commit)
    player.measure(candidate(threads[0], {"rms_norm": "# again"}, "One pass over memory"), {"rms_norm": 4.0})
    Finding.objects.create(
        experiment=merged.verdict.experiment, kind="too_fast", severity="review", message="Look at <this>."
    )
    page = text(seen, problem="rms_norm", part="problem")
    words = plain(page)
    assert "reference: median" in page and "main: median" in page and "t-1 #2: median" in page
    assert page.count("<circle") > 6 and "Look at &lt;this&gt;." in page and "too fast" in words
    assert "One pass over memory" in page and 'href="/e/' in page and "improved" in words
    assert "rms_norm/solution.py" in page and "# 3.0 times" in page and "gqa_decode/solution.py" not in page
    assert "rows 7, width 131" in page
    uuid = "rms-norm-7-131"
    assert "Times: rows 7, width 131" in plain(text(seen, problem="rms_norm", part="problem", w=uuid))
    whole = text(seen, problem="rms_norm")
    assert 'aria-current="true"' in row(whole, "rms_norm") and "has-problem" in whole


def test_the_change_of_the_best_thread_is_shown_where_main_has_none(
    seen: Client, player: Player, threads: list[Thread]
) -> None:
    player.gain(threads[1], {"moe_gating": 2.0})
    words = plain(text(seen, problem="moe_gating", part="problem"))
    assert "Change against the start thread 2" in words and "# 2.0 times" in words
    words = plain(text(seen, problem="rms_norm", part="problem"))
    assert "Main has the start's code" in words.replace("&#x27;", "'") and "No candidate has changed" in words


def test_timing_again_asks_for_seeds_of_the_newest_confirmed_experiment(
    client: Client, player: Player, threads: list[Thread], member: User, kernels: Project
) -> None:
    client.force_login(person("vera", Role.VIEWER))
    assert "nothing to time again" in text(client, problem="rms_norm", part="problem")
    player.gain(threads[0], {"rms_norm": 2.0})
    newest = player.gain(threads[0], {"rms_norm": 3.0}, base=lambda _: 2.0).verdict.experiment
    player.measure(candidate(threads[0], {"rms_norm": "# no gain"}), {"rms_norm": 1.0})
    assert "Re-time" not in text(client, problem="rms_norm", part="problem")
    client.force_login(member)
    page = text(client, problem="rms_norm", part="problem")
    address = f"/e/{newest.public_id}/more-seeds/"
    assert f'action="{address}"' in page and "Re-time" in page
    client.post(address, {"pairs": "4"})
    replicate = Experiment.objects.get(original=newest)
    assert replicate.wanted_pairs == 4
    for lease in player.start(replicate, "confirm", 4):
        player.finish(lease, {"rms_norm": player.times("rms_norm", 3.0)})
    # 2 + 8 trials of the newest, as many of the one before, 2 of the last, 8 of the replicate: at most 40 are drawn
    drawn = text(client, problem="rms_norm", part="problem")
    assert re.search(r"reference: median [\d.]+ µs of 30 trials", drawn)


# ---- who and what --------------------------------------------------------------------------------------------------


def test_only_projects_of_many_problems_have_a_board(
    seen: Client, kernels: Project, project: Project, client: Client, outsider: User
) -> None:
    assert 'href="/p/kernels/kernels/"' in text(seen, "/p/kernels/")
    assert "/kernels/" not in text(seen, f"/p/{project.name}/")
    assert seen.get(f"/p/{project.name}/kernels/").status_code == 404
    assert seen.get(ADDRESS, {"problem": "nobody"}).status_code == 404
    assert text(seen, show="nonsense", sort="nonsense")
    client.force_login(outsider)
    assert client.get(ADDRESS).status_code == 404
