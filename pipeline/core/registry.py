"""Registries of sinks and sources: each module registers what it defines, and installed plugins add to it."""

from __future__ import annotations

import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Entry(Protocol):
    """The part of an entry that a registry reads."""

    @property
    def open(self) -> Callable[..., Any]:
        """The factory, whose module and name identify the entry."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Beginnings of the names that belong to this entry."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the names that belong to this entry."""


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """The entries that the modules of a package register, and those of plugins.

    The modules are imported at the first look-up. A plugin is an installed package with an entry point in `group`; its value
    is a module that registers entries when it is imported. `problems` describes the plugins that can't be imported.
    """

    def __init__(self, package: str, group: str) -> None:
        self.problems: list[str] = []
        self._package, self._group = package, group
        self._entries: list[E] = []
        self._lock = threading.Lock()
        self._complete = False

    def add(self, entry: E) -> None:
        """Register an entry. Raises ValueError if another entry has one of its prefixes or suffixes."""
        names = {*entry.prefixes, *entry.suffixes}
        for other in self._entries:
            if taken := names & {*other.prefixes, *other.suffixes}:
                raise ValueError(f"'{min(taken)}' is already registered by {other.open.__module__}")
        self._entries.append(entry)

    def __iter__(self) -> Iterator[E]:
        """The entries, in an order that does not depend on the order of imports; plugins come last."""
        with self._lock:
            if not self._complete:
                self._import_all()
                self._complete = True
        return iter(sorted(self._entries, key=_order))

    def _import_all(self) -> None:
        package = import_module(self._package)
        for module in pkgutil.walk_packages(package.__path__, f"{self._package}."):
            import_module(module.name)
        for plugin in _plugins(self._group):
            try:
                plugin.load()
            except Exception as error:  # a broken plugin must not break the program
                reason = " ".join(str(error).split()) or type(error).__name__
                self.problems.append(f"the plugin '{plugin.name}' can't be loaded ({reason}): update or uninstall it")


def _plugins(group: str) -> Iterable[EntryPoint]:
    """The entry points of a group in all installed packages, which are read only if one has plugins for this program."""
    if not _have_plugins():
        return ()
    from importlib.metadata import entry_points

    return entry_points(group=group)


# One search serves all registries.
@cache
def _have_plugins() -> bool:
    return any(map(_may_have_plugins, sys.path))


def _may_have_plugins(folder: str) -> bool:
    """Whether a package in a folder has an entry point for this program; what is no folder, such as an archive, may have one."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return os.path.isfile(folder)
    for name in names:
        if name.endswith(("-info", "-INFO")):
            with suppress(OSError), open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                if b"[cliprl." in file.read():
                    return True
    return False


def _order(entry: Entry) -> tuple[bool, str, str]:
    module = entry.open.__module__
    return not module.startswith("cliprl."), module, entry.open.__qualname__
