"""Pictures, the demo, cameras and network streams as sources."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import assert_same, bar_error, bars, decode_all, make_clip, moving
from PIL import Image

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import allocate_planes
from cliprl.pipeline.sources import SourceOptions, open_source, v4l2
from cliprl.pipeline.sources.demo import DemoOptions
from cliprl.pipeline.sources.errors import explain, redact
from cliprl.pipeline.sources.v4l2 import open_camera
from cliprl.pipeline.sources.v4l2_devices import device_options, find_device, list_devices


def save(path: Path, rgb: np.ndarray) -> None:
    assert cv2.imwrite(str(path), rgb[..., ::-1])


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Pictures 1 to 12, each darker than the next."""
    for number in range(1, 13):
        save(tmp_path / f"f{number}.png", np.full((32, 48, 3), number * 20, np.uint8))
    return tmp_path


@pytest.mark.parametrize("pattern", ["f*.png", "f%d.png"])
def test_pictures_come_in_natural_order(numbered: Path, pattern: str) -> None:
    with open_source(numbered / pattern) as source:
        frames = list(source)
    lumas = [int(frame.luma[0, 0]) for frame in frames]
    assert len(frames) == 12
    assert lumas == sorted(lumas)
    assert [frame.pts for frame in frames] == list(range(12))
    assert (source.info.time_base, source.info.rate, source.info.frames) == (Fraction(1, 25), 25, 12)


def test_only_numbers_of_a_printf_pattern_vary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "case [3]").mkdir()
    for number in range(3):
        save(tmp_path / "case [3]" / f"{number:04d}.png", np.zeros((32, 48, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    for pattern in (tmp_path / "case [3]" / "%04d.png", "./case [3]/%04d.png", "case [3]//%d.png"):
        with open_source(pattern) as source:
            assert len(list(source)) == 3


def test_digits_that_are_no_numbers_are_letters_of_a_name(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "1²3.png", "٣.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    with open_source(tmp_path / "*.png") as source:
        assert [frame.file.name for frame in source if frame.file] == ["1²3.png", "2.png", "٣.png", "10.png"]


def test_pictures_take_a_rate_and_nothing_else_does(numbered: Path, tmp_path: Path) -> None:
    with open_source(numbered / "f%d.png", rate=2) as source:
        assert source.info.seconds == 6
    with pytest.raises(UsageError, match="rate"):
        open_source(make_clip(tmp_path / "a.mp4"), rate=2)
    with pytest.raises(UsageError, match="above 0"):
        open_source(numbered / "f%d.png", rate=0)


def test_a_padded_number_leaves_shorter_ones_out(numbered: Path) -> None:
    with open_source(numbered / "f%02d.png") as source:
        assert source.info.frames == 3


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "jpg", "webp"])
def test_each_kind_of_picture_has_right_colours(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"0.{suffix}", bars(0, 64, 128))
    with open_source(tmp_path / f"*.{suffix}") as source:
        frame = next(iter(source))
    assert bar_error(frame) <= (8 if suffix == "jpg" else 2)
    assert frame.color.matrix == ("bt601" if suffix == "jpg" else "bt709")


def test_unreadable_pictures_are_left_out_and_counted(numbered: Path) -> None:
    (numbered / "f3.png").write_text("no picture")
    (numbered / "f5.png").write_bytes(b"")
    (numbered / "f1.png").write_bytes((numbered / "f1.png").read_bytes()[:40])
    with open_source(numbered / "f*.png") as source:
        frames = list(source)
    assert [frame.pts for frame in frames] == [1, 3, *range(5, 12)]
    assert [frame.index for frame in frames] == list(range(9))
    assert source.damaged == 3
    assert any("f3.png" in note for note in source.info.notes)


def test_a_cut_jpeg_is_damaged(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / name, moving(0, 240, 320))
    data = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[: len(data) * 3 // 4])
    with open_source(tmp_path / "*.jpg") as source:
        assert [frame.damaged for frame in source] == [False, True]
    assert source.damaged == 1


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_of_a_tiff_that_are_not_read_are_noted(tmp_path: Path, pages: int) -> None:
    first, *others = [Image.fromarray(moving(index, 48, 64)) for index in range(pages)]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    with open_source(tmp_path / "a.tif") as source:
        assert len(list(source)) == 1
    assert [f"has {pages} pages" in note for note in source.info.notes] == [True] * (pages > 1)


def test_an_animated_webp_is_called_so_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Image.fromarray(moving(index, 48, 64)) for index in range(2))
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second])
    monkeypatch.chdir(tmp_path)
    for name in ("a.webp", "./a.webp", str(tmp_path / "a.webp")):
        with pytest.raises(CliprlError, match="is an animated WebP"):
            open_source(name)


@pytest.mark.parametrize("target", ["a.mp4", "missing.mp4"])
def test_a_link_that_leads_to_no_file_is_called_so(tmp_path: Path, target: str) -> None:
    (tmp_path / "a.mp4").symlink_to(target)
    with pytest.raises(UsageError, match="symbolic link that leads to no file"):
        open_source(tmp_path / "a.mp4")


def test_a_file_that_can_not_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"File name too long.*check its name"):
        open_source(tmp_path / f"{'x' * 300}.mp4")
    look = os.stat

    def refuse(path: Any, **options: Any) -> Any:
        if str(path).endswith("secret/a.mp4"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuse)  # for the superuser no folder is closed
    with pytest.raises(UsageError, match=r"Permission denied.*permissions of its folder"):
        open_source(tmp_path / "secret" / "a.mp4")


def test_a_folder_of_images_that_is_closed_is_named(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(numbered))
    with pytest.raises(UsageError, match="may not be read by this user"):
        open_source(str(numbered / "*.gif"))


def test_dv_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    with open_source(make_clip(tmp_path / "a.dv", codec="dvvideo", size=(720, 576), frames=3)) as source:
        assert source.info.rate == 25


def test_pictures_may_differ_in_size(tmp_path: Path) -> None:
    save(tmp_path / "1.png", moving(0, 32, 48))
    save(tmp_path / "2.jpg", moving(0, 33, 49))
    with open_source(tmp_path / "?.*") as source:
        assert [frame.luma.shape for frame in source] == [(32, 48), (33, 49)]
    assert any("size changes" in note for note in source.info.notes)


def test_patterns_and_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        open_source(tmp_path / "*.png")
    with pytest.raises(UsageError, match=r"/\*\.png"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(CliprlError, match="no file of"):
        open_source(tmp_path / "*.png")


def test_the_demo_is_the_same_each_time() -> None:
    name = "demo:?seconds=0.2&seed=3&size=160x120&rate=20"
    with open_source(name) as one, open_source(name) as two, open_source(name.replace("seed=3", "seed=4")) as other:
        first, second, third = (list(source) for source in (one, two, other))
    assert (one.info.frames, one.info.seconds, one.info.live) == (4, 0.2, False)
    assert [frame.seconds for frame in first] == pytest.approx([0, 0.05, 0.1, 0.15])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.luma, b.luma)
        np.testing.assert_array_equal(a.chroma, b.chroma)
    assert any((a.luma != b.luma).any() for a, b in zip(first, third, strict=True))


def test_the_demo_shows_the_renderers_colours() -> None:
    from cliprl.pipeline.core.color import rgb_to_yuv
    from cliprl.pipeline.synthetic import SceneRenderer

    with open_source("demo:?seed=5&size=161x121") as source:
        frame = next(iter(source))
    rgb, _ = SceneRenderer(5, 121, 161).render(0.0)
    yuv = rgb_to_yuv(rgb, frame.color).astype(int)
    assert np.abs(frame.luma - yuv[..., 0]).max() <= 1
    means = yuv[:120, :160, 1:].reshape(60, 2, 80, 2, 2).mean(axis=(1, 3))
    assert np.abs(frame.chroma[:60, :80] - means).max() <= 1.5


def test_the_demo_can_go_on_for_ever() -> None:
    with open_source("demo:?seconds=0&size=64x64") as source:
        assert (source.info.frames, source.info.seconds) == (None, None)
        planes = allocate_planes(64, 64)
        for _ in range(30):
            assert source.read(lambda height, width: planes) is not None


@pytest.mark.parametrize(
    "name",
    [
        "demo:?speed=3",
        "demo:?size=big",
        "demo:?size=10x10",
        "demo:?rate=0",
        "demo:?seconds=-1",
        "demo:?seed=1.5",
        "demo:?seed=x",
        "demo:seven",
    ],
)
def test_the_demo_refuses_what_it_does_not_know(name: str) -> None:
    with pytest.raises(UsageError, match=r"demo:"):
        DemoOptions.parse(name)


class Server(SimpleHTTPRequestHandler):
    """Serves a folder; `/live.ts` without a length or an end that is known, `/secret` to nobody.

    `/cut.ts` is served by ranges, but no answer passes the middle of the file.
    """

    def do_GET(self) -> None:
        if self.path.startswith("/cut"):
            data = Path(self.directory, "clip.ts").read_bytes()
            start, middle = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0]), len(data) // 2
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:] if start > middle else data[start:middle])
            self.close_connection = True
        elif self.path.startswith("/secret"):
            self.send_error(401)
        elif self.path.startswith("/live"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(Path(self.directory, "clip.ts").read_bytes())
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    for name in ("clip.mp4", "clip.ts"):
        faststart = {"movflags": "faststart"} if name == "clip.mp4" else {}
        make_clip(tmp_path / name, audio=name == "clip.mp4", container_options=faststart)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_clip_over_http_waits_like_a_file(server: str, tmp_path: Path) -> None:
    with open_source(f"http://user:word@{server}/clip.mp4") as source:
        frames = list(source)
    for frame, image in zip(frames, decode_all(tmp_path / "clip.mp4"), strict=True):
        assert_same(frame, image)
    assert not source.info.live
    assert source.info.passthrough is not None
    assert [track.codec for track in source.info.passthrough.tracks] == ["aac"]
    assert "word" not in source.info.name


def test_a_stream_over_http_is_live(server: str) -> None:
    with open_source(f"http://{server}/live.ts") as source:
        assert source.info.live
        assert len(list(source)) == 12


def test_a_connection_closed_early_is_noted(server: str) -> None:
    with open_source(f"http://{server}/cut.ts") as source:
        assert 0 < len(list(source)) < 12
        assert any("closed" in note for note in source.info.notes)
    with open_source(f"http://{server}/clip.ts") as source:
        assert not source.info.live, "it has a length, so that it is not opened again at its end"
        assert len(list(source)) == 12
        assert not any("closed" in note for note in source.info.notes)


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("http://u:word@{server}/none.mp4", CliprlError, "does not exist on its server"),
        ("http://u:word@{server}/secret.mp4?token=word", CliprlError, "denies access"),
        ("http://u:word@127.0.0.1:1/a.mp4", CliprlError, "refused"),
        ("rtsp://u:word@127.0.0.1:1/a", CliprlError, "refused"),
        ("rtsp://u:word@no-such-host.invalid/a", CliprlError, "no such host"),
        ("gopher://u:word@127.0.0.1/a", UsageError, "no such kind of address"),
        ("http://u:word@[bad/a", UsageError, "not an address"),
        ("rtsp://u:℀word@127.0.0.1/a", UsageError, "not an address"),
    ],
)
def test_network_errors_are_told_apart_and_keep_secrets(
    server: str, url: str, kind: type[CliprlError], words: str
) -> None:
    with pytest.raises(CliprlError) as caught:
        open_source(url.format(server=server))
    assert caught.value.exit_status == kind.exit_status
    text = str(caught.value)
    assert words in text
    assert "word@" not in text
    assert "=word" not in text
    assert "\n" not in text


def test_silence_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.pipeline.sources.v4l2.TIMEOUT", (0.5, 0.5))
    with pytest.raises(CliprlError, match="did not answer in time"):
        open_source("udp://127.0.0.1:19847")


def test_a_camera_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such device /dev/video987"):
        open_source("/dev/video987")


def test_a_device_that_is_no_camera_is_said() -> None:
    with pytest.raises(CliprlError, match="/dev/null"):
        open_camera("/dev/null", SourceOptions())


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Two cameras as Linux lists them."""
    for number, name in ((10, "Endoscope HD: Video\n"), (2, "Webcam\n")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(name)
    return tmp_path


def test_cameras_are_listed_and_found_by_name(system: Path) -> None:
    assert list_devices(system) == [("/dev/video2", "Webcam"), ("/dev/video10", "Endoscope HD: Video")]
    assert find_device("endoscope", system) == "/dev/video10"
    with pytest.raises(UsageError, match=r"no camera is called 'x': use one of Webcam \(/dev/video2\); Endoscope"):
        find_device("x", system)
    assert list_devices(system / "none") == []
    # A driver cuts the name after 31 bytes, also within a character.
    (system / "video2" / "name").write_bytes("Kamera für Ärzte".encode()[:-4] + b"\xc3\n")
    assert find_device("kamera", system) == "/dev/video2"


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EBUSY, "in use by another program"), (errno.ENODEV, "attach it again"), (errno.EINVAL, "list-formats-ext")],
)
def test_a_camera_that_can_not_be_read_is_told_why(number: int, words: str) -> None:
    assert words in str(explain(av.error.FFmpegError(number, os.strerror(number)), "/dev/video0"))


def test_another_size_than_asked_for_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video0").touch()
    notes: list[str] = []
    camera = SimpleNamespace(info=SimpleNamespace(width=640, height=480), note=notes.append)
    monkeypatch.setattr(v4l2, "VideoSource", lambda *arguments, **more: camera)
    for size in ("640x480", "1280x720"):
        v4l2.open_camera(f"{tmp_path}/video0?size={size}", SourceOptions())
    assert [note.split(":")[0] for note in notes] == ["the camera gives 640x480, not 1280x720"]


def test_what_a_camera_is_asked_for() -> None:
    path, options = device_options("/dev/video0?size=1280x720&rate=30000/1001&format=mjpeg")
    assert path == "/dev/video0"
    assert options == {"video_size": "1280x720", "framerate": "30000/1001", "input_format": "mjpeg"}
    for bad in ("size=big", "rate=fast", "format=../x", "speed=1"):
        with pytest.raises(UsageError, match=bad.split("=")[0]):
            device_options(f"camera:x?{bad}")


def test_a_screen_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UsageError, match="no X11 display"):
        open_source("screen:")
    with pytest.raises(CliprlError, match=":77"):
        open_source("screen::77.0?size=64x64&rate=5")


def test_only_secrets_are_redacted() -> None:
    assert redact("rtsp://u:p@h/x?a=1&api_key=zz&b=2") == "rtsp://***@h/x?a=1&api_key=***&b=2"
    # As recorders have it.
    assert redact("rtsp://h:554/user=a_password=zz_channel=1.sdp?real_stream") == "rtsp://h:554/user=a_password=***"
    assert redact("rtsp://h/user=a&password=zz&channel=1.sdp") == "rtsp://h/user=a&password=***&channel=1.sdp"
    assert redact("http://h/a?x=1;password=zz;z=1") == "http://h/a?x=1;password=***;z=1"
    for name in ("https://h/monkey_business/op.mp4", "http://h/passage/v.mp4?x=3", "http://h/my_key/a=b"):
        assert redact(name) == name
    for name in (
        "/home/a@b/x.mp4",
        "http://h/a@2x.mp4",
        "http://h:80/a@b?c=d@e",
        "rtsp://[::1]:554/a@b",
        "http://h/a:b",
    ):
        assert redact(name) == name


@pytest.mark.parametrize(
    "password",
    [
        "geheim",
        "geh/eim",
        "/geheim",
        "geh?eim",
        "geh#eim",
        "geh@eim",
        "geh@ei/m",
        "ge heim",
        "12/geheim",
        "7?geheim",
        "geh@ei?m",
    ],
)
@pytest.mark.parametrize("user", ["user", "lab.invalid/user"])
def test_a_password_is_hidden_though_it_is_not_escaped(user: str, password: str) -> None:
    url = f"rtsp://{user}:{password}@127.0.0.1:1/live"
    assert redact(url) == "rtsp://***@127.0.0.1:1/live"
    with pytest.raises(CliprlError) as caught:
        open_source(url)
    assert not set(re.findall("[a-z]+", password)) & set(re.findall("[a-z]+", str(caught.value)))


def test_an_unescaped_password_is_an_error_with_its_remedy() -> None:
    for url in ("rtsp://user:geh/eim@127.0.0.1:1/live", "rtsp://user:geh@h.invalid/eim@127.0.0.1:1/live"):
        with pytest.raises(CliprlError, match="write / as %2F"):
            open_source(url)
