"""The user's folder for what can be made again, also for a user that has none."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

# No folder can be made here: a user without a home has no cache, and the error of each write states it.
_NOWHERE = Path("/dev/null")


def user_cache_folder(kind: str) -> Path:
    """Return the folder of the user's cache for `kind`, such as "engines".

    A user with neither HOME nor an entry in the password file, as in containers, gets a folder that can't be made:
    writing there raises OSError.
    """
    try:
        return user_cache_path("cliprl", appauthor=False) / kind
    except RuntimeError:
        return _NOWHERE / kind
