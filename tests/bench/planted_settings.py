"""The lab's own settings, with one more benchmark and a researcher that changes nothing."""

from pathlib import Path

from benchmarks import contract
from recursive_web.settings import *  # noqa: F403
from research.researchers import RESEARCHERS
from tests.bench.benchmarks.planted.researcher import Notes

contract.FOLDER = Path(__file__).parent / "benchmarks"
RESEARCHERS["notes"] = Notes()
