"""Detection of late frames, and debouncing of state messages."""

from __future__ import annotations

# Age in seconds above which a stream is behind. It recovers when all frames of `_HOLD_S` seconds were younger than
# `_RECOVERED`.
BEHIND = 0.9
_RECOVERED, _HOLD_S = 0.6, 1.0
# Seconds for which a new message must hold before it is passed on.
_SHORTEST, _LONGEST = 1.0, 30.0


class Lateness:
    """Classifies frames by age, with hysteresis: one old frame sets the state, and a second of young ones resets it."""

    def __init__(self) -> None:
        self._behind = False
        self._recovering_since: float | None = None

    def is_behind(self, age: float, now: float) -> bool:
        """Return whether the stream is behind, given a frame's `age` in seconds, displayed at `now`."""
        if age > BEHIND:
            self._behind, self._recovering_since = True, None
        elif age > _RECOVERED:
            self._recovering_since = None
        elif self._behind:
            self._recovering_since = now if self._recovering_since is None else self._recovering_since
            self._behind = now - self._recovering_since < _HOLD_S
        return self._behind


class Debouncer:
    """Passes on a state that has held for a while: the longer, the more often it has changed recently."""

    def __init__(self) -> None:
        self._hold = _SHORTEST
        self._state, self._since = "", 0.0
        self._text, self._text_since = "", 0.0
        self._sent, self._sent_text, self._sent_at = "", "", float("-inf")

    def update(self, state: str, text: str, now: float) -> str | None:
        """Return, once, the `text` of a new state, or a new text of the same state, that has held until `now`; else None."""
        if state != self._state:
            self._state, self._since = state, now
        if text != self._text:
            self._text, self._text_since = text, now
        since = self._since if state != self._sent else self._text_since
        if text == self._sent_text or now - since < self._hold:
            return None
        calm = now - self._sent_at > 2 * _LONGEST
        self._hold = _SHORTEST if calm else min(2 * self._hold, _LONGEST)
        self._sent, self._sent_text, self._sent_at = state, text, now
        return text
