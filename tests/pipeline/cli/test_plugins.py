"""A sink and a source in files of another package, used from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cliprl.pipeline.core.registry import Registry, _have_plugins, _plugins
from cliprl.pipeline.sinks.registry import SINKS, SinkKind, find_sink
from cliprl.pipeline.sources.registry import SOURCES, find_source

SINK = '''
from pathlib import Path

from cliprl.pipeline import BaseSink
from cliprl.pipeline.sinks import register_sink


class CountSink(BaseSink):
    """Writes the number of frames, and the classes, into a text file."""

    needs_planes = False

    def __init__(self, path, spec):
        self.path, self.classes = path, len(spec.classes)

    def write(self, frame, segmentation):
        self.frames += segmentation is not None

    def close(self):
        self.path.write_text(f"{self.frames} frames, {self.classes} classes")


@register_sink(suffixes=(".count",), help="the number of frames")
def open_count(target, spec, settings):
    return CountSink(Path(target), spec)
'''
SOURCE = '''
from fractions import Fraction

from cliprl.pipeline import Frame, StreamInfo
from cliprl.pipeline.sources import FrameSource, register_source


class GreySource(FrameSource):
    """Four grey frames."""

    def __init__(self, name):
        super().__init__(StreamInfo(name, 64, 64, Fraction(1, 25), Fraction(25), frames=4))
        self._index = 0

    def _read(self, allocate):
        if self._index == 4:
            return None
        luma, chroma = allocate(64, 64)
        luma[:], chroma[:] = 90, 128
        self._index += 1
        return Frame(luma, chroma, self._index - 1, self.info.time_base, self._index - 1, duration=1)


@register_source(prefixes=("grey:",), help="grey frames", work="painting grey frames")
def open_grey(name, options):
    return GreySource(name)
'''


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "packages"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [str(Path(sys.executable).with_name("cliprl-stream")), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def install(folder: Path, files: dict[str, str], entry_points: str) -> None:
    """Write a package and its metadata as pip does."""
    for name, text in files.items():
        path = folder / "packages" / "extra" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    metadata = folder / "packages" / "extra-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


def test_plugin_sink_and_plugin_source_each_in_one_file(tmp_path: Path) -> None:
    points = "[cliprl.sinks]\ncount = extra.count\n[cliprl.sources]\ngrey = extra.grey\n"
    install(tmp_path, {"__init__.py": "", "count.py": SINK, "grey.py": SOURCE}, points)
    done = run(tmp_path, "grey:", "-o", "frames.count")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frames.count").read_text() == "4 frames, 13 classes"
    assert (
        run(tmp_path, "grey:", "-o", "frames.count").returncode == 2
    )  # it exists, and inputs like this one may change
    shown = " ".join(run(tmp_path, "--help").stdout.replace("│", " ").split())
    for word in (".count", "the number of frames", "grey:", "grey frames"):
        assert word in shown
    wrong = run(tmp_path, "grey:", "-o", "frames.gif")
    assert wrong.returncode == 2
    assert ".count" in wrong.stderr


def test_broken_plugin_is_named_for_unknown_outputs_and_harms_nothing(tmp_path: Path) -> None:
    install(
        tmp_path,
        {"__init__.py": "", "count.py": "import nothing_of_this_name"},
        "[cliprl.sinks]\ncount = extra.count\n",
    )
    assert run(tmp_path, "demo:?seconds=0.1&size=64x64", "-o", "null:").returncode == 0
    done = run(tmp_path, "demo:", "-o", "frames.count")
    assert done.returncode == 2
    assert "plugin 'count'" in done.stderr
    assert "nothing_of_this_name" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_only_packages_that_name_this_program_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages"), str(tmp_path / "absent"), ""])
    monkeypatch.chdir(tmp_path)
    install(tmp_path, {"__init__.py": ""}, "[console_scripts]\ncliprl-stream = cliprl.pipeline.cli.main:main\n")
    _have_plugins.cache_clear()
    assert not list(_plugins("cliprl.sinks"))
    _have_plugins.cache_clear()
    (tmp_path / "packages" / "extra-1.0.dist-info" / "entry_points.txt").write_text(
        "[cliprl.sinks]\ncount = extra.count\n"
    )
    assert [point.name for point in _plugins("cliprl.sinks")] == ["count"]
    _have_plugins.cache_clear()


def test_plugins_in_an_archive_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "extra.zip", "w") as archive:
        archive.writestr("extra-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
        archive.writestr("extra-1.0.dist-info/entry_points.txt", "[cliprl.sources]\ngrey = extra.grey\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "extra.zip")])
    _have_plugins.cache_clear()
    assert [point.value for point in _plugins("cliprl.sources")] == ["extra.grey"]
    _have_plugins.cache_clear()


def test_a_file_that_is_added_to_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "found_sinks" / "text"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "count.py").write_text(SINK.replace('".count"', '".tally"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[SinkKind] = Registry("found_sinks", "no.such.group")
    before = list(SINKS)
    list(registry)
    found = find_sink("x.TALLY")
    assert found is not None
    assert found not in before
    assert found.help == "the number of frames"


def test_no_two_entries_share_a_name() -> None:
    for registry in (SINKS, SOURCES):
        names = [name for kind in registry for name in (*kind.prefixes, *kind.suffixes)]
        assert len(names) == len(set(names))
    with pytest.raises(ValueError, match=r"'\.mp4' is already registered by cliprl.pipeline.sinks.video"):
        SINKS.add(SinkKind(lambda target, spec, settings: None, "", "", suffixes=(".mp4",)))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.m4v", ".m4v"), ("RTMP://h/a", "rtmp://"), ("a.mp4/", "FOLDER/"), ("A.COCO.JSON", ".coco.json")],
)
def test_names_of_outputs(name: str, shown: str) -> None:
    kind = find_sink(name)
    assert kind is not None
    assert shown in kind.shown


def test_a_file_takes_precedence_over_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo:x.mp4").touch()
    kinds = [find_source(name) for name in ("demo:x.mp4", "demo:y.mp4")]
    assert [kind.shown for kind in kinds if kind] == ["FILE", "demo:"]
