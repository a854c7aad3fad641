"""The secret key of an installation that was given none."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def secret_key(file: Path) -> str:
    """Return the key in a file, which is made by whoever asks first.

    Several workers may ask at once. Each writes a key of its own to a temporary file (mode 0600), and links it to the
    name. Only the first link succeeds, and what it leads to is complete.
    """
    if not file.exists():
        descriptor, own = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as new:
                new.write(secrets.token_urlsafe(50))
            os.link(own, file)
        except FileExistsError:
            pass  # Another process was first: its key counts.
        finally:
            os.unlink(own)
    return file.read_text(encoding="ascii")
