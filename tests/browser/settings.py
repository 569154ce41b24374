"""The settings of the server that the browser tests start: the lab's pages, and one page of charts for the tests."""

from benchmarks import contract
from tests.settings import *  # noqa: F403
from tests.settings import BASE_DIR, TEMPLATES

ROOT_URLCONF = "tests.browser.urls"
WHITENOISE_USE_FINDERS = True
TEMPLATES[0]["DIRS"].append(BASE_DIR / "tests" / "browser" / "templates")

contract.FOLDER = BASE_DIR / "tests" / "benchmarks"  # the toy, whose trials are played without a machine
