"""The error message for a package that is not installed."""

from __future__ import annotations

import re
import sys
from types import TracebackType

_OPTIONAL = re.compile(r"""([\w.-]+).*extra == ['"]([\w-]+)['"]""")
_PREFERRED = "train"  # of the extras that install a package


def missing_package_message(error: ModuleNotFoundError) -> str:
    """Return the package that can't be imported and the command that installs it. "" for a module that no package brings."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "cliprl", *sys.stdlib_module_names):
        return ""
    extras = _extras_of(package)
    extra = _PREFERRED if _PREFERRED in extras else next(iter(extras), "")
    wanted = f"'cliprl[{extra}]'" if extra else package
    return f"this needs the package '{package}', which is not installed: pip install {wanted}"


def explain_missing_packages() -> None:
    """Let a module that is run as `python -m module` end with one line where a package that it imports is missing.

    For packages whose modules import others before they can call `run_app`.
    """
    if sys.argv[:1] == ["-m"]:  # Python is about to import the module that it runs
        sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = missing_package_message(error) if isinstance(error, ModuleNotFoundError) else ""
    if not message:
        return sys.__excepthook__(kind, error, trace)
    print(f"python {' '.join(sys.orig_argv[1:3])}: {message}", file=sys.stderr)
    raise SystemExit(2)


def _extras_of(package: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("cliprl") or []
    except PackageNotFoundError:  # run from a checkout
        return []
    optional = [found.groups() for line in lines if (found := _OPTIONAL.match(line))]
    return [extra for name, extra in optional if _imported_as(package, name.lower().replace("-", "_"))]


def _imported_as(package: str, distribution: str) -> bool:
    """Whether a distribution has a package of this name: "open_clip" of open_clip_torch, "yaml" of pyyaml."""
    return distribution in (package, f"py{package}") or distribution.startswith(f"{package}_")
