"""What differs from ihatemoney's own settings on this server."""

import os

SECRET_KEY = os.environ["SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = f"sqlite:///{os.environ['STATE_DIRECTORY']}/ihatemoney.db"
ACTIVATE_DEMO_PROJECT = False
