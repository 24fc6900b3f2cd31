"""What goes from input to output beside the picture: sound of any input, read once; tags; chapters."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from media import make_clip
from sound_media import FRAMES, heard_seconds, make_media, payload, streams_of

from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.passthrough import Passthrough, clean_tags, copy_packet
from cliprl.pipeline.live.factory import _displayed
from cliprl.pipeline.sinks import NetworkSink, VideoSink
from cliprl.pipeline.sinks.video.muxer_trial import Plan, plan_streams
from cliprl.pipeline.sources import open_source

TAGS = {"title": "Sigmoid resection", "comment": "OR 3", "creation_time": "2024-03-01T08:30:00.000000Z"}
CHAPTERS = ((0, 200, "Trocar"), (200, 480, "Dissection"))


def copy(source: Path | str, *targets: Path) -> list[str]:
    """Write the frames of an input, as they are, with what goes beside them; the notes of input and outputs."""
    with open_source(str(source)) as frames:
        sinks = [VideoSink(target, OutputSpec(frames.info, ())) for target in targets]
        for frame in frames:
            for sink in sinks:
                sink.write(frame, None)
        for sink in sinks:
            sink.close()
        return [*frames.info.notes, *(note for sink in sinks for note in sink.notes)]


def frames_of(path: Path) -> int:
    return sum(count for _, count in streams_of(path, "video"))


def chapters_of(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        found: list[Any] = container.chapters()
        return [(c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"]) for c in found]


@pytest.mark.parametrize("length", [20, 400], ids=["fits into the pipe", "does not"])
def test_a_named_pipe_is_read_once_with_its_sound(tmp_path: Path, length: int) -> None:
    source = make_media(tmp_path / "in.ts", audio=("aac",), frames=length)
    assert (source.stat().st_size > 65536) == (length == 400)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
    feeder.start()
    assert copy(pipe, tmp_path / "out.mp4") == []
    feeder.join()
    assert frames_of(tmp_path / "out.mp4") == length
    assert payload(tmp_path / "out.mp4") == payload(source)


FROM_STDIN = """
    import pathlib, sys
    from cliprl.pipeline.core.interfaces import OutputSpec
    from cliprl.pipeline.sinks import VideoSink
    from cliprl.pipeline.sources import open_source
    with open_source("-") as frames, VideoSink(pathlib.Path(sys.argv[1]), OutputSpec(frames.info, ())) as sink:
        for frame in frames:
            sink.write(frame, None)
"""


def test_standard_input_is_read_once_with_its_sound(tmp_path: Path) -> None:
    source, target = make_media(tmp_path / "in.ts", audio=("aac",), frames=75), tmp_path / "out.mp4"
    child = [sys.executable, "-c", textwrap.dedent(FROM_STDIN), str(target)]
    subprocess.run(child, input=source.read_bytes(), check=True, timeout=120)
    assert frames_of(target) == 75
    assert payload(target) == payload(source)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_a_download_has_its_sound(tmp_path: Path, server: str, name: str) -> None:
    source = make_media(tmp_path / name, audio=("aac",))
    assert copy(f"{server}/{name}", tmp_path / "out.mp4") == []
    assert frames_of(tmp_path / "out.mp4") == FRAMES
    assert payload(tmp_path / "out.mp4") == payload(source)


@pytest.mark.parametrize("name", ["in.mp4", "in.avi", "in.mkv", "in.ts", "in.wmv"])
def test_tags_that_are_not_utf_8_stop_nothing(tmp_path: Path, name: str) -> None:
    source = make_media(tmp_path / name, audio=("mp2",), tags={"title": "A" * 16, "service_name": "A" * 16})
    data = source.read_bytes()
    places = [b"A" * 16, ("A" * 16).encode("utf-16-le")]
    assert any(place in data for place in places)
    source.write_bytes(data.replace(places[0], "Opération à côté".encode("latin-1")).replace(places[1], b"\0\xd8" * 16))
    for suffix in ("mp4", "mkv"):
        copy(source, tmp_path / f"out.{suffix}")
        assert frames_of(tmp_path / f"out.{suffix}") == FRAMES
        assert payload(tmp_path / f"out.{suffix}") == payload(source)
        if name in ("in.mp4", "in.avi", "in.mkv"):
            with av.open(str(tmp_path / f"out.{suffix}")) as container:
                assert container.metadata["title"] == "Opération à côté"


def test_bytes_that_are_no_text_become_readable_tags() -> None:
    broken = b"\x81\xe9".decode("utf-8", "surrogateescape")
    (key, value), *rest = clean_tags({f"k{broken}": broken, "major_brand": "isom"}).items()
    assert rest == []
    assert key.encode()
    assert value == "\ufffdé"


@pytest.mark.parametrize("given", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_title_date_comment_and_chapters_are_carried_over(tmp_path: Path, given: str, suffix: str) -> None:
    source = make_media(tmp_path / given, audio=("aac",), tags=TAGS, chapters=CHAPTERS)
    target = tmp_path / f"out.{suffix}"
    assert copy(source, target) == []
    with av.open(str(target)) as container:
        assert {key.lower(): value for key, value in container.metadata.items()}.items() >= TAGS.items()
    assert chapters_of(target) == chapters_of(source)
    assert frames_of(target) == FRAMES
    assert payload(target) == payload(source)


def test_tag_that_the_output_can_not_hold_is_named(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", tags={**TAGS, "SURGEON_NOTE": "x"})
    (note,) = copy(source, tmp_path / "out.mp4")
    assert "SURGEON_NOTE" in note
    assert "title" not in note
    assert copy(source, tmp_path / "out.mkv") == []


@pytest.mark.parametrize(("rate", "kept"), [(25, True), (300, False)])
def test_an_impossible_timecode_costs_no_other_tag(tmp_path: Path, rate: int, kept: bool) -> None:
    clip = make_clip(tmp_path / "clip.mkv", rate=rate)
    with av.open(str(clip)) as given, av.open(str(tmp_path / "in.mkv"), "w") as tagged:
        tagged.metadata.update({**TAGS, "timecode": "01:00:00:00"})
        stream = tagged.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                tagged.mux(packet)
    notes = copy(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert [note for note in notes if "timecode" in note] == (
        [] if kept else ["the timecode can't be kept in mp4: left out"]
    )
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == TAGS["title"]
        assert any("timecode" in stream.metadata for stream in container.streams) == kept
        assert container.streams.video[0].frames == 12


def test_a_rate_without_a_round_number_costs_no_tag() -> None:
    assert plan_streams("mp4", Plan({}, tags=TAGS, rate=Fraction(128_000, 429_501_747))).tags == TAGS


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_default_of_two_sound_tracks_stays_it(tmp_path: Path, suffix: str) -> None:
    source = make_media(tmp_path / "one.mkv", audio=("aac", "aac"))
    with av.open(str(source)) as given, av.open(str(tmp_path / "in.mkv"), "w") as marked:
        targets = [marked.add_stream_from_template(stream) for stream in given.streams]
        targets[1].disposition, targets[2].disposition = Disposition(0), Disposition.default
        for packet in given.demux():
            if packet.size:
                packet.stream = targets[packet.stream_index]
                marked.mux(packet)
    copy(tmp_path / "in.mkv", tmp_path / f"out.{suffix}")
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert [bool(s.disposition & Disposition.default) for s in container.streams.audio] == [False, True]


def test_chapters_move_with_a_picture_that_begins_before_zero(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", chapters=CHAPTERS)
    with open_source(str(source)) as frames, VideoSink(tmp_path / "out.mkv", OutputSpec(frames.info, ())) as sink:
        for frame in frames:
            frame.pts -= 200
            sink.write(frame, None)
    assert [start for start, _, _ in chapters_of(tmp_path / "out.mkv")] == [Fraction(1, 5), Fraction(2, 5)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_subtitles_data_and_attachments_are_named_as_left_out(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in.mkv"
    clip = make_media(tmp_path / "clip.mp4", audio=("aac",))
    with av.open(str(clip)) as given, av.open(str(source), "w") as output:
        targets = {s.index: output.add_stream_from_template(s) for s in given.streams}
        titles: Any = output.add_mux_stream("subrip")
        output.add_attachment("notes.txt", "text/plain", b"words")
        for packet in given.demux():
            if packet.size:
                packet.stream = targets[packet.stream_index]
                output.mux(packet)
        line = av.Packet(b"cut")
        line.pts = line.dts = 100
        line.duration, line.time_base, line.stream = 100, Fraction(1, 1000), titles
        output.mux(line)
    (note,) = copy(source, tmp_path / f"out.{suffix}")
    assert "1 subtitle track" in note
    assert "1 attachment" in note
    assert payload(tmp_path / f"out.{suffix}") == payload(clip)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("ending", ["interrupted", "failed"])
@pytest.mark.parametrize("frames", [5, 30])
def test_chapters_end_with_the_frames_of_a_cut_run(tmp_path: Path, suffix: str, ending: str, frames: int) -> None:
    """The header, with the chapters, is written after a second of frames, or at the end of a shorter run."""
    chapters = ((0, 100, "a"), (100, 1500, "b"), (1500, 3_600_000, "c"))
    source = make_media(tmp_path / "in.mkv", audio=("aac",), frames=50, chapters=chapters)
    target = tmp_path / f"out.{suffix}"
    with (
        suppress(RuntimeError, KeyboardInterrupt),
        open_source(str(source)) as read,
        VideoSink(target, OutputSpec(read.info, ())) as sink,
    ):
        for frame in read:
            sink.write(frame, None)
            if frame.index == frames - 1:
                raise KeyboardInterrupt if ending == "interrupted" else RuntimeError
    found = target if ending == "interrupted" else next(tmp_path.glob(".out*"))
    end = Fraction(frames, 25)
    assert chapters_of(found) == [(0, Fraction(1, 10), "a"), (Fraction(1, 10), end, "b")]
    assert frames_of(found) == frames
    with av.open(str(found)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
        assert container.duration is not None
        assert abs(container.duration / av.time_base - end) < 0.1


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_chapters_of_a_whole_run_stay_a_track(tmp_path: Path, suffix: str) -> None:
    source = make_media(tmp_path / "in.mkv", frames=30, chapters=((0, 100, "a"), (100, 1500, "b")))
    assert copy(source, tmp_path / f"out.{suffix}") == []
    assert [title for _, _, title in chapters_of(tmp_path / f"out.{suffix}")] == ["a", "b"]
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert ("data" in {stream.type for stream in container.streams}) == (suffix != "mkv")


def test_chapters_of_an_mp4_are_not_a_lost_track(tmp_path: Path) -> None:
    assert copy(make_media(tmp_path / "in.mp4", chapters=CHAPTERS), tmp_path / "out.mkv") == []


def test_two_outputs_get_the_same_sound(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.ts", audio=("aac", "ac3"))
    targets = [tmp_path / "out.mp4", tmp_path / "out.mkv", tmp_path / "out.mov"]
    copy(source, *targets)
    for target in targets:
        assert frames_of(target) == FRAMES
        assert heard_seconds(target) == pytest.approx(heard_seconds(source), abs=0.03)


@pytest.mark.parametrize("codec", ["ac3", "eac3", "aac"])
@pytest.mark.parametrize(("start", "frames"), [(0.6, 60), (1.5, 60), (4.0, 150)])
@pytest.mark.parametrize("name", ["in.mkv", "in.ts", "in.mp4"])
def test_sound_that_begins_late_is_kept_or_named(
    tmp_path: Path, codec: str, start: float, frames: int, name: str
) -> None:
    source = make_media(tmp_path / name, audio=(codec,), frames=frames, audio_start=start)
    notes = copy(source, tmp_path / "out.mp4")
    assert frames_of(tmp_path / "out.mp4") == frames
    kept = payload(tmp_path / "out.mp4") == payload(source)
    assert kept or any("audio" in note for note in notes)
    assert kept or start > 1


@pytest.mark.parametrize("name", ["in.ts", "in.mkv", "in.avi", "in.mp4", "in.flv"])
def test_damaged_sound_costs_no_picture(tmp_path: Path, name: str) -> None:
    source = make_media(tmp_path / name, audio=("aac" if name == "in.flv" else "ac3",), frames=50)
    with av.open(str(source)) as container:
        sound = [bytes(p) for p in container.demux(audio=0) if p.size]
    data = source.read_bytes()
    for number, packet in enumerate(sound):
        if number % 3:
            data = data.replace(packet[:40], bytes([number % 251]) * len(packet[:40]))
    source.write_bytes(data)
    for suffix in ("mp4", "mkv"):
        copy(source, tmp_path / f"out.{suffix}")
        assert frames_of(tmp_path / f"out.{suffix}") == 50


def test_packets_that_the_container_refuses_are_left_out_and_counted(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", audio=("aac",), frames=50)
    with open_source(str(source)) as frames, VideoSink(tmp_path / "out.mp4", OutputSpec(frames.info, ())) as sink:
        passthrough = frames.info.passthrough
        assert passthrough is not None
        for frame in frames:
            if frame.index == 25:
                _hand_over_again(passthrough, source)
            sink.write(frame, None)
    (note,) = [note for note in sink.notes if "audio" in note]
    assert note.startswith("5 audio packets could not be copied")
    assert frames_of(tmp_path / "out.mp4") == 50
    assert heard_seconds(tmp_path / "out.mp4") == pytest.approx(heard_seconds(source), abs=0.03)


def _hand_over_again(passthrough: Passthrough, source: Path) -> None:
    """The first five audio packets once more, whose time is over."""
    with av.open(str(source)) as container:
        for packet, _ in zip(container.demux(audio=0), range(5), strict=False):
            passthrough.add(copy_packet(packet))


def test_file_shown_live_keeps_tags_and_names_omitted_tracks(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", audio=("aac",), tags=TAGS, chapters=CHAPTERS)
    with (
        open_source(str(source)) as frames,
        VideoSink(tmp_path / "out.mkv", OutputSpec(_displayed(frames.info), ())) as sink,
    ):
        for frame in frames:
            sink.write(frame, None)
    (note,) = sink.notes
    assert "the audio and the chapters can't be carried over" in note
    assert payload(tmp_path / "out.mkv") == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["title"] == TAGS["title"]


def test_an_output_that_is_opened_late_has_no_stale_sound(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", audio=("aac",), frames=50)
    with open_source(str(source)) as frames:
        first = frames.read()
        assert first is not None
        passthrough = frames.info.passthrough
        assert passthrough is not None
        assert not passthrough.subscribe().packets


def test_a_network_output_says_that_it_has_no_sound(tmp_path: Path) -> None:
    with open_source(str(make_media(tmp_path / "in.ts", audio=("aac",)))) as frames:
        (note,) = NetworkSink(str(tmp_path / "live.m3u8"), OutputSpec(frames.info, ())).notes
    assert "the audio is left out" in note


KILLED = """
    import os, signal, sys
    from cliprl.pipeline.core.interfaces import OutputSpec
    from cliprl.pipeline.sinks import VideoSink
    from cliprl.pipeline.sources import open_source
    source = open_source(sys.argv[1])
    sink = VideoSink(__import__("pathlib").Path(sys.argv[2]), OutputSpec(source.info, ()))
    for frame in source:
        sink.write(frame, None)
        if frame.index == 140:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("codec", "suffix"), [("aac", "mp4"), ("ac3", "mkv")])
def test_a_killed_run_with_sound_and_chapters_plays(tmp_path: Path, codec: str, suffix: str) -> None:
    source = make_media(tmp_path / "in.ts", audio=(codec,), frames=150, chapters=CHAPTERS)
    target = tmp_path / f"out.{suffix}"
    subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(source), str(target)], check=False)
    partial_file = next(tmp_path.glob(".out*"))
    assert frames_of(partial_file) >= 50
    assert heard_seconds(partial_file)[0] > 2


def test_the_decoder_gets_the_same_packets_with_sound_as_without(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=75, audio=True, options={"bf": "2"})
    with open_source(str(source)) as frames:
        assert [frame.index for frame in frames] == list(range(75))
        assert frames.damaged == 0
