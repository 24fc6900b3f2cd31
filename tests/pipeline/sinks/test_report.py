"""The report of a case: timelines of known entries and exits, stalls, doubtful frames, and the page in a browser."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.evaluation.tracking.clips import TOOL_GROUPS, RenderedClip
from cliprl.models.evaluation.tracking.observations import TrueMasks
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.core.segmentation import DamageEstimate, Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.schemas import load_schema
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.report.image_quality import MOST_POINTS, NO_ESTIMATE
from cliprl.pipeline.sinks.report.page import title_name
from cliprl.pipeline.sinks.report.recorder import LEAST_SHARE
from cliprl.pipeline.sinks.report.timeline import LONGEST_GAP, SHORTEST, PresenceTimeline
from cliprl.pipeline.synthetic import SCENE_CLASSES

RATE = 25
SPEC = OutputSpec(StreamInfo("a <b> & c.mp4", 128, 160, Fraction(1, RATE), Fraction(RATE)), SCENE_CLASSES)
VIEW = full_viewport(128, 160, 128, 160)


def frame(index: int, pts: int | None = None, chroma: int = 128) -> Frame:
    luma, colors = allocate_planes(128, 160)
    luma.fill(120)
    colors[..., 0], colors[..., 1] = 110, chroma
    return Frame(luma, colors, index if pts is None else pts, Fraction(1, RATE), index)


def segmentation(
    labels: NDArray[np.uint8], confidence: float = 0.9, instances: Instances | None = None
) -> Segmentation:
    probabilities = (np.arange(len(SCENE_CLASSES))[:, None, None] == labels).astype(np.float32)
    return Segmentation(labels, probabilities, VIEW, confidence, 0, instances=instances)


def written(folder: Path, contexts: Iterator[tuple[Frame, Segmentation | None]]) -> dict[str, Any]:
    """The report as JSON; the page and the CSV are written too."""
    targets = [folder / name for name in ("r.html", "r.report.json", "r.report.csv")]
    sinks = [open_sink(target, SPEC) for target in targets]
    for one, segmented in contexts:
        for sink in sinks:
            sink.write(one, segmented)
    for sink in sinks:
        sink.close()
    report: dict[str, Any] = json.loads(targets[1].read_text())
    jsonschema.validate(report, load_schema("report"), jsonschema.Draft202012Validator)
    return report


def case() -> Iterator[tuple[Frame, Segmentation | None]]:
    """120 frames: a shaft from 10 to 49 and from 80 to 99 (#1, then #2 too), a stall before 60, blue room from 100 on.

    Smoke from 30 to 39.
    """
    for index in range(120):
        labels, found = np.zeros((32, 40), np.uint8), []
        ids = np.zeros((32, 40), np.uint16)
        if 10 <= index < 50 or 80 <= index < 100:
            labels[10:14, :20], ids[10:14, :20] = 1, 1
            found.append(Instance(1, "instrument", 1, 80))
        if 80 <= index < 100:
            labels[20:24, 20:], ids[20:24, 20:] = 1, 2
            found.append(Instance(2, "instrument", 1, 80))
        pts = index + (25 if index >= 60 else 0)
        low = 0.3 if index in (20, 90) else 0.9
        room = frame(index, pts, 100 if index >= 100 else 180)
        segmented = segmentation(labels, low, Instances(ids, tuple(found)))
        segmented.damage = DamageEstimate(3.2, 88.0, 110.0 if 30 <= index < 40 else 25.0)
        yield room, None if index == 70 else segmented


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    written(made, case())
    return made


def test_nothing_is_in_view_for_longer_than_the_video(tmp_path: Path) -> None:
    slow = [replace(frame(index, pts=5 * index, chroma=90), duration=1) for index in range(40)]
    report = written(tmp_path, ((one, None) for one in slow))
    outside = next(line for line in report["timelines"] if line["kind"] == "view")
    assert 0 < outside["seconds_in_view"] <= report["end"] - report["start"]
    page = (tmp_path / "r.html").read_text()
    assert "<dt>Low confidence</dt><dd>not segmented</dd>" in page


def test_the_report_has_entries_exits_stalls_and_doubtful_frames(folder: Path) -> None:
    report = json.loads((folder / "r.report.json").read_text())
    lines = {line["name"]: [(i["first"], i["last"]) for i in line["intervals"]] for line in report["timelines"]}
    assert lines["instrument-shaft"] == lines["#1 instrument"] == [(10, 49), (80, 99)]
    assert lines["#2 instrument"] == [(80, 99)]
    ((first, last),) = lines["outside the body"]
    assert 100 <= first <= 115
    assert last == 119
    assert report["stalls"] == [{"after": 59 / RATE, "seconds": 26 / RATE}]
    assert (report["frames"], report["segmented"], report["tracked"]) == (120, 119, True)
    assert report["low_confidence"]["frames"] == 2
    assert [one["index"] for one in report["low_confidence"]["examples"]] == [20, 90]
    shaft = next(line for line in report["timelines"] if line["name"] == "instrument-shaft")
    assert shaft["seconds_in_view"] == pytest.approx(60 / RATE, abs=0.02)


def test_the_table_has_the_same_intervals(folder: Path) -> None:
    with (folder / "r.report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    report = json.loads((folder / "r.report.json").read_text())
    listed = [(line["kind"], line["name"], i["first"]) for line in report["timelines"] for i in line["intervals"]]
    series = report["image_quality"]["series"]
    listed += [("series", line["name"], point["first"]) for line in series for point in line["points"]]
    assert [(row["kind"], row["name"], int(row["first_frame"])) for row in rows] == listed


def test_short_gaps_and_specks_are_no_entries() -> None:
    line = PresenceTimeline()
    seen = [*range(10), *range(10 + LONGEST_GAP, 40), 60, 61, *range(90, 90 + SHORTEST)]
    for index in seen:
        line.add(index, index / RATE, 1 / RATE)
    assert [(i.first, i.last) for i in line.intervals] == [(0, 39), (90, 89 + SHORTEST)]
    assert list(line.entries()) == [("entry", 0), ("exit", 39), ("entry", 90), ("exit", 89 + SHORTEST)]


def test_series_of_haze_brightness_and_noise_stay_bounded(tmp_path: Path) -> None:
    segmented, smoke, count = segmentation(np.zeros((32, 40), np.uint8)), range(200, 210), 2 * MOST_POINTS + 50

    def contexts() -> Iterator[tuple[Frame, Segmentation | None]]:
        for index in range(count):
            segmented.damage = DamageEstimate(2.5, 90.0, 120.0 if index in smoke else 20.0)
            yield frame(index), segmented

    quality = written(tmp_path, contexts())["image_quality"]
    assert (quality["frames"], quality["reason"], quality["not_measured"]) == (count, None, ["blood", "blur"])
    haze, brightness, noise = quality["series"]
    assert [one["name"] for one in quality["series"]] == ["haze", "brightness", "noise"]
    assert haze["mean"] == pytest.approx(20 + 100 * len(smoke) / count, abs=0.01)
    assert (haze["worst"], brightness["worst"], noise["mean"]) == (120, 90, 2.5)
    assert MOST_POINTS <= len(haze["points"]) <= 2 * MOST_POINTS
    spans = [(point["first"], point["last"]) for point in haze["points"]]
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == count - 1
    smoky = [span for span, point in zip(spans, haze["points"], strict=True) if point["worst"] == 120]
    assert smoky == [span for span in spans if span[1] >= smoke.start and span[0] < smoke.stop]
    with (tmp_path / "r.report.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "series"]
    assert [(row["name"], int(row["first_frame"]), float(row["mean"]), float(row["worst"])) for row in rows] == [
        (one["name"], point["first"], point["mean"], point["worst"])
        for one in quality["series"]
        for point in one["points"]
    ]


def test_a_run_without_estimates_has_the_reason(tmp_path: Path) -> None:
    quality = written(tmp_path, iter([(frame(0), segmentation(np.zeros((32, 40), np.uint8)))]))["image_quality"]
    assert (quality["frames"], quality["series"], quality["reason"]) == (0, [], NO_ESTIMATE)
    assert not [line for line in (tmp_path / "r.report.csv").read_text().splitlines() if line.startswith("series")]
    text = (tmp_path / "r.html").read_text()
    assert f"Not measured: {NO_ESTIMATE}. Blood and blur are not measured." in text
    assert 'class="series"' not in text


def test_a_run_without_frames_leaves_no_report(tmp_path: Path) -> None:
    open_sink(tmp_path / "r.html", SPEC).close()
    assert list(tmp_path.iterdir()) == []


def test_timelines_of_a_rendered_clip_agree_with_its_true_labels(tmp_path: Path) -> None:
    observe, shares = TrueMasks(len(SCENE_CLASSES)), []

    def contexts() -> Iterator[tuple[Frame, Segmentation | None]]:
        for index, one in enumerate(RenderedClip(7_000_026, 3.0, 100, 128, 160)):
            tools = np.where(TOOL_GROUPS.table[one.labels] > 0, one.labels, 0).astype(np.uint8)
            shares.append(np.bincount(tools.ravel(), minlength=len(SCENE_CLASSES)) / tools.size)
            yield frame(index), observe(one.image, tools).segmentation

    report = written(tmp_path, contexts())
    found = {
        (line["name"], edge, interval[edge])
        for line in report["timelines"]
        if line["kind"] == "class"
        for interval in line["intervals"]
        for edge in ("first", "last")
    }
    wanted = {
        (SCENE_CLASSES[i].name, edge, frames[at])
        for i in range(1, len(SCENE_CLASSES))
        for frames in runs([share[i] >= LEAST_SHARE for share in shares])
        for edge, at in (("first", 0), ("last", -1))
    }
    right = sum(any((name, edge, at + d) in wanted for d in (-1, 0, 1)) for name, edge, at in found)
    assert len(wanted) >= 4
    assert 2 * right / (len(found) + len(wanted)) >= 0.97


def runs(present: list[bool]) -> list[list[int]]:
    """The frames of each stay in view: gaps of up to five frames do not end it, fewer than three frames are none."""
    found: list[list[int]] = []
    for index in np.flatnonzero(present).tolist():
        if found and index - found[-1][-1] <= 6:
            found[-1].append(index)
        else:
            found.append([index])
    return [frames for frames in found if len(frames) >= 3]


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        opened.set_network_conditions(offline=True, latency=0, throughput=0)
        opened.get((folder / "r.html").as_uri())
        yield opened


def test_the_page_shows_the_case_without_a_network(page: Any) -> None:
    assert page.title == "Case report: a <b> & c.mp4"
    assert "#2 instrument" in page.find_element("tag name", "table").text
    assert (
        page.execute_script(
            "return performance.getEntriesByType('resource').filter(r => !/^data:/.test(r.name)).length"
        )
        == 0
    )
    charts = [chart.get_attribute("aria-label") for chart in page.find_elements("css selector", "svg.series")]
    assert charts[0] == "Haze, smoke: mean 32.1, worst 110.0 at 0:00:01.2; the scale is 0 to 255"
    assert len(charts) == 3
    images = page.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert images == [240, 240]


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_in_the_page(page: Any, width: int) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    page.execute_script((files(axe.__name__) / "axe.min.js").read_text())
    found = page.execute_async_script("axe.run(document, {}, (e, r) => arguments[0](e ? String(e) : r.violations))")
    assert [(rule["id"], [n["html"][:200] for n in rule["nodes"]]) for rule in found] == []
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "height"), [(595, 842), (612, 792)])
def test_the_page_prints_on_the_paper_of_the_printer(page: Any, width: int, height: int) -> None:
    paper = {"paperWidth": width / 72, "paperHeight": height / 72, "preferCSSPageSize": True}
    printed = page.execute_cdp_cmd("Page.printToPDF", paper | {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    sizes = {tuple(map(float, box.split(b"]")[0].split())) for box in pdf.split(b"/MediaBox [")[1:]}
    assert {(round(right), round(bottom)) for _, _, right, bottom in sizes} == {(width, height)}


def test_a_live_session_writes_a_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "demo:?seconds=0.4&size=96x64",
        "-o",
        f"{tmp_path}/r.report.json",
        "-o",
        f"{tmp_path}/r.html",
        "--ids",
        "-q",
    ]
    arguments += ["--record", str(tmp_path / "recordings"), "--record-what", "raw"]
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    assert run_app(cli.app, "cliprl-stream") == 0
    report = json.loads((tmp_path / "r.report.json").read_text())
    jsonschema.validate(report, load_schema("report"), jsonschema.Draft202012Validator)
    assert report["frames"] == 10
    assert "Case report: demo:" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/home/someone/case.mp4", "case.mp4"), ("rtsp://host/live", "rtsp://host/live"), ("demo:", "demo:")],
)
def test_the_title_leaves_out_folders_of_the_input(name: str, shown: str) -> None:
    assert title_name(name) == shown
