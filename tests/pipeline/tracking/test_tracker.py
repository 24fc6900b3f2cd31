"""Instruments keep their ids: when they cross, when smoke cuts them, when they are hidden, leave and return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.confidence import ConfidenceModel
from cliprl.pipeline.core.segmentation import Instances, Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.segment.motion import Flow, FlowEstimator
from cliprl.pipeline.tracking import tracker as tracker_module
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.id_map import ids_at
from cliprl.pipeline.tracking.memory import CAPACITY, EmbeddingMemory
from cliprl.pipeline.tracking.shafts import border, contacts, find_shafts
from cliprl.pipeline.tracking.tracker import InstrumentTracker, TrackerInput

GRID, NETWORK = (64, 80), (256, 320)
VIEW = full_viewport(*NETWORK, *NETWORK)
CLASSES = tuple(
    ClassSpec(name, (0, 0, 0), kind, (name,))
    for name, kind in (
        ("tissue", "background"),
        ("instrument-shaft", "instrument"),
        ("instrument-wrist", "instrument"),
        ("suturing-needle", "instrument"),
        ("suction-instrument", "instrument"),
    )
)
RED, BLUE = (200, 40, 40), (40, 60, 200)
Color = tuple[int, int, int]
Line = tuple[tuple[float, float], tuple[float, float], Color]
TEXTURE = np.random.default_rng(0).integers(60, 120, (64, 80, 3), dtype=np.uint8)


class Scene:
    """Straight instruments on textured tissue, drawn in grid cells; each line is from the edge to the tip, in a color."""

    def __init__(self) -> None:
        self.tracker = InstrumentTracker(ClassGroups.of(CLASSES))
        self.segmentation = self._segmentation(np.zeros(GRID, np.uint8))

    def show(
        self, *lines: Line, smoke: int | None = None, classes: tuple[int, ...] = (), is_cut: bool = False
    ) -> Instances:
        """The next frame. `smoke`: the column at which a band of smoke hides five columns. `classes`: one for each line."""
        labels, image = np.zeros(GRID, np.uint8), cv2.resize(TEXTURE, NETWORK[::-1], interpolation=cv2.INTER_CUBIC)
        for (start, end, color), label in zip(lines, classes or [1] * len(lines), strict=True):
            points = [tuple(round(v) for v in point) for point in (start, end)]
            cv2.line(labels, points[0], points[1], (label,), 5)
            cv2.line(image, *[(x * 4 + 2, y * 4 + 2) for x, y in points], color, 20)
        if smoke is not None:
            labels[:, smoke : smoke + 5] = 0
            image[:, smoke * 4 : smoke * 4 + 20] = 220
        self.segmentation = self._segmentation(labels)
        found = self.tracker.update(TrackerInput(self.segmentation, image, None, is_cut))
        self.segmentation.instances = found
        return found

    @staticmethod
    def _segmentation(labels: NDArray[np.uint8]) -> Segmentation:
        probabilities = (np.arange(len(CLASSES))[:, None, None] == labels).astype(np.float32)
        return Segmentation(labels, probabilities, VIEW, 1.0, 0)


def left(tip: float, row: float = 30, color: Color = RED) -> Line:
    return (0, row), (tip, row), color


def top(tip: float, column: float = 60, color: Color = BLUE) -> Line:
    return (column, 0), (column, tip), color


def ids(found: Instances) -> list[int]:
    return [item.id for item in found.items]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_instruments_in_the_first_frame_have_ids_at_once(scene: Scene) -> None:
    assert ids(scene.show(left(30), top(20))) == [1, 2]


def divided(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the frames that are divided into regions: those between them are divided as the one before."""
    frames, find = list[int](), tracker_module.find_regions
    monkeypatch.setattr(tracker_module, "find_regions", lambda maps: frames.append(len(frames)) or find(maps))
    return frames


def test_one_of_three_like_frames_is_divided(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        first = scene.show(left(70), top(20, 40))
    frames = divided(scene, monkeypatch)
    for step in range(9):  # one moves a cell in four frames
        found = scene.show(left(70 + step / 4), top(20, 40))
        assert found.items[1] == first.items[1]
        assert found.ids[30, 10] == first.ids[30, 10]
        assert np.array_equal(found.ids > 0, scene.segmentation.labels > 0)
    assert len(frames) == 3


@pytest.mark.parametrize("change", ["cut", "moved", "new", "gone"])
def test_a_frame_unlike_the_last_is_divided(scene: Scene, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        scene.show(left(40), top(20))
    frames = divided(scene, monkeypatch)
    lines = {"moved": (left(50), top(20)), "new": (left(40), top(20), top(10, 20)), "gone": (left(40),)}
    scene.show(*lines.get(change, (left(40), top(20))), is_cut=change == "cut")
    assert len(frames) == 1


def test_frames_are_divided_while_an_instrument_has_no_id(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        scene.show(left(40))
    frames = divided(scene, monkeypatch)
    assert [ids(scene.show(left(40), top(20))) for _ in range(3)] == [[1], [1], [1, 2]]
    assert len(frames) == 3


def test_two_crossing_shafts_stay_two(scene: Scene) -> None:
    first = scene.show(left(40), top(20))
    horizontal, vertical = int(first.ids[30, 10]), int(first.ids[8, 60])
    for step in range(50):  # the one from the left passes under the other and beyond it
        found = scene.show(left(40 + step * 0.7), top(20 + step * 0.5))
        assert ids(found) == [1, 2]
        assert found.ids[30, 10] == horizontal
        assert found.ids[8, 60] == vertical
    assert found.ids[30, 72] == horizontal


def test_shafts_that_cross_in_the_first_frame_are_two(scene: Scene) -> None:
    found = scene.show(left(75), top(55))
    assert ids(found) == [1, 2]
    assert found.ids[30, 10] == found.ids[30, 72]
    assert found.ids[8, 60] == found.ids[50, 60] != found.ids[30, 10]


def test_a_shaft_cut_by_smoke_is_one(scene: Scene) -> None:
    for _ in range(3):
        scene.show(left(60))
    for step in range(30):
        assert ids(scene.show(left(60), smoke=20 + step // 2)) == [1]
    assert ids(scene.show(left(60))) == [1]


def test_a_shaft_that_is_cut_from_the_start_is_one(scene: Scene) -> None:
    assert ids(scene.show(left(60), smoke=25)) == [1]


def test_a_short_edge_piece_is_of_the_shaft_behind(scene: Scene) -> None:
    beside = (0, 44), (5, 44), RED  # as short, but not on the axis of the shaft
    found = scene.show(left(60), beside, smoke=5)
    assert found.ids[30, 2] == found.ids[30, 40] != found.ids[44, 2] != 0


def test_two_jaws_without_their_shaft_are_one_instrument(scene: Scene) -> None:
    jaws = ((30, 20), (44, 24), RED), ((30, 36), (44, 32), RED)
    other = ((64, 20), (74, 24), RED)  # too far away
    found = scene.show(*jaws, other, classes=(2, 2, 2))
    assert found.ids[20, 30] == found.ids[36, 30] != found.ids[20, 65] != 0


@pytest.mark.parametrize("hidden", [2, 20, 50, 200])
def test_hidden_instruments_return_under_their_ids(scene: Scene, hidden: int) -> None:
    for _ in range(6):
        first = scene.show(left(40), top(20))
    before = int(first.ids[30, 10]), int(first.ids[8, 60])
    for _ in range(hidden):
        assert scene.show().items == ()
    for _ in range(6):
        found = scene.show(left(35, 33), top(24, 57))
    assert (int(found.ids[33, 10]), int(found.ids[8, 57])) == before


def test_the_color_tells_a_returning_instrument_from_another(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(40))
    for _ in range(100):
        scene.show()
    for _ in range(4):
        found = scene.show(left(40, color=BLUE))
    assert ids(found) == [2]
    for _ in range(4):
        found = scene.show(left(40, color=BLUE), left(40, 50, RED))
    assert (int(found.ids[30, 10]), int(found.ids[50, 10])) == (2, 1)


def test_a_jaw_at_the_edge_is_no_second_instrument(scene: Scene) -> None:
    found = scene.show(left(40), ((40, 30), (50, 0), RED), classes=(1, 2))
    assert ids(found) == [1]


def test_a_piece_that_reaches_the_edge_keeps_its_id(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(60))
    for _ in range(5):
        scene.show(left(60), smoke=0)
    for _ in range(12):
        found = scene.show(left(60), smoke=9)
        assert ids(found) == [1]
    assert found.ids[30, 3] == found.ids[30, 40] == 1


def test_a_shaft_that_turned_while_cut_off_keeps_its_id(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(60))
    for step in range(10):  # the shaft is hidden at the edge, and turns about the tip
        scene.show(((24, 30 + step), (60, 30), RED))
    for _ in range(6):  # far from where it entered, on its line and in another color: a band of its shaft
        assert ids(scene.show(((24, 39), (60, 30), RED), ((0, 45), (8, 43), BLUE))) == [1]


def test_a_returning_shaft_is_no_piece_of_its_neighbor(scene: Scene) -> None:
    for _ in range(6):
        first = scene.show(left(60, 30), left(50, 22, BLUE))
    lower, upper = int(first.ids[30, 5]), int(first.ids[22, 5])
    for _ in range(20):
        assert ids(scene.show(left(60, 30))) == [lower]
    for _ in range(6):  # smoke cuts both
        found = scene.show(left(60, 30), left(50, 22, BLUE), smoke=10)
    assert (int(found.ids[22, 5]), int(found.ids[30, 5])) == (upper, lower)


def test_a_fragment_is_no_hidden_instrument(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(40), top(40))
    for _ in range(6):
        assert ids(scene.show(left(40), ((50, 55), (51, 55), BLUE))) == [int(scene.show(left(40)).ids[30, 10])]


def test_a_piece_is_compared_again_before_it_gets_an_id(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(40))
    for step in range(12):  # beside the shaft, and like it only later
        assert ids(scene.show(left(40), ((36, 18), (46, 18), BLUE if step < 3 else RED))) == [1]


@pytest.mark.parametrize("rest", [0, 4])
def test_one_that_returns_in_two_pieces_is_one(scene: Scene, rest: int) -> None:
    for _ in range(8):
        first = scene.show(left(60))
    for _ in range(rest):  # at first a little of it is left in view
        assert ids(scene.show(((36, 30), (38, 30), RED))) == [1]
    for _ in range(12):
        assert ids(scene.show()) == []
    for _ in range(14):  # smoke covers the middle
        found = scene.show(left(16), ((40, 30), (60, 30), RED))
    assert found.ids[30, 10] == found.ids[30, 50] == first.ids[30, 10] != 0


def test_a_shaft_seen_under_a_hidden_one_keeps_its_id(scene: Scene) -> None:
    under = ((40, 63), (40, 10), RED)
    for step in range(16):
        first = scene.show(under, ((56 - 2 * min(step, 10), 63), (76 - min(step, 10), 40), BLUE))
    for _ in range(6):  # with the upper one its place is hidden, but for the edge
        found = scene.show(((40, 63), (40, 61), RED), ((40, 50), (40, 10), RED))
    assert found.ids[62, 40] == found.ids[30, 40] == first.ids[30, 40] != first.ids[42, 64] != 0


def test_a_piece_beside_one_in_view_is_none_that_left(scene: Scene) -> None:
    for step in range(16):
        first = scene.show(left(40), top(20 - step))
    for _ in range(3):
        scene.show(left(40))
    for _ in range(12):
        found = scene.show(left(40), ((46, 24), (46, 24), BLUE), smoke=47)
    assert found.ids[24, 45] != first.ids[3, 60] != 0
    for _ in range(12):  # too large for a fragment
        found = scene.show(left(40), ((46, 24), (60, 10), BLUE))
    assert found.ids[12, 58] == first.ids[3, 60]


def test_a_far_piece_on_the_line_is_no_part(scene: Scene) -> None:
    for _ in range(15):  # a spot at the other edge, on the line of the shaft: a false alarm, or another instrument
        found = scene.show(left(30), ((76, 30), (79, 30), RED), classes=(1, 2))
    assert found.ids[30, 10] != found.ids[30, 78]


@pytest.mark.parametrize(("color", "returns"), [(BLUE, BLUE), (RED, (220, 220, 40)), (RED, (210, 60, 50))])
def test_an_instrument_returns_beside_one_that_it_touches(scene: Scene, color: Color, returns: Color) -> None:
    for _ in range(8):
        first = scene.show(left(40), left(40, 38, color))
    upper, lower = int(first.ids[30, 10]), int(first.ids[38, 10])
    for _ in range(20):
        assert ids(scene.show(left(40))) == [upper]
    for _ in range(4):  # in another light, in which it looks no more like itself than like its neighbor
        found = scene.show(left(40), left(40, 35, returns))
    assert (int(found.ids[29, 10]), int(found.ids[37, 10])) == (upper, lower) == (1, 2)


def test_a_jaw_that_opens_where_one_is_hidden_is_none(scene: Scene) -> None:
    for step in range(20):  # two cross
        first = scene.show(left(60), left(44, 38), top(15 + step, 56, RED))
    shown = sorted((int(first.ids[30, 10]), int(first.ids[8, 56])))
    for opened in [*[0] * 6, *[1, 3, 5] * 3, 5]:
        assert ids(scene.show(left(60), ((16, 30), (22, 30 + opened), RED), top(34, 56, RED))) == shown
    for _ in range(4):
        found = scene.show(left(60), left(44, 38), top(34, 56, RED))
    assert found.ids[38, 10] == first.ids[38, 10] not in (0, first.ids[30, 10])


def test_the_longer_hidden_the_farther_it_may_return(scene: Scene) -> None:
    for _ in range(8):
        first = scene.show(left(40), left(40, 40, BLUE))
    upper, lower = int(first.ids[30, 10]), int(first.ids[40, 10])
    for step in range(42):
        scene.show(left(40, 30 - step / 10))
    for _ in range(4):
        found = scene.show(left(40, 26), left(40, 31, BLUE))
    assert (int(found.ids[25, 10]), int(found.ids[32, 10])) == (upper, lower)


@pytest.mark.parametrize(("column", "expected"), [(60, 1), (20, 2)])
def test_one_that_enters_as_before_may_look_otherwise(scene: Scene, column: int, expected: int) -> None:
    for _ in range(6):
        scene.show(top(30))
    for _ in range(40):
        scene.show()
    for _ in range(4):
        found = scene.show(top(30, column, RED), top(3, column))
    assert ids(found) == [expected]


def test_one_returns_where_smoke_hides_its_shaft(scene: Scene) -> None:
    gray, other = (90, 90, 90), top(20)
    for _ in range(8):
        first = scene.show(left(40), other)
    for _ in range(12):
        assert ids(scene.show(other)) == [int(first.ids[8, 60])]
    for _ in range(14):  # what is left of it is smaller and in another light, but it lies where the instrument was
        found = scene.show(((22, 30), (26, 30), RED), ((27, 30), (40, 30), gray), other)
    assert found.ids[30, 30] == first.ids[30, 30] != 0


def test_one_that_enters_again_is_compared_before_its_id(scene: Scene) -> None:
    for _ in range(8):
        first = scene.show(left(40), top(20))
    for _ in range(12):
        scene.show(left(40))
    for frame in range(6):  # elsewhere, and at first it looks like nothing that was seen of it
        found = scene.show(left(40), top(12, 46, (90, 90, 90) if frame < 2 else BLUE))
    assert found.ids[8, 46] == first.ids[8, 60] != 0


def test_a_piece_elsewhere_is_no_returned_instrument(scene: Scene) -> None:
    gray, other = (90, 90, 90), top(20)
    for _ in range(8):
        first = scene.show(left(40), other)
    for _ in range(12):
        scene.show(other)
    for _ in range(14):
        found = scene.show(((22, 50), (26, 50), RED), ((27, 50), (40, 50), gray), other)
    assert found.ids[50, 30] not in (0, first.ids[30, 30])


def test_one_returns_across_one_that_does_not_enter(scene: Scene) -> None:
    inside = (20, 30), (60, 30), RED
    for _ in range(6):
        first = scene.show(inside, ((34, 63), (34, 40), BLUE))
    for _ in range(20):
        assert ids(scene.show(inside)) == [int(first.ids[30, 25])]
    for _ in range(6):
        found = scene.show(inside, ((43, 63), (43, 31), BLUE))
    assert found.ids[30, 25] == first.ids[30, 25]
    assert found.ids[50, 43] == first.ids[50, 34] != 0


def test_what_covers_a_vanished_instrument_is_not_its_rest(scene: Scene) -> None:
    for step in range(12):  # the one from the top comes down on the other
        first = scene.show(left(75, 30, BLUE), top(20 + min(step, 8) * 2, 40, BLUE))
    across, down = int(first.ids[30, 10]), int(first.ids[8, 40])
    for _ in range(8):
        found = scene.show(top(36, 40, BLUE))
    assert ids(found) == [down]
    for _ in range(4):
        found = scene.show(left(75, 30, BLUE), top(36, 40, BLUE))
    assert (int(found.ids[30, 10]), int(found.ids[8, 40])) == (across, down)


def test_a_bent_instrument_is_one_while_another_is_hidden(scene: Scene) -> None:
    other = left(30, 55, BLUE)
    for _ in range(8):
        first = scene.show(other, ((60, 0), (52, 30), RED), ((52, 30), (58, 63), RED))
    bent = int(first.ids[10, 56])
    for _ in range(40):
        found = scene.show(((60, 0), (52, 30), RED), ((52, 30), (58, 63), RED))
    assert (ids(found), int(found.ids[55, 55])) == ([bent], bent)


def test_a_jaw_taken_for_a_clamp_stays_with_its_instrument() -> None:
    classes = (*CLASSES[:3], ClassSpec("clamps", (0, 0, 0), "instrument", ("clamps",)))
    groups, labels = ClassGroups.of(classes), np.array([[3, 3, 1, 0]], np.uint8)
    probabilities = np.array(
        [[[0.1, 0.1, 0.1, 0.4]], [[0.25, 0.1, 0.6, 0.3]], [[0.25, 0.1, 0.2, 0.2]], [[0.4, 0.7, 0.1, 0.1]]]
    )
    found = groups.most_probable(labels, probabilities.astype(np.float32))
    assert found.tolist() == [[1, 2, 1, 0]]


def test_motion_is_measured_only_where_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[tuple[Line, ...]] = [(left(40), top(20))] * 8  # they stay, one hides, they cross, they part, both hide
    frames += [*[(left(40),)] * 12, *[(left(40 + step), top(20 + step)) for step in range(20)]]
    frames += [*[(left(40, 40), top(20, 62))] * 8, *[()] * 60, *[(left(40, 42), top(20))] * 6]
    measured: list[list[int]] = [[], []]
    found: list[list[NDArray[np.uint16]]] = [[], []]
    between = FlowEstimator.between
    for place in range(2):

        def counted(self: FlowEstimator, *images: NDArray[np.uint8], place: int = place) -> Flow | None:
            measured[place].append(len(found[place]))
            return between(self, *images)

        monkeypatch.setattr(FlowEstimator, "between", counted)
        scene = Scene()
        for lines in frames:
            found[place].append(scene.show(*lines).ids)
        monkeypatch.setattr("cliprl.pipeline.tracking.tracker.settle", lambda *_: False)
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
    assert not set(measured[0]) & {*range(1, 8), *range(10, 19), *range(52, 100)}
    assert len(measured[0]) < len(measured[1]) // 2


def test_few_left_instruments_are_remembered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.pipeline.tracking.tracker._REMEMBERED", 2)
    colors = [RED, BLUE, (40, 200, 60), (220, 220, 40)]
    for number, color in enumerate(colors):
        for _ in range(4):
            found = scene.show(top(25, 10 + 20 * number, color))
        assert ids(found) == [number + 1]
        for _ in range(60):
            scene.show()
        assert len(scene.tracker._tracks) <= 2


def test_keys_and_ids_are_bounded(scene: Scene) -> None:
    for step in range(150):  # each of these regions is gone before it has an id
        scene.show(left(30, 10 + step * 7 % 50)) if step % 3 else scene.show()
    assert scene.tracker._map is not None
    assert len(scene.tracker._tracks) <= 3
    assert max(scene.tracker._tracks, default=0) <= 3
    scene.tracker._last_id = 65_534
    for _ in range(4):
        found = scene.show(top(30, 20), top(30, 60, RED))
    assert sorted(ids(found)) == [1, 65_535]


def test_ids_last_through_a_cut(scene: Scene) -> None:
    for _ in range(6):
        scene.show(left(40), top(20))
    found = scene.show(left(30, 45), top(30, 30), is_cut=True)
    assert sorted(ids(found)) == [1, 2]


def test_specks_get_no_id(scene: Scene) -> None:
    assert scene.show(((40, 40), (41, 40), RED)).items != ()  # as large as the smallest instrument
    small = Scene()
    labels = np.zeros(GRID, np.uint8)
    labels[40, 40:44] = 1
    assert small.tracker.update(TrackerInput(Scene._segmentation(labels))).items == ()


def test_a_region_of_two_frames_gets_no_id(scene: Scene) -> None:
    scene.show()
    for _ in range(2):
        assert scene.show(left(30)).items == ()
    assert ids(scene.show(left(30))) == [1]


def test_confidence_is_computed_when_it_is_read(scene: Scene) -> None:
    class Halving(ConfidenceModel):
        """Halves the probabilities, and counts how often."""

        calls = 0

        def statistics(self, *_: object) -> NDArray[np.float64]:
            return np.zeros(10)

        def calibrate(self, statistics: object, probabilities: NDArray[np.float32], labels: object) -> Any:
            Halving.calls += 1
            return probabilities / 2

    labels = np.zeros(GRID, np.uint8)
    labels[20:25, :40] = 1
    seen = replace(Scene._segmentation(labels), model=Halving(None, None))  # type: ignore[arg-type]
    found = scene.tracker.update(TrackerInput(seen))
    assert (ids(found), Halving.calls) == ([1], 0)
    assert seen.confidence_over(found.ids == 1) == 0.5
    assert seen.confidence_over(found.ids == 2) == 0.0


@pytest.mark.parametrize("length", [40, 150])
def test_a_shaft_is_measured_on_a_grid_of_any_size(length: int) -> None:
    region = np.zeros((128, 160), np.uint8)
    region[60:65, :length] = 1
    runs = contacts(region, border(np.ones(region.shape, bool)))
    (shaft,) = find_shafts(region, runs)
    assert abs(shaft.length - length) <= 2
    assert shaft.direction[0] > 0.99


def test_thousands_of_frames_leave_few_tracks() -> None:
    tracker, rng, grid = InstrumentTracker(ClassGroups.of(CLASSES)), np.random.default_rng(0), (16, 20)
    view, images = full_viewport(*grid, *grid), rng.integers(0, 255, (7, *grid, 3), np.uint8)
    for index in range(2000):  # one instrument after the other, each of another color, for ten frames
        labels = np.zeros(grid, np.uint8)
        labels[4 + index // 10 % 7 :, 8:12] = index % 10 > 2
        seen = Segmentation(labels, (np.arange(4)[:, None, None] == labels).astype(np.float32), view, 1.0, 0)
        tracker.update(TrackerInput(seen, images[index // 10 % 7], is_cut=index % 10 == 0))
    tracks = tracker._tracks.values()
    assert 1 < len(tracks) <= 34
    assert all(len(track.memory) <= CAPACITY for track in tracks)
    assert sum(track.place is not None for track in tracks) <= 50 // 10 + 1


def test_needles_are_not_parts_of_instruments() -> None:
    groups = ClassGroups.of(CLASSES)
    assert groups.names == ("instrument", "suturing-needle")
    assert groups.table[:6].tolist() == [0, 1, 1, 2, 1, 0]


def test_masks_without_an_image_are_tracked_by_place() -> None:
    tracker, labels = InstrumentTracker(ClassGroups.of(CLASSES)), np.zeros(GRID, np.uint8)
    labels[20:25, :40] = 1
    for _ in range(5):
        assert [item.id for item in tracker.update(TrackerInput(Scene._segmentation(labels))).items] == [1]
    tracker.update(TrackerInput(Scene._segmentation(np.zeros(GRID, np.uint8))))
    assert [item.id for item in tracker.update(TrackerInput(Scene._segmentation(labels))).items] == [1]


def test_ids_of_the_frame_follow_the_boundaries_of_its_classes(scene: Scene) -> None:
    scene.show(left(40), top(20))
    frame = ids_at(scene.segmentation, 512, 640)
    assert frame.dtype == np.uint16
    assert frame[30 * 8, 80] != frame[64, 60 * 8] != 0
    assert frame[500, 600] == 0
    assert abs(np.count_nonzero(frame) / 64 - np.count_nonzero(scene.segmentation.labels)) < 40


def test_the_memory_is_bounded_and_diverse() -> None:
    memory, rng = EmbeddingMemory(), np.random.default_rng(1)
    base = rng.normal(size=32).astype(np.float32)
    for _ in range(100):  # always nearly the same look
        look = base + rng.normal(0, 0.01, 32).astype(np.float32)
        memory.add(look / np.linalg.norm(look))
    assert len(memory) == 1
    looks = [look / np.linalg.norm(look) for look in rng.normal(size=(100, 32)).astype(np.float32)]
    for look in looks:
        memory.add(look)
    assert len(memory) == CAPACITY
    assert memory.similarity(base / np.linalg.norm(base)) > 0.1


def test_one_that_returns_beside_another_has_its_id(scene: Scene) -> None:
    for _ in range(4):
        scene.show(left(40, 30), left(20, 40, BLUE))
    for step in range(8):
        scene.show(left(40, min(30 + step, 34)))
    for step in range(10):  # it comes in by a few cells a frame, and touches the other
        scene.show(left(40, 34), left(step - 3, 40, BLUE))
    for row in (33, 32, 31, 30, 29):
        found = scene.show(left(40, row), left(8, 40, BLUE))
    assert (found.ids[28, 10], found.ids[40, 5]) == (1, 2)


def test_an_end_behind_a_wide_cover_is_none(scene: Scene) -> None:
    scene.show()
    for _ in range(12):  # no shaft leads to it, and it looks otherwise
        found = scene.show(left(30), ((54, 31), (62, 31), BLUE))
    assert found.ids[31, 58] == found.ids[30, 10] == 1
    for _ in range(12):  # beside the line of the shaft
        found = scene.show(left(30), ((54, 50), (62, 50), BLUE))
    assert found.ids[50, 58] == 2


def test_one_behind_another_keeps_no_piece_of_it(scene: Scene) -> None:
    for step in range(20):
        found = scene.show(left(60), left(20, max(42 - step, 30), BLUE))
    assert found.ids[30, 10] != found.ids[30, 50] == 1
    for _ in range(8):  # now it passes behind
        found = scene.show(left(60))
    assert (ids(found), found.ids[30, 10]) == ([1], 1)


def test_one_that_slides_out_from_behind_another_is_back(scene: Scene) -> None:
    for step in range(16):
        scene.show(left(10, 42 - step, BLUE), left(60))
    for _ in range(8):
        found = scene.show(left(60))
    assert ids(found) == [1]
    for step in range(15):  # a row of a few cells in six frames
        found = scene.show(left(10, 30 + step / 6, BLUE), left(60))
    assert ids(found) == [1, 2]
    assert (found.ids[35, 5], found.ids[30, 50]) == (2, 1)


def test_a_crumb_is_not_the_large_one_hidden_there(scene: Scene) -> None:
    for _ in range(4):
        scene.show(left(78, 30), left(60, 38))
    for _ in range(4):
        scene.show(left(60, 38))
    for _ in range(12):  # a few cells, as red as both
        found = scene.show(left(60, 38), ((40, 30), (40, 30), RED), ((36, 33), (44, 33), BLUE), classes=(1, 1, 0))
    assert ids(found) == [2]
    assert found.ids[29, 40] == 2


def test_the_class_tells_touching_instruments_apart(scene: Scene) -> None:
    for step in range(30):  # of one color
        found = scene.show(left(60), left(60, max(42 - step / 2, 32)), classes=(1, 4))
    wrong = (found.ids == found.ids[34, 30]) != (scene.segmentation.labels == 4)
    assert np.count_nonzero(wrong) < 70  # a row along both
