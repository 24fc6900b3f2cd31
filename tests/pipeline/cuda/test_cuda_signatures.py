"""Every call of torch.cuda, tensorrt_rtx and cuda.bindings in the code against the installed packages' signatures."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import cliprl.engines
import cliprl.pipeline

ENGINES, PIPELINE = (Path(next(iter(package.__path__))) for package in (cliprl.engines, cliprl.pipeline))
CUDA, RTX = PIPELINE / "cuda", ENGINES / "backends" / "tensorrt"
# What a name in a file stands for: a module, or the class of which it is an instance (several where it may be any of them).
TORCH = {"torch": "torch", "self._torch": "torch", "stream": "torch:cuda.Stream", "self._stream": "torch:cuda.Stream"}
NAMES: dict[Path, dict[str, str]] = {
    CUDA / "torch_gpu.py": TORCH
    | {"event": "torch:cuda.Event", "graph": "torch:cuda.CUDAGraph", "buffer": "torch:Tensor"},
    CUDA / "factory.py": TORCH,
    CUDA / "kernels" / "launchers.py": {"self._driver": "cuda.bindings.driver"},
    CUDA / "kernels" / "compiler.py": {"nvrtc": "cuda.bindings.nvrtc"},
    ENGINES / "backends" / "cuda_graph.py": TORCH | {"graph": "torch:cuda.CUDAGraph"},
    ENGINES / "backends" / "torch" / "engine.py": TORCH,
    RTX / "probe.py": TORCH,
    RTX / "messages.py": {"trt": "tensorrt_rtx", "made": "tensorrt_rtx:Builder tensorrt_rtx:Runtime"},
    RTX / "build.py": {
        "trt": "tensorrt_rtx",
        "builder": "tensorrt_rtx:Builder",
        "network": "tensorrt_rtx:INetworkDefinition",
        "parser": "tensorrt_rtx:OnnxParser",
        "config": "tensorrt_rtx:IBuilderConfig",
        "made": "tensorrt_rtx:IOptimizationProfile",
        "tensor": "tensorrt_rtx:ITensor",
    },
    RTX / "engine.py": TORCH
    | {
        "trt": "tensorrt_rtx",
        "runtime": "tensorrt_rtx:Runtime",
        "self._runtime": "tensorrt_rtx:Runtime",
        "engine": "tensorrt_rtx:ICudaEngine",
        "self._engine": "tensorrt_rtx:ICudaEngine",
        "self._context": "tensorrt_rtx:IExecutionContext",
        "config": "tensorrt_rtx:IRuntimeConfig",
    },
    RTX / "caches.py": {
        "config": "tensorrt_rtx:IRuntimeConfig",
        "self._config": "tensorrt_rtx:IBuilderConfig",
        "cache": "tensorrt_rtx:IRuntimeCache tensorrt_rtx:ITimingCache",
        "self._cache": "tensorrt_rtx:IRuntimeCache tensorrt_rtx:ITimingCache",
    },
}
# Python's own, which every class has.
ELSEWHERE = {"__init__", "__name__"}


@dataclass(frozen=True)
class Shape:
    """What a function takes: names in order, how many of them are needed, and whether any number more may follow."""

    names: tuple[str, ...]
    needed: frozenset[str]
    positional: int
    any_number: bool

    def takes(self, count: int, keywords: set[str]) -> bool:
        """Whether a call with `count` positional arguments and these keywords is possible."""
        if self.any_number:
            return keywords <= set(self.names) or not self.names
        given = set(self.names[:count]) | keywords
        return (
            count <= self.positional
            and keywords <= set(self.names)
            and not keywords & set(self.names[:count])
            and self.needed <= given
        )


def shapes_of(function: Any) -> list[Shape]:
    """The signatures of a function or class: its own, or those that its documentation begins with."""
    subject = function
    if inspect.isclass(function) and "pybind11" in str(type(function)):
        subject = function.__init__
    try:
        found = inspect.signature(subject)
    except (TypeError, ValueError):
        name = "__init__" if subject is not function else function.__name__
        texts = re.findall(rf"(?:^|\n)\s*(?:\d+\. )?{name}\((.*)\)", subject.__doc__ or "")
        return [of_text(text) for text in texts if text != "*args, **kwargs"]
    kinds = [p for p in found.parameters.values() if p.name != "self"]
    named = [p for p in kinds if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    loose = any(p.kind is p.VAR_POSITIONAL for p in kinds)
    needed = frozenset(p.name for p in named if p.default is p.empty)
    return [Shape(tuple(p.name for p in named), needed, sum(p.kind is not p.KEYWORD_ONLY for p in named), loose)]


def of_text(text: str) -> Shape:
    """A signature as pybind, Cython and torch write it."""
    parts, depth, current = list[str](), 0, ""
    for letter in text + ",":
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    parts = [part for part in parts if part and not part.startswith("self")]
    loose = any(part.startswith("*") and part != "*" for part in parts)
    before = parts[: parts.index("*")] if "*" in parts else parts
    named = [part for part in parts if not part.startswith("*")]
    name = [part.split("=")[0].split(":")[0].split()[-1] for part in named]
    # Torch's text leaves out a default now and then: what follows a parameter with one has one too.
    needed = frozenset(n for n, part in zip(name, takewhile(lambda part: "=" not in part, named), strict=False))
    return Shape(tuple(name), needed, len([part for part in before if not part.startswith("*")]), loose)


def owners(text: str) -> list[Any]:
    found = []
    for each in text.split():
        module, _, path = each.partition(":")
        owner = pytest.importorskip(module) if module != "torch" else import_module(module)
        for word in path.split(".") if path else ():
            owner = getattr(owner, word)
        found.append(owner)
    return found


def dotted(node: ast.expr) -> str:
    """A chain of names, "" for anything else."""
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    return ast.unparse(node) if isinstance(inner, ast.Name) else ""


def resolved(node: ast.Attribute, names: dict[str, str]) -> list[Any] | None:
    """What an attribute stands for in each of its possible owners, None where its owner is none of `names`."""
    words = dotted(node).split(".")
    for split in range(len(words) - 1, 0, -1):
        text = names.get(".".join(words[:split]))
        if text is None:
            continue
        found = []
        for owner in owners(text):
            value = owner
            for word in words[split:]:
                value = getattr(value, word, None)
            found.append(value)
        return [value for value in found if value is not None]
    return None


def arguments(call: ast.Call) -> tuple[int, set[str]] | None:
    """The number of positional arguments and the keywords; None where that is known at run time only."""
    count = 0
    for each in call.args:
        if isinstance(each, ast.Starred):
            if not isinstance(each.value, ast.Tuple):
                return None
            count += len(each.value.elts)
        else:
            count += 1
    return count, {word.arg for word in call.keywords if word.arg}


def faults(path: Path, names: dict[str, str], text: str | None = None) -> Iterator[str]:
    """Each attribute that the installed package has not, and each call that it would refuse."""
    tree = ast.parse(text or path.read_text(encoding="utf-8"))
    seen, skipped = 0, set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "PycudaLauncher":
            skipped |= set(ast.walk(node))  # the registry has pycuda in source only; a fake stands for it
        if node in skipped:
            continue
        if isinstance(node, ast.Attribute) and node.attr not in ELSEWHERE:
            found = resolved(node, names)
            if found == []:
                yield f"{path.name}:{node.lineno}: {dotted(node)} does not exist"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr not in ELSEWHERE:
            given, found = arguments(node), resolved(node.func, names)
            if given is None or not found or not all(callable(each) for each in found):
                continue
            seen += 1
            shapes = [shape for each in found for shape in shapes_of(each)]
            if shapes and not any(shape.takes(*given) for shape in shapes):
                yield f"{path.name}:{node.lineno}: {ast.unparse(node)} does not fit {shapes}"
    if text is None and not seen:
        yield f"{path.name}: no call was compared"


@pytest.mark.parametrize("path", NAMES, ids=lambda path: "/".join(path.parts[-2:]))
def test_calls_fit_the_installed_packages(path: Path) -> None:
    if "torch" in NAMES[path].values():
        pytest.importorskip("torch")
    assert list(faults(path, NAMES[path])) == []


@pytest.mark.parametrize(
    "text",
    [
        "torch.cuda.Event(blocks=True)",
        "torch.cuda.current_device(1)",
        "graph.capture_begin(pool, error_mode='relaxed')",
        "event.recorded(stream)",
        "trt.OnnxParser(network)",
        "context.set_input_shape(name)",
        "driver.cuLaunchKernel(function, 1, 1, 1)",
        "nvrtc.nvrtcCompile(program)",
    ],
)
def test_a_call_that_does_not_fit_is_found(text: str) -> None:
    names = NAMES[CUDA / "torch_gpu.py"] | {
        "trt": "tensorrt_rtx",
        "context": "tensorrt_rtx:IExecutionContext",
        "driver": "cuda.bindings.driver",
        "nvrtc": "cuda.bindings.nvrtc",
    }
    assert len(list(faults(Path("example.py"), names, text))) == 1


def test_every_file_that_calls_these_packages_is_compared() -> None:
    calls = re.compile(r"\b(torch\.cuda\.|import_module\(.(?:cuda\.|package)|trt\.)")
    files = [*CUDA.rglob("*.py"), *(ENGINES / "backends").rglob("*.py")]
    found = {path for path in files if calls.search(path.read_text(encoding="utf-8"))}
    assert found - set(NAMES) - {RTX / "backend.py", ENGINES / "backends" / "torch" / "backend.py"} == set()
