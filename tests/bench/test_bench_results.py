"""Result files and what is made of them: tables, the page, comparisons, budgets, the README's figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.bench.cli import app
from cliprl.bench.commands import suite
from cliprl.bench.commands.results import check, compare, figure_tables, plots, readme, report
from cliprl.bench.harness import environment, table
from cliprl.bench.harness.registry import measurements
from cliprl.bench.harness.result import RESULT_VERSION, Result, Series, check_place, read_result
from cliprl.bench.peers import all_peers
from cliprl.engines import CliprlError, UsageError
from cliprl.engines.cli.cli_runner import run_app

ROOT = Path(__file__).resolve().parents[2]


def result(kind: str = "stages", slow: float = 1.0, seed: int = 0) -> Result:
    random = np.random.default_rng(seed)

    def samples(mean: float, n: int = 120) -> list[list[float]]:
        return [list(random.normal(mean, mean / 20, n)) for _ in range(3)]

    return Result(
        kind=kind,
        command=f"cliprl-bench {kind} clip.mp4 --rounds 3",
        date="2026-01-02T03:04:05+00:00",
        commit="0123456789ab",
        machine=environment.describe_machine() | {"load_average": [0.1, 0.2], "other_load": 0.0},
        input={"name": "clip.mp4", "size": "1280x720"},
        bundle={"name": "small", "sha256": "ab" * 32},
        method={"includes": "everything", "rounds": 3},
        series=(
            Series.of("cliprl-stream", "fps", "FPS", samples(50 / slow, 4)),
            Series.of("cliprl-stream", "latency", "ms", samples(40)),
            Series.of("in place", "decode", "ms", samples(3)),
            Series.of("in place", "draw", "ms", samples(2 * slow)),
            Series.of("25 FPS", "delivered", "FPS", [[25.0]]),
            Series.of("60 FPS", "delivered", "FPS", [[47.0]], note="<script src='https://example.org/x.js'>"),
        ),
        notes=("a note & more",),
    )


@pytest.fixture
def cliprl_bench(command: Callable[..., Any]) -> Callable[..., Any]:
    return partial(command, app, "cliprl-bench")


def test_a_result_file_is_read_back_as_it_was(tmp_path: Path) -> None:
    written = result()
    written.write(tmp_path / "new" / "r.json")
    assert read_result(tmp_path / "new" / "r.json") == written
    data = json.loads((tmp_path / "new" / "r.json").read_text())
    assert data["schema"] == "cliprl-bench"
    assert data["version"] == RESULT_VERSION
    assert {"cpu", "cores", "cpu_flags", "memory_gb", "gpu", "libraries", "load_average"} <= set(data["machine"])
    assert data["series"][1]["digest"]["p50"] == pytest.approx(np.median(written.series[1].rounds), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e6), max_size=5), max_size=4), st.text(max_size=8))
def test_any_series_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[float]], name: str
) -> None:
    path = tmp_path_factory.mktemp("r") / "r.json"
    base = result()
    odd = Result(
        **{f: getattr(base, f) for f in Result.__slots__} | {"series": (Series.of(name, "x", "ms", rounds, name),)}
    )
    odd.write(path)
    assert read_result(path) == odd


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a result"),
        ('{"schema": "cliprl-bench", "version": 99}', "version 99"),
        ('{"schema": "cliprl-bench", "version": 1, "series": []}', "lacks"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(CliprlError, match=complaint):
        read_result(path)
    with pytest.raises(UsageError, match="can't be read"):
        read_result(tmp_path / "absent.json")


def test_an_unsteady_or_busy_machine_is_told_instead_of_digits() -> None:
    base = result()
    shaky = Series.of("in place", "encode", "ms", [[10.0] * 60 + [14.0] * 60])
    fields = {f: getattr(base, f) for f in Result.__slots__}
    busy = Result(**fields | {"series": (shaky,), "machine": dict(base.machine) | {"other_load": 0.4}})
    assert any("40%" in w for w in busy.warnings())
    assert any("in place: encode" in w for w in busy.warnings())
    assert table.median(shaky).startswith("≈")
    assert "warning" in table.format_result(busy)
    assert base.warnings() == []


def test_numbers_keep_their_whole_part() -> None:
    shown = [table.format_number(v) for v in (0.01234, 1.2345, 12.345, 123.45, 123456.0, 0.0, float("nan"))]
    assert shown == ["0.0123", "1.23", "12.3", "123", "123456", "0", "–"]


class _Page(HTMLParser):
    """Notes every tag, and every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            f"{tag} {name}"
            for name, value in attrs
            if name in ("src", "href", "srcset", "data", "xlink:href") and not (value or "").startswith("#")
        ]


def test_the_page_needs_nothing_from_outside() -> None:
    text = report.html([result(), result("live")])
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.tags.count("svg") >= 8
    assert not re.search(r' id="[^"]*_\d+"', text), "the same in each plot"
    assert len(re.findall(r"<svg aria-label=", text)) == page.tags.count("svg"), "each is named"
    assert re.search(r"@media print {[^}]*}\s*\.wide { overflow: visible; }", text), "paper does not scroll"
    assert "a note &amp; more" in text
    assert not re.search(r"\bnan\b", text)
    assert len(re.findall(f"stroke: {plots.COLORS[0]}", text)) >= 2


def test_a_browser_without_network_shows_legible_plots(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    page, shot = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(report.html([result()]), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1100,2600",
        f"--screenshot={shot}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not shot.exists():
        pytest.skip(f"chromium can't run here: {done.stderr[-200:]}")
    image = cv2.imread(str(shot))
    assert image is not None
    for color in plots.COLORS[:2]:  # each drawn as a line or bar thick enough to see
        rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (image == np.array(rgb[::-1])).all(axis=2).sum() > 300, color
    rows = (image < 100).all(axis=2).sum(axis=1)  # dark text, in many lines
    assert (rows > 20).sum() > 200


def test_latency_is_plotted_by_whatever_name_a_command_measures_it() -> None:
    waits = [Series.of("25 FPS", name, "ms", [[20.0, 30.0, 40.0]]) for name in ("glass to glass", "latency")]
    text = report.html([replace(result("live"), series=tuple(waits))])
    assert re.search(r">25 FPS: glass to glass</text>", text)
    assert re.search(r">25 FPS: latency</text>", text)


def test_compare_names_the_stage_that_changed() -> None:
    changes = compare.compare_results(result(), result(slow=1.5, seed=1))
    verdicts = {c.a.title: c.verdict for c in changes}
    assert verdicts["in place: draw"] == "worse"
    assert verdicts["in place: decode"] == "same"
    assert verdicts["cliprl-stream: fps"] == "worse"
    found = compare.largest_change(changes)
    assert found is not None
    assert found.a.name == "draw"
    assert found.ratio.low < 1.5 < found.ratio.high
    text = compare.format_comparison(result(), result(slow=1.5, seed=1))
    assert "Changed most: **draw**" in text
    assert "in place: draw (+50%)" in text
    again = compare.format_comparison(result(), result(seed=1))
    assert "No stage changed." in again
    assert "Every median agrees within 10%." in again


def test_compare_refuses_what_has_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="can't be compared"):
        compare.compare_results(result("live"), result("stages"))


def limits(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "budget.toml"
    path.write_text(text)
    return path


LIMIT = '[[limit]]\nkind = "stages"\ncase = "cliprl-stream"\nname = "fps"\n'


@pytest.mark.parametrize(
    ("bound", "status"), [("min = 40", 0), ("max = 60\nmin = 1", 0), ("min = 60", 1), ('statistic = "p99"\nmin = 1', 1)]
)
def test_check_exits_with_1_on_a_breach(
    cliprl_bench: Callable[..., Any], tmp_path: Path, bound: str, status: int
) -> None:
    result().write(tmp_path / "r.json")
    done = cliprl_bench("check", tmp_path / "r.json", "--budget", limits(tmp_path, LIMIT + bound))
    assert done.returncode == status, done.stderr
    assert ("BREACH" in done.stdout) == bool(status)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = [", "not TOML"),
        ("x = 1", "[[limit]]"),
        (LIMIT, "min, max or both"),
        (LIMIT + 'statistic = "p42"\nmin = 1', "p42"),
        (LIMIT + "most = 1\nmin = 1", "most"),
        (LIMIT.replace("fps", "speed") + "min = 1", "none of the results measured"),
        (LIMIT.replace("stages", "stage") + "min = 1", "no kind of result 'stage'"),
        (LIMIT.replace("stages", "soak") + "min = 1", "limits on soak only"),
    ],
)
def test_budget_that_can_not_be_checked_is_misuse(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        check.check([result()], check.read_budget(limits(tmp_path, text)))


def test_limit_may_cover_several_cases_and_missing_ones(cliprl_bench: Callable[..., Any], tmp_path: Path) -> None:
    text = LIMIT.replace('"cliprl-stream"', '["25 FPS", "60 FPS"]').replace("fps", "delivered")
    text += 'statistic = "min"\nmin = 30\n[[limit]]\nkind = "soak"\ncase = "cliprl-stream"\nname = "growth"\nmax = 1\n'
    result().write(tmp_path / "r.json")
    done = cliprl_bench("check", tmp_path / "r.json", "--budget", limits(tmp_path, text))
    assert done.returncode == 1, done.stderr
    words = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert words == ["BREACH", "kept", "not given"]


def test_the_committed_budget_holds_what_is_measured_to_account() -> None:
    limits = check.read_budget(ROOT / "bench" / "budget.toml")
    rivals = [limit.name.removeprefix("fps over ") for limit in limits if limit.name.startswith("fps over ")]
    assert set(rivals) <= set(all_peers())
    assert {limit.kind for limit in limits} <= {measurement.kind for measurement, _ in suite.parts().values()}
    series = [
        Series.of(limit.case, limit.name, "1", [[limit.min if limit.min > 0 else limit.max] * 200]) for limit in limits
    ]
    base = result()
    kinds = {limit.kind for limit in limits}
    kept = [
        replace(base, kind=kind, series=tuple(s for s, limit in zip(series, limits, strict=True) if limit.kind == kind))
        for kind in kinds
    ]
    assert all(finding.kept for finding in check.check(kept, limits))


def test_the_commands_complain_in_one_line(cliprl_bench: Callable[..., Any], tmp_path: Path) -> None:
    for arguments in (
        ("compare", tmp_path / "a", tmp_path / "b"),
        ("live", "absent.mp4"),
        ("peers", "--peer", "nobody"),
        ("x",),
    ):
        done = cliprl_bench(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("cliprl-bench: ")


def test_report_writes_page_and_tables(cliprl_bench: Callable[..., Any], tmp_path: Path) -> None:
    result().write(tmp_path / "r.json")
    done = cliprl_bench("report", tmp_path / "r.json", "-o", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert "| cliprl-stream | latency | ms |" in (tmp_path / "r.md").read_text()


def test_file_of_another_program_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result().write(tmp_path / "r.json")
    (tmp_path / "clip.mp4").write_bytes(bytes(2000))
    monkeypatch.chdir(tmp_path)

    def bench(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["cliprl-bench", *words])
        return run_app(app, "cliprl-bench")

    assert bench("report", "r.json", "-o", "r.html", "--markdown", "r.md") == 0
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for words in (
        ("stream", "clip.mp4", "-o", "clip.mp4"),
        ("report", "r.json", "-o", "r.json"),
        ("report", "r.json", "--markdown", "clip.mp4"),
        ("peers", "clip.mp4", "-o", "r.html"),
    ):
        assert bench(*words) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == left
    for name, mark in (("r.json", '"schema"'), ("r.html", report._TITLE), ("r.md", "## stages")):
        check_place(tmp_path / name, mark)


def test_figures_are_written_between_the_marks_alone(tmp_path: Path) -> None:
    names = (readme.FIGURES_README, readme.ROOM_README, readme.ROOT_README, readme.RESULTS_FOLDER)
    page, room, front, folder = (tmp_path / path for path in names)
    folder.mkdir(parents=True)
    for path, name in ((page, readme.FIGURES_README), (room, readme.ROOM_README)):
        start, end = readme.FIGURE_MARKS[name]
        path.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    with pytest.raises(UsageError, match="no result files"):
        readme.update_readmes(tmp_path)
    result().write(folder / "m-stages.json")
    result("stream").write(folder / "m-stream.json")
    limits(room.parent, LIMIT + "min = 60\n" + LIMIT.replace("stages", "soak") + "min = 1")
    assert readme.update_readmes(tmp_path) == [readme.FIGURES_README, readme.ROOM_README]
    text = room.read_text()
    assert re.search(r"\| stages, cliprl-stream: fps, p50 \| at least 60 \| [\d.]+ \| \*\*BREACH\*\* \|", text)
    assert "limits on `soak` too" in text
    assert text.startswith(f"before\n{readme.FIGURE_MARKS[readme.ROOM_README][0]}\n| limit")
    for path, name in ((page, readme.FIGURES_README), (room, readme.ROOM_README)):
        written = path.read_text()
        assert written.endswith(f"{readme.FIGURE_MARKS[name][1]}\nafter\n")
        assert "old\n" not in written
        assert readme.block_of(written, name) == readme.expected_block(name, tmp_path)
    assert page.read_text().count("2026-01-02") == 2
    assert not front.exists()
    for path in (page, room):
        path.write_text("no marks")
    with pytest.raises(UsageError, match="no README has a place for figures"):
        readme.update_readmes(tmp_path)


def test_goals_stand_beside_the_figures_of_each_run(tmp_path: Path) -> None:
    place = tmp_path / readme.RESULTS_FOLDER
    place.mkdir(parents=True)
    (tmp_path / "bench" / readme.GOALS_FILE).write_text(LIMIT.replace("stages", "headline") + "min = 1")
    result("stream").write(place / "m-stream.json")
    assert readme.expected_block(readme.ROOM_README, tmp_path) == ""
    for number in (1, 2):
        replace(result("headline"), host={}).write(place / readme.HEADLINE_FOLDER / f"headline-{number}.json")
    block = readme.expected_block(readme.ROOM_README, tmp_path)
    row = r"\| headline, cliprl-stream: fps, p50 \| at least 1 \| [\d.]+{} \| kept \|"
    assert re.search(row.format(r", [\d.]+"), block)
    older = replace(result("headline"), host={}, machine={"cpu": "An older one", "cores": 2, "cpu_flags": ["avx2"]})
    older.write(place / readme.OLDER / "headline-1.json")
    first, second = readme.expected_block(readme.ROOM_README, tmp_path).split("Goals of two cores")[1:]
    assert "An older one, 2 cores, neither VNNI nor bf16" in first
    assert re.search(row.format(""), first)
    assert re.search(row.format(r", [\d.]+"), second)


@pytest.mark.parametrize(("rows", "lengths"), [(0, []), (1, [1]), (10, [10]), (11, [6, 5]), (22, [8, 8, 6])])
def test_long_tables_are_divided_into_about_equal_ones(rows: int, lengths: list[int]) -> None:
    tables = table.grids(("row",), [[f"{row}"] for row in range(rows)], 10)
    assert [one.count("\n") - 1 for one in tables] == lengths


def test_root_readme_has_one_table_without_broken_limits(tmp_path: Path) -> None:
    front, folder = tmp_path / readme.ROOT_README, tmp_path / readme.RESULTS_FOLDER
    folder.mkdir(parents=True)
    front.write_text("\n".join(readme.FIGURE_MARKS[readme.ROOT_README]))
    soak = Series.of("cliprl-stream", "growth", "bytes a frame", [[600.0]])
    result("stream").write(folder / "m-stream.json")
    replace(result("soak"), series=(soak,)).write(folder / "m-soak.json")
    assert readme.update_readmes(tmp_path) == [readme.ROOT_README]
    rows = front.read_text().splitlines()
    assert [row.rpartition("`cliprl-bench ")[2] for row in rows[3:-1]] == ["stream` |", "soak` |"]
    limits(tmp_path / "bench", LIMIT.replace("stages", "soak").replace("fps", "growth") + "max = 500")
    readme.update_readmes(tmp_path)
    assert "soak" not in front.read_text()


@pytest.mark.parametrize("path", readme.FIGURE_MARKS, ids=str)
def test_the_readmes_figures_are_those_of_the_committed_results(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert readme.block_of(text, path) == readme.expected_block(path, ROOT), "run cliprl-bench readme"
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert all(table.count("\n") <= figure_tables.MOST_ROWS + 2 for table in tables if path != readme.ROOT_README)
    assert path != readme.ROOT_README or "BREACH" not in (readme.block_of(text, path) or "")


def test_every_headline_names_a_command_and_committed_figure() -> None:
    results = readme.committed_results(ROOT / readme.RESULTS_FOLDER)
    assert len(readme.HEADLINES) == 8
    for line in readme.HEADLINES:
        assert line.kind in measurements()
        assert any(r.find(line.case, line.name) for r in results if r.kind == line.kind), line.title


COMMITTED = sorted((ROOT / readme.RESULTS_FOLDER).rglob("*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_result_names_bundle_and_machine(path: Path) -> None:
    found = read_result(path)
    assert len(found.bundle["sha256"]) == 64
    assert found.machine["cpu"] in table.provenance(found)


def test_committed_results_do_not_name_the_machine() -> None:
    for path in COMMITTED:
        text = path.read_text(encoding="utf-8")
        for folder in (str(ROOT.parent), "/home/", "/root/", "/tmp/"):
            assert folder not in text, path.name


WORK_RESULTS = ROOT / readme.RESULTS_FOLDER / "work"


def test_costs_of_a_frame_are_those_of_the_results() -> None:
    text = (ROOT / "pipeline" / "stream" / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- work -->")[1].split("<!-- end of work -->")[0].strip().splitlines()
    clips = [cell.strip() for cell in table[0].split("|")[2:-1]]
    found = {clip: read_result(WORK_RESULTS / f"{clip}.json") for clip in clips}
    for line in table[2:]:
        name, *cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for clip, cell in zip(clips, cells, strict=True):
            medians = [found[clip].find(case, name) for case in ("baseline", "cliprl-stream")]
            assert cell == " → ".join(f"{series.digest().p50:.2f}" for series in medians if series), (clip, name)


def test_table_of_quantizers_is_measured() -> None:
    folder = ROOT / "pipeline" / "stream"
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = json.loads((folder / "x264-quantizer.json").read_text(encoding="utf-8"))["clips"]
    for name, clip in found.items():
        before, after = clip["crf"], clip["qp"]
        sizes, quality = (f"{before[unit]:.1f} → {after[unit]:.1f}" for unit in ("kB", "dB"))
        assert f"| {name} ({clip['frames']}) | {clip['time, qp over crf']:.2f} | {sizes} | {quality} |" in text
