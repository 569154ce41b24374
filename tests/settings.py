"""The settings of the tests: the lab's own, on a data folder that is made before they load and removed at exit."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = (
    f"lab-tests-{os.environ.get('PYTEST_XDIST_WORKER', '')}-"  # side by side, each worker of the runner has its own
)
if not Path(os.environ.get("LAB_DATA", "")).name.startswith(PREFIX):  # a child process keeps its parent's folder
    os.environ["LAB_DATA"] = tempfile.mkdtemp(prefix=PREFIX)
    atexit.register(shutil.rmtree, os.environ["LAB_DATA"], ignore_errors=True)
if "TESTS_SHARED" not in os.environ:  # of the runner and all its workers; see tests/lab_play.py
    os.environ["TESTS_SHARED"] = tempfile.mkdtemp(prefix="lab-shared-")
    atexit.register(shutil.rmtree, os.environ["TESTS_SHARED"], ignore_errors=True)

from recursive_web.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes half a second on purpose

if database := os.environ.get("TESTS_DATABASE"):  # a child process that works on the database of a running test
    DATABASES["default"]["NAME"] = database  # noqa: F405
if os.environ.get("TESTS_TOY"):  # a child process that meets projects on the toy benchmark
    from benchmarks import contract

    contract.FOLDER = Path(__file__).parent / "benchmarks"
