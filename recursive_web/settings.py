"""All configuration, read once from the environment. No rule of the domain lives here.

Nothing needs to be set: the embedded lab keeps everything in one data folder (SQLite, Huey's queue, repositories).
`DATABASE_URL` and `REDIS_URL` scale it out. An unknown `LAB_*` name is an error, so that a typo cannot pass silently.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from urllib.parse import unquote, urlparse

import django
from django.core.exceptions import ImproperlyConfigured

KNOWN = {"LAB_DATA", "LAB_SECRET_KEY", "LAB_DEBUG", "LAB_HOSTS", "LAB_HTTPS", "LAB_LOG_LEVEL", "LAB_TOKEN"}
KNOWN |= {  # models, read by research.researchers.llm.models
    "LAB_MODELS", "LAB_LLM_MODEL", "LAB_LLM_BASE_URL", "LAB_LLM_KEY_VARIABLE", "LAB_LLM_PRICE_IN", "LAB_LLM_PRICE_OUT",
    "LAB_LLM_CONTEXT",
}  # fmt: skip
if unknown := {name for name in os.environ if name.startswith("LAB_")} - KNOWN:
    raise ImproperlyConfigured(
        f"unknown setting {', '.join(sorted(unknown))}; the lab knows {', '.join(sorted(KNOWN))}"
    )

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("LAB_DATA") or BASE_DIR / "data").absolute()
DEBUG = os.environ.get("LAB_DEBUG") == "1"
HTTPS = os.environ.get("LAB_HTTPS") == "1"


def _private_folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"cannot make the data folder {path}: {error.strerror}; choose another") from error
    if not os.access(path, os.W_OK):
        raise ImproperlyConfigured(f"cannot write to the data folder {path}; choose another")
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
AGENT_TOKEN = os.environ.get("LAB_TOKEN", "")  # of `manage.py mcp`
REDIS_URL = os.environ.get("REDIS_URL", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

ALLOWED_HOSTS = os.environ.get("LAB_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
INSTALLED_APPS = [  # not daphne: it would load Twisted into every process; `manage.py web` imports it
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
    "recursive_web.middleware.ContentSecurityPolicy",
    "django.middleware.gzip.GZipMiddleware",  # Django pads secrets against BREACH
    "recursive_web.middleware.StaticFiles",
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
                "research.views.shell.context",
            ],
            "builtins": ["research.templatetags.lab"],
        },
    }
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True


def _static_digest() -> str:
    """One short name for all static files together: it changes when any of them does."""
    digest = hashlib.sha256(django.__version__.encode())
    for path in sorted(path for path in (BASE_DIR / "static").rglob("*") if path.is_file()):
        digest.update(path.relative_to(BASE_DIR).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


# Served from where they lie, without a collectstatic: the digest in the address makes them immutable, also those that
# a script or a style sheet names by a relative path.
STATIC_URL = "static/" if DEBUG else f"static/{_static_digest()}/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True

LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "overview"
# Browsers send cookies to every port of a host: two labs on one machine must not sign each other's people out.
_lab = hashlib.sha256(f"cookies of {SECRET_KEY}".encode()).hexdigest()[:8]
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"lab_session_{_lab}", f"lab_csrf_{_lab}"

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# TLS ends at a proxy before the lab, which has to set this header itself and pass on none from outside.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("LAB_LOG_LEVEL", "INFO")},
    "loggers": {name: {"level": "WARNING"} for name in ("huey", "optuna", "daphne", "httpx2", "openai")},
}
