"""Settings that viewers change while a stream runs. Any thread may change them; the display path reads them per frame."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.overlay.style import Style

# The most characters of a bad value in an error message.
_QUOTED = 60


@dataclass(frozen=True, slots=True)
class Settings:
    """The state of all controls at one moment.

    `hidden`: names of classes that are not drawn. `frozen`: the frame of that moment is displayed beside the live image.
    `recording`: recording is requested; `Status.record_state` is its actual state. `paused` holds a file; a camera can't be
    paused.
    """

    opacity: float = 0.4
    contours: bool = True
    hidden: frozenset[str] = frozenset()
    frozen: bool = False
    recording: bool = False
    paused: bool = False

    @classmethod
    def of(cls, style: Style, classes: Sequence[ClassSpec], *, recording: bool = False) -> Self:
        """Return the settings of an overlay's style at the start. Classes that the bundle does not show can be shown later."""
        hidden = frozenset(spec.name for spec in classes if not spec.shown and style.shown is None)
        return cls(style.opacity, style.contours, hidden, recording=recording)

    @property
    def appearance(self) -> tuple[object, ...]:
        """The settings that affect how a still frame looks."""
        return self.opacity, self.contours, self.hidden, self.frozen

    def style(self, base: Style, classes: Sequence[ClassSpec]) -> Style:
        """Return `base` changed by these settings."""
        names = [spec.name for spec in classes if spec.kind != "background"] if base.shown is None else base.shown
        shown = tuple(name for name in names if name not in self.hidden)
        return replace(base, opacity=self.opacity, contours=self.contours, shown=shown)


class Controls:
    """The settings of a stream that draws `classes`. Thread-safe."""

    def __init__(self, classes: Sequence[ClassSpec] = (), settings: Settings | None = None) -> None:
        self.classes = tuple(classes)
        self._lock = threading.Lock()
        self._settings = settings or Settings()

    @property
    def settings(self) -> Settings:
        """The current settings; the object itself never changes."""
        return self._settings

    def change(self, /, **values: Any) -> Settings:
        """Set some fields of `Settings`. Raises UsageError, and changes nothing, for a bad name or value."""
        return self.update(values)

    def update(self, values: Mapping[str, Any]) -> Settings:
        """Set some fields of `Settings` by name; "show" sets the visibility of single classes. All values are checked.

        Example: {"opacity": 0.5, "show": {"shaft": false}}. Raises UsageError, one line, and changes nothing, for a bad name
        or value.
        """
        with self._lock:
            self._settings = self._changed(dict(values))
            return self._settings

    def show(self, name: str, visible: bool) -> Settings:
        """Show or hide a class. Raises UsageError for an unknown class."""
        return self.update({"show": {name: visible}})

    def _changed(self, values: dict[str, Any]) -> Settings:
        shown = values.pop("show", {})
        known = {field.name for field in fields(Settings)}
        for name, value in values.items():
            if name not in known:
                raise UsageError(f"no control {quoted(name)}: one of {', '.join(sorted(known | {'show'}))}")
            if name == "opacity":
                values[name] = _opacity(value)
            elif name == "hidden":
                values[name] = self._names(value)
            elif not isinstance(value, bool):
                raise UsageError(f"control '{name}' is on or off, not {quoted(value)}: give true or false")
        return self._with_shown(replace(self._settings, **values), shown)

    def _with_shown(self, settings: Settings, shown: Any) -> Settings:
        if not isinstance(shown, Mapping) or not all(isinstance(visible, bool) for visible in shown.values()):
            raise UsageError(f"control 'show' is true or false by class name, not {quoted(shown)}")
        names = self._names(list(shown))
        hidden = (settings.hidden - names) | {name for name in names if not shown[name]}
        return replace(settings, hidden=hidden)

    def _names(self, value: Any) -> frozenset[str]:
        known = [spec.name for spec in self.classes if spec.kind != "background"]
        is_list = isinstance(value, list | tuple | set | frozenset)
        if not is_list or not all(isinstance(name, str) for name in value):
            raise UsageError(f"control 'hidden' is a list of class names, not {quoted(value)}")
        for name in value:
            if name not in known:
                raise UsageError(f"unknown class {quoted(name)}: one of {', '.join(known)}")
        return frozenset(value)


def _opacity(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"opacity {quoted(value)} is out of range: give 0 (nothing) to 1 (opaque)")
    return float(value)


def quoted(value: Any) -> str:
    """Return a client's value for an error message: one line of printable ASCII characters, shortened."""
    text = ascii(value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
