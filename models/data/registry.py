"""Register data sets by kind, and open one that is given as KIND:FOLDER?OPTION=VALUE&OPTION=VALUE.

A module in `models/data/sets/` registers its data set with `register_dataset`. The factories, the help text and the error
messages come from the registered kinds. Example lines:

    endovis2018:/data/endovis2018?split=A
    endovis2015:/data/endovis2015?sequences=D1,OP1
    rendered:seeds=0-299&frames=6
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from cliprl.engines import UsageError
from cliprl.models.data.dataset_spec import DatasetSpec, severity_of
from cliprl.models.data.image_mask_dataset import (
    CaptionDataset,
    LabelledDataset,
    SelectedCaptions,
    SelectedFrames,
    Subset,
)
from cliprl.models.data.label_forms import label_form
from cliprl.models.data.splits import SPLITS, Split, select_sequences

# Options of every kind: they select sequences, and only one of them may be given.
SELECTIONS = ("sequences", "split", "fold")
# An option of every kind: each N-th of the selected frames.
EVERY_NTH = "every"
Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class DatasetContext:
    """Settings that a data set needs besides its line: the root of relative folders, and how scenes are rendered and cached.

    `root_setting` is the name under which the user sets `root`, for error messages. `progress` is called with the number of
    rendered scenes and their total.
    """

    root: Path = Path()
    root_setting: str = ""
    cache: Path | None = None
    height: int = 384
    width: int = 480
    workers: int = 0
    progress: Callable[[int, int], None] = lambda done, total: None


Factory = Callable[[Path, Mapping[str, str], DatasetContext], LabelledDataset]


@dataclass(frozen=True, slots=True)
class DatasetKind:
    """A registered kind of data set.

    `options` are the help texts of its options by name. `path_kind` is "folder", "file", or "cache" for a folder that the
    data set fills itself. `named_by_path` marks a kind that holds any data, which its path names; each other kind is one data
    set, wherever it lies. `no_instrument` marks data in which every pixel called instrument is a false alarm. `source` holds
    the name, licence and attribution that a manifest repeats. `mark` is the pattern of a file by which the kind is recognized:
    the file itself, or one in the folder.
    """

    name: str
    help: str
    factory: Factory
    options: Mapping[str, str] = field(default_factory=dict)
    path_kind: str = "folder"
    named_by_path: bool = False
    no_instrument: bool = False
    mark: str = ""
    source: Mapping[str, str] = field(default_factory=dict)


_KINDS: dict[str, DatasetKind] = {}
_DEFAULT_CONTEXT = DatasetContext()


def register_dataset(
    name: str, help: str, *, splits: Mapping[str, Split] | None = None, **settings: Any
) -> Callable[[Target], Target]:
    """Register a data set class, or a factory function, under the kind `name`.

    A class is called with the path, and with the given options as keyword arguments; a function with the path, the options
    and the `DatasetContext`. `splits` are published splits by name; `settings` are further fields of `DatasetKind`.
    """

    def register(target: Target) -> Target:
        def construct(path: Path, options: Mapping[str, str], context: DatasetContext) -> LabelledDataset:
            made: LabelledDataset = target(path, **options)
            return made

        _KINDS[name] = DatasetKind(name, help, construct if isinstance(target, type) else target, **settings)
        SPLITS[name] = dict(splits or {})
        return target

    return register


@cache
def _import_sets() -> None:
    """Import every module of `cliprl.models.data.sets`, so that each registers its data set."""
    sets = import_module("cliprl.models.data.sets")
    for module in pkgutil.walk_packages(sets.__path__, f"{sets.__name__}."):
        import_module(module.name)


def dataset_kinds() -> Mapping[str, DatasetKind]:
    """Return the registered kinds by name."""
    _import_sets()
    return dict(sorted(_KINDS.items()))


def dataset_kind(text: str) -> DatasetKind:
    """Return the kind of a data set line. Raises UsageError for an unknown one, with the nearest name."""
    name, kinds = DatasetSpec.parse(text).kind, dataset_kinds()
    if name not in kinds:
        near = get_close_matches(name, kinds, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"no data set '{text}': {hint}give KIND:FOLDER, where KIND is one of {', '.join(kinds)}")
    return kinds[name]


def portable_lines(texts: Iterable[str]) -> list[str]:
    """Return data set lines without their folders, the same on every machine; the second of two equal ones ends in " (2)".

    Of a kind that holds any data, the last name of the path stays, as in "folder:mine?share=2".
    """
    lines, found = [], Counter[str]()
    for text in texts:
        line = DatasetSpec.parse(text).without_path(keep_name=dataset_kind(text).named_by_path)
        found[line] += 1
        lines.append(line if found[line] == 1 else f"{line} ({found[line]})")
    return lines


def describe_kinds() -> str:
    """Return a help text with a line for each kind: its form, what it holds, and its options."""
    rows = []
    for kind in dataset_kinds().values():
        options = "".join(f"; {name}={text}" for name, text in kind.options.items())
        rows.append(f"{kind.name}:{'FILE' if kind.path_kind == 'file' else 'FOLDER'}  {kind.help}{options}")
    return "\n".join(rows)


def lines_of_path(text: str) -> list[str]:
    """Return the data set lines of a path without a kind: a label file, or a folder of labels; of any other text, the text.

    Labels of a folder may also lie in its sub-folders, as in the exports of tools.

    Raises UsageError for a path at which no kind of labels is recognized.
    """
    place, mark, options = text.partition("?")
    path = Path(place)
    if not path.exists():
        return [text]
    marked = [kind for kind in dataset_kinds().values() if kind.mark]
    folders = [kind for kind in marked if kind.path_kind == "folder" and (path / kind.mark).is_file()]
    if folders:
        return [f"{folders[0].name}:{text}"]
    for files in (path.glob("*"), path.glob("*/*")) if path.is_dir() else ([path],):
        if found := _label_files(sorted(file for file in files if not file.name.startswith(".")), marked):
            return [f"{kind}:{file}{mark}{options}" for kind, file in found]
    form, marks = label_form(path), ", ".join(kind.mark for kind in marked)
    known = f"'{place}' is {form.text}: {form.remedy.replace('FILE', place)}" if form else ""
    raise UsageError(known or f"'{place}' holds no labels that are recognized ({marks}): give KIND:{place}")


def _label_files(files: list[Path], marked: list[DatasetKind]) -> list[tuple[str, Path]]:
    """Return the label files among `files`, each with its kind: by their names, else by their content."""
    kinds = [kind for kind in marked if kind.path_kind == "file"]
    if named := [(kind.name, file) for file in files for kind in kinds if file.match(kind.mark)]:
        return named
    forms = [(label_form(file), file) for file in files if file.suffix.lower() in (".json", ".xml")]
    return [(form.kind, file) for form, file in forms if form and form.kind]


def open_dataset(
    text: str, side: str = "test", context: DatasetContext = _DEFAULT_CONTEXT, further: tuple[str, ...] = ()
) -> LabelledDataset:
    """Open the data set that a line describes; of a split, the `side` "train" or "test".

    `further` names options that the caller reads itself. Raises UsageError for an unknown kind or option, a missing folder,
    split or sequence, and CliprlError for damaged data.
    """
    spec, kind, path = check_line(text, context, further)
    options = {key: value for key, value in spec.options.items() if key in kind.options}
    data = _select(kind.factory(path, options, context), spec, side)
    every = 1 if EVERY_NTH in kind.options else spec.every()
    if every == 1:
        return data
    selected = SelectedCaptions if isinstance(data, CaptionDataset) else SelectedFrames
    return selected([(data, index) for index in range(0, len(data), every)])


def check_line(
    text: str, context: DatasetContext = _DEFAULT_CONTEXT, further: tuple[str, ...] = ()
) -> tuple[DatasetSpec, DatasetKind, Path]:
    """Return the parts of a line, its kind and its path. Raises UsageError as `open_dataset`, but reads no data."""
    spec = DatasetSpec.parse(text)
    kind = dataset_kind(text)
    known = tuple(dict.fromkeys((*kind.options, *SELECTIONS, EVERY_NTH, *further)))
    for option in spec.options:
        if option not in known:
            raise UsageError(f"data set '{text}' has no option '{option}': one of {', '.join(known)}")
    spec.number("share", 1)
    severity_of(spec)
    spec.every()
    return spec, kind, _path(spec, kind, context)


def _path(spec: DatasetSpec, kind: DatasetKind, context: DatasetContext) -> Path:
    if kind.path_kind == "cache":
        if spec.path:
            return context.root / spec.path
        if context.cache is None:
            raise UsageError(
                f"data set '{spec.without_path()}' has no folder for its scenes: give {spec.kind}:FOLDER?seeds=0-9"
            )
        return context.cache
    path = context.root / spec.path
    if not spec.path or not (path.is_dir() if kind.path_kind == "folder" else path.is_file()):
        remedy = f"give the {kind.path_kind} of the {spec.kind} set"
        if context.root_setting and spec.path and not Path(spec.path).is_absolute():
            remedy = f"set {context.root_setting} to the folder that holds '{spec.path}' (it is '{context.root}')"
        raise UsageError(f"'{path}' is no {kind.path_kind}: {remedy}")
    return path


def _select(data: LabelledDataset, spec: DatasetSpec, side: str) -> LabelledDataset:
    """Reduce a data set to the sequences, split or fold that its line gives."""
    given = [key for key in SELECTIONS if key in spec.options]
    if len(given) > 1:
        raise UsageError(f"data set '{spec.without_path()}' has {' and '.join(given)}: give one of them")
    if not given:
        return data
    if given == ["sequences"]:
        return Subset(data, spec.names("sequences"))
    name = spec.options[given[0]]
    return select_sequences(data, f"{'fold' if given == ['fold'] else ''}{name}:{side}")
