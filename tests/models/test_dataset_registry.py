"""A data set in one new file: it registers itself, and the help, the errors and the commands know it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import cliprl.models.data.sets as sets
from cliprl.engines import UsageError
from cliprl.models.cli import evaluate as eval_cli
from cliprl.models.data import registry
from cliprl.models.data.image_mask_dataset import CaptionDataset
from cliprl.models.data.registry import DatasetContext, dataset_kinds, open_dataset

STRIPES = textwrap.dedent('''
    """Stripes: half of each image is an instrument."""

    import numpy as np

    from cliprl.models.data.label_mapping import UNION_CLASSES
    from cliprl.models.data.registry import register_dataset
    from cliprl.models.data.sample import Sample
    from cliprl.models.data.splits import Split


    @register_dataset(
        "stripes",
        "images with one stripe",
        options={"count": "how many"},
        splits={"halves": Split(("left",), ("right",))},
        source={"name": "stripes", "licence": "CC0"},
    )
    class Stripes:
        name, classes = "stripes", UNION_CLASSES

        def __init__(self, folder, count="2"):
            self.count = int(count)

        def __len__(self):
            return self.count

        def __getitem__(self, index):
            labels = np.zeros((64, 80), np.uint8)
            labels[:, 40:] = 1
            return Sample(np.repeat(labels[..., None] * 200, 3, 2), labels, self.sequence(index))

        def sequence(self, index):
            return ("left", "right")[index % 2]

        def clip(self, index):
            return self.sequence(index)
''')


@pytest.fixture
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One new file in the folder of data sets."""
    (tmp_path / "stripes_of_a_test.py").write_text(STRIPES)
    dataset_kinds()
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    registry._import_sets.cache_clear()
    yield
    registry.SPLITS.pop("stripes", None)
    sys.modules.pop("cliprl.models.data.sets.stripes_of_a_test", None)
    registry._import_sets.cache_clear()


@pytest.mark.usefixtures("stripes")
def test_a_new_file_is_a_new_kind(tmp_path: Path) -> None:
    assert "stripes:FOLDER  images with one stripe; count=how many" in registry.describe_kinds()
    assert len(open_dataset(f"stripes:{tmp_path}?count=4&split=halves")) == 2
    with pytest.raises(UsageError, match=r"did you mean stripes\? give KIND:FOLDER, where KIND is one of .*stripes"):
        open_dataset(f"stripe:{tmp_path}")
    with pytest.raises(UsageError, match="has no option 'size': one of count, sequences, split, fold, every"):
        open_dataset(f"stripes:{tmp_path}?size=4")


@pytest.mark.usefixtures("stripes")
def test_each_nth_frame_of_any_kind_is_selected(tmp_path: Path) -> None:
    data = open_dataset(f"stripes:{tmp_path}?count=10&sequences=right&every=2")
    assert [data.sequence(index) for index in range(len(data))] == ["right"] * 3
    for wrong in ("0", "-1", "1.5", "", "²"):
        with pytest.raises(UsageError, match="every"):
            open_dataset(f"stripes:{tmp_path}?count=10&every={wrong}")


def test_selected_frames_keep_their_captions(tmp_path: Path) -> None:
    context = DatasetContext(cache=tmp_path, height=48, width=64, workers=1)
    one, two = (open_dataset(f"rendered:seeds=0-1&frames=2{end}", context=context) for end in ("", "&every=2"))
    assert isinstance(one, CaptionDataset)
    assert isinstance(two, CaptionDataset)
    assert [two.caption(index) for index in range(len(two))] == [one.caption(index) for index in (0, 2)]


@pytest.mark.usefixtures("stripes")
def test_the_command_scores_a_new_kind(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(eval_cli.evaluate_command)
    words = ["--data", f"stripes:{tmp_path}?count=2", "--union", "--out", str(tmp_path / "out"), "--steps", "0"]
    done = CliRunner().invoke(app, [*words, "--threads", "1", "--worst", "0"])
    assert done.exit_code == 0, done.output
    assert "stripes" in (tmp_path / "out" / "scores.json").read_text()


def test_the_help_lists_every_kind() -> None:
    text = " ".join(CliRunner().invoke(eval_cli.app, ["--help"], env={"COLUMNS": "200"}).output.split())
    for kind in dataset_kinds().values():
        assert f"{kind.name}:" in text
        assert kind.help in text


def test_a_relative_folder_names_the_root(tmp_path: Path) -> None:
    """The remedy is the setting's own meaning: the folder that holds the data set's folder."""
    context = DatasetContext(tmp_path / "endovis2015", "data.root")
    with pytest.raises(UsageError, match=r"set data\.root to the folder that holds 'endovis2015' \(it is '"):
        open_dataset("endovis2015:endovis2015", context=context)
    with pytest.raises(UsageError, match="give the folder of the endovis2015 set"):
        open_dataset("endovis2015:endovis2015")
