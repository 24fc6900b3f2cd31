"""JSON for the page: the description of the stream, sent once, and the status, sent several times a second."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.correction.service import CorrectionService
from cliprl.pipeline.live.broadcast import Broadcast, RecordState, SourceState, Status
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.live.playback import Playback
from cliprl.pipeline.sinks.labels.json_fields import describe_class, describe_followed, describe_stream
from cliprl.pipeline.sources.errors import redact


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """The stream that the viewer displays, with its classes and controls.

    `records`: the stream can be recorded. `network`: the name of the bundle. `playback`: the player of a file.
    `corrections`: corrects held frames; None if they are kept nowhere. `follow`: what viewers follow; None without tracking.
    """

    broadcast: Broadcast
    controls: Controls
    info: StreamInfo
    classes: Sequence[ClassSpec]
    records: bool = False
    network: str = ""
    playback: Playback | None = None
    corrections: CorrectionService | None = None
    follow: FollowControl | None = None

    def status(self) -> Status:
        """Return the status of the newest frame, updated to the current time; after the end, the state is ENDED."""
        newest = self.broadcast.newest
        status = newest.status if newest else Status(since=time.time())
        ended = self.broadcast.closed or (self.playback is not None and self.playback.finished)
        if ended and status.state != SourceState.ENDED:
            recordings = tuple(replace(recording, state=RecordState.OFF) for recording in status.recordings)
            status = replace(status, captured=None, behind_s=None, recordings=recordings)
            return replace(status, state=SourceState.ENDED, since=time.time(), fps=0.0)
        return status.at(time.monotonic())

    def describe(self) -> dict[str, Any]:
        """Return the constant description of the program and the stream as JSON."""
        classes = [describe_class(i, spec) for i, spec in enumerate(self.classes) if spec.kind != "background"]
        stream = describe_stream(self.info) | {"name": redact(self.info.name), "live": self.info.live}
        return {
            "version": version("cliprl"),
            "network": self.network,
            "stream": stream,
            "classes": classes,
            "records": self.records,
            "corrects": self.corrections is not None,
            "follows": self.follow is not None,
        }

    def status_json(self, viewers: int) -> dict[str, Any]:
        """Return the current status as JSON. `clock` is `time.monotonic()` in milliseconds, the time base of capture times."""
        status, newest = self.status(), self.broadcast.newest
        return {
            "clock": time.monotonic() * 1000,
            "index": newest.index if newest else None,
            "seconds": newest.raw.seconds if newest else None,
            "state": status.state.value,
            "for_s": max(time.time() - status.since, 0.0) if status.since else None,
            "problem": status.problem,
            "mask": status.mask.value,
            "age_ms": _finite(status.age_ms),
            "reason": status.reason,
            "fps": _finite(status.fps),
            "latency_ms": _finite(status.latency_ms),
            "picture_age_s": _finite(status.age(time.monotonic())),
            "behind_s": _finite(status.behind_s),
            "dropped": status.dropped,
            "skipped": status.skipped,
            "reconnections": status.reconnections,
            "restarts": status.restarts,
            "areas": {name: round(share, 5) for name, share in status.areas.items()},
            "presence": {name: round(value, 4) for name, value in status.presence.items()},
            "doubt": round(status.reliability.doubt, 4) if status.reliability else None,
            "unsure": status.reliability.unsure if status.reliability else False,
            "unfamiliar": status.reliability.unfamiliar if status.reliability else False,
            "followed": describe_followed(status.followed) if status.followed else None,
            "out_of_body": status.out_of_body,
            "guarded": status.guarded,
            "recording": status.record_state is RecordState.RECORDING,
            "record_state": status.record_state.value,
            "missed": status.missed,
            "note": status.note,
            "viewers": viewers,
            "repeats": self.playback is not None and self.playback.repeats,
            "position": _finite(self.playback.position) if self.playback else None,
            "duration": _finite(self.playback.duration) if self.playback else None,
            "settings": describe_settings(self.controls.settings),
        }


def describe_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of the controls as JSON."""
    return {
        "opacity": settings.opacity,
        "contours": settings.contours,
        "hidden": sorted(settings.hidden),
        "recording": settings.recording,
        "paused": settings.paused,
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)
