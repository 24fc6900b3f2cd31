"""Hardware codecs of a live stream, in processes of their own: what was encoded and decoded stays whole when they fail."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from live_codecs import PATIENCE, MakeDecoder, hardware_encoding
from media import make_clip

from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.pipeline import OutputSpec, open_sink
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.cuda.codecs import nvenc
from cliprl.pipeline.cuda.codecs.live_decoder import HardwareDecoderError, LiveDecoder
from cliprl.pipeline.cuda.codecs.live_encoder import NvencProcess
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.recording.segments import SegmentWriter
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.sinks.video.live_encoding import HardwareEncoderError, LiveEncoding
from cliprl.pipeline.sources.decoding.nv12_writer import PlaneWriter, image_color, plane_array
from cliprl.pipeline.sources.video import VideoSource

SIZE = (96, 128)
INFO = StreamInfo("camera", *SIZE, TIME_BASE, Fraction(25), live=True)
FAULTS = {"die": "ended with status 3", "hang": "has hung for", "raise": "fell off the bus"}
TOLD = FAULTS | {"stop": "has hung for"}


def make_frame(index: int, size: tuple[int, int] = SIZE) -> Frame:
    """A gray frame that is told by its brightness."""
    luma, chroma = allocate_planes(*size)
    luma[:], chroma[:] = 20 + 3 * index, 128
    return Frame(luma, chroma, round(index / 25 / TIME_BASE), TIME_BASE, index)


def numbers(paths: list[Path]) -> list[int]:
    """The frames in files, by their brightness."""
    found = []
    for path in paths:
        with av.open(str(path)) as container:
            found += [round((plane_array(i, 0).mean() - 20) / 3) for i in container.decode(video=0)]
    return found


def record(folder: Path, encoding: LiveEncoding, fault: Path, planted: str = "", count: int = 40) -> SegmentWriter:
    writer = SegmentWriter(folder, "raw", INFO, minutes=1, crf=10, preset="ultrafast", encoding=encoding)
    for index in range(count):
        if index == 21 and planted:
            fault.write_text(planted)
        writer.write(make_frame(index))
    writer.finish()
    return writer


@pytest.mark.parametrize("planted", FAULTS)
def test_failed_encoder_of_a_recording_loses_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of the user')")
    monkeypatch.chdir(tmp_path)
    log, fault = list[str](), tmp_path / "fault"
    (tmp_path / "rec").mkdir()
    encoding = LiveEncoding(
        hardware_encoding(fault, 3.0 if planted == "hang" else PATIENCE), name="the raw recording", log=log.append
    )
    writer = record(tmp_path / "rec", encoding, fault, planted)
    assert (writer.frames, writer.lost) == (40, 0)
    assert len(writer.paths) == 2
    assert numbers(writer.paths) == list(range(40))
    assert log == encoding.notes
    assert log[0] == "the raw recording: encoded on the GPU by NVENC"
    assert all("encoded on the CPU by libx264: no NVENC" in note for note in log[1:])
    assert FAULTS[planted] in log[1]


@pytest.mark.parametrize("planted", ["raise"])
def test_encoder_that_cannot_start_is_replaced_from_the_first_frame(tmp_path: Path, planted: str) -> None:
    fault = tmp_path / "fault"
    fault.with_suffix(".start").write_text(planted)
    encoding = LiveEncoding(hardware_encoding(fault))
    (tmp_path / "rec").mkdir()
    writer = record(tmp_path / "rec", encoding, fault, count=5)
    assert numbers(writer.paths) == list(range(5))
    (note,) = encoding.notes
    assert FAULTS[planted] in note


def test_an_output_whose_encoder_is_refused_gets_libx264(tmp_path: Path) -> None:
    class Refusing:
        name = "NVENC"

        def prepare(self) -> None:
            pass

        close = prepare

        def open(self, *_: Any, **__: Any) -> VideoEncoder:
            raise HardwareEncoderError("no session is left")

    encoding = LiveEncoding(Refusing())
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        encoder = encoding.open(container, make_frame(0), INFO, crf=23, preset="ultrafast", key_seconds=1)
        assert type(encoder) is VideoEncoder
        container.mux([*encoder.encode(make_frame(0)), *encoder.flush()])
    assert encoding.notes == ["encoded on the CPU by libx264: no NVENC (no session is left)"]


def test_file_begun_before_the_encoder_is_ready_is_the_cpus(tmp_path: Path) -> None:
    encoding = LiveEncoding(NvencProcess(hardware_encoding(tmp_path / "fault")._make, patience=0))
    writer = record(tmp_path, encoding, tmp_path / "fault", count=3)
    assert numbers(writer.paths) == [0, 1, 2]
    assert "is not ready" in encoding.notes[0]
    assert encoding._hardware is not None
    assert encoding._hardware._process is not None  # type: ignore[attr-defined]
    encoding._hardware._process.close()  # type: ignore[attr-defined]


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_without_driver_the_reason_is_that_of_libav(tmp_path: Path) -> None:
    encoding = LiveEncoding(NvencProcess(patience=PATIENCE))
    writer = record(tmp_path, encoding, tmp_path / "fault", count=3)
    assert numbers(writer.paths) == [0, 1, 2]
    assert encoding.notes == ["encoded on the CPU by libx264: no NVENC (Cannot load libcuda.so.1)"]


def test_sizes_that_nvenc_refuses_start_no_process(tmp_path: Path) -> None:
    hardware = hardware_encoding(tmp_path / "fault")
    encoding = LiveEncoding(hardware)
    writer = SegmentWriter(tmp_path, "raw", INFO, minutes=1, crf=10, preset="ultrafast", encoding=encoding)
    writer.write(make_frame(0, (96, 126)))
    writer.finish()
    assert "width a multiple of 4" in encoding.notes[0]
    assert hardware._process is None


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
@pytest.mark.parametrize(("crf", "preset"), [(0, "ultrafast"), (23, "medium")])
def test_live_options_are_known_to_nvenc(crf: float, preset: str) -> None:
    """Options of wrong values are refused before libav looks for a GPU: these are not."""
    context: Any = av.CodecContext.create("h264_nvenc", "w")
    context.width, context.height, context.pix_fmt = 256, 144, "nv12"
    context.time_base, context.options = Fraction(1, 25), nvenc.live_options(crf, preset)
    with pytest.raises(PermissionError):
        context.open()
    known = {option.name for option in av.Codec("h264_nvenc", "w").options} if hasattr(av.Codec, "options") else None
    assert known is None or {"delay", "zerolatency", "tune", "no-scenecut"} <= known


@pytest.mark.parametrize("planted", ["die"])
def test_network_stream_goes_on_when_its_encoder_fails(tmp_path: Path, planted: str) -> None:
    """One playlist, with every frame: the parameters of the other encoder are in its key frame."""
    fault = tmp_path / "fault"
    encoding = LiveEncoding(hardware_encoding(fault))
    with open_sink(tmp_path / "live.m3u8", OutputSpec(INFO, ()), live=encoding, crf=10) as sink:
        for index in range(40):
            if index == 21 and planted:
                fault.write_text(planted)
            sink.write(make_frame(index), None)
    assert numbers(sorted(tmp_path.glob("live*.ts"))) == list(range(40))
    assert len(getattr(sink, "notes", ())) == (2 if planted else 1)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport stream with B-frames and a key frame every 12 frames."""
    options = {"g": "12", "bf": "2", "x264-params": "scenecut=0"}
    return make_clip(tmp_path_factory.mktemp("stream") / "in.ts", frames=60, size=(128, 96), options=options)


def decode(path: Path, act: dict[int, Any], **settings: Any) -> tuple[list[tuple[int, bytes]], LiveDecoder | None]:
    """Times and luma of the frames of a stream, by a `LiveDecoder` if there are `settings`; `act` is called before packets."""
    images, writer = [], PlaneWriter()
    with av.open(str(path)) as container:
        context: Any = container.streams.video[0].codec_context
        context.thread_type = "SLICE"
        decoder = LiveDecoder(context, **settings) if settings else None
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for number, packet in enumerate([*packets, None]):
            if number in act:
                act[number](decoder)
            for image in (decoder or context).decode(packet):
                planes = allocate_planes(image.height, image.width)
                writer.write(image, *planes, image_color(image, context))
                images.append((image.pts, planes[0].tobytes()))
    return images, decoder


def wait_until_ready(decoder: LiveDecoder) -> None:
    limit = time.monotonic() + PATIENCE
    while decoder._process is not None and not decoder._process.is_ready(0.1):
        assert time.monotonic() < limit


@pytest.mark.parametrize(("planted", "at"), [("", 30), ("die", 12), ("die", 14), ("die", 37), ("stop", 30)])
def test_failed_decoder_loses_and_repeats_no_frame(stream: Path, tmp_path: Path, planted: str, at: int) -> None:
    fault, log = tmp_path / "fault", list[str]()
    acts: dict[int, Any] = {3: wait_until_ready}
    if planted:
        acts[at] = lambda _: fault.write_text(planted)
    settings = {"log": log.append, "make": MakeDecoder(fault), "seconds": 3.0 if planted == "stop" else PATIENCE}
    expected, _ = decode(stream, {})
    found, decoder = decode(stream, acts, **settings)
    assert found == expected
    assert len(found) == 60
    assert decoder is not None
    assert log == decoder.notes
    assert log[0] == "decoded on the GPU by NVDEC"
    assert len(log) == (2 if planted else 1)
    if planted:
        assert log[1].startswith("decoded on the CPU: no NVDEC (")
        assert TOLD[planted] in log[1]
    decoder.close()
    assert decoder._process is None


@pytest.mark.parametrize("planted", ["", "die"])
def test_packets_dropped_in_between_start_at_a_key_frame(stream: Path, tmp_path: Path, planted: str) -> None:
    fault = tmp_path / "fault"

    def drop(decoder: LiveDecoder) -> None:
        if planted:  # the process ends when it is to forget its packets
            fault.write_text(planted)
        decoder.flush_buffers()

    acts = {3: wait_until_ready, 30: drop}
    found, decoder = decode(stream, acts, make=MakeDecoder(fault), seconds=PATIENCE)
    expected = dict(decode(stream, {})[0])
    times = [time for time, _ in found]
    assert times == sorted(set(times))
    assert set(times) >= set(sorted(expected)[37:])  # from the key frame 36 on, and what refers to it
    assert decoder is not None
    assert decoder._on is not bool(planted)
    decoder.close()


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_without_nvdec_the_cpu_decodes_and_the_reason_is_given(stream: Path) -> None:
    def until_answered(decoder: LiveDecoder) -> None:
        limit = time.monotonic() + PATIENCE
        while decoder._process is not None and not decoder._process.poll(0.1):
            assert time.monotonic() < limit

    refused = list[str]()
    found, decoder = decode(stream, {3: until_answered}, refused=refused)
    assert len(found) == 60
    assert decoder is not None
    assert decoder.notes == ["decoded on the CPU: no NVDEC (Could not dynamically load CUDA)"]
    found, again = decode(stream, {}, refused=refused)  # the next connection
    assert len(found) == 60
    assert again is not None
    assert again.notes == refused == decoder.notes
    assert again._process is None


def test_a_live_source_tells_which_decoder_it_has(stream: Path, tmp_path: Path) -> None:
    fault, made = tmp_path / "fault", list[LiveDecoder]()
    fault.with_suffix(".start").write_text("die")

    def wrap(context: Any) -> LiveDecoder:
        made.append(LiveDecoder(context, make=MakeDecoder(fault)))
        return made[0]

    with VideoSource(str(stream), live=True, decoder=wrap) as source:
        assert source.read(allocate_planes) is not None
        process = made[0]._process
        assert process is not None
        made[0].give_up(HardwareDecoderError("planted"))
        while source.read(allocate_planes) is not None:
            pass
        assert "decoded on the CPU: no NVDEC (planted)" in source.info.notes
    assert made[0]._process is None
