def normalise_apps(entries, variable="gunicorn_apps"):
    return []
