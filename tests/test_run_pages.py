"""What stands around the pages: signing in by link, health, static files, the content security policy."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.templatetags.static import static
from django.test import Client
from django.utils import timezone

from research.models import Machine, SignInLink
from runners.queues import beat, control

ROOT = Path(__file__).resolve().parent.parent
CLICK = {"Sec-Fetch-Mode": "navigate"}


@pytest.fixture
def path(reviewer: User) -> str:
    return f"/sign-in/{SignInLink.make(reviewer)}/"


def signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_a_click_on_a_link_signs_in(client: Client, path: str, reviewer: User) -> None:
    answer = client.get(path, headers=CLICK)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.session["_auth_user_id"] == str(reviewer.pk)
    assert client.get(path, headers=CLICK)["Location"] == "/"  # once more by the same browser: it is in


def test_a_browser_that_looks_ahead_uses_no_link_up(client: Client, path: str) -> None:
    for headers in ({**CLICK, "Sec-Purpose": "prefetch;prerender"}, {**CLICK, "Purpose": "prefetch"}, {}):
        assert client.get(path, headers=headers).status_code == 200
        assert not signed_in(client)
    assert client.head(path, headers=CLICK).status_code == 200
    assert client.get(path, headers=CLICK).status_code == 302


def test_without_the_browsers_word_a_button_signs_in(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.get(path)
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.content)
    assert token and page["Cache-Control"].startswith("max-age=0")
    assert client.post(path).status_code == 403
    assert client.post(path, {"csrfmiddlewaretoken": token.group(1).decode()}).status_code == 302
    assert signed_in(client)


def test_a_dead_link_says_what_to_do(client: Client, path: str, reviewer: User) -> None:
    SignInLink.objects.update(expires=timezone.now() - timedelta(seconds=1))
    answer = client.get(path, headers=CLICK)
    assert answer.status_code == 410 and "make signin" in answer.content.decode()
    assert client.get("/sign-in/never-made/", headers=CLICK).status_code == 410
    reviewer.is_active = False
    reviewer.save()
    assert client.get(f"/sign-in/{SignInLink.make(reviewer)}/", headers=CLICK).status_code == 410
    assert not signed_in(client)


def test_alive_asks_no_database(client: Client) -> None:
    """No `db` fixture: a query would fail."""
    answer = client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


@pytest.mark.django_db
def test_ready_says_what_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    control.storage.flush_results()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False, "database": True, "migrations": True, "control": False, "disk": True, "machine": False,
    }  # fmt: skip
    beat()
    Machine.objects.create(name="quick", machine_class="quick cpu", seen=timezone.now())
    answer = client.get("/readyz")
    assert answer.status_code == 200 and answer.json()["ready"] and answer.json()["machine"]
    full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert client.get("/readyz").json()["disk"] is False


def test_every_answer_carries_the_policy(client: Client, db: None) -> None:
    for page in ("/healthz", "/sign-in/never-made/", "/nowhere/", static("lab.css")):
        policy = client.get(page)["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy, page


def test_the_admin_works_under_the_policy(admin_client: Client) -> None:
    """No script or style stands inside its pages, and what they load comes from here."""
    for page in ("/admin/", "/admin/auth/user/", "/admin/auth/user/add/"):
        text = admin_client.get(page).content.decode()
        assert not re.search(r"<style|<script(?![^>]*\bsrc=)[^>]*>\s*[^<\s]|\sstyle=|\son\w+=", text), page
        for source in re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', text):
            assert admin_client.get(source).status_code == 200, source


def test_static_files_are_kept_for_ever_under_an_address_of_their_content(client: Client, db: None) -> None:
    address = static("lab.css")
    assert re.fullmatch(r"/static/[0-9a-f]{12}/lab\.css", address)
    answer = client.get(address, headers={"Accept-Encoding": "gzip"})
    path = finders.find("lab.css")
    assert path and answer.status_code == 200 and "immutable" in answer["Cache-Control"]
    assert answer["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.content) == Path(path).read_bytes()
    again = client.get(address, headers={"If-Modified-Since": answer["Last-Modified"]})
    assert again.status_code == 304 and again.content == b""
    assert client.get("/static/0123456789ab/lab.css").status_code == 404


def test_behind_a_proxy_that_ends_tls_nothing_is_sent_round_in_circles(tmp_path: Path) -> None:
    ask = (
        "import django; django.setup(); from django.test import Client; c = Client(headers={'host': 'localhost'}); "
        "over = {'X-Forwarded-Proto': 'https'}; print(c.get('/healthz').status_code, "
        "c.get('/').headers['Location'], c.get('/', headers=over).headers['Location'])"
    )
    environment = {**os.environ, "LAB_DATA": str(tmp_path), "LAB_HTTPS": "1"}
    environment["DJANGO_SETTINGS_MODULE"] = "recursive_web.settings"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["200", "https://localhost/", "/sign-in/?next=/"], done.stderr


def test_two_labs_on_one_host_keep_their_people_apart() -> None:
    assert settings.SESSION_COOKIE_NAME != "sessionid"
    assert settings.SESSION_COOKIE_NAME.startswith("lab_session_")
