"""Clocks that restart, jump, wrap or start late, times of decoding, edit lists: one timeline in order, and no false alarm."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from media import make_clip

from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.sources.decoding.decode import PresentationClock
from cliprl.pipeline.sources.decoding.h264_headers import h264_reordering
from cliprl.pipeline.sources.decoding.timeline import Timeline

VIDEO, AUDIO = 0, 1
TICKS = Fraction(1, 90_000)
STEP, SOUND = 3600, 1920


@dataclass
class Ticket:
    """The times of a packet, and what they were in the file."""

    stream_index: int
    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction = TICKS
    part: int = 0
    is_discard: bool = False

    @property
    def seconds(self) -> Fraction:
        assert self.pts is not None
        return self.pts * self.time_base


def recording(start: int, frames: int, part: int) -> list[Ticket]:
    """The packets of `frames` pictures and of their sound, as a muxer interleaves them; the sound begins a little earlier."""
    images = [Ticket(VIDEO, start + i * STEP, start + i * STEP, STEP, part=part) for i in range(frames)]
    count = frames * STEP // SOUND
    sound = [Ticket(AUDIO, start - 960 + i * SOUND, start - 960 + i * SOUND, SOUND, part=part) for i in range(count)]
    return sorted([*images, *sound], key=lambda ticket: (ticket.pts or 0) - ticket.stream_index * 2000)


def through(tickets: list[Ticket], timeline: Timeline[Ticket]) -> list[Ticket]:
    return [*(out for ticket in tickets for out in timeline.feed(ticket)), *timeline.finish()]


def joined(starts: list[int], frames: int = 60) -> list[Ticket]:
    """Recordings one after the other; the last sound of each comes after the first of the next, as libav gives them."""
    tickets = [ticket for part, start in enumerate(starts) for ticket in recording(start, frames, part)]
    for part in range(1, len(starts)):
        at = next(i for i, ticket in enumerate(tickets) if ticket.part == part and ticket.stream_index == VIDEO)
        last = next(i for i in range(at, 0, -1) if tickets[i].part == part - 1 and tickets[i].stream_index == VIDEO)
        tickets.insert(last + 1, tickets.pop(at))
    return tickets


@pytest.mark.parametrize(
    "starts",
    [
        [900, 900],
        [126_000, 126_000, 126_000, 126_000],
        [0, 36_000 * 90_000, 5000],  # a clock that is set while it records
        [(1 << 33) - 60 * STEP, 0],  # 33 bits are full
        [36_000 * 90_000, 0],
    ],
)
def test_joined_recordings_are_one_with_their_sound(starts: list[int]) -> None:
    timeline: Timeline[Ticket] = Timeline(VIDEO, starts[0] * TICKS)
    out = through(joined(starts), timeline)
    images = [ticket for ticket in out if ticket.stream_index == VIDEO]
    sound = [ticket for ticket in out if ticket.stream_index == AUDIO]
    times = [ticket.pts for ticket in images]
    assert times == list(range(times[0], times[0] + STEP * 60 * len(starts), STEP))
    assert abs(images[0].seconds) < 3
    heard = [ticket.seconds for ticket in sound]
    assert heard == sorted(set(heard))
    assert len(sound) >= (60 * STEP // SOUND - 1) * len(starts)
    for part in range(len(starts)):  # each part's sound lies under its pictures
        first = next(ticket.seconds for ticket in images if ticket.part == part)
        heard = [ticket.seconds for ticket in sound if ticket.part == part]
        assert abs(heard[0] - first) < 0.1
        assert abs(heard[-1] - first - 60 * STEP * TICKS) < 0.1


def test_a_wrap_of_33_bits_is_no_restart() -> None:
    start = (1 << 33) - 30 * STEP - 17
    tickets = recording(start, 60, 0)
    for ticket in tickets:
        assert ticket.pts is not None
        ticket.pts = ticket.dts = ticket.pts % (1 << 33)
    timeline: Timeline[Ticket] = Timeline(VIDEO, start * TICKS)
    out = [ticket.pts for ticket in through(tickets, timeline) if ticket.stream_index == VIDEO]
    assert [b - a for a, b in itertools.pairwise(out) if a is not None and b is not None] == [STEP] * 59
    assert timeline.jumps == []


def test_a_clock_that_libav_unwraps_goes_back() -> None:
    unwrapped = joined([600 * 90_000, (1 << 33) + 90_000])  # as libav counts a clock that goes back to 1 s
    timeline: Timeline[Ticket] = Timeline(VIDEO, Fraction(600))
    through(unwrapped, timeline)
    assert "goes back by 0:10:0" in timeline.notes[-1]


@pytest.mark.parametrize("live", [True, False])
def test_a_guessed_first_time_of_a_camera_is_no_jump(live: bool) -> None:
    """Of RTP that it joins in the middle libav times the first packet a group of pictures late."""
    tickets = [ticket for ticket in recording(0, 9, 0) if ticket.stream_index == VIDEO]
    tickets[0].pts = tickets[0].dts = 43_200
    timeline: Timeline[Ticket] = Timeline(VIDEO, live=live)
    times = [ticket.pts for ticket in through(tickets, timeline)]
    assert times == list(range(43_200, 43_200 + 9 * STEP, STEP))
    assert len(timeline.notes) == (not live)


def test_sound_that_jumps_alone_moves_no_picture() -> None:
    tickets = recording(0, 200, 0)
    for ticket in tickets:
        assert ticket.pts is not None
        if ticket.stream_index == AUDIO and ticket.pts > 200_000:
            ticket.pts = ticket.dts = ticket.pts - 150_000
    timeline: Timeline[Ticket] = Timeline(VIDEO, Fraction(0))
    out = through(tickets, timeline)
    assert [t.pts for t in out if t.stream_index == VIDEO] == [i * STEP for i in range(200)]
    heard = [t.seconds for t in out if t.stream_index == AUDIO]
    assert heard == sorted(set(heard))
    assert max(b - a for a, b in itertools.pairwise(heard)) < 0.1
    assert timeline.jumps == []


def test_video_pause_while_audio_continues_is_no_jump() -> None:
    tickets = [
        t for t in recording(0, 1000, 0) if t.stream_index == AUDIO or not 100 * STEP <= (t.pts or 0) < 600 * STEP
    ]
    before = [ticket.pts for ticket in tickets]
    timeline: Timeline[Ticket] = Timeline(VIDEO, Fraction(0))
    assert [ticket.pts for ticket in through(tickets, timeline)] == before


parts = st.lists(
    st.tuples(st.integers(-(10**9), 10**9), st.integers(3, 40), st.integers(2, 30)), min_size=1, max_size=6
)


@settings(max_examples=100, deadline=None)
@given(parts, st.booleans())
def test_any_clock_gives_one_timeline_that_keeps_its_pace(pieces: list[tuple[int, int, int]], from_zero: bool) -> None:
    """Parts of (start, frames, milliseconds a frame): within each the pace stays, and nothing repeats or goes back."""
    tickets, sizes = [], []
    for start, frames, step in pieces:
        # Less than a frame back is a single wrong time, not a clock that restarts.
        assume(not tickets or not 0 <= (tickets[-1].pts or 0) - start <= max(step, tickets[-1].duration))
        tickets += [Ticket(VIDEO, start + i * step, start + i * step, step, Fraction(1, 1000)) for i in range(frames)]
        sizes.append((frames, step))
    timeline: Timeline[Ticket] = Timeline(VIDEO, pieces[0][0] * Fraction(1, 1000) if from_zero else None)
    times = [ticket.pts for ticket in through(tickets, timeline)]
    clock = PresentationClock(Fraction(1, 1000), Fraction(25))
    shown = [clock.stamp(pts, 0, index)[0] for index, pts in enumerate(times)]
    assert all(a < b for a, b in itertools.pairwise(shown))
    at = 0
    for frames, step in sizes:
        inside = shown[at : at + frames]
        squeezed = [b - a for a, b in itertools.pairwise(inside) if b - a != step]
        assert len(squeezed) <= 2
        at += frames
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert max(gaps) <= 10_000 + 30


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | st.integers(-(10**6), 10**6), max_size=60), st.sampled_from([1, 25, 50, 1000, 5000]))
def test_times_always_increase(times: list[int | None], rate: int) -> None:
    clock = PresentationClock(Fraction(1, 1000), Fraction(rate))
    shown = [clock.stamp(pts, 0, index)[0] for index, pts in enumerate(times)]
    assert all(a < b for a, b in itertools.pairwise(shown))


def test_a_clock_that_stands_still_is_timed_at_the_rate() -> None:
    clock = PresentationClock(Fraction(1, 1000), Fraction(25))
    shown = [clock.stamp(7, 0, index)[0] for index in range(52)]
    assert shown[-1] - shown[2] == 49 * 40


def test_joined_transport_streams(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "one.ts", frames=30, audio=True, options={"bf": "2", "g": "10"}).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(data * 3)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == 90
    steps = {b.pts - a.pts for a, b in itertools.pairwise(frames)}
    assert steps == {STEP}
    assert source.damaged <= 2  # the packet counters of a transport stream break where it was joined
    assert [note for note in source.info.notes if "goes back by 1.16 s at frame 30" in note] == list(source.info.notes)


def test_an_output_of_joined_recordings_has_all_their_sound(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "one.ts", frames=50, audio=True, options={"bf": "0"}).read_bytes()
    (tmp_path / "joined.ts").write_bytes(data * 2)
    with (
        open_source(tmp_path / "joined.ts") as source,
        open_sink(tmp_path / "out.mp4", OutputSpec(source.info, ())) as sink,
    ):
        for frame in source:
            sink.write(frame, None)
    with av.open(str(tmp_path / "out.mp4")) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.frames == 100
        for stream in (video, sound):
            assert stream.duration is not None
            assert stream.duration * stream.time_base == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_late_start_is_moved_to_zero_and_told(tmp_path: Path, suffix: str) -> None:
    path = make_clip(
        tmp_path / f"late.{suffix}", pts=[36_000 * 25 + i for i in range(12)], container_options={"muxdelay": "0"}
    )
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
    assert seconds == pytest.approx([i / 25 for i in range(12)], abs=0.002)
    assert ["10:00:0" in note for note in source.info.notes] == [True]


def test_a_start_within_two_seconds_stays(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", pts=[40 + i for i in range(12)])
    with open_source(path) as source:
        assert next(iter(source)).seconds == 1.6
        assert source.info.notes == ()


@pytest.mark.parametrize(
    ("file", "codec", "options"),
    [
        ("h264.avi", "libx264", {"bf": "2", "g": "12", "b-pyramid": "none"}),
        ("pyramid.avi", "libx264", {"bf": "3", "g": "12"}),
        ("open.avi", "libx264", {"bf": "2", "g": "12", "x264-params": "open-gop=1"}),
        ("plain.avi", "libx264", {"bf": "0"}),
        ("mpeg4.avi", "mpeg4", {"bf": "2", "g": "12"}),
        ("mpeg2.avi", "mpeg2video", {"bf": "2", "g": "12"}),
    ],
)
def test_avi_is_in_the_order_of_display(tmp_path: Path, file: str, codec: str, options: dict[str, str]) -> None:
    path = make_clip(tmp_path / file, codec=codec, frames=40, options=options)
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
    assert seconds == pytest.approx([i / 25 for i in range(40)])
    assert (source.damaged, source.info.notes) == (0, ())


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("mpeg4", {}),
        ("mpeg4", {"bf": "2"}),
        ("mpeg2video", {"bf": "0"}),
        ("libx264", {"bf": "0"}),
        ("libx264", {"bf": "1"}),
        ("libx264", {"bf": "2"}),
        ("libx264", {"bf": "2", "b-pyramid": "none", "b-adapt": "0"}),
        ("libx264", {"bf": "3", "b-adapt": "0"}),
    ],
)
@pytest.mark.parametrize("missing", [range(20, 30), range(1, 2), range(21, 22)])
@pytest.mark.parametrize("suffix", [".avi", ".wmv"])
def test_frames_that_a_recorder_left_out_are_not_missing(
    tmp_path: Path, codec: str, options: dict[str, str], missing: range, suffix: str
) -> None:
    times = [*range(missing[0]), *range(missing[-1] + 1, 40 + len(missing))]
    path = make_clip(tmp_path / f"gap{suffix}", codec=codec, frames=40, pts=times, options=options)
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
        assert (len(seconds), source.info.frames) == (40, 40 if suffix == ".avi" else None)
    first = 0.0 if suffix == ".avi" else seconds[0]
    assert [second - first for second in seconds] == pytest.approx([time / 25 for time in times])
    assert source.damaged == 0
    assert [note for note in source.info.notes if "leap" not in note] == []


def test_an_avi_that_counts_ticks_is_whole(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", rate=600, pts=[24 * i for i in range(12)])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"strh") + 40, 12 * 24)  # the length, as it is after copying a DV video
    path.write_bytes(data)
    with open_source(path) as source:
        assert [round(frame.seconds * 25, 3) for frame in source] == list(range(12))
        assert (source.info.frames, source.damaged) == (12, 0)
    assert not any("early" in note for note in source.info.notes)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".avi", ".wmv"])
def test_a_variable_rate_is_kept_without_b_frames(tmp_path: Path, suffix: str) -> None:
    """The encoder may reorder, and says so, but does not: all times of presentation ascend."""
    times, options = [0, 1, 2, 4, 5, 6, 9, 10, 11], {"bf": "3", "b-bias": "-100"}
    path = make_clip(tmp_path / f"a{suffix}", frames=len(times), pts=times, options=options)
    with av.open(str(path)) as container:
        shown = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
        assert container.streams.video[0].codec_context.has_b_frames
        assert shown == sorted(shown)
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
    known = times[:-2] if suffix in (".avi", ".wmv") else times  # of the last ones there is no time
    start = seconds[0]
    assert [round((second - start) * 25, 2) for second in seconds[: len(known)]] == known


def test_decoding_times_in_mp4_are_put_in_display_order(tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / "a.mp4", frames=30, options={"bf": "2", "g": "10"}, container_options={"use_editlist": "0"}
    )
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.stream = packet.dts, stream
                copy.mux(packet)
    with open_source(tmp_path / "b.mp4") as opened:
        seconds = [frame.seconds for frame in opened]
    first = seconds[0]
    assert seconds == pytest.approx([first + i / 25 for i in range(30)])
    assert opened.info.notes == ()


def trim(path: Path, *parts: tuple[int, int]) -> None:
    """Let the edit list of an MP4 at 25 FPS show parts, each so many pictures from one on; with one part its size stays."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        ticks = container.streams.video[0].time_base.denominator // 25
    at, at_scale = data.find(b"elst") - 4, data.find(b"mvhd") + 16
    (scale,) = struct.unpack_from(">I", data, at_scale)
    entries = b"".join(struct.pack(">Iihh", frames * scale // 25, first * ticks, 1, 0) for frames, first in parts)
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(parts)) + entries
    (size,) = struct.unpack_from(">I", data, at)
    edited = bytearray(data[:at] + box + data[at + size :])
    for above in (b"moov", b"trak", b"edts"):
        place = edited.find(above) - 4
        struct.pack_into(">I", edited, place, struct.unpack_from(">I", edited, place)[0] + len(box) - size)
    path.write_bytes(edited)


@pytest.mark.parametrize("options", [{"bf": "0", "g": "25"}, {"bf": "2", "g": "10"}])
@pytest.mark.parametrize(("frames", "first"), [(40, 60), (30, 33), (10, 0), (25, 25)])
def test_what_an_edit_list_hides_is_not_missing(
    tmp_path: Path, options: dict[str, str], frames: int, first: int
) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=100, options=options, container_options={"use_editlist": "1"})
    trim(path, (frames, first))
    with open_source(path) as source:
        shown = list(source)
        assert source.info.frames is not None
        assert abs(source.info.frames - frames) <= 2  # reordered pictures at the ends
    assert abs(len(shown) - frames) <= 2
    assert source.damaged == 0
    assert not any("early" in note or "end after" in note for note in source.info.notes)


def test_edits_that_begin_between_key_frames_join_without_a_jump(tmp_path: Path) -> None:
    options, edits = {"bf": "0", "g": "25"}, {"use_editlist": "1"}
    path = make_clip(tmp_path / "a.mp4", frames=100, options=options, container_options=edits, audio=True)
    trim(path, (10, 0), (20, 37), (10, 13))
    with open_source(path) as source:
        assert [round(frame.seconds * 25, 3) for frame in source] == list(range(40))
        assert source.damaged == 0
    assert not any("clock" in note or "leap" in note for note in source.info.notes)


def test_a_trimmed_file_that_is_cut_off_is_still_told(tmp_path: Path) -> None:
    options: dict[str, Any] = {"use_editlist": "1", "movflags": "faststart"}
    path = make_clip(tmp_path / "a.mp4", frames=100, options={"bf": "0", "g": "25"}, container_options=options)
    trim(path, (75, 25))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with open_source(path) as source:
        list(source)
    assert source.damaged > 5
    assert any("ends early" in note for note in source.info.notes)


def test_video_that_starts_after_audio_does_not_end_early(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", frames=50, pts=[75 + i for i in range(50)], audio=True)
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
    assert seconds[0] == 3
    assert source.info.notes == ()


CODECS: dict[str, dict[str, Any]] = {
    "h264": {"options": {"g": "10", "bf": "2"}},
    "mpeg2video": {"codec": "mpeg2video", "options": {"g": "10"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CODECS, 2)))
def test_a_joined_ts_whose_codec_changes_is_read_whole(tmp_path: Path, first: str, second: str) -> None:
    """Up to a group of pictures is lost at the seam: its first packet belongs to none of the parts."""
    parts = [make_clip(tmp_path / f"{name}.ts", frames=40, **CODECS[name]) for name in (first, second)]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(tmp_path / "a.ts") as source:
        frames = list(source)
    assert 65 <= len(frames) <= 80
    times = [frame.seconds for frame in frames]
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx(79 / 25, abs=0.5)
    (note,) = [note for note in source.info.notes if "codec" in note]
    number = int(note.split("frame ")[1].split(",")[0])
    assert 38 <= number <= 40
    assert note.endswith(f"to {second}")


@pytest.mark.parametrize(
    "ids", [{"mpegts_start_pid": "512"}, {"mpegts_service_id": "7", "mpegts_pmt_start_pid": "4352"}]
)
def test_a_joined_part_with_other_streams_is_noted(ids: dict[str, str], tmp_path: Path) -> None:
    """libav gives none of its packets: half of the frames were lost without a word."""
    first, second = tmp_path / "1.ts", tmp_path / "2.ts"
    make_clip(first, frames=40)
    make_clip(second, frames=40, container_options=ids | {"mpegts_start_pid": "512"})
    (tmp_path / "a.ts").write_bytes(first.read_bytes() + second.read_bytes())
    with open_source(tmp_path / "a.ts") as source:
        assert len(list(source)) == 40
        assert any("% of the file are left out" in note for note in source.info.notes)


@pytest.mark.parametrize("name", CODECS)
def test_a_ts_of_one_codec_has_no_note_of_another(tmp_path: Path, name: str) -> None:
    with open_source(make_clip(tmp_path / "a.ts", frames=20, **CODECS[name])) as source:
        assert len(list(source)) == 20
        assert source.info.notes == ()


def test_joined_mkv_with_b_frames_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Matroska has no times of decoding: those that libav guesses go back and forth after the seam."""
    part = make_clip(tmp_path / "part.mkv", frames=60, options={"bf": "3"}).read_bytes()
    (tmp_path / "a.mkv").write_bytes(part * 2)
    with open_source(tmp_path / "a.mkv") as source:
        times = [frame.seconds for frame in source]
    assert times == pytest.approx([index / 25 for index in range(120)], abs=0.002)
    (note,) = source.info.notes
    assert note.startswith("the clock of the file goes back by")


def test_a_frame_that_lasts_an_hour_is_no_jump(tmp_path: Path) -> None:
    times = [0, 40, 80, 3_600_000, 3_600_040]
    make_clip(tmp_path / "a.mp4", frames=5, pts=times, time_base=Fraction(1, 1000), options={"bf": "0"})
    with open_source(tmp_path / "a.mp4") as source:
        assert [round(frame.seconds * 1000) for frame in source] == times
        assert not [note for note in source.info.notes if "moved" in note]


def test_settings_that_are_cut_off_state_no_reordering(tmp_path: Path) -> None:
    with av.open(str(make_clip(tmp_path / "a.avi", frames=5, options={"bf": "3"}))) as container:
        context = container.streams.video[0].codec_context
        data = context.extradata
        assert h264_reordering(context) == 2
    for end in range(len(data)):
        found = h264_reordering(SimpleNamespace(name="h264", extradata=data[:end]))
        assert found in (0, 2)
    settings, picture = (unit.lstrip(b"\0") for unit in data.split(b"\0\0\1")[1:])
    sized = len(settings).to_bytes(2, "big") + settings
    for count in (b"\xe1", b"\x01", b"\xe2"):  # MP4: one set; the reserved bits cleared; two sets
        mp4 = b"\1" + settings[1:4] + b"\xff" + count + sized + (sized if count == b"\xe2" else b"")
        mp4 += b"\1" + len(picture).to_bytes(2, "big") + picture
        assert h264_reordering(SimpleNamespace(name="h264", extradata=mp4)) == 2
        for end in range(len(mp4)):
            assert h264_reordering(SimpleNamespace(name="h264", extradata=mp4[:end])) in (0, 2)
    assert h264_reordering(SimpleNamespace(name="h264", extradata=None)) == 0
    assert h264_reordering(SimpleNamespace(name="mpeg4", extradata=data)) == 0


@pytest.mark.parametrize("seconds", [2, 30])
@pytest.mark.parametrize("b_frames", ["0", "1", "3"])
def test_a_slow_mkv_with_b_frames_keeps_its_times(tmp_path: Path, seconds: int, b_frames: str) -> None:
    times, options = [index * seconds for index in range(9)], {"bf": b_frames, "x264-params": "b-pyramid=2:b-adapt=0"}
    clip = make_clip(tmp_path / "slow.mkv", frames=9, pts=times, time_base=Fraction(1), options=options)
    with open_source(str(clip)) as source:
        assert [frame.seconds for frame in source] == times
        assert not [note for note in source.info.notes if "goes back" in note]
