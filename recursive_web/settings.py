"""All configuration, read once from the environment. No rule of the domain lives here.

Nothing needs to be set: the embedded lab keeps everything in one data folder (SQLite, Huey's queue, repositories).
`DATABASE_URL` and `REDIS_URL` scale it out. An unknown `LAB_*` name is an error, so that a typo cannot pass silently.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import unquote, urlparse

from django.core.exceptions import ImproperlyConfigured

KNOWN = {"LAB_DATA", "LAB_SECRET_KEY", "LAB_DEBUG", "LAB_HOSTS", "LAB_HTTPS", "LAB_LOG_LEVEL"}
if unknown := {name for name in os.environ if name.startswith("LAB_")} - KNOWN:
    raise ImproperlyConfigured(
        f"unknown setting {', '.join(sorted(unknown))}; the lab knows {', '.join(sorted(KNOWN))}"
    )

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("LAB_DATA") or BASE_DIR / "data").absolute()
DEBUG = os.environ.get("LAB_DEBUG") == "1"
HTTPS = os.environ.get("LAB_HTTPS") == "1"


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _secret_key() -> str:
    """The environment's key, or one of this installation, made once and readable by its owner alone."""
    if key := os.environ.get("LAB_SECRET_KEY"):
        return key
    path = _private_folder(DATA_DIR) / "secret_key"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(64))
    except FileExistsError:
        pass
    return path.read_text()


def _database(url: str) -> dict[str, object]:
    """Django's dictionary for `DATABASE_URL`; SQLite in the data folder when it is empty."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": _private_folder(DATA_DIR) / "lab.sqlite3",
            "TEST": {"NAME": DATA_DIR / "test.sqlite3"},
            # IMMEDIATE and a long busy time-out: read-then-write transactions of several processes
            # fail at once under Django's default (deferred) when another has written in between.
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;"
                "PRAGMA temp_store=MEMORY;PRAGMA mmap_size=134217728",
            },
        }
    parts = urlparse(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured("DATABASE_URL must begin with postgresql://; leave it empty for SQLite")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }


SECRET_KEY = _secret_key()
DATABASES = {"default": _database(os.environ.get("DATABASE_URL", ""))}
REDIS_URL = os.environ.get("REDIS_URL", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ALLOWED_HOSTS = os.environ.get("LAB_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "research",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "recursive_web.urls"
ASGI_APPLICATION = "recursive_web.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
LOGIN_URL = "admin:login"

X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("LAB_LOG_LEVEL", "INFO")},
    "loggers": {"huey": {"level": "WARNING"}, "optuna": {"level": "WARNING"}},
}
