"""The options of libx264 and of libav's muxers."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

_LARGEST_TIMESCALE = 2**31 - 1
# In microseconds. Sound that is missing or late must not make frames wait in memory for long.
_SECOND = "1000000"


def muxer_options(container: str, time_base: Fraction, clock: int, *, seekable: bool) -> dict[str, str]:
    """Return the options under which times stay what they are, and an unfinished file can be read."""
    if container == "matroska":
        # The padding before a file's first sound has negative times; moving all times up by it would move the frames.
        return {"avoid_negative_ts": "disabled", "max_interleave_delta": _SECOND, "cluster_time_limit": "1000"}
    ticks = time_base.denominator
    movie = lcm(ticks, clock)
    return {
        "max_interleave_delta": _SECOND,
        # The empty header at the start makes a cut-off file readable, though its times then count from its first frame.
        # A whole file gets one header in its place; in a pipe the fragments stay.
        "movflags": "hybrid_fragmented+empty_moov" if seekable else "delay_moov",
        "frag_duration": _SECOND,
        "use_editlist": "1",
        "video_track_timescale": str(ticks),
        # Edit lists, which hold the start times of the tracks, count in these.
        "movie_timescale": str(movie if movie <= _LARGEST_TIMESCALE else ticks),
    }


def quality_options(crf: float, preset: str) -> dict[str, str]:
    """Return the options of libx264 for a quality: 0 is lossless, 51 the worst.

    `ultrafast` takes it as a constant quantizer. To vary the quantizer with the motion, as a constant rate factor does, x264
    searches a small copy of each frame: a quarter of its time with that preset, for the same quality at the same size.
    """
    quality = {"qp": f"{round(crf)}"} if preset == "ultrafast" else {"crf": f"{crf:g}"}
    return {"preset": preset, **quality}
