"""Which stream is shown, what is refused as encrypted, and standard input."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from media import make_clip, moving, video_frame

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.cli import main
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.sources import open_source

Size = tuple[int, int]


def several(path: Path, sizes: Sequence[Size], default: int | None = None, frames: int = 5) -> Path:
    """A file with a video stream of each size (width, height)."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for index, (width, height) in enumerate(sizes):
            stream: Any = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default if index == default else Disposition(0)
            streams.append(stream)
        for index in range(frames):
            for stream in streams:
                frame = video_frame(moving(index, stream.height, stream.width))
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("file", "sizes", "default", "shown"),
    [
        ("a.mkv", [(32, 32), (96, 64)], None, 1),
        ("a.ts", [(32, 32), (96, 64), (64, 64)], None, 1),
        ("a.mkv", [(96, 64), (32, 32)], 1, 1),  # what its author marked
        ("a.mkv", [(32, 32), (96, 64)], 1, 1),
        ("a.mp4", [(96, 64), (32, 32)], None, 0),
        ("a.mkv", [(96, 64), (96, 64)], None, 0),
    ],
)
def test_the_default_or_the_largest_stream_is_shown_and_told(
    tmp_path: Path, file: str, sizes: list[Size], default: int | None, shown: int
) -> None:
    with open_source(several(tmp_path / file, sizes, default)) as source:
        frames = list(source)
    assert {(frame.width, frame.height) for frame in frames} == {sizes[shown]}
    assert len(frames) == 5
    (note,) = source.info.notes
    assert f"stream {shown} is shown" in note
    assert all(f"{width}x{height}" in note for width, height in sizes)


def test_another_stream_can_be_asked_for(tmp_path: Path) -> None:
    path = several(tmp_path / "a.mkv", [(32, 32), (96, 64)])
    with open_source(path, stream=0) as source:
        assert len(list(source)) == 5
    assert source.info.width == 32
    with pytest.raises(UsageError, match=r"no video stream 2: there are 0 \(32x32 h264.*, 1 \(96x64 h264.*--stream"):
        open_source(path, stream=2)
    with pytest.raises(UsageError, match="no streams to choose from"):
        open_source("demo:", stream=0)


def test_the_command_takes_the_stream(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = several(tmp_path / "a.mkv", [(32, 32), (96, 64)])
    words = [path, "-o", str(tmp_path / "o.mkv"), "--steps", "0", "--stream"]
    done = command(main.app, "cliprl-stream", *words, "0")
    assert done.returncode == 0, done.stderr
    with open_source(str(tmp_path / "o.mkv")) as written:
        assert (written.info.width, written.info.height) == (32, 32)
    refused = command(main.app, "cliprl-stream", *words, "2")
    assert refused.returncode == 2
    assert "no video stream 2" in refused.stderr


def test_single_stream_needs_no_note_and_audio_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", audio=True)
    with open_source(path, stream=0) as source:
        assert source.info.notes == ()
    with pytest.raises(UsageError, match="no video stream 1: there is 0"):
        open_source(path, stream=1)


def test_a_cover_picture_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 640, 480, "yuvj420p", Disposition.attached_pic
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        image = video_frame(moving(0, 480, 640), "yuvj420p")
        image.pts = 0
        container.mux(cover.encode(image))
        container.mux(cover.encode())
        for index in range(5):
            frame = video_frame(moving(index, 64, 96))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(path) as source:
        assert [frame.width for frame in source] == [96] * 5
        assert not any("streams" in note for note in source.info.notes)


def test_a_cover_picture_alone_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 48, "yuvj420p", Disposition.attached_pic
        image = video_frame(moving(0, 48, 64), "yuvj420p")
        image.pts = 0
        container.mux(cover.encode(image))
        container.mux(cover.encode())
    with pytest.raises(CliprlError, match=r"no video stream \(it has a cover image\)"):
        open_source(path)


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    """A master playlist of three variants with sound, the best in the middle."""
    lines = ["#EXTM3U"]
    for name, size, rate in (("low", (32, 32), 100), ("high", (96, 64), 900), ("mid", (96, 64), 400)):
        clip = make_clip(tmp_path / f"{name}.ts", size=size, frames=25, audio=True)
        parts = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1.0,", clip.name, "#EXT-X-ENDLIST"]
        (tmp_path / f"{name}.m3u8").write_text("\n".join(parts))
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={rate}000,RESOLUTION={size[0]}x{size[1]}", f"{name}.m3u8"]
    (tmp_path / "master.m3u8").write_text("\n".join(lines))
    return tmp_path / "master.m3u8"


def test_best_hls_variant_is_shown_with_its_audio(variants: Path) -> None:
    with open_source(variants) as source:
        assert len(list(source)) == 25
        info = source.info
    assert info.width == 96
    assert "900 kbit/s" in info.notes[0].split("is shown")[0]
    assert info.passthrough is not None
    assert len(info.passthrough.tracks) == 1


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize("gone", ["high", "low"])
def test_an_unreadable_variant_of_hls_is_named(variants: Path, over_http: bool, gone: str) -> None:
    (variants.parent / f"{gone}.m3u8").unlink()
    if over_http:
        handler = partial(SimpleHTTPRequestHandler, directory=str(variants.parent))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                info = open_and_close(f"http://127.0.0.1:{server.server_port}/master.m3u8")
            finally:
                server.shutdown()
    else:
        info = open_and_close(variants)
    (note,) = [note for note in info.notes if "left out" in note]
    facts = {"high": "96x64 900 kbit/s", "low": "32x32 100 kbit/s"}[gone]
    assert f"the variant {gone}.m3u8 ({facts}) of the playlist can't be read" in note


def open_and_close(name: Path | str) -> StreamInfo:
    with open_source(name) as source:
        return source.info


def test_variants_that_share_a_playlist_are_not_taken_for_missing(variants: Path) -> None:
    text = variants.read_text().replace("mid.m3u8", "high.m3u8")
    variants.write_text(text)
    assert not [note for note in open_and_close(variants).notes if "left out" in note]


def test_a_master_playlist_that_lists_itself_is_refused(variants: Path) -> None:
    """libav would read it again and again."""
    (variants.parent / "mid.m3u8").write_text(variants.read_text())
    with pytest.raises(CliprlError, match=r"variant mid.m3u8 \(96x64 400 kbit/s\) is no list of segments"):
        open_source(variants)


@pytest.mark.parametrize("address", ["http://user:secret@127.0.0.1/live.m3u8", "http://127.0.0.1:9/a b.m3u8"])
def test_playlist_address_that_python_refuses_is_one_line(address: str) -> None:
    """Python's HTTP takes no password and no blank in an address; libav does."""
    with pytest.raises(CliprlError, match=r"^http://(\*\*\*@)?127.0.0.1") as caught:
        open_source(address)
    assert "secret" not in str(caught.value)


def test_a_master_playlist_that_is_refused_lists_its_variants(variants: Path) -> None:
    (variants.parent / "high.ts").write_bytes(b"no video" * 1000)
    with pytest.raises(CliprlError, match=r"name one of the variants .*low.m3u8 \(32x32 100 kbit/s\)"):
        open_source(variants)


def write_playlist(path: Path, frames: int, settings: dict[str, str], group: int) -> None:
    with av.open(str(path), "w", format="hls", options=settings) as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"g": str(group), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            frame = video_frame(moving(index, 64, 96))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(("lengths", "noted"), [(["2"] * 3, False), (["2.0"] * 3, True), (["2", "2", "9"], True)])
def test_segment_lengths_in_whole_seconds_are_taken_as_rounded(tmp_path: Path, lengths: list[str], noted: bool) -> None:
    """Each segment lasts 1.6 s, which a playlist of version 1 or 2 states as 2."""
    settings = {"hls_time": "1.6", "hls_list_size": "0"}
    write_playlist(tmp_path / "a.m3u8", 120, settings, 40)
    parts = [f"#EXTINF:{length},\na{number}.ts" for number, length in enumerate(lengths)]
    (tmp_path / "a.m3u8").write_text("\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:9", *parts, "#EXT-X-ENDLIST"]))
    with open_source(tmp_path / "a.m3u8") as source:
        assert len(list(source)) == 120
        assert any("frames end after" in note for note in source.info.notes) == noted


def scramble(path: Path) -> Path:
    """What a receiver without its card records: everything but the tables is noise, and marked as scrambled."""
    data, noise = bytearray(path.read_bytes()), random.Random(1)
    for at in range(0, len(data), 188):
        if (data[at + 1] & 31) << 8 | data[at + 2] >= 0x100 and data[at + 2] != 255:
            data[at + 3] |= 0x80
            head = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
            data[head : at + 188] = noise.randbytes(at + 188 - head)
    path.write_bytes(data)
    return path


def encrypt_matroska(path: Path) -> Path:
    """Turn the title of the track into a statement of its encryption, and its pictures into noise."""
    data = bytearray(path.read_bytes())
    algorithm = b"\x47\xe1\x81\x05"
    encryption = b"\x50\x35" + bytes([0x80 | len(algorithm)]) + algorithm
    inner = b"\x50\x31\x81\x00\x50\x32\x81\x01\x50\x33\x81\x01" + encryption
    encoding = b"\x62\x40" + bytes([0x80 | len(inner)]) + inner
    encodings = b"\x6d\x80" + bytes([0x80 | len(encoding)]) + encoding
    at = data.find(b"\x53\x6e\xb2" + b"x" * 50)
    assert at > 0
    rest = 53 - len(encodings) - 2
    data[at : at + 53] = encodings + b"\xec" + bytes([0x80 | rest]) + bytes(rest)
    first = data.find(b"\x1f\x43\xb6\x75") + 40
    data[first:] = random.Random(2).randbytes(len(data) - first)
    path.write_bytes(data)
    return path


def titled(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.metadata["title"] = "x" * 50
        for index in range(5):
            frame = video_frame(moving(index, 64, 96))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def encrypt_mp4(path: Path) -> Path:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    return make_clip(path, frames=25, container_options=options)


@pytest.mark.parametrize(
    ("file", "make", "kind"),
    [
        ("a.mp4", encrypt_mp4, "Common Encryption"),
        ("a.mkv", lambda path: encrypt_matroska(titled(path)), "Matroska"),
        ("a.ts", lambda path: scramble(make_clip(path, frames=50)), "scrambled MPEG-TS"),
    ],
)
def test_encrypted_files_are_refused_by_that_word(tmp_path: Path, file: str, make: Any, kind: str) -> None:
    with pytest.raises(CliprlError) as caught:
        open_source(make(tmp_path / file))
    assert f"is encrypted ({kind})" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("AES-128", 'URI="gone.key"'),
        ("SAMPLE-AES", 'URI="skd://asset",KEYFORMAT="com.apple.streamingkeydelivery",KEYFORMATVERSIONS="1"'),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_encrypted_hls_is_refused_by_that_word(tmp_path: Path, method: str, key: str, nested: bool) -> None:
    clip = make_clip(tmp_path / "a.ts", frames=25)
    clip.write_bytes(random.Random(3).randbytes(clip.stat().st_size // 16 * 16))
    lines = [
        "#EXTM3U",
        "#EXT-X-TARGETDURATION:1",
        f"#EXT-X-KEY:METHOD={method},{key}",
        "#EXTINF:1.0,",
        "a.ts",
        "#EXT-X-ENDLIST",
    ]
    (tmp_path / "a.m3u8").write_text("\n".join(lines))
    (tmp_path / "master.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\na.m3u8\n")
    with pytest.raises(CliprlError, match=rf"is encrypted \(HLS, {method}\)"):
        open_source(tmp_path / ("master.m3u8" if nested else "a.m3u8"))


def test_a_damaged_file_is_not_called_encrypted(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.ts", frames=25)
    path.write_bytes(random.Random(4).randbytes(path.stat().st_size))
    with pytest.raises(CliprlError) as caught:
        open_source(path)
    assert "encrypted" not in str(caught.value)


CHILD = """
from cliprl.engines import CliprlError
from cliprl.pipeline.sources import open_source
try:
    with open_source("-") as source:
        print(len(list(source)), source.info.name)
except CliprlError as error:
    print(error.exit_status, error)
"""


def read_stdin(**settings: Any) -> str:
    child = subprocess.run([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=False, timeout=120, **settings)
    assert child.returncode == 0
    return child.stdout.decode()


def test_a_dash_is_standard_input(tmp_path: Path) -> None:
    fast = {"movflags": "faststart"}
    for path in (make_clip(tmp_path / "a.ts"), make_clip(tmp_path / "a.mp4", container_options=fast)):
        assert read_stdin(input=path.read_bytes()) == "12 standard input\n"
    with make_clip(tmp_path / "late_index.mp4").open("rb") as file:  # redirected, it can be sought in
        assert read_stdin(stdin=file) == "12 standard input\n"


def test_an_index_at_the_end_of_a_pipe_is_told(tmp_path: Path) -> None:
    path, pipe = make_clip(tmp_path / "a.mp4", frames=60, size=(480, 320), options={"crf": "1"}), tmp_path / "pipe"
    assert path.stat().st_size > 1 << 16, "longer than what libav keeps"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=_feed, args=(path, pipe))
    feeder.start()
    with pytest.raises(CliprlError, match=r"index lies behind its frames.*\+faststart"):
        open_source(pipe)
    feeder.join()


def _feed(path: Path, pipe: Path) -> None:
    with suppress(BrokenPipeError):
        pipe.write_bytes(path.read_bytes())


def test_standard_input_without_a_video_is_told() -> None:
    assert read_stdin(input=b"").startswith("1 standard input")
    assert read_stdin(input=b"no video" * 100).startswith("1 standard input is not a video")
    leader, terminal = os.openpty()
    try:
        assert "is a terminal" in read_stdin(stdin=terminal)
    finally:
        os.close(leader)
        os.close(terminal)


@pytest.mark.parametrize(("name", "words"), [("", "empty name"), (".", "is a folder"), ("/", "is a folder")])
def test_a_folder_or_nothing_is_no_input(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_source(name)


@pytest.mark.parametrize(
    ("gone", "words"),
    [((), None), ((0,), "end after"), ((1,), "times leap"), ((0, 1), "end after"), ((2, 3), "end after")],
)
def test_missing_segments_of_a_playlist_are_noted(tmp_path: Path, gone: tuple[int, ...], words: str | None) -> None:
    settings = {"hls_time": "1", "hls_list_size": "0", "hls_playlist_type": "vod"}
    write_playlist(tmp_path / "a.m3u8", 100, settings, 25)
    for number in gone:
        (tmp_path / f"a{number}.ts").unlink()
    with open_source(tmp_path / "a.m3u8") as source:
        assert len(list(source)) == 100 - 25 * len(gone)
        notes = " ".join(source.info.notes)
    assert (words in notes) if words else not notes


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (302, "check the address, and where its server leads to"),  # to itself, without an end
        (401, "check user and password"),
        (404, "check the address"),
        (410, "is refused by its server: check the address"),
        (429, "try again later"),
        (500, "try again later"),
        (503, "try again later"),
    ],
)
def test_web_answers_without_video_have_a_remedy(status: int, words: str) -> None:
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(CliprlError, match=words):
                open_source(f"http://127.0.0.1:{server.server_address[1]}/a.mp4")
        finally:
            server.shutdown()


def test_what_is_no_file_has_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "socket.mp4"
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))
        with pytest.raises(CliprlError, match=r"can't be read \(.*\): check what it is, or copy it again"):
            open_source(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0", "is a DICOM file: export its video"),
        (b"PK\3\4\x14\0", "is a ZIP archive: unpack it"),
        (b"\x1f\x8b\x08\0", "is a gzip archive: unpack it"),
    ],
)
def test_a_file_that_wraps_a_video_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.mp4").write_bytes(data + bytes(500))
    with pytest.raises(CliprlError, match=words):
        open_source(tmp_path / "a.mp4")


def test_a_playlist_without_end_is_read_whole(tmp_path: Path) -> None:
    write_playlist(tmp_path / "a.m3u8", 125, {"hls_time": "1", "hls_list_size": "0", "hls_flags": "omit_endlist"}, 25)
    with open_source(tmp_path / "a.m3u8") as source:
        assert len(list(source)) == 125
        assert "the playlist has no end mark" in " ".join(source.info.notes)
