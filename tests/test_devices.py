"""Which machine may run which preset, and what is said where none can. No GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from benchmarks import contract
from benchmarks.data import DataError, data_folder, data_id, use
from research.models import Experiment, Machine, Project, Trial
from research.views.now import why_waiting
from runners import device
from tests.test_leases import claim, experiment_of

without_gpu = pytest.mark.skipif(not device.missing("cuda"), reason="this machine has a GPU")


@pytest.fixture
def gpu_preset(project: Project, tmp_path: Path) -> Iterator[Project]:
    """The toy with its preset `long` on a GPU."""
    folder = tmp_path / "toy"
    folder.mkdir()
    text = (contract.FOLDER / "toy" / "benchmark.toml").read_text()
    (folder / "benchmark.toml").write_text(
        text.replace('[presets.long]\nlane = "cpu"\n', '[presets.long]\nlane = "cpu"\ndevice = "cuda"\n')
    )
    toys, contract.FOLDER = contract.FOLDER, tmp_path
    assert project.contract.preset("long").device == "cuda"
    yield project
    contract.FOLDER = toys


def a_machine(name: str, *devices: str) -> Machine:
    about = {"devices": list(devices)} if devices else {}
    return Machine.objects.create(name=name, machine_class=name, isolation_level=3, slots=1, description=about)


@pytest.mark.django_db
def test_a_machine_takes_only_presets_for_its_devices(gpu_preset: Project) -> None:
    plain, cpu, gpu = a_machine("plain"), a_machine("cpu", "cpu"), a_machine("gpu", "cuda")
    experiment_of(gpu_preset, 1, pairs=2)
    assert claim(gpu) == [] and len(claim(plain)) == 2 and len(claim(cpu)) == 2
    Project.objects.filter(pk=gpu_preset.pk).update(preset="long")
    experiment_of(gpu_preset, 2, pairs=1)
    assert claim(plain) == [] and claim(cpu) == [] and len(claim(gpu)) == 2


@pytest.mark.django_db
def test_the_preset_of_a_trial_or_an_experiment_counts_before_that_of_its_project(gpu_preset: Project) -> None:
    cpu, gpu = a_machine("cpu", "cpu"), a_machine("gpu", "cuda")
    experiment = experiment_of(gpu_preset, 1, pairs=1)
    Experiment.objects.filter(pk=experiment.pk).update(preset="long")
    assert claim(cpu) == []
    Trial.objects.update(preset="quick")
    assert claim(gpu) == []
    Trial.objects.update(preset="")
    assert len(claim(gpu)) == 2


@pytest.mark.django_db
def test_what_waits_for_a_gpu_says_so(gpu_preset: Project) -> None:
    cpu = a_machine("cpu", "cpu")
    Project.objects.filter(pk=gpu_preset.pk).update(preset="long")
    experiment = Experiment.objects.get(pk=experiment_of(gpu_preset, 1, pairs=1).pk)
    assert why_waiting(experiment, "confirm", [cpu]) == ("warn", "waits for a machine with a GPU")
    assert why_waiting(experiment, "confirm", [cpu, a_machine("gpu", "cuda")]) == ("quiet", "waits for a machine")


@without_gpu
@pytest.mark.parametrize("asked", ["cuda", "cuda:3", "tpu"])
def test_a_worker_for_a_gpu_that_is_not_there_ends_with_one_line(asked: str) -> None:
    with pytest.raises(CommandError, match="no NVIDIA GPU here|device nodes|must be cpu or cuda:N") as refused:
        call_command("attach", devices=asked)
    assert refused.value.returncode == 2 and "\n" not in str(refused.value)


@without_gpu
def test_no_gpu_is_counted_where_there_is_none() -> None:
    assert device.gpus() == [] and device.missing("cpu") == ""


def test_each_data_has_a_pointer_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    presets = contract.load("nanochat").presets
    command = "run `python -m benchmarks.nanochat prepare"
    with pytest.raises(DataError, match=f"nanochat has no data yet: {command}`"):
        data_id("nanochat", presets["cpu"])
    with pytest.raises(DataError, match=f"no data for official yet: {command} --preset official`"):
        data_id("nanochat", presets["official"])
    for name, data in (("bytes", ""), ("books", "tokens")):
        folder = data_folder("nanochat") / name
        folder.mkdir(parents=True)
        vocabulary = ', "vocabulary": 8192' if data else ""
        (folder / "manifest.json").write_text(f'{{"data_id": "{name}-and-more-than-16-letters"{vocabulary}}}')
        use(folder, data, f"{name}-and-more-than-16-letters")
    assert data_id("nanochat", presets["smoke"]).startswith("bytes")
    assert data_id("nanochat", presets["gpu-20s"]) == data_id("nanochat", presets["gpu-300s"]) != ""
    assert (data_folder("nanochat") / data_id("nanochat", presets["gpu-60s"])[:16]).resolve().name == "books"
    with pytest.raises(DataError, match="no data for official"):
        data_id("nanochat", presets["official"])
    use(folder, "tokens-tiny", "books-and-more-than-16-letters")
    with pytest.raises(DataError, match="has 8,192 tokens, gpu-tiny needs 512: run .* prepare --preset gpu-tiny"):
        data_id("nanochat", presets["gpu-tiny"])
