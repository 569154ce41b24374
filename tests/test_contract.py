"""A benchmark's contract: the shipped ones can be read, a corrupt one fails with one line that says what to mend."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import contract
from benchmarks.contract import ContractError, load, names, parse

TOY = (Path(__file__).parent / "benchmarks" / "toy" / "benchmark.toml").read_text().partition("\n# Its candidates")[0]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    return tmp_path / "toy" / "benchmark.toml"


def test_every_shipped_benchmark_keeps_its_contract(tmp_path: Path) -> None:
    assert {"nanochat", "kernels"} <= set(names())
    own = contract.FOLDER / "kernels" / "problems" / "rms_norm"
    (tmp_path / "problems" / own.name).mkdir(parents=True)
    for file in ("definition.json", "workload.jsonl"):
        shutil.copyfile(own / file, tmp_path / "problems" / own.name / file)
    for name in names():
        benchmark = load(name)
        assert benchmark.name == name and benchmark.presets and "benchmark.toml" in benchmark.protected
        for preset in benchmark.presets:
            for start in benchmark.lane_of(preset).starts:
                files = benchmark.start_files(start, preset, tmp_path)
                assert files["benchmark.toml"] == (benchmark.folder / "benchmark.toml").read_bytes() and len(files) > 1
            assert len(benchmark.catalogue(preset, tmp_path)) > 0
        assert benchmark.problems(tmp_path) == (("rms_norm",) if name == "kernels" else ())


def test_what_does_not_exist_is_answered_with_what_does() -> None:
    with pytest.raises(ContractError, match="no benchmark named 'nothing'; there are .*nanochat"):
        load("nothing")
    with pytest.raises(ContractError, match="no preset 'huge'; choose one of .*cpu"):
        load("nanochat").preset("huge")
    with pytest.raises(ContractError, match="no start 'none' for cpu; choose one of .*vanilla"):
        load("nanochat").start_files("none", "cpu")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "toy"', "name = ", "not valid TOML"),
        ('direction = "lower"', 'direction = "down"', "metric.direction is 'down'"),
        ("[metric]", "[measure]", "'metric'"),
        ('unit = "loss"\n', "", "'unit'"),
        ('starts = ["plain"]\n', "", "lane cpu lacks starts"),
        ('starts = ["plain"]', 'starts = "plain"', "starts must be a list of texts"),
        ('protected = ["benchmark.toml"]', 'protected = "benchmark.toml"', "protected must be a list of texts"),
        ('editable = ["*.py"]', "editable = [1]", "editable must be a list of texts"),
        ("budget_seconds = 1.0\n", "", "preset quick lacks budget_seconds"),
        ("budget_seconds = 1.0", "budget_seconds = 0", "budget_seconds > 0"),
        ("budget_seconds = 1.0", "budget_seconds = nan", "budget_seconds > 0"),
        ("budget_seconds = 1.0", 'budget_seconds = "7"', "budget_seconds = '7'; it must be float"),
        ("noise_pairs = 6", "noise_pairs = 6\nseeds = 0", "seeds = 0; it must be 1 or more"),
        ("noise_pairs = 6", "noise_pairs = 6.5", "noise_pairs = 6.5; it must be int"),
        ("side_by_side = true", "side_by_side = 1", "side_by_side = 1; it must be bool"),
        ('clock = "cpu"', 'clock = "moon"', "clock 'cpu' or 'wall'"),
        ('clock = "cpu"', 'clock = "cpu"\nspeed = 3', "unknown keys speed"),
        ('check = "quick"', 'check = "slow"', "check of preset quick is 'slow'; name one of quick"),
        ('clock = "cpu"', 'clock = "cpu"\nscreen_preset = "none"', "screen_preset of preset quick is 'none'"),
        ('lane = "cpu"', 'lane = "gpu"', "preset quick needs a lane: one of cpu"),
        ('device = "cpu"', 'device = "tpu"', "lane cpu has device = 'tpu'; use cpu or cuda"),
        ("vocabulary = 256", "vocabulary = 2.5", "vocabulary = 2.5; it must be int"),
        ('clock = "cpu"', 'clock = "cpu"\nconstants = { A = 1 }', "it must be Constants"),
        ("[lanes.cpu]", "[lane.cpu]", "'lanes'"),
        ("[presets.quick]", "[presets]", "benchmark.toml"),
    ],
)
def test_a_corrupt_contract_is_one_clear_line(toml: Path, old: str, new: str, message: str) -> None:
    assert TOY.count(old) == 1
    toml.write_text(TOY.replace(old, new))
    with pytest.raises(ContractError) as refusal:
        parse(toml)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_preset_sets_constants_of_a_start_and_says_where_they_do_not_fit(toml: Path) -> None:
    start = toml.parent / "starts" / "cpu" / "plain"
    start.mkdir(parents=True)
    (start / "model.py").write_text("DEPTH = 8  # blocks\nLAYERS = 2 * DEPTH\n")
    toml.write_text(TOY + 'constants = { "model.py" = { DEPTH = 2 } }\n')
    assert parse(toml).start_files("plain", "quick")["model.py"] == b"DEPTH = 2  # blocks\nLAYERS = 2 * DEPTH\n"
    for wrong in ('"model.py" = { WIDTH = 2 }', '"optim.py" = { DEPTH = 2 }'):
        toml.write_text(TOY + f"constants = {{ {wrong} }}\n")
        with pytest.raises(ContractError, match="preset quick of benchmark toy does not fit .* of start plain"):
            parse(toml).start_files("plain", "quick")


def test_bytes_that_are_no_text_are_one_clear_line(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError, match="not valid TOML"):
        parse(toml)


def test_the_evaluator_hash_covers_the_protected_program_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    beside = (
        "starts/cpu/plain/train.py",
        "catalogue/cpu/settings.py",
        "kernels/fast.py",
        "exploits/cheat.py",
        "redteam/guards.py",
    )
    for name in (*beside, "evaluate.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("A = 1\n")
    (folder / "benchmark.toml").write_text(TOY)
    benchmark = parse(folder / "benchmark.toml")
    before = benchmark.evaluator_hash()
    for name in beside:
        (folder / name).write_text("A = 2\n")
    assert benchmark.evaluator_hash() == before
    (folder / "evaluate.py").write_text("A = 2\n")
    assert benchmark.evaluator_hash() != before


def test_the_table_of_failures_is_the_one_that_lessons_know() -> None:
    from research.loop.learn import FAILURES

    assert set(FAILURES) == set(contract.FAILURE_KINDS) - {"refused"}
