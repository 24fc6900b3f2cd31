"""A viewer of the output sees what a viewer of the input saw: turned and mirrored alike, in video, masks, boxes and streams."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Picture, make_clip
from oriented import (
    CORNERS,
    ORIENTATIONS,
    as_players_show,
    corners,
    displayed,
    jpeg_with_exif,
    mjpeg,
    shown,
    still,
    stored,
    tagged_by_key_frames,
)
from PIL import Image
from pycocotools.coco import COCO

from cliprl.engines import ClassSpec
from cliprl.pipeline import open_source
from cliprl.pipeline.core.color import ColorSpace, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.core.nv12 import turn_planes, upright
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.live.recording.segments import SegmentWriter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources.display_matrix import from_matrix

SIZE = (96, 64)
NAMES = ("top left", "top right", "bottom left", "bottom right")
CLASSES = (
    ClassSpec("background", (0, 0, 0), "background"),
    *(ClassSpec(name, tuple(map(int, color)), "tissue") for name, color in zip(NAMES, CORNERS, strict=True)),
)

STILLS: dict[str, Callable[[Path, int, tuple[int, int]], Path]] = {
    "jpg": still,
    "png": still,
    "webp": lambda path, orientation, size: still(path, orientation, size, lossless=True),
    "tif": still,
}
VIDEOS: dict[str, Callable[[Path, int, tuple[int, int]], Path]] = {
    "avi": lambda path, orientation, size: mjpeg(path, [orientation] * 2, size),
    "mkv": lambda path, orientation, size: mjpeg(path, [orientation] * 2, size),
    "mov": displayed,
    "mp4": displayed,
}


def rgb(frame: Frame) -> Picture:
    """The frame's planes in RGB, as they are stored."""
    matrix, offset = yuv_to_rgb_matrix(frame.color.matrix, frame.color.full_range)
    chroma = frame.chroma.repeat(2, axis=0).repeat(2, axis=1)[: frame.height, : frame.width]
    return np.clip(np.dstack([frame.luma, chroma]) @ matrix.T + offset, 0, 255).astype(np.uint8)


def seen(frame: Frame) -> Segmentation:
    """A segmentation whose classes are the corners' colours, as found in the frame's own planes."""
    image = rgb(frame)
    rows, columns = ((np.arange(8) * 2 + 1) * length // 16 for length in image.shape[:2])
    cells = image[rows[:, None], columns[None]].astype(int)
    labels = (1 + np.abs(cells[..., None, :] - CORNERS).sum(-1).argmin(-1)).astype(np.uint8)
    probabilities = np.eye(len(CLASSES), dtype=np.float32)[labels].transpose(2, 0, 1)
    return Segmentation(
        labels, np.ascontiguousarray(probabilities), full_viewport(*frame.luma.shape, *frame.luma.shape), 1.0, 0
    )


def run(source: Path | str, folder: Path) -> None:
    """All that is shown in `source` into a video, masks, COCO, events and a network stream."""
    with open_source(source) as frames:
        scene = OutputSpec(frames.info, CLASSES)
        targets = ("out.mp4", "out.mov", "out.mkv", "masks/", "out.coco.json", "out.jsonl", "out.m3u8")
        sinks = [open_sink(f"{folder}/{target}", scene) for target in targets]
        for frame in frames:
            segmentation = seen(frame)
            for sink in sinks:
                sink.write(frame, segmentation)
        for sink in sinks:
            sink.close()


def assert_upright(folder: Path, size: tuple[int, int], images: int) -> None:
    """Everything that `run` wrote shows the corners where a viewer of the input saw them."""
    for name in ("out.mp4", "out.mov", "out.mkv", "out-0.ts"):
        videos = as_players_show(folder / name)
        assert len(videos) == images
        for image in videos:
            assert image.shape[1::-1] == size, name
            assert np.abs(np.array(corners(image), int) - CORNERS).max() < 20, name
    masks = sorted((folder / "masks").glob("*.png"))
    assert len(masks) == images
    for path in masks:
        mask = np.array(Image.open(path))
        assert mask.shape[::-1] == size
        assert corners(mask) == [1, 2, 3, 4]
    assert_coco(folder / "out.coco.json", size)
    assert_events(folder / "out.jsonl", size)


def assert_coco(path: Path, size: tuple[int, int]) -> None:
    coco = COCO(path)
    width, height = size
    for image in coco.imgs.values():
        assert (image["width"], image["height"]) == size
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == 4
        for annotation in annotations:
            index = annotation["category_id"] - 1
            assert corners(coco.annToMask(annotation))[index] == 1
            assert_box(annotation["bbox"], index, width, height)
    assert json.loads(path.read_text())["info"]["stream"]["width"] == width


def assert_events(path: Path, size: tuple[int, int]) -> None:
    header, *events = map(json.loads, path.read_text().splitlines())
    assert (header["stream"]["width"], header["stream"]["height"]) == size
    for event in events:
        for index, name in enumerate(NAMES):
            assert_box(event["classes"][name]["box"], index, *size)


def assert_box(box: list[float], index: int, width: int, height: int) -> None:
    """The box covers the quarter of the picture that belongs to the corner."""
    left, top = (width / 2 if index % 2 else 0), (height / 2 if index >= 2 else 0)
    assert np.allclose(box, (left, top, width / 2, height / 2), atol=3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", [*STILLS, *VIDEOS])
def test_a_viewer_sees_what_a_viewer_of_the_input_saw(kind: str, orientation: int, tmp_path: Path) -> None:
    source = (STILLS | VIDEOS)[kind](tmp_path / f"in.{kind}", orientation, SIZE)
    run(source, tmp_path)
    assert_upright(tmp_path, SIZE, 1 if kind in STILLS else 2)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jpegs_in_quicktime_with_exif(orientation: int, tmp_path: Path) -> None:
    run(mjpeg(tmp_path / "in.mov", [orientation] * 2, SIZE), tmp_path)
    assert_upright(tmp_path, SIZE, 2)


@pytest.mark.parametrize("orientation", [2, 4, 5, 6, 7, 8])
def test_orientation_at_key_frames_holds_for_frames_between(orientation: int, tmp_path: Path) -> None:
    source = tagged_by_key_frames(tmp_path / "in.h264", orientation, SIZE)
    assert np.abs(np.array(corners(as_players_show(source)[0]), int) - CORNERS).max() < 20
    run(source, tmp_path)
    assert_upright(tmp_path, SIZE, 5)


@pytest.mark.parametrize("first", ORIENTATIONS)
def test_each_picture_of_a_list_has_its_own_orientation(first: int, tmp_path: Path) -> None:
    kinds = list(STILLS)
    for index in range(8):
        kind = kinds[index % len(kinds)]
        STILLS[kind](tmp_path / f"in{index}.{kind}", (first - 1 + index) % 8 + 1, SIZE)
    run(f"{tmp_path}/in*.*", tmp_path)
    assert_upright(tmp_path, SIZE, 8)


def test_each_jpeg_of_a_video_has_its_own_orientation(tmp_path: Path) -> None:
    run(mjpeg(tmp_path / "in.avi", [6, 8, 5, 7, 6], SIZE), tmp_path)
    assert_upright(tmp_path, SIZE, 5)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_odd_sizes_are_turned_without_a_shift_of_colour(orientation: int, tmp_path: Path) -> None:
    size = (97, 65)
    source = still(tmp_path / "in.png", orientation, size)
    with open_source(source) as frames:
        (frame,) = frames
    image = rgb(upright(frame)).astype(int)
    assert image.shape[1::-1] == size
    inner = np.ones(size[::-1], bool)
    inner[30:36], inner[:, 46:52] = False, False  # where colours meet, 4:2:0 mixes them
    assert np.abs(image - shown(*size))[inner].max() <= 3


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(8, 6), (7, 6), (8, 5), (7, 5), (1, 1), (1, 4), (3, 1)])
def test_turned_planes_fit_each_other(size: tuple[int, int], turns: int, mirrored: bool) -> None:
    height, width = size
    luma = np.add.outer(20 * np.arange(height), 10 * np.arange(width)).astype(np.uint8)
    luma_of_chroma = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge").astype(float)
    means = luma_of_chroma.reshape(-(-height // 2), 2, -(-width // 2), 2).mean((1, 3))
    chroma = np.repeat(np.rint(means)[..., None], 2, axis=2).astype(np.uint8)
    turned, turned_chroma = turn_planes(luma, chroma, mirrored=mirrored, turns=turns)
    expected = np.rot90(np.fliplr(luma) if mirrored else luma, turns)
    np.testing.assert_array_equal(turned, expected)
    rows, columns = expected.shape
    assert turned_chroma.shape == (-(-rows // 2), -(-columns // 2), 2)
    # A sample that is not moved by half of one is off by 10 or 20 here; the lone last line of an odd side costs a quarter.
    lines, samples = rows // 2, columns // 2
    inner = expected[: 2 * lines, : 2 * samples].reshape(lines, 2, samples, 2).mean((1, 3))
    assert np.abs(turned_chroma[:lines, :samples, 0] - inner).max(initial=0) <= 9


def test_degenerate_matrix_leaves_the_frame_unchanged() -> None:
    assert from_matrix((0,) * 9) == (False, 0)
    assert from_matrix((1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)) == (False, 0)
    # 7 degrees, as some phones write: the nearest right angle
    assert from_matrix((65047, 7987, 0, -7987, 65047, 0, 0, 0, 1 << 30)) == (False, 0)


@pytest.mark.parametrize(("angle", "noted"), [(30, True), (-47, True), (90, False), (180, False)])
def test_a_tilt_is_noted(angle: int, noted: bool, tmp_path: Path) -> None:
    with open_source(make_clip(tmp_path / "in.mp4", frames=2, rotation=angle)) as frames:
        assert [frame.rotation % 90 for frame in frames] == [0, 0]
        assert any("tilts the frames" in note for note in frames.info.notes) == noted


def test_recording_starts_new_file_when_rotation_or_color_changes(tmp_path: Path) -> None:
    info = StreamInfo("camera", 64, 96, Fraction(1, 90000), Fraction(25), live=True)
    segments = SegmentWriter(tmp_path, "test", info, minutes=10, crf=23, preset="ultrafast")
    changes: list[dict[str, Any]] = [
        {},
        {},
        {"rotation": 90},
        {"rotation": 90, "color": ColorSpace("bt601", True, 6, 2)},
    ]
    for index, change in enumerate(changes):
        planes = allocate_planes(64, 96)
        planes[0][:], planes[1][:] = 90, 128
        segments.write(Frame(*planes, 3600 * index, Fraction(1, 90000), index, duration=3600, **change))
    segments.finish()
    assert len(segments.paths) == 3


def test_interlaced_video_stays_in_the_order_of_its_fields(tmp_path: Path) -> None:
    """Mirroring left to right leaves lines where they are; top to bottom would exchange the fields."""
    path = displayed(tmp_path / "in.mp4", 4, SIZE)
    with open_source(path) as frames:
        frame = next(iter(frames))
    np.testing.assert_allclose(frame.luma, np.fliplr(_luma(path)), atol=1)


def _luma(path: Path) -> Picture:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    return frame.to_ndarray()[: frame.height, : frame.width]


def test_the_bytes_are_those_of_eight_orientations() -> None:
    """The test's own JPEGs, against another reader of EXIF."""
    import io

    from PIL import ImageOps

    for orientation in ORIENTATIONS:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg_with_exif(orientation, SIZE))))
        assert np.abs(np.array(image, int) - shown(*SIZE)).mean() < 12
        assert stored(orientation, SIZE).shape[:2] == ((64, 96) if orientation < 5 else (96, 64))


def test_decoded_frames_are_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=60, options={"g": "30"})
    gc.collect()
    gc.disable()
    try:
        before = video_frames()  # that other tests hold
        with open_source(clip) as source:
            assert sum(1 for _ in source) == 60
            held = video_frames() - before
    finally:
        gc.enable()
    assert held < 20


def video_frames() -> int:
    return sum(type(item).__name__ == "VideoFrame" for item in gc.get_objects())


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["jpg", "mp4"])
def test_frames_on_their_side_have_a_note(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = {**STILLS, **VIDEOS}[suffix](tmp_path / f"a.{suffix}", orientation, SIZE)
    with open_source(path) as source:
        list(source)
        assert any("on their side" in note for note in source.info.notes) == (orientation >= 5)
