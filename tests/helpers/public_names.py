"""Public names (classes, functions, constants, type aliases) that several modules define.

Run as a script in the checkout, it prints each name that several modules define with different meanings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engines", "pipeline", "models", "bench")
# Names that several modules define with one meaning, and that meaning.
SHARED = {
    "app": "the Typer application of a command",
    "Array": "a NumPy array",
    "Box": "left, top, right, bottom in pixels",
    "BundleOption": "the option --bundle",
    "CASE": "the case of a benchmark's series",
    "check_device": "raises EngineError if a device is not available",
    "check_place": "raises UsageError if a file can't be written",
    "Color": "R, G, B, each 0..255",
    "command": "the function of a benchmark command",
    "CONFIDENCE": "the level of bootstrap intervals",
    "DEFAULT_RATE": "the frame rate of a video that has none",
    "DIGITS": "decimals in a result file",
    "Encode": "a function that runs the image encoder",
    "FloatImage": "float32 image (H, W, 3)",
    "FloatPlane": "float32 array (H, W)",
    "format_table": "a study's table as Markdown",
    "FORMAT_VERSION": "the version of a file format",
    "FP8": "the name of the precision",
    "GRID_STRIDE": "pixels of the network input per cell of its grid",
    "Image": "uint8 image",
    "INT8": "the name of the precision",
    "Item": "a type variable",
    "LAYOUT": "the files of a data set",
    "LogFunction": "a function that takes a line for the log",
    "main": "the entry point of a script",
    "Matrix": "a transformation of pixel positions",
    "measure": "runs a benchmark; its result",
    "METHOD": "what a benchmark includes and excludes",
    "MIN_AGREEMENT": "least share of equal labels",
    "NAME": "the name under which a thing is registered",
    "one_round": "one round of a benchmark",
    "open_device": "opens a device of the pipeline",
    "OPSET": "the ONNX operator set of a graph",
    "OutputOption": "the option --output",
    "Packet": "PyAV's packet",
    "prepare": "a peer's runner for a job",
    "RATE": "frames per second of a benchmark's camera",
    "rate_series": "a benchmark's series of frame rates",
    "RESAMPLES": "resamples of a bootstrap",
    "Rng": "NumPy's generator",
    "ROOT": "the root of the checkout",
    "SEQUENCES": "numbers of a data set's sequences",
    "series": "a benchmark's series",
    "series_of": "a benchmark's series",
    "SLOTS": "frames in a stream's ring",
    "study": "the command of a study",
    "ThreadsOption": "the option --threads",
    "TYPE_CLASSES": "classes of instrument types",
    "verdict": "whether a benchmark's limits held, in a sentence",
    "why_not": "the reason why something can't be used",
    "why_unsupported": "the reason why a precision can't be used",
    "write_tables": "writes a study's tables",
}


def module_paths() -> Iterator[Path]:
    """All modules of the project."""
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def public_names(text: str) -> Iterator[str]:
    """The public names that a module's text defines at its top level."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


@lru_cache
def repeated_names() -> dict[str, list[str]]:
    """Names that several modules define, with the modules."""
    found: dict[str, set[str]] = {}
    for path in module_paths():
        if path.name != "__init__.py":
            for name in public_names(path.read_text(encoding="utf-8")):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return {name: sorted(paths) for name, paths in sorted(found.items()) if len(paths) > 1}


def ambiguous_names() -> dict[str, list[str]]:
    """Names that several modules define with different meanings, with the modules."""
    return {name: paths for name, paths in repeated_names().items() if name not in SHARED}


if __name__ == "__main__":
    for ambiguous, places in ambiguous_names().items():
        print(f"{ambiguous}: {', '.join(places)}")
