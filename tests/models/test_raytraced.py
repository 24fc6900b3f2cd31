"""Ray-traced scenes: meshes, layouts, files and the data set without Mitsuba, and a rendered scene where it is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.augmentation.copy_paste import CopyPasteDataset
from cliprl.models.data.image_mask_dataset import Subset, sequence_names
from cliprl.models.data.label_mapping import with_classes
from cliprl.models.data.raytraced import RaytracedScenes, instruments, objects, tissue
from cliprl.models.data.raytraced.__main__ import app
from cliprl.models.data.raytraced.cache import (
    RenderSettings,
    open_cache,
    read_settings,
    save_scene,
    scene_path,
    scene_seeds,
)
from cliprl.models.data.raytraced.dataset import CLASS_NAMES
from cliprl.models.data.raytraced.effects import RenderedPasses, develop
from cliprl.models.data.raytraced.generate import Job, generate
from cliprl.models.data.raytraced.geometry import Mesh, rotation, sphere, sweep, translation
from cliprl.models.data.raytraced.instruments import MAKERS, SHAFT_PART, TIP_PART, WRIST_PART
from cliprl.models.data.raytraced.layout import Layout, draw_layout
from cliprl.models.data.raytraced.mesh_folder import MeshFolder
from cliprl.models.data.raytraced.objects import CLIP_LABEL, NEEDLE_LABEL, NO_LABEL, THREAD_LABEL
from cliprl.models.data.raytraced.render import Rendered, llvm_library
from cliprl.models.data.raytraced.textures import TISSUE_STRIPS, TISSUES, TextureSource
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.data.sample import Image
from cliprl.models.data.splits import check_disjoint
from cliprl.pipeline.synthetic import SCENE_CLASSES

needs_mitsuba = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mitsuba", "mitsuba_oidn")), reason="needs the extra render"
)
needs_trimesh = pytest.mark.skipif(not importlib.util.find_spec("trimesh"), reason="needs the extra render")


def volume(mesh: Mesh) -> float:
    """The signed volume: positive where faces are wound to the outside."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def layout(seed: int) -> Layout:
    return draw_layout(np.random.default_rng(seed), TextureSource())


def number(name: str) -> int:
    return next(i for i, spec in enumerate(SCENE_CLASSES) if spec.name == name)


# -- meshes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("opening", [0.0, 0.5])
def test_an_instrument_is_closed_and_wound_outwards(kind: str, opening: float) -> None:
    for seed in range(3):
        built = instruments.build_instrument(kind, seed, opening)
        assert {SHAFT_PART, TIP_PART} <= {piece.part for piece in built.pieces}
        for piece in built.pieces:
            assert np.isfinite(piece.mesh.vertices).all()
            assert volume(piece.mesh) > 0, (kind, piece.part)
            assert len(piece.mesh.uv) == len(piece.mesh.normals) == len(piece.mesh.vertices) > piece.mesh.faces.max()
        ends = {
            part: max(p.mesh.vertices[:, 2].max() for p in built.pieces if p.part == part)
            for part in (SHAFT_PART, TIP_PART)
        }
        assert ends[SHAFT_PART] < ends[TIP_PART] <= built.reach + 2
        assert min(p.mesh.vertices[:, 2].min() for p in built.pieces if p.part == SHAFT_PART) < -300


def test_the_jaws_open_and_nothing_else_changes() -> None:
    shut, open_ = instruments.build_instrument("grasper", 5, 0.0), instruments.build_instrument("grasper", 5, 0.4)
    width = [
        np.ptp(np.concatenate([p.mesh.vertices for p in b.pieces if p.part == TIP_PART])[:, 1]) for b in (shut, open_)
    ]
    assert width[1] > width[0] + 3
    for one, other in zip(shut.pieces, open_.pieces, strict=True):
        if one.part != TIP_PART:
            np.testing.assert_array_equal(one.mesh.vertices, other.mesh.vertices)


def test_kinds_are_those_of_the_operating_room() -> None:
    assert {"scissors", "hook", "clip applier", "suction", "robotic"} <= set(MAKERS)
    parts = {piece.part for piece in instruments.build_instrument("robotic", 0, 0.2).pieces}
    assert parts == {SHAFT_PART, TIP_PART, WRIST_PART}


def test_a_transform_moves_points_and_turns_normals() -> None:
    mesh = sweep([[0, 0, 0], [0, 0, 1], [0, 0, 2]], 1, 0.5)
    moved = mesh.moved(translation(1, 2, 3) @ rotation(np.pi / 2, [1, 0, 0]))
    assert volume(moved) == pytest.approx(volume(mesh))
    np.testing.assert_allclose(moved.vertices[:, 1], 2 - mesh.vertices[:, 2], atol=1e-9)
    np.testing.assert_allclose(moved.normals[:, 1], -mesh.normals[:, 2], atol=1e-9)
    assert volume(sphere()) == pytest.approx(4 / 3 * np.pi, rel=0.02)


@needs_trimesh
def test_a_folder_of_meshes_gives_instruments(tmp_path: Path) -> None:
    import trimesh

    (tmp_path / "any").mkdir()
    trimesh.creation.cylinder(2.0, 40.0).export(tmp_path / "any" / "dissection_electrode.stl")
    folder = MeshFolder(tmp_path)
    assert folder.kinds == ["electrode"]
    # The cylinder's side is one face high, so all of it lies below the limit between shaft and tip, but for its end.
    built = folder.build("electrode", np.random.default_rng(0), 0.0)
    assert built.kind == "hook"
    assert [piece.part for piece in built.pieces] == [TIP_PART, SHAFT_PART]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "dissection_electrode.stl").write_bytes(b"no mesh")
    with pytest.raises(CliprlError, match=r"dissection_electrode.stl can't be read as a mesh"):
        MeshFolder(tmp_path / "damaged").build("electrode", np.random.default_rng(0), 0.0)


def test_a_folder_without_an_instrument_is_refused(tmp_path: Path) -> None:
    (tmp_path / "maryland_dissector_jaw_left.stl").write_bytes(b"")
    with pytest.raises(UsageError, match="holds the meshes of no instrument"):
        MeshFolder(tmp_path)
    with pytest.raises(UsageError, match="is no folder"):
        MeshFolder(tmp_path / "nowhere")


# -- layout ------------------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_scene() -> None:
    one, other = layout(7), layout(7)
    assert [tool.kind for tool in one.tools] == [tool.kind for tool in other.tools]
    for a, b in zip(one.still, other.still, strict=True):
        np.testing.assert_array_equal(a.mesh.vertices, b.mesh.vertices)
    assert [tool.seed for tool in layout(8).tools] != [tool.seed for tool in one.tools]


def test_scenes_hold_what_they_should() -> None:
    scenes = [layout(seed) for seed in range(20)]
    counts = np.bincount([len(scene.tools) for scene in scenes], minlength=4)
    assert len(counts) == 4
    assert counts.min() > 0
    labels = {placed.label for scene in scenes for placed in scene.still}
    assert {NO_LABEL, CLIP_LABEL, THREAD_LABEL} <= labels <= {NO_LABEL, CLIP_LABEL, THREAD_LABEL, NEEDLE_LABEL}
    strips = sum(sum(placed.label == NO_LABEL for placed in scene.still) > 1 for scene in scenes)
    assert strips > 10  # organs, strips, swabs: something else than a bare wall
    for scene in scenes:
        assert all(placed.instance == 0 for placed in scene.still)
        pieces = scene.instruments(0, None)
        assert {placed.instance for placed in pieces} == set(range(1, len(scene.tools) + 1))
        assert {placed.label for placed in pieces} <= {SHAFT_PART, TIP_PART, WRIST_PART}


def test_between_two_frames_instruments_move_a_little() -> None:
    scene = next(one for one in map(layout, range(20)) if one.tools)
    first, second = scene.instruments(0, None), scene.instruments(1, None)
    for a, b in zip(first, second, strict=True):
        assert (a.label, a.instance) == (b.label, b.instance)
        near = a.mesh.vertices[:, 2] > 0
        moved = np.linalg.norm(a.mesh.vertices - b.mesh.vertices, axis=1)[near]
        assert moved.size == 0 or 0 < moved.max() < 60
    assert not np.array_equal(scene.view(0).origin, scene.view(1).origin)


def test_an_instrument_presses_the_wall_in_or_pulls_it_up() -> None:
    wall = tissue.draw_wall(np.random.default_rng(0), 50.0, 80.0)
    before, far = float(wall.at(3, 4)), float(wall.at(-60, -60))
    wall.press(3, 4, 5.0, 8.0)
    assert float(wall.at(3, 4)) == pytest.approx(before + 5, abs=0.5)
    wall.press(3, 4, -9.0, 8.0)
    assert float(wall.at(3, 4)) < before - 2
    assert float(wall.at(-60, -60)) == pytest.approx(far, abs=0.1)


def test_texture_is_not_stretched_on_slopes() -> None:
    wall = tissue.draw_wall(np.random.default_rng(3), 50.0, 80.0)
    mesh = wall.mesh(0.01, 0.4, np.zeros(2))
    edges = mesh.faces[:, :2]
    length = np.linalg.norm(np.diff(mesh.vertices[edges], axis=1)[:, 0], axis=1)
    on_texture = np.linalg.norm(np.diff(mesh.uv[edges], axis=1)[:, 0], axis=1) / 0.01
    assert np.quantile(length / on_texture, 0.98) < 2.5


def test_distractors_are_labelled_none() -> None:
    rng = np.random.default_rng(0)
    wall = tissue.draw_wall(rng, 50.0, 80.0)
    assert objects.gauze(rng, wall).label == NO_LABEL
    assert {placed.label for placed in objects.finger(rng, wall)} == {NO_LABEL}
    assert {placed.label for placed in objects.clips(rng, tissue.draw_strip(rng, wall)[1], 2.0)} == {CLIP_LABEL}
    assert objects.thread(rng, wall).label == THREAD_LABEL
    assert objects.needle_mesh(rng, (0, 0, 50)).label == NEEDLE_LABEL


def test_tissue_takes_its_colour_from_pictures_or_from_noise(tmp_path: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(90, 160, (64, 80, 3)).astype(np.uint8))
    for source in (TextureSource(), TextureSource(tmp_path)):
        made = source.tissue(rng, size=64)
        assert made.color.shape == (64, 64, 3)
        assert 0 < made.color.min() <= made.color.max() < 1
        assert made.relief.min() >= 0
    assert set(TISSUE_STRIPS) <= set(TISSUES)
    image = np.full((100, 100, 3), 150, np.uint8)
    image[:, :50] = 0  # a dark border, of which nothing may get into the texture
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert all(TextureSource(tmp_path).crop(np.random.default_rng(seed), 32, 0.35).min() > 100 for seed in range(10))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        TextureSource(tmp_path / "empty")


# -- effects, files and the data set -----------------------------------------------------------------------------------


def rendered(height: int = 48, width: int = 60) -> Rendered:
    """A frame with a shaft (1) on the left, a wrist (3) and a tip (2) of instrument 1, and a clip."""
    labels = np.zeros((height, width), np.uint8)
    labels[20:28, :20], labels[20:28, 20:26], labels[20:28, 26:34], labels[40:44, 40:44] = (
        SHAFT_PART,
        WRIST_PART,
        TIP_PART,
        CLIP_LABEL,
    )
    instances = np.isin(labels, (SHAFT_PART, WRIST_PART, TIP_PART)).astype(np.uint8)
    radiance = np.random.default_rng(0).uniform(0.1, 1, (height, width, 3)).astype(np.float32)
    return Rendered(radiance, np.full((height, width), 80, np.float32), labels, instances, instances.astype(np.float32))


def frame(seed: int = 0) -> RenderedPasses:
    return develop([rendered()], (seed,))[0]


def saved(folder: Path, seeds: range, kinds: tuple[str, ...] = ("grasper",)) -> Path:
    settings = RenderSettings(48, 60, 1, pairs=2)
    open_cache(folder, settings)
    for seed in seeds:
        save_scene(folder, seed, develop([rendered()] * settings.frames(seed), (seed,)), kinds, 90)
    return folder


def test_effects_leave_labels_where_they_are() -> None:
    for seed in range(40):
        made = frame(seed)
        np.testing.assert_array_equal(made.labels, rendered().labels)
        assert made.image.dtype == np.uint8
        assert made.covered.mean() < 0.6
        assert (made.layer[..., 3] == 255 * rendered().instances).all()


def test_frames_of_a_pair_differ_by_their_noise_only() -> None:
    for seed in range(5):
        first, second = develop([rendered()] * 2, (seed,))
        difference = np.abs(first.image.astype(int) - second.image)
        assert 0 < difference.mean() < 12
        np.testing.assert_array_equal(first.covered, second.covered)


def test_scenes_are_read_in_the_classes_of_endovis(tmp_path: Path) -> None:
    data = open_dataset(f"raytraced:{saved(tmp_path, range(3))}")
    assert isinstance(data, RaytracedScenes)
    assert data.classes == SCENE_CLASSES
    assert [data.sequence(i) for i in range(len(data))] == [f"scene {seed:06d}" for seed in (0, 0, 1, 2, 2)]
    assert data.clip(0) == data.clip(1)
    for index in range(len(data)):
        sample, instances = data[index], data.instances(index)
        assert sample.image.shape == (*sample.labels.shape, 3)
        seen = sample.labels > 0
        expected = np.array([number(CLASS_NAMES[code]) for code in range(7)], np.uint8)[rendered().labels]
        np.testing.assert_array_equal(sample.labels[seen], expected[seen])
        np.testing.assert_array_equal(instances > 0, np.isin(sample.labels, (1, 2, 3)))
    assert data.kinds(0) == ["grasper"]
    assert {CLASS_NAMES[SHAFT_PART], CLASS_NAMES[WRIST_PART], CLASS_NAMES[TIP_PART]} == {
        "instrument-shaft",
        "instrument-wrist",
        "instrument-clasper",
    }


@pytest.mark.parametrize(("option", "found"), [("", [9]), ("?suction=parts", [1, 2, 3])])
def test_suction_is_a_class_or_has_parts(tmp_path: Path, option: str, found: list[int]) -> None:
    saved(tmp_path, range(1, 2), ("suction",))
    data = open_dataset(f"raytraced:{tmp_path}{option}")
    assert isinstance(data, RaytracedScenes)
    _, labels = data.instruments(0)
    assert [int(value) for value in np.unique(labels[labels > 0])] == found


def test_a_range_of_seeds_can_be_asked_for(tmp_path: Path) -> None:
    saved(tmp_path, range(4))
    assert len(open_dataset(f"raytraced:{tmp_path}?seeds=1-2")) == 3
    for options, message in (
        ("seeds=7-9", "no ray-traced scenes with seeds 7-9"),
        ("seeds=3-1", "give seeds=FIRST-LAST"),
        ("suction=no", "suction is 'no'"),
        ("colour=1", "has no option 'colour'"),
    ):
        with pytest.raises(UsageError, match=message):
            open_dataset(f"raytraced:{tmp_path}?{options}")


def test_instruments_can_be_laid_over_other_tissue(tmp_path: Path) -> None:
    data = open_dataset(f"raytraced:{saved(tmp_path, range(2))}")
    assert isinstance(data, RaytracedScenes)
    composed = CopyPasteDataset(data, data, 0)
    seen: list[Image] = [composed[index].labels for index in range(len(composed))]
    assert any((labels == 1).any() for labels in seen)


def test_tissue_below_composed_scenes_is_kept_apart_from_scores(tmp_path: Path) -> None:
    saved(tmp_path / "scenes", range(2))
    for folder in ("hyperkvasir_mucosa/images", "mine/images"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(5):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), np.full((32, 40, 3), 50 * number, np.uint8))
    context = DatasetContext(tmp_path)

    def tissue(options: str) -> list[str]:
        data = open_dataset(f"composed:scenes?tissue={options}", context=context)
        assert isinstance(data, CopyPasteDataset)
        return sequence_names(data.tissue)

    assert tissue("hyperkvasir_mucosa/images") == ["part1", "part2", "part3"]
    assert tissue("hyperkvasir_mucosa/images&parts=part1,part5") == ["part1", "part5"]
    assert tissue("mine/images") == [f"part{number}" for number in range(1, 6)]
    with pytest.raises(UsageError, match=r"asks for part7.*it has part1, part2"):
        tissue("mine/images&parts=part7")
    learned = open_dataset("composed:scenes?tissue=mine/images&parts=part1,part4", context=context)
    learned = Subset(with_classes(learned, learned.classes), sequence_names(learned)[:2])
    check_disjoint([learned], [open_dataset("stills:mine/images?sequences=part2,part3", context=context)])
    for line, shared in (
        ("stills:mine/images?sequences=part3,part4", "images/part4"),
        ("raytraced:scenes", "raytraced/scene 000000"),
    ):
        with pytest.raises(UsageError, match=f"{shared}.* would be trained on and tested on"):
            check_disjoint([learned], [open_dataset(line, context=context)])


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, range(1))
    assert read_settings(tmp_path) == RenderSettings(48, 60, 1, pairs=2)
    open_cache(tmp_path, RenderSettings(48, 60, 1, pairs=2))
    with pytest.raises(UsageError, match=r"made with samples 1 \(now 8\)"):
        open_cache(tmp_path, RenderSettings(48, 60, 8, pairs=2))
    with pytest.raises(UsageError, match=r"made with version \d+ \(now 999\)"):
        open_cache(tmp_path, RenderSettings(48, 60, 1, pairs=2, version=999))
    (tmp_path / "meta.json").unlink()
    with pytest.raises(UsageError, match=r"holds scenes and no meta.json"):
        open_cache(tmp_path, RenderSettings())


@pytest.mark.parametrize(
    "change", [{"format": "other"}, {"key": "0"}, {"settings": {"height": 5}}, {"settings": {"a": 5}}]
)
def test_a_damaged_meta_file_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    saved(tmp_path, range(1))
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CliprlError, match=r"meta\.json"):
        RaytracedScenes(tmp_path)
    path.write_text("{")
    with pytest.raises(CliprlError, match=r"meta\.json can't be read"):
        RaytracedScenes(tmp_path)


def test_a_damaged_scene_is_named_and_strangers_are_passed_over(tmp_path: Path) -> None:
    saved(tmp_path, range(2))
    (tmp_path / ".000009.npz.123").write_bytes(b"cut off")
    (tmp_path / "notes.npz").write_bytes(b"")
    assert scene_seeds(tmp_path) == [0, 1]
    scene_path(tmp_path, 1).write_bytes(scene_path(tmp_path, 1).read_bytes()[:900])
    data = RaytracedScenes(tmp_path)
    with pytest.raises(CliprlError, match=r"000001.npz can't be read as a scene"):
        data[2]


def test_without_mitsuba_the_command_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['mitsuba'] = None; sys.argv = ['raytraced', sys.argv[1], '--count', '1'];"
        "import runpy; runpy.run_module('cliprl.models.data.raytraced', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'cliprl[render]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "256"], "give HEIGHTxWIDTH"),
        (["--size", "8x8"], "give HEIGHTxWIDTH"),
        (["--count", "0"], "count"),
        (["--mucosa", "nowhere"], "holds no images"),
        (["--meshes", "nowhere"], "is no folder"),
    ],
)
def test_misuse_is_told_in_a_line(
    tmp_path: Path, arguments: list[str], message: str, command: Callable[..., Any]
) -> None:
    done = command(app, "cliprl.models.data.raytraced", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_llvm_library_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/somewhere/libLLVM-19.so")
    assert llvm_library() == "/somewhere/libLLVM-19.so"


# -- with Mitsuba ------------------------------------------------------------------------------------------------------


@needs_mitsuba
def test_scenes_are_rendered_once_and_are_the_same_again(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    job = Job(tmp_path / "a", 3, 2, height=64, width=80, samples=2)
    generate(job, lambda done, total, frames, seconds: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    data = RaytracedScenes(tmp_path / "a")
    assert len(data) == 3  # seed 4 has two frames
    assert any((data[i].labels > 0).any() for i in range(3))
    assert all(data[i].image.std() > 5 for i in range(3))
    assert not np.array_equal(data[1].image, data[2].image)
    stamp = scene_path(tmp_path / "a", 3).stat().st_mtime_ns
    scene_path(tmp_path / "a", 4).unlink()
    generate(job)
    assert scene_path(tmp_path / "a", 3).stat().st_mtime_ns == stamp
    again = Job(tmp_path / "b", 4, 1, height=64, width=80, samples=2)
    generate(again)
    first, second = RaytracedScenes(tmp_path / "a", range(4, 5)), RaytracedScenes(tmp_path / "b")
    for index in range(2):
        np.testing.assert_array_equal(first[index].labels, second[index].labels)
        np.testing.assert_array_equal(first[index].image, second[index].image)


@needs_mitsuba
@pytest.mark.parametrize("llvm", [True, False])
def test_labels_are_those_of_what_is_seen(llvm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout with one bright tube over a dark wall: its mask is where the image is bright."""
    from cliprl.models.data.raytraced.geometry import tube
    from cliprl.models.data.raytraced.layout import CameraPose, Light
    from cliprl.models.data.raytraced.materials import material
    from cliprl.models.data.raytraced.objects import Placed
    from cliprl.models.data.raytraced.render import Renderer

    if not llvm:
        monkeypatch.setattr("cliprl.models.data.raytraced.render.llvm_library", lambda: None)
    wall = tissue.Wall(np.linspace(-150, 150, tissue.GRID), np.full((tissue.GRID, tissue.GRID), 100.0), 58.0, 100.0)
    camera = CameraPose(60.0, np.zeros(3), np.array([0, 0, 100.0]))
    light = Light(np.array([3.0, 0, -1]), np.array([0, 0, 100.0]), 3e4, 60.0, 40.0)
    bright = material(0.9, 0, 0.9, 0.1)
    shaft = Placed(
        tube(6.0, -80, 10).moved(translation(0, 0, 60) @ rotation(np.pi / 2, [0, 1, 0])), bright, SHAFT_PART, 1
    )
    surround = np.full((4, 4, 3), 0.02, np.float32)
    dark = Placed(wall.mesh(0.01, 0.0, np.zeros(2)), material(0.004, 0, 0.9, 0.0), NO_LABEL)
    strip = Placed(tube(6.0, -40, 40).moved(translation(0, 30, 90)), bright, NO_LABEL)
    scene = Layout(camera, camera, (light, light), surround, [dark, strip, shaft])
    made = Renderer(96, 120, 8).frames(scene, 1, 0)[0]
    mask, radiance = made.labels == SHAFT_PART, made.radiance.mean(2)
    np.testing.assert_array_equal(mask, made.instances == 1)
    inner = made.coverage == 1
    assert 0.05 < mask.mean() < 0.3
    assert np.quantile(radiance[inner], 0.1) > 3 * np.quantile(radiance[made.coverage == 0], 0.5)
    # The strip of the same surface is as bright, and is labelled none.
    assert (radiance[~mask] > np.median(radiance[inner]) * 0.2).any()
    np.testing.assert_array_equal(mask, made.coverage >= 0.5)
