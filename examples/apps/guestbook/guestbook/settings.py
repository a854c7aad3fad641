"""Everything that differs between machines comes from the environment; README.md lists the variables."""

from __future__ import annotations

import os
from pathlib import Path

from guestbook.secret import secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

# systemd sets this to the only place where the app may write.
STATE = Path(os.environ.get("STATE_DIRECTORY") or BASE_DIR / "state")
STATE.mkdir(mode=0o700, parents=True, exist_ok=True)

DEBUG = os.environ.get("DEBUG", "").lower() in ("1", "true", "yes", "on")
SECRET_KEY = os.environ.get("SECRET_KEY") or secret_key(STATE / "secret-key")
ALLOWED_HOSTS = [host.strip() for host in os.environ.get("ALLOWED_HOSTS", "").split(",") if host.strip()]
if DEBUG and not ALLOWED_HOSTS:
    ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = ["django.contrib.staticfiles", "guestbook"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "guestbook.urls"
WSGI_APPLICATION = "guestbook.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": STATE / "guestbook.sqlite3",
        # Workers read while one of them writes; a second writer waits this many seconds for its turn.
        "OPTIONS": {"init_command": "PRAGMA journal_mode = WAL", "timeout": 10},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "staticfiles": {
        # A name with a hash lets browsers keep a file for good. While developing there is no collectstatic.
        "BACKEND": "django.contrib.staticfiles.storage."
        + ("StaticFilesStorage" if DEBUG else "ManifestStaticFilesStorage"),
    }
}

# nginx sets this header on every request, and overwrites what a visitor sends.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Until the certificate is there the site is used on port 80, where a browser would not send back a secure cookie.
CSRF_COOKIE_SECURE = False
SILENCED_SYSTEM_CHECKS = [
    "security.W004",  # HSTS: nginx sends it, once there is a certificate.
    "security.W008",  # The redirect to HTTPS: likewise.
    "security.W016",  # CSRF_COOKIE_SECURE: see above.
]

# To the journal, which adds the time. Django's own handlers would be silent without DEBUG, or send mail.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"django": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}
