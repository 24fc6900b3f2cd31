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
