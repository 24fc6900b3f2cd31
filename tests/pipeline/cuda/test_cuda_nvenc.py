"""Painted frames on their way from the card to its encoder: on a simulated GPU, with a real encoder behind it."""

from __future__ import annotations

import gc
import itertools
import random
import threading
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import live_codecs
import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler
from lock_state import is_locked

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, StreamInfo
from cliprl.pipeline.cuda.codecs import nvenc, nvenc_sink, timed_stream
from cliprl.pipeline.cuda.context import Encoding, share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sinks import MaskSink, NullSink, VideoSink
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.sources import open_source

CLASSES = (ClassSpec("background", (0, 0, 0), "background"),)
SIZE = (144, 256)
# Takes frames of host memory through DLPack, where NVENC takes the GPU's.
SOFTWARE = Encoding("libx264", "nv12")


def scene(size: tuple[int, int] = SIZE, *, interlaced: bool = False) -> OutputSpec:
    return OutputSpec(StreamInfo("played", *size, Fraction(1, 25), Fraction(25), interlaced=interlaced), CLASSES)


def image(index: int, size: tuple[int, int] = SIZE) -> Frame:
    rng = np.random.default_rng(index)
    height, width = size
    luma = (rng.integers(30, 200, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)).astype(np.uint8)
    chroma = rng.integers(90, 160, (height // 2, width // 2, 2)).astype(np.uint8)
    return Frame(luma, chroma, index, Fraction(1, 25), index, duration=1)


def play(device: CudaDevice, sink: Sink, frames: list[Frame], *, to_host: bool = False) -> None:
    """Paint frames on the device and write them."""
    overlay, ring = device.overlay(CLASSES), device.ring(3, "wait")
    overlay.to_host = to_host
    with sink:
        for frame in frames:
            luma, chroma = ring.acquire(frame.height, frame.width)
            luma[:], chroma[:] = frame.luma, frame.chroma
            ring.publish(Frame(luma, chroma, frame.pts, frame.time_base, frame.index, duration=1))
            taken = ring.take()
            assert taken is not None
            overlay.draw(taken, None, f"frame {frame.index}")
            sink.write(taken, None)
            ring.release(taken)


def device_of(seed: int, encoding: Encoding) -> tuple[CudaDevice, FakeGpu]:
    gpu = FakeGpu(random.Random(seed).randrange, eager=1)
    return CudaDevice(share(gpu, network_of, encoding=encoding)), gpu


@pytest.fixture
def lossless(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"preset": "ultrafast", "qp": "0", "bf": "0", "flags": "+frame_duration"}
    monkeypatch.setattr(nvenc, "options", lambda crf, preset: chosen)


@needs_compiler
@pytest.mark.usefixtures("lossless")
@pytest.mark.parametrize("seed", range(3))
def test_frames_drawn_on_gpu_are_encoded_without_download(tmp_path: Path, seed: int) -> None:
    device, gpu = device_of(seed, SOFTWARE)
    frames, target = [image(index) for index in range(12)], tmp_path / "out.mp4"
    sink = device.sink(str(target), scene())
    assert isinstance(sink, VideoSink)
    assert not sink.needs_planes
    play(device, sink, frames)
    assert sink.notes == ["encoded on the GPU by libx264"]
    gpu.drain()
    expected = [image(index) for index in range(12)]
    with open_source(str(target)) as found:
        for ours, theirs in zip(found, expected, strict=True):
            Overlay(CLASSES).draw(theirs, None, f"frame {theirs.index}")
            np.testing.assert_array_equal(ours.luma, theirs.luma)
            np.testing.assert_array_equal(ours.chroma, theirs.chroma)
            assert ours.seconds == theirs.seconds


@needs_compiler
@pytest.mark.usefixtures("lossless")
def test_the_copies_that_the_encoder_has_read_are_used_again(tmp_path: Path) -> None:
    device, gpu = device_of(4, SOFTWARE)
    sink = device.sink(str(tmp_path / "out.mp4"), scene())
    counts = []
    overlay, ring = device.overlay(CLASSES), device.ring(3, "wait")
    overlay.to_host = False
    with sink:
        for frame in [image(index) for index in range(40)]:
            luma, chroma = ring.acquire(*SIZE)
            ring.publish(Frame(luma, chroma, frame.pts, frame.time_base, frame.index, duration=1))
            taken = ring.take()
            assert taken is not None
            overlay.draw(taken, None)
            sink.write(taken, None)
            ring.release(taken)
            counts.append(gpu.allocations)
    assert counts[-1] == counts[20]


@needs_compiler
@pytest.mark.usefixtures("lossless")
def test_a_frame_of_another_size_is_fitted(tmp_path: Path) -> None:
    device, _ = device_of(5, SOFTWARE)
    target = tmp_path / "out.mkv"
    sink = device.sink(str(target), scene())
    play(device, sink, [image(0), image(1, (96, 128)), image(2)])
    assert "the frame becomes 128x96: fitted into 256x144" in getattr(sink, "notes", ())
    with open_source(str(target)) as found:
        lumas = [frame.luma.copy() for frame in found]
    assert [luma.shape for luma in lumas] == [SIZE] * 3
    assert (lumas[1][:, :20] == 16).all()


@needs_compiler
@pytest.mark.usefixtures("lossless")
@pytest.mark.parametrize(("fails", "name"), [(5, "out.mp4"), (5, "out.mkv"), (12, "out.mp4")])
def test_the_cpu_goes_on_where_nvenc_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, name: str
) -> None:
    """No frame is missing, also of those that NVENC held back; 12: it fails when the last frames are asked for."""
    error = av.error.ExternalError(542398533, "Generic error in an external library")

    def encode(self: VideoEncoder, frame: Frame) -> list[Any]:
        image = self._image_of(frame)
        image.pts, image.duration = self._times(frame)
        if frame.index == fails:
            raise error
        return list(self._stream.encode(image))

    def flush(self: VideoEncoder) -> list[Any]:
        if fails == 12 and not getattr(self, "_on_cpu", True):
            raise error
        return list(self._stream.encode(None))

    monkeypatch.setattr(VideoEncoder, "encode", encode)
    monkeypatch.setattr(VideoEncoder, "flush", flush)
    device, _ = device_of(7, SOFTWARE)
    sink = device.sink(str(tmp_path / name), scene(), crf=0)
    play(device, sink, [image(index) for index in range(12)])
    (note,) = getattr(sink, "notes", ())
    assert note.startswith("encoded on the GPU by libx264, ")
    assert "on the CPU by libx264: it failed (" in note
    check_file(tmp_path / name)


def check_file(path: Path) -> None:
    """The file holds 12 drawn frames, each at its time."""
    with open_source(str(path)) as found:
        for index, ours in zip(range(12), found, strict=True):
            theirs = image(index)
            Overlay(CLASSES).draw(theirs, None, f"frame {index}")
            np.testing.assert_array_equal(ours.luma, theirs.luma)
            assert ours.seconds == pytest.approx(theirs.seconds, abs=1e-3)


@needs_compiler
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_cpu_takes_over_at_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The trial was passed, and the encoder does not open nonetheless."""
    monkeypatch.setattr(nvenc_sink, "why_not", lambda *_: "")
    monkeypatch.setattr(nvenc, "options", lambda crf, preset: {"preset": "of another card"})
    device, _ = device_of(7, SOFTWARE)
    sink = device.sink(str(tmp_path / name), scene(), crf=0)
    assert not getattr(sink, "needs_planes", True)
    play(device, sink, [image(index) for index in range(12)])
    assert "from frame 0 on on the CPU by libx264: it failed (" in getattr(sink, "notes", ())[0]
    check_file(tmp_path / name)


@needs_compiler
@pytest.mark.usefixtures("lossless")
@pytest.mark.parametrize("hangs", [0, 5, 12])
def test_the_cpu_goes_on_where_nvenc_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: int) -> None:
    """In a call that never returns; 12: the one for the last frames."""
    locked = list[bool]()  # opening it would spoil another thread's capture
    calls, never, encode = itertools.count(), threading.Event(), timed_stream.encode_image

    def hang(stream: Any, given: Any) -> list[Any]:
        locked.append(is_locked(CAPTURE_LOCK))
        if next(calls) == hangs:
            never.wait()
        return encode(stream, given)

    monkeypatch.setattr(timed_stream, "encode_image", hang)
    monkeypatch.setattr(nvenc, "HUNG_SECONDS", 0.5)
    device, _ = device_of(7, SOFTWARE)
    sink = device.sink(str(tmp_path / "out.mp4"), scene(), crf=0)
    play(device, sink, [image(index) for index in range(12)])
    never.set()
    assert locked[0]
    assert not any(locked[1:])
    assert "on the CPU by libx264: it failed (it has hung for 0.5 s)" in getattr(sink, "notes", ())[0]
    check_file(tmp_path / "out.mp4")


@needs_compiler
@pytest.mark.usefixtures("lossless")
def test_an_encoder_ends_with_its_file_and_spoils_no_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = list[bool]()
    monkeypatch.setattr(
        nvenc.NvencEncoder, "__del__", lambda self: locked.append(is_locked(CAPTURE_LOCK)), raising=False
    )
    device, _ = device_of(7, SOFTWARE)
    sink, before = device.sink(str(tmp_path / "out.mp4"), scene()), encoders()
    gc.disable()
    try:
        play(device, sink, [image(index) for index in range(3)])
        assert (locked, encoders()) == ([True], before)
    finally:
        gc.enable()
    sink.close()


def encoders() -> int:
    return sum(issubclass(type(each), av.VideoCodecContext) and each.is_encoder for each in gc.get_objects())


def test_an_encoder_that_hangs_when_opened_is_found(tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.with_suffix(".start").write_text("hang")
    make = partial(live_codecs.FaultyEncoder, fault)
    assert nvenc_sink.why_not_in_process(make, 1.0) == "it did not open within 1 s"
    fault.with_suffix(".start").write_text("raise")
    assert "fell off the bus" in nvenc_sink.why_not_in_process(make, live_codecs.PATIENCE)
    assert not nvenc_sink.why_not_in_process(make, live_codecs.PATIENCE)


@needs_compiler
@pytest.mark.usefixtures("lossless")
def test_a_frame_in_other_colors_and_ticks_is_converted(tmp_path: Path) -> None:
    device, _ = device_of(8, SOFTWARE)
    sink, ring = device.sink(str(tmp_path / "out.mp4"), scene()), device.ring(3, "wait")
    with sink:
        for index, full_range in enumerate((False, True)):
            luma, chroma = ring.acquire(*SIZE)
            luma[:], chroma[:] = 255 if full_range else 235, 128
            ticks, color = 1 + index, ColorSpace(full_range=full_range)
            ring.publish(Frame(luma, chroma, index * ticks, Fraction(1, 25 * ticks), index, color, ticks))
            taken = ring.take()
            assert taken is not None
            sink.write(taken, None)
            ring.release(taken)
    with open_source(str(tmp_path / "out.mp4")) as found:
        assert [(int(frame.luma.mean()), frame.seconds) for frame in found] == [(235, 0), (235, 0.04)]


@needs_compiler
def test_options_that_nvenc_refuses_are_found_before_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvenc, "options", lambda crf, preset: {"preset": "of another card"})
    device, _ = device_of(9, SOFTWARE)
    sink = device.sink(str(tmp_path / "out.mp4"), scene())
    play(device, sink, [image(0)], to_host=True)
    assert "no NVENC for this video (" in getattr(sink, "notes", ())[0]


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_streams_without_nvenc_share_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvenc_sink, "available_cpus", lambda: 32)
    shared = share(FakeGpu(lambda n: 0), network_of, encoding=Encoding("h264_nvenc", "nv12"))
    devices, notes = [CudaDevice(shared)], []
    for index in range(3):
        sink = devices[-1].sink(str(tmp_path / f"{index}.mp4"), scene())
        notes.append(getattr(sink, "notes", ())[0])
        sink.close()
        devices.append(CudaDevice(shared))
    assert ["by 8 encoders" in notes[0], "by 4 encoders" in notes[1], "encoders" in notes[2]] == [True, True, False]


@needs_compiler
@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_without_nvenc_the_cpu_encodes_and_a_note_says_why(tmp_path: Path) -> None:
    device, _ = device_of(6, Encoding("h264_nvenc", "nv12"))
    target = tmp_path / "out.mp4"
    sink = device.sink(str(target), scene())
    assert isinstance(sink, VideoSink)
    assert sink.needs_planes
    play(device, sink, [image(index) for index in range(3)], to_host=True)
    assert "downloaded and encoded on the CPU: no NVENC for this video (" in sink.notes[0]
    assert "\n" not in sink.notes[0]
    with open_source(str(target)) as found:
        assert len(list(found)) == 3


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
@pytest.mark.parametrize(("crf", "preset"), [(0, "ultrafast"), (23, "medium"), (51, "fast")])
def test_the_options_are_nvencs_own(crf: float, preset: str) -> None:
    """Options of wrong values are refused before libav looks for a card: these are not."""
    for wrong, error in ((False, PermissionError), (True, av.error.ArgumentError)):
        context = av.CodecContext.create("h264_nvenc", "w")
        context.width, context.height, context.pix_fmt = 256, 144, "nv12"  # type: ignore[attr-defined]
        context.time_base = Fraction(1, 25)
        context.options = nvenc.options(crf, preset) | ({"preset": "p9"} if wrong else {})
        with pytest.raises(error):
            context.open()


@pytest.mark.parametrize(
    ("size", "interlaced", "reason"),
    [
        ((145, 256), False, "256x145: height must be even"),
        ((144, 254), False, "a multiple of 4"),
        (SIZE, True, "fields"),
    ],
)
def test_pictures_that_nvenc_can_not_take_are_named(size: tuple[int, int], interlaced: bool, reason: str) -> None:
    assert reason in nvenc_sink.why_not(FakeGpu(lambda n: 0), SOFTWARE, scene(size, interlaced=interlaced).stream)


def test_other_outputs_are_what_they_are_on_a_cpu(tmp_path: Path) -> None:
    device, _ = device_of(0, SOFTWARE)
    assert isinstance(device.sink(f"{tmp_path}/masks/", scene()), MaskSink)
    assert isinstance(device.sink("null:", scene()), NullSink)
    source = tmp_path / "in.mp4"
    source.touch()
    with pytest.raises(UsageError, match="is the input itself"):
        device.sink(str(source), OutputSpec(StreamInfo(str(source), *SIZE, Fraction(1, 25)), CLASSES))
