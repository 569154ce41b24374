"""Fixtures of the browser tests: a daphne on the test's database, Chromium, a signed-in page, axe.

`server` is one process for all browser tests, restarted where a test has stopped it. Rows that a test commits are what
the page shows; they are gone after it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

if TYPE_CHECKING:
    from django.contrib.auth.models import User

ROOT = Path(__file__).resolve().parent.parent.parent
AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
START = 40  # seconds; the machine may be busy
# Themes and widths: each of both is looked at every time, every pair of them in `make test-all`.
Looks = tuple[tuple[str, int], ...]
EACH: Looks = (("dark", 360), ("light", 1280))
OTHERS: Looks = (("light", 360), ("dark", 1280))
LOOKS = pytest.mark.parametrize(
    "looks", [pytest.param(EACH, id="each"), pytest.param(OTHERS, id="others", marks=pytest.mark.slow)]
)
# For a closer look at pages that test_every_page.py looks at, too: one of both is enough each time.
CLOSER = pytest.mark.parametrize(
    ("theme", "width"), [("dark", 360), pytest.param("light", 1280, marks=pytest.mark.slow)]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Daphne:
    """The lab's real ASGI application in a process of its own."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        from django.db import connection

        if self.process is not None and self.process.poll() is None:
            return
        settings = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings", "LAB_LOG_LEVEL": "WARNING"}
        database = {"TESTS_DATABASE": str(connection.settings_dict["NAME"])}
        command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(self.port), "--ping-interval", "10"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--ping-timeout", "10", "recursive_web.asgi:application"], cwd=ROOT,
                env={**os.environ, **settings, **database}, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"daphne did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the process at once, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def daphne(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daphne]:
    web = Daphne(tmp_path_factory.mktemp("daphne") / "daphne.log")
    yield web
    web.stop()


@pytest.fixture
def server(transactional_db: None, daphne: Daphne) -> str:
    """The base address of a running lab; what the test has committed is what it shows."""
    daphne.start()
    return daphne.url


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium for the tests of this folder; gone before others run, for its event loop would be in their way."""
    if not CHROMIUM:
        pytest.fail("the browser tests need Chromium; on Debian or Ubuntu: apt-get install chromium")
    # Playwright runs an event loop in this thread; Django would take every query of a test for one in async code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class Errors(list[str]):
    """What went wrong on the pages of a test; whatever is not expected fails it."""

    def expect(self, pattern: str) -> None:
        """Drop what matches; call it when it has happened."""
        self[:] = [text for text in self if not re.search(pattern, text)]


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def open_context(browser: Browser, server: str, errors: Errors) -> Iterator[Callable[..., BrowserContext]]:
    """Makes contexts (a context is a person at a browser): keywords are those of Playwright's `new_context`."""
    contexts: list[BrowserContext] = []

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(f"{message.text} ({message.location.get('url', '')})")

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
        page.on("console", console)

    def make(**options: Any) -> BrowserContext:
        options = {"base_url": server, "viewport": {"width": 1280, "height": 800}, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        context.on("page", watch)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture
def page(open_context: Callable[..., BrowserContext]) -> Page:
    """A page of somebody who is not signed in. An error in its console fails the test."""
    return open_context().new_page()


def sign_in(context: BrowserContext, server: str, user: User) -> None:
    """Give the browser a session, as signing in by link would."""
    from django.conf import settings
    from django.test import Client

    client = Client()
    client.force_login(user)
    value = client.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": value, "url": server}])


@pytest.fixture
def signed_in(open_context: Callable[..., BrowserContext], server: str) -> Callable[..., Page]:
    """`signed_in(user, theme="dark", width=360)`: a new page of that person; the theme is the system's."""

    def make(user: User, theme: str = "light", width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = open_context(color_scheme=theme, viewport={"width": width, "height": height}, **options)
        sign_in(context, server, user)
        return context.new_page()

    return make


def within_reach(page: Page, axe: Callable[..., None], address: str, looks: Looks) -> None:
    """Open a page once, in the first of these looks, and see it in each: nothing serious is wrong or sticks out."""
    put_on(page, *looks[0])
    page.goto(address)
    page.wait_for_load_state("networkidle")
    for theme, width in looks:
        put_on(page, theme, width)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        axe(page)
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{address} is {wider} px too wide at {width}, {theme}"


def put_on(page: Page, theme: str, width: int) -> None:
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})


@pytest.fixture(scope="session")
def axe() -> Callable[..., None]:
    """`axe(page)`: fails on what axe-core calls serious or critical; `axe(page, "#main")` looks at one part."""
    source = AXE.read_text()

    def check(page: Page, part: str | None = None) -> None:
        if not page.evaluate("() => 'axe' in window"):
            page.evaluate(source)
        result = page.evaluate("part => axe.run(part || document, {resultTypes: ['violations']})", part)
        found = [
            f"{violation['impact']}: {violation['id']}, {violation['help']}\n    "
            + "\n    ".join(f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:5])
            for violation in result["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert not found, f"{page.url}\n" + "\n".join(found)

    return check
