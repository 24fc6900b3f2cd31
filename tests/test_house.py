"""Lint, types and the house's rules: which room may import which, and what may be loaded at import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from prose import IDIOM, idiom_found, prose
from public_names import SHARED, ambiguous_names, repeated_names

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "engines": {"engines"},
    "pipeline": {"pipeline", "engines"},
    "models": {"models", "pipeline", "engines"},
    "bench": {"bench", "models", "pipeline", "engines"},
}
OPTIONAL = {
    "torch",
    "torchvision",
    "open_clip",
    "timm",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "nncf",
    "aiortc",
    "prometheus_client",
    "onnxruntime",
    "mitsuba",
    "mitsuba_oidn",
    "trimesh",
    "ray",
    "pyarrow",
}


# Rooms of the pipeline: each imports only itself and rooms to its left.
PIPELINE_ROOMS = [
    ["core"],
    ["view", "overlay", "synthetic", "schemas"],
    ["segment", "sources"],
    ["tracking"],
    ["sinks"],
    ["stream", "live"],
    ["correction"],
    ["devices", "cuda", "web", "examples"],
    ["window"],
    ["cli"],
    ["archive"],
]
MOST_MODULES, MOST_LINES = 14, 300
# Words in the name of a test after `test_`.
MOST_WORDS = 10


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


def test_ruff() -> None:
    done = python("-m", "ruff", "check", ".")
    assert done.returncode == 0, done.stdout


def test_formatting() -> None:
    done = python("-m", "ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout


def test_types() -> None:
    done = python("-m", "mypy")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_point_down(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                parts = name.split(".")
                assert parts[0] not in MAY_IMPORT, f"{path.relative_to(ROOT)}: import {name} as cliprl.{name}"
                if parts[0] == "cliprl":
                    assert parts[1] in MAY_IMPORT[room], f"{path.relative_to(ROOT)}: {room} may not import {parts[1]}"


def modules() -> dict[str, Path]:
    """All modules of the project by name."""
    paths = [path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")]
    named = {".".join(("cliprl", *path.relative_to(ROOT).with_suffix("").parts)): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def import_graph() -> dict[str, set[str]]:
    """The project's modules that each module imports anywhere in it: lazy and type-checking imports included."""
    known = modules()
    return {name: {target for target in project_imports(path, known) if target != name} for name, path in known.items()}


def project_imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & known.keys()
            if node.module in known and not names <= known.keys():
                yield node.module


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import each other, directly or through others."""
    reached = {name: set(targets) for name, targets in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    found = {frozenset(other for other in graph if other in reached[name] and name in reached[other]) for name in graph}
    return [set(group) for group in found if group]


def test_no_modules_import_each_other() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert circles(import_graph()) == []


def test_rooms_of_the_pipeline_import_downwards_only() -> None:
    level = {room: number for number, rooms in enumerate(PIPELINE_ROOMS) for room in rooms}
    for name, targets in import_graph().items():
        if name.startswith("cliprl.pipeline.") and (room := name.split(".")[2]) in level:
            for other in {target.split(".")[2] for target in targets if target.startswith("cliprl.pipeline.")}:
                assert other == room or level[other] < level[room], f"{name}: {room} may not import {other}"


def test_folders_and_modules_are_small() -> None:
    paths = modules().values()
    for folder in {path.parent for path in paths}:
        count = sum(path.name != "__init__.py" for path in folder.glob("*.py"))
        assert count <= MOST_MODULES, f"{folder.relative_to(ROOT)} holds {count} modules"
    for path in paths:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MOST_LINES, f"{path.relative_to(ROOT)} has {lines} lines"


def test_pyproject_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in modules().values() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(".".join(("cliprl", *folder.relative_to(ROOT).parts)) for folder in folders)


def test_public_names_have_one_meaning() -> None:
    assert ambiguous_names() == {}
    assert not SHARED.keys() - repeated_names().keys(), "SHARED lists names that are no longer defined twice"


def test_prose_is_free_of_the_old_idiom() -> None:
    assert idiom_found() == []


def test_old_idiom_is_found_in_all_kinds_of_prose() -> None:
    module = '"""Nobody knows."""\nX = 1  # of its\nY = f"the stream says it {X}"  # likewise\nZ = ("so "\n     "many rows")\n'
    found = {(line, match[0].lower()) for line, text in prose(module) for match in IDIOM.finditer(text)}
    assert found == {(1, "nobody"), (3, "stream says"), (3, "likewise"), (4, "so many")}


def test_names_of_tests_are_short_and_unique() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = [
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        ]
        long = [name for name in names if len(name.removeprefix("test_").split("_")) > MOST_WORDS]
        assert not long, f"{path.relative_to(ROOT)}: more than {MOST_WORDS} words: {long}"
        assert len(set(names)) == len(names), f"{path.relative_to(ROOT)} defines a test twice"


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_labels_are_resized_at_the_centers_of_pixels() -> None:
    # cv2.resize with INTER_NEAREST takes corners, by which labels lie up to half a pixel right of and below their image.
    found = {
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in sorted((ROOT / "models").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "cv2.resize"
        if any(ast.unparse(word.value) == "cv2.INTER_NEAREST" for word in call.keywords)
        if path.name != "digital.py"  # pixelates an image, which has no labels
    }
    assert not found


def test_the_pipeline_touches_a_gpu_in_one_place_only() -> None:
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.parent != ROOT / "pipeline" / "cuda":
            assert not imported(path) & {"torch", "pycuda", "cuda", "tensorrt"}, path.relative_to(ROOT)


@pytest.mark.parametrize(
    "package", ["cliprl.engines", "cliprl.pipeline", "cliprl.pipeline.cli.run", "cliprl.pipeline.cuda.factory"]
)
def test_importing_loads_nothing_optional(package: str) -> None:
    done = python("-c", f"import sys, {package}; print(*sorted({OPTIONAL!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_openvino_reports_to_nobody() -> None:
    """Its converter sends a report over the network when it is imported, and NNCF would too."""
    foreign = "'telemetry' in name and not name.startswith('cliprl.')"
    told = f"*sorted(name for name in sys.modules if ({foreign}) or name.startswith('openvino.tools'))"
    code = f"import sys; from cliprl.engines import probe; assert probe('openvino').ready; print({told})"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    for path in (path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not {"import openvino", "import nncf"} & {line.strip() for line in lines}, path.relative_to(ROOT)


def test_the_light_install_names_no_heavy_package() -> None:
    light = [line for line in requires("cliprl") or [] if "extra ==" not in line]
    assert light
    assert not any(line.split(">")[0].split("=")[0].strip().lower() in OPTIONAL for line in light)


def run_at_import(nodes: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is imported; those in functions, `try` and `with` may fail."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from run_at_import([*node.body, *node.orelse])
        elif isinstance(node, ast.ClassDef):
            yield from run_at_import(node.body)


def test_commands_start_with_the_light_install() -> None:
    """Each command imports its own packages, and those of all data sets, sources, sinks and measurements, at its start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    light = {re.split("[<>=!~]", line)[0].replace("-", "_") for line in project["dependencies"]}
    light = light - {"opencv_python_headless", "pillow"} | {"cv2", "PIL", *sys.stdlib_module_names, "__future__"}
    known = modules()
    found = ("cliprl.bench.commands.", "cliprl.models.data.sets.", "cliprl.pipeline.sources.", "cliprl.pipeline.sinks.")
    waiting = [entry.split(":")[0] for entry in project["scripts"].values()]
    waiting += [name for name in known if name.startswith(found)]
    seen = set[str]()
    while waiting:
        parts = waiting.pop().split(".")
        for name in (".".join(parts[:end]) for end in range(2, len(parts) + 1)):
            if name in seen or name not in known:
                continue
            seen.add(name)
            for node in run_at_import(ast.parse(known[name].read_text(encoding="utf-8")).body):
                targets = [alias.name for alias in node.names]
                if isinstance(node, ast.ImportFrom):
                    targets = [str(node.module), *(f"{node.module}.{target}" for target in targets)]
                waiting += targets
                for package in {target.split(".")[0] for target in targets} - {"cliprl"}:
                    assert package in light, f"{name} imports {package}, which is in no dependency"
    assert len(seen) > 300
