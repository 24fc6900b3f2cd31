"""Single pictures and lists of them: every kind in its right colours, whatever came before it, and extreme sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media import bars, color_of, make_clip, moving, video_frame
from oriented import as_players_show, shown, still
from PIL import Image
from tiled_heif import write_tiled_heif

from cliprl.engines import CliprlError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline import open_source
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.core.nv12 import recolor
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.cuda.view_tracker import StripLayout
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.video.letterbox import letterbox
from cliprl.pipeline.sources.decoding.conform import Conformer
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector

SIZE = (128, 64)


def rgb(frame: Frame) -> np.ndarray:
    """The frame in RGB, float (H, W, 3)."""
    matrix, offset = yuv_to_rgb_matrix(frame.color.matrix, frame.color.full_range)
    chroma = frame.chroma.repeat(2, axis=0).repeat(2, axis=1)[: frame.height, : frame.width]
    return np.asarray(np.clip(np.dstack([frame.luma, chroma]) @ matrix.T + offset, 0, 255))


def read(name: Path | str) -> list[Frame]:
    with open_source(name) as source:
        return list(source)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected.astype(float)).mean())


def image(index: int = 0) -> Image.Image:
    return Image.fromarray(moving(index, SIZE[1], SIZE[0]))


KINDS: dict[str, Callable[[Path], Any]] = {
    "rgb.tif": lambda p: image().save(p),
    "big.tif": lambda p: image().save(p, big_tiff=True),
    "lzw.tif": lambda p: image().save(p, compression="tiff_lzw"),
    "deflate.tif": lambda p: image().save(p, compression="tiff_adobe_deflate"),
    "jpeg.tif": lambda p: image().save(p, compression="jpeg", quality=98),
    "ycbcr.tif": lambda p: image().convert("YCbCr").save(p),
    "cmyk.tif": lambda p: image().convert("CMYK").save(p),
    "deep.tif": lambda p: cv2.imwrite(str(p), np.array(image())[..., ::-1].astype(np.uint16) * 257),
    "deep.png": lambda p: cv2.imwrite(str(p), np.array(image())[..., ::-1].astype(np.uint16) * 257),
    "alpha.png": lambda p: image().convert("RGBA").save(p),
    "alpha.webp": lambda p: image().convert("RGBA").save(p, lossless=True),
    "cmyk.jpg": lambda p: image().convert("CMYK").save(p, quality=98),
    "progressive.jpg": lambda p: image().save(p, progressive=True, quality=98),
    "444.jpg": lambda p: image().save(p, subsampling=0, quality=98),
    "422.jpg": lambda p: image().save(p, subsampling=1, quality=98),
    "plain.bmp": lambda p: image().save(p),
    "exif.jpg": lambda p: image().save(p, exif=_exif(), quality=98),
    "exif.png": lambda p: image().save(p, exif=_exif()),
    "named-wrongly.png": lambda p: image().save(p, format="JPEG", quality=98),
    "no-suffix": lambda p: image().save(p, format="TIFF"),
}


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112], exif[0x10F] = 1, "maker"
    return exif


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_still_has_its_colours(name: str, in_list: bool, tmp_path: Path) -> None:
    KINDS[name](tmp_path / name)
    (frame,) = read(f"{tmp_path}/*" if in_list else tmp_path / name)
    assert difference(rgb(frame), np.array(image())) < 6  # 4:2:0 of this picture costs 3 to 5


@pytest.mark.parametrize(("mode", "error"), [("P", 14), ("1", 1), ("L", 1), ("LA", 1), ("RGBA", 6)])
@pytest.mark.parametrize("suffix", ["png", "tif", "gif"])
def test_palettes_grey_and_alpha(mode: str, error: float, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    made = image().convert(mode)
    made.save(path)
    (frame,) = read(path)
    expected = Image.open(path).convert("RGB")
    assert difference(rgb(frame), np.array(expected)) < (14 if suffix == "gif" else error)  # dithered


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_of_jpegs_is_turned_once(orientation: int, tmp_path: Path) -> None:
    (frame,) = read(still(tmp_path / "a.tif", orientation, SIZE, compression="jpeg", quality=98))
    assert frame.rotation == 0
    assert difference(rgb(frame), shown(*SIZE)) < 6


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_animations_have_all_their_pictures(suffix: str, tmp_path: Path) -> None:
    first, *rest = (image(index).quantize(255) if suffix == "gif" else image(index) for index in range(4))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=rest, duration=80)
    frames = read(tmp_path / f"a.{suffix}")
    assert [round(frame.seconds, 3) for frame in frames] == [0, 0.08, 0.16, 0.24]
    assert all(difference(rgb(f), moving(i, SIZE[1], SIZE[0])) < 14 for i, f in enumerate(frames))


def test_an_animation_in_a_list_is_noted(tmp_path: Path) -> None:
    for number in range(2):
        image(number).save(tmp_path / f"{number}.png", save_all=True, append_images=[image(1)] * number, duration=80)
    with open_source(str(tmp_path / "*.png")) as source:
        assert len(list(source)) == 2
        assert [note for note in source.info.notes if "1.png is an animation of 2 images" in note] == list(
            source.info.notes
        )


@pytest.mark.parametrize(("transfer", "noted"), [(16, True), (18, True), (14, False)])
def test_hdr_that_is_not_tone_mapped_is_noted(transfer: int, noted: bool, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mkv", frames=1, color=ColorSpace("bt2020", False, 9, 1, 9, transfer))
    with open_source(clip) as source:
        assert any("HDR" in note for note in source.info.notes) is noted


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_in_the_low_bits_are_noted(bits: int, channels: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (16, 24, *channels)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / f"deep.{suffix}"), values)
    for name in (f"deep.{suffix}", f"*.{suffix}"):
        with open_source(str(tmp_path / name)) as source:
            assert [f"uses {bits} of its 16 bits" in note for note in source.info.notes] == [True] * (bits < 16)


def test_an_animated_webp_is_refused_by_that_name(tmp_path: Path) -> None:
    image().save(tmp_path / "a.webp", save_all=True, append_images=[image(1)], duration=80)
    with pytest.raises(CliprlError, match="animated WebP") as caught:
        open_source(tmp_path / "a.webp")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "junk", [b"II*\0", b"MM\0*\xff\xff\xff\xff", b"RIFF\0\0\0\0WEBPVP8X", b"II*\0\x08\0\0\0\xff\xff" + b"\7" * 50]
)
def test_stills_that_are_none_are_refused_in_a_line(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(junk)
    with pytest.raises(CliprlError) as caught:
        open_source(tmp_path / "a.tif")
    assert "\n" not in str(caught.value)


def converted(name: str, folder: Path) -> list[np.ndarray]:
    """The pictures as a player shows them after they were written losslessly."""
    with open_source(name) as source:
        assert source.info.notes == ()
        with open_sink(f"{folder}/out.mp4", OutputSpec(source.info, ()), crf=0) as sink:
            for frame in source:
                sink.write(frame, None)
    return [image.astype(float) for image in as_players_show(folder / "out.mp4")]


@pytest.mark.parametrize("first", ["grey.png", "grey.jpg", "photo.jpg", "plain.webp", "plain.png"])
@pytest.mark.parametrize("height", [64, 720])
def test_colours_of_a_list_do_not_depend_on_its_first(first: str, height: int, tmp_path: Path) -> None:
    images = [bars(0, height, 128), *(np.roll(bars(0, height, 128), 16 * i, axis=1) for i in (1, 2, 3))]
    one = Image.fromarray(images[0])
    (one.convert("L") if "grey" in first else one).save(tmp_path / f"0-{first}", quality=98)
    for index, suffix in enumerate(["png", "jpg", "tif"], 1):
        options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
        Image.fromarray(images[index]).save(tmp_path / f"{index}.{suffix}", **options)
    found = converted(f"{tmp_path}/?*.*", tmp_path)
    for image, expected in zip(found[1:], images[1:], strict=True):
        assert np.abs(image - expected)[:, 8::16].max() <= 6  # the middle of each bar; at its edge 4:2:0 mixes them


def test_range_and_matrix_that_change_in_a_stream(tmp_path: Path) -> None:
    """Two videos joined, as cameras that are set otherwise while they send: what comes later is as it was."""
    colors = [color_of("bt709"), color_of("bt601", True), color_of("bt709", True), color_of("bt2020")]
    data = b""
    for index, color in enumerate(colors):
        path = make_clip(
            tmp_path / f"{index}.h264", color=color, image=bars, size=(128, 64), frames=3, options={"crf": "1"}
        )
        data += path.read_bytes()
    (tmp_path / "joined.h264").write_bytes(data)
    frames = read(tmp_path / "joined.h264")
    assert len(frames) == 12
    assert {(frame.color.matrix, frame.color.full_range) for frame in frames} == {("bt709", False)}
    assert max(np.abs(rgb(frame)[:, 2::16] - bars(0, 64, 128)[:, 2::16]).max() for frame in frames) <= 6


def test_primaries_that_change_are_told(tmp_path: Path) -> None:
    wide = ColorSpace("bt709", False, 1, 1, 9, 16)
    paths = [
        make_clip(tmp_path / f"{i}.h264", color=color, frames=2) for i, color in enumerate([color_of("bt709"), wide])
    ]
    (tmp_path / "joined.h264").write_bytes(b"".join(path.read_bytes() for path in paths))
    with open_source(tmp_path / "joined.h264") as source:
        assert len(list(source)) == 4
        assert any("primaries" in note for note in source.info.notes)


@given(
    rgb=st.tuples(*[st.integers(20, 235)] * 3),
    before=st.tuples(st.sampled_from(["bt601", "bt709", "bt2020"]), st.booleans()),
    after=st.tuples(st.sampled_from(["bt601", "bt709", "bt2020"]), st.booleans()),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(deadline=None, max_examples=60)
def test_recoloured_planes_show_the_same_colour(
    rgb: tuple[int, ...], before: tuple[str, bool], after: tuple[str, bool], size: tuple[int, int]
) -> None:
    luma, chroma = allocate_planes(*size)
    luma[:], *chroma[0, 0] = rgb_to_yuv(np.array(rgb, np.uint8), ColorSpace(*before))
    chroma[:] = chroma[0, 0]
    recolor(luma, chroma, ColorSpace(*before), ColorSpace(*after))
    expected = rgb_to_yuv(np.array(rgb, np.uint8), ColorSpace(*after)).astype(int)
    assert np.abs(luma - expected[0]).max() <= 2
    assert np.abs(chroma - expected[1:]).max() <= 2


def test_pixels_of_another_shape_are_told_and_fitted(tmp_path: Path) -> None:
    for index, dots in enumerate([(100, 100), (200, 100), (100, 100)]):
        image(index).save(tmp_path / f"{index}.png", dpi=dots)
    with open_source(f"{tmp_path}/*.png") as source:
        frames = list(source)
        notes = [note for note in source.info.notes if "shape of pixels" in note]
    assert len(notes) == 1
    assert "1.png" in notes[0]
    assert [frame.sample_aspect for frame in frames][::2] == [None, None]
    assert float(frames[1].sample_aspect or 1) == pytest.approx(2, abs=0.01)


def test_a_density_that_is_rounded_is_no_shape(tmp_path: Path) -> None:
    image().save(tmp_path / "a.png", dpi=(72, 72.03))
    assert [frame.sample_aspect for frame in read(f"{tmp_path}/*.png")] == [None]


def test_wide_pixels_are_fitted_as_they_are_shown() -> None:
    luma, chroma = allocate_planes(64, 64)
    luma[:], chroma[:] = 200, 100
    fitted, _ = letterbox(luma, chroma, 64, 64, ColorSpace(), 2.0)
    assert [(fitted[:, 32] == 200).sum(), (fitted[32] == 200).sum()] == [32, 64]


EXTREME = [(64, 16000), (16000, 64), (1, 1), (2, 2), (1, 700), (700, 1), (3, 5), (40, 8000), (16, 481), (17, 7000)]


@pytest.mark.parametrize("size", EXTREME)
def test_extreme_shapes_have_a_view(size: tuple[int, int]) -> None:
    width, height = size
    planes = allocate_planes(height, width)
    planes[0][:], planes[1][:] = 120, 128
    frame = Frame(*planes, 0, Fraction(1, 25), 0)
    detector = FieldOfViewDetector(64, 96)
    assert detector.view_of(frame).crop == full_viewport(height, width, 64, 96).crop
    layout = StripLayout.of(height, width)
    assert layout is None or min(layout.across, layout.down) >= 3


@pytest.mark.parametrize("size", [(64, 16000), (1, 1), (3, 700)])
def test_extreme_shapes_go_through_whole(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(moving(0, size[1], size[0])).save(tmp_path / "a.png")
    outputs = [word for name in ("out.mp4", "masks/", "out.jsonl") for word in ("-o", f"{tmp_path}/{name}")]
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", str(tmp_path / "a.png"), *outputs, "--steps", "0", "--crf", "0"])
    assert run_app(cli.app, "cliprl-stream") == 0, capfd.readouterr().err
    (image,) = as_players_show(tmp_path / "out.mp4")
    assert image.shape[1::-1] == size
    (mask,) = (tmp_path / "masks").glob("*.png")
    assert Image.open(mask).size == size


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "yuv420p12le", "yuv422p", "yuv444p", "gbrp"]
)
def test_deep_and_dense_video_keeps_its_colours(pix_fmt: str, tmp_path: Path) -> None:
    codec = "libx265" if "12" in pix_fmt or pix_fmt == "gbrp" else "libx264"
    options = {"x265-params": "log-level=none:crf=1"} if codec == "libx265" else {"crf": "1"}
    color = None if pix_fmt == "gbrp" else color_of("bt709")
    path = make_clip(
        tmp_path / "a.mkv",
        codec=codec,
        pix_fmt=pix_fmt,
        color=color,
        image=bars,
        size=(128, 64),
        frames=2,
        options=options,
    )
    for frame in read(path):
        assert np.abs(rgb(frame)[:, 2::16] - bars(0, 64, 128)[:, 2::16]).max() <= 8


def test_other_devices_leave_stills_unrotated_with_a_note() -> None:
    class Elsewhere:
        on_host = False

        def write(self, image: av.VideoFrame, luma: Any, chroma: Any, color: ColorSpace) -> None:
            assert luma.shape == (image.height, image.width)

    info = StreamInfo("clip", 64, 96, Fraction(1, 25), color=ColorSpace("bt709", False, 1, 1), rotation=90)
    conformer = Conformer(info, Elsewhere(), persistent=True)
    image = video_frame(bars(0, 64, 96), "yuv420p", color_of("bt601", True))
    image.colorspace, image.color_range = 6, 2
    context = av.CodecContext.create("h264", "r")
    frame = conformer.frame(image, context, allocate_planes, "frame 7", None)
    assert (frame.color.matrix, frame.color.full_range, frame.rotation) == ("bt601", True, 90)
    assert any("--device cpu" in note for note in conformer.notes.values())


def test_image_in_tiles_is_refused(tmp_path: Path) -> None:
    path = write_tiled_heif(tmp_path / "photo.heic", 2, 3)
    with pytest.raises(CliprlError, match=r"photo\.heic is an image of 6 tiles \(HEIF\).*: save it as JPEG or PNG"):
        open_source(path)
