"""Whether what is shown is behind the camera."""

from __future__ import annotations

# Seconds from which a picture is behind; it is no longer once all pictures of `_HOLD` seconds were younger than `_WELL`.
BEHIND = 0.9
_WELL, _HOLD = 0.6, 1.0


class Lateness:
    """Judges pictures by their age, at once where one is too old, and slowly back: the state must not flicker."""

    def __init__(self) -> None:
        self._behind = False
        self._well: float | None = None

    def is_behind(self, age: float, now: float) -> bool:
        """Whether a picture of this `age` in seconds, shown at the time `now`, is to be called behind."""
        if age > BEHIND:
            self._behind, self._well = True, None
        elif age > _WELL:
            self._well = None
        elif self._behind:
            self._well = now if self._well is None else self._well
            self._behind = now - self._well < _HOLD
        return self._behind


class Steady:
    """Lets through a state that has held for a while: the longer, the more often it has changed lately."""

    def __init__(self, hold: float = 1.0, longest: float = 30.0) -> None:
        self._shortest, self._longest, self._hold = hold, longest, hold
        self._state, self._since = "", 0.0
        self._text, self._text_since = "", 0.0
        self._told, self._told_text, self._moment = "", "", float("-inf")

    def hear(self, state: str, text: str, now: float) -> str | None:
        """What is to be told at the time `now`, once: the `text` of a new state, or a new text of the old one."""
        if state != self._state:
            self._state, self._since = state, now
        if text != self._text:
            self._text, self._text_since = text, now
        since = self._since if state != self._told else self._text_since
        if text == self._told_text or now - since < self._hold:
            return None
        calm = now - self._moment > 2 * self._longest
        self._hold = self._shortest if calm else min(2 * self._hold, self._longest)
        self._told, self._told_text, self._moment = state, text, now
        return text
