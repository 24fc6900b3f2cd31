"""Read TOML files of users."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file in UTF-8, with or without a byte order mark. Raises UsageError for another one, OSError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not in UTF-8: save it in UTF-8, not in UTF-16 or Latin-1") from error
    except ValueError as error:  # not TOML, or a number of thousands of digits
        raise UsageError(f"{path} is not TOML ({error}): correct it") from error
