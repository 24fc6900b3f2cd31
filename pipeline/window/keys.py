"""Keyboard controls of the window, and the message for each; the keys are those of the web viewer's page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cliprl.engines import UsageError
from cliprl.pipeline.core.segmentation import Followed
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.follow_control import NOT_TRACKED, FollowControl

_STEP = 0.05
HELP = (
    ("O", "overlay on or off"),
    ("[  ]  or  -  +", "opacity down, up"),
    ("C", "contours"),
    ("1 … 9", "show or hide a class"),
    ("A", "show or hide all classes"),
    ("Space", "freeze an image beside the live one"),
    ("B", "raw image beside the overlay"),
    ("S", "save a snapshot"),
    ("I", "follow the next instrument, with --ids"),
    ("click, drag", "follow the instrument there"),
    ("X", "end following"),
    ("R", "record"),
    ("P", "pause a file"),
    ("F", "full screen"),
    ("H", "this list"),
    ("Q", "quit"),
)


@dataclass(slots=True)
class Keys:
    """Changes the controls by keys. `live`: the source can't be paused. `records`: recording is available.

    `follow`: what viewers follow; None if instruments are not tracked.
    """

    controls: Controls
    live: bool
    records: bool
    visible: float = 0.4  # the opacity before the overlay was switched off
    follow: FollowControl | None = None

    def press(self, key: str) -> str | None:
        """Do the action of `key`, a character or "space". Return the message for the user, None for a key without action."""
        if len(key) == 1 and key in "123456789":
            return self._toggle_class(int(key) - 1)
        action = self._actions().get(key.lower())
        return action() if action else None

    def _actions(self) -> dict[str, Callable[[], str | None]]:
        return {
            "o": self._overlay,
            **dict.fromkeys("[-", lambda: self._fade(-_STEP)),
            **dict.fromkeys("]+=", lambda: self._fade(_STEP)),
            "c": lambda: self._switch("contours", "Contours"),
            "a": self._toggle_all,
            "i": lambda: self.follow_by(FollowControl.choose_next),
            "x": lambda: self.follow_by(FollowControl.end),
            "space": lambda: self._switch("frozen", "Frozen image"),
            "r": lambda: self._record() if self.records else None,
            "p": lambda: None if self.live else self._switch("paused", "Pause"),
        }

    def follow_by(self, choose: Callable[[FollowControl], Followed | None]) -> str:
        """Let `choose` choose the instrument to follow. Return the message for the user, which may be an error."""
        try:
            if self.follow is None:
                raise UsageError(NOT_TRACKED)
            followed = choose(self.follow)
        except UsageError as error:
            return f"Not followed: {error}"
        return f"Following #{followed.id}" if followed is not None else "Following ended"

    def _switch(self, name: str, title: str) -> str:
        on = not getattr(self.controls.settings, name)
        self.controls.change(**{name: on})
        return f"{title} {'on' if on else 'off'}"

    def _record(self) -> str:
        on = not self.controls.settings.recording
        self.controls.change(recording=on)
        return "Recording starts" if on else "Recording ends"

    def _overlay(self) -> str:
        opacity = self.controls.settings.opacity
        self.visible = opacity or self.visible
        return self._set_opacity(0.0 if opacity else self.visible)

    def _fade(self, step: float) -> str:
        return self._set_opacity(min(max(round(self.controls.settings.opacity + step, 2), 0.0), 1.0))

    def _set_opacity(self, opacity: float) -> str:
        self.controls.change(opacity=opacity)
        return f"Opacity {round(opacity * 100)} %"

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self.controls.classes if spec.kind != "background"]

    def _toggle_class(self, number: int) -> str | None:
        if number >= len(self._names):
            return None
        name = self._names[number]
        visible = name in self.controls.settings.hidden
        self.controls.show(name, visible)
        return f"{name} {'shown' if visible else 'hidden'}"

    def _toggle_all(self) -> str:
        hidden = self.controls.settings.hidden
        self.controls.change(hidden=[] if hidden else self._names)
        return "All classes shown" if hidden else "All classes hidden"
