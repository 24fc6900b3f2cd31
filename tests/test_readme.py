"""The README's Python examples name what the package has."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_an_example_imports_is_there(example: str) -> None:
    imports = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.ImportFrom) and node.module]
    for node in imports:
        assert node.module is not None
        module = importlib.import_module(node.module)
        for name in node.names:
            assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_there_is_an_example() -> None:
    assert EXAMPLES


ROOT = README.parent
ROOMS = sorted(path for path in ROOT.glob("*/README.md") if not path.parent.name.startswith("."))


def tables(text: str) -> list[list[str]]:
    """The rows of each Markdown table, its head and its rule included."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [rows for rows in found if rows]


def test_the_first_page_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 10 * 1024
    assert all(len(line) <= 160 for line in text.splitlines())
    assert all(len(rows) - 2 <= 10 for rows in tables(text))
    assert "BREACH" not in text


@pytest.mark.parametrize("room", ["bench", "engines", "models", "pipeline"])
def test_each_room_has_a_page_of_its_own(room: str) -> None:
    assert len((ROOT / room / "README.md").read_bytes()) <= 12 * 1024


@pytest.mark.parametrize("page", [README, *ROOMS], ids=lambda page: page.parent.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
