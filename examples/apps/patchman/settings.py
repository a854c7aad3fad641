"""Patchman's own settings, and what differs on this server."""

import os

from patchman.settings import *  # noqa: F403 - how Django projects build on the settings of another

DEBUG = False
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
CSRF_TRUSTED_ORIGINS = [f"https://{name}" for name in ALLOWED_HOSTS]

# The one folder that the app and its worker write to.
DATABASES["default"]["NAME"] = os.path.join(os.environ["STATE_DIRECTORY"], "patchman.db")  # noqa: F405 - it comes from there

# nginx serves what collectstatic puts here.
STATIC_URL = "/static/"
STATIC_ROOT = os.path.abspath("staticfiles")

LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
