"""ihatemoney, with the settings beside this file."""

from ihatemoney.run import create_app

application = create_app("settings")
