"""A clear error for packages that only training needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cliprl.engines import UsageError


@contextmanager
def train_extra() -> Iterator[None]:
    """Raise UsageError with the name of the extra if a package that only training needs is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "cliprl":
            raise
        raise UsageError(f"training needs the package '{package}': pip install 'cliprl[train]'") from error
