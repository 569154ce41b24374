"""Where anchors come from: published figures, figures scaled from them, and the store of what was measured."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kernels import anchors, score
from benchmarks.kernels.anchors import Anchor, AnchorError, Anchors, Provenance
from benchmarks.kernels.bounds import Precision, Work
from benchmarks.kernels.commands import anchors as command
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.measured import Measurement, Store, beaten, missing, trusted
from tests.kernel_play import double


def with_figures(folder: Path, *figures: tuple[float, float], **axes: int) -> Problem:
    """A problem with published figures beside it: bound and baseline of each workload, in milliseconds."""
    made = double(folder, len(figures))
    rows = [{"index": number, "axes": axes or {"n": 4 * (number + 1)}, "sol_ms": bound, "baseline_latency_ms": baseline}
            for number, (bound, baseline) in enumerate(figures)]  # fmt: skip
    means = math.exp(sum(math.log(bound) for bound, _ in figures) / len(figures))
    (folder / "metadata.json").write_text(json.dumps({"sol": {"baseline_latency_ms": means, "per_workload": rows}}))
    return made


def test_published_times_give_the_published_scores(tmp_path: Path) -> None:
    problems = [with_figures(tmp_path / "a", (0.01, 0.05), (0.02, 0.9)), with_figures(tmp_path / "b", (0.3, 0.31))]
    published = anchors.published(problems)
    assert (published.device, published.provenance, len(published)) == ("B200", Provenance.PUBLISHED, 3)
    for scored, of in ((0.5, lambda anchor: anchor.baseline_ms), (1.0, lambda anchor: anchor.bound_ms)):
        times = {name: {uuid: of(each) for uuid, each in rows.items()} for name, rows in published.figures.items()}
        assert score.board(problems, times, published).headline == pytest.approx(scored)


def test_a_problem_without_published_figures_has_no_anchor(tmp_path: Path) -> None:
    assert anchors.published([double(tmp_path / "own")]).figures == {}


def test_published_figures_of_other_workloads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match=r"metadata.json: figures of other axes than workload w0"):
        anchors.published([with_figures(tmp_path / "axes", (0.1, 0.2), n=5)])
    short = with_figures(tmp_path / "short", (0.1, 0.2))
    with pytest.raises(AnchorError, match="1 figures for 2 workloads"):
        anchors.published([replace(short, workloads=short.workloads * 2)])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sol": {"per_workload": [{}]}}', "[" * 100_000, '{"sol": 3}'])
def test_damaged_published_figures_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    made = with_figures(tmp_path / "p", (0.1, 0.2))
    (tmp_path / "p" / "metadata.json").write_text(text)
    with pytest.raises(AnchorError, match="cannot be read") as refused:
        anchors.published([made])
    assert "\n" not in str(refused.value)


def test_scaling_keeps_a_score_and_takes_the_ratio_of_the_roof(tmp_path: Path) -> None:
    published = anchors.published([with_figures(tmp_path / "p", (1.0, 1.05), (1.0, 3.0), (1.0, 3.0))])
    works = {"p": {"w0": Work(1, {Precision.TF32: 905_600_000_000}), "w1": Work(7_667_400_000, {})}}
    scaled = anchors.scaled(published, "NVIDIA H200", works)
    assert (scaled.device, scaled.provenance) == ("H200", Provenance.SCALED)
    found = [scaled.figures["p"][f"w{number}"].bound_ms for number in range(3)]
    assert found == pytest.approx([1.831, 1.597, 1.71], abs=2e-3)  # fp32 matmuls were priced at the bf16 rate
    for uuid, anchor in scaled.figures["p"].items():
        assert anchor.headroom == pytest.approx(published.figures["p"][uuid].headroom)


def test_what_is_not_published_cannot_be_scaled() -> None:
    with pytest.raises(AnchorError, match="only published"):
        anchors.scaled(Anchors("H200", Provenance.MEASURED, {}), "H100")


def measurement(variant: str, latency: float | None, uuid: str = "w0", **other: str) -> Measurement:
    usual = {"problem": "p", "device": "NVIDIA H200", "status": "PASSED" if latency else "INCORRECT_NUMERICAL",
             "timing": "events", "software": "torch 2.13.0", "measured_at": "2026-11-26T12:00:00Z"}  # fmt: skip
    return Measurement(uuid=uuid, variant=variant, latency_ms=latency, **{**usual, **other})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "anchors" / "h200.jsonl")


def test_the_fastest_variant_that_passed_is_the_baseline(store: Store) -> None:
    for variant, latency in (("eager", 3.0), ("compile", 2.0), ("contiguous", None)):
        store.append(measurement(variant, latency))
    store.append(measurement("eager", 5.0, "w1"))
    found = Store(store.path).anchors({"p": {"w0": 1.0}})
    assert (found.device, found.provenance) == ("NVIDIA H200", Provenance.MEASURED)
    assert found.figures == {"p": {"w0": Anchor(1.0, 2.0, "compile")}}  # w1 has no bound


def test_a_variant_that_is_measured_again_counts_by_its_last_row(store: Store) -> None:
    for latency in (1.0, 4.0):
        store.append(measurement("compile", latency))
    store.append(measurement("eager", 3.0))
    assert [row.variant for row in store.fastest().values()] == ["eager"]
    store.append(measurement("eager", None))
    assert [row.latency_ms for row in store.fastest().values()] == [4.0]


def test_a_sitting_that_was_cut_off_goes_on_where_it_was(store: Store) -> None:
    store.append(measurement("eager", 3.0))
    with store.path.open("ab") as file:
        file.write(b'{"problem": "p", "uuid": "w0", "vari')
    again = Store(store.path)
    wanted = [("p", "w0", "eager"), ("p", "w0", "compile")]
    assert again.done() == {wanted[0]}
    assert missing(again.rows(), wanted) == [wanted[1]]
    again.append(measurement("compile", 2.0))
    again.append(measurement("contiguous", None))
    assert [row.variant for row in Store(store.path).rows()] == ["eager", "compile", "contiguous"]


def test_rows_of_another_device_timing_or_software_are_refused(store: Store) -> None:
    store.append(measurement("eager", 3.0))
    for name in ("device", "timing", "software"):
        for opened in (store, Store(store.path)):
            with pytest.raises(AnchorError, match=f"is of {name} .* give each its own file"):
                opened.append(measurement("compile", 2.0, **{name: "another"}))
    assert len(store.rows()) == 1


@pytest.mark.parametrize(("status", "latency"), [("PASSED", None), ("TIMEOUT", 2.0), ("PASSED", math.nan),
                                                 ("PASSED", -1.0), ("PASSED", True), ("PASSED", "2")])  # fmt: skip
def test_a_measurement_passed_with_a_time_or_failed_without(status: str, latency: float | None) -> None:
    with pytest.raises(AnchorError, match="what passed has a positive time"):
        replace(measurement("eager", 1.0), status=status, latency_ms=latency)


@pytest.mark.parametrize("line", ["{}", "[]", "3", "{", '{"problem": 1}', "[" * 100_000, "\udcff"])
def test_a_damaged_line_is_named(store: Store, line: str) -> None:
    store.append(measurement("eager", 3.0))
    with store.path.open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(AnchorError, match="line 2: no measurement") as refused:
        store.rows()
    assert "\n" not in str(refused.value)


def test_a_bound_that_was_beaten_is_not_scored_by(store: Store) -> None:
    store.append(measurement("eager", 3.0))
    store.append(measurement("eager", 3.0, "w1"))
    found = store.anchors({"p": {"w0": 3.5, "w1": 1.0}})
    assert beaten(found) == [("p", "w0")]
    assert set(trusted(found).figures["p"]) == {"w1"}


def show(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(["--show", *words])


def test_the_command_shows_scaled_and_published_anchors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [with_figures(tmp_path / "p", (0.01, 0.05), (0.02, 0.0202)), double(tmp_path / "own")]
    assert command.run(show(), problems) == 0
    text = capsys.readouterr().out
    assert text.startswith("H200, scaled anchors")
    assert "2 anchors for 3 workloads of 2 problems; headroom: 1 undecidable, 1 usual, 0 vacuous" in text
    assert command.run(show("--device", "B200", "--json"), problems) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["provenance"]) == ("B200", "published-B200")
    assert [row["baseline_ms"] for row in found["anchors"]] == [0.05, 0.0202]


@pytest.mark.torch
def test_the_command_shows_what_was_measured(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.append(measurement("compile", 0.0008))
    assert command.run(show("--store", str(store.path), "--json"), [double(tmp_path / "p")]) == 0
    (row,) = json.loads(capsys.readouterr().out)["anchors"]
    assert (row["variant"], row["baseline_ms"]) == ("compile", 0.0008)
    assert row["bound_ms"] == pytest.approx(0.0004, rel=1e-3)  # 32 bytes: the constant alone
    with pytest.raises(AnchorError, match="no such store"):
        command.run(show("--store", str(tmp_path / "none")), [])
