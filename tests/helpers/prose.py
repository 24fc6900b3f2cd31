"""Find the old idiom in the project's prose: docstrings, comments, help texts and messages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from public_names import ROOT, module_paths

_ACTORS = "bundle|device|display|encoder|engine|frame|network|reader|sink|source|stage|stream|thread|worker"
IDIOM = re.compile(
    r"\b(?:is|are|be|was|were|being) told\b|\btells? (?:of|what|why|whether|how)\b|\btold (?:of|what|why|whether|how)\b"
    r"|\bsays? it\b|\bsays? (?:so|what|why|whether|which|how)\b|\bnobody\b|\bwhoever\b|\bof (?:its|their|one's) own\b"
    r"|\bwhat becomes of\b|\bso (?:many|much|few)\b|\bthe thread's body\b|\b(?:is|are) seen out\b|\bsees? [a-z ]+ out\b"
    r"|\bwhat (?:is|was) (?:said|told|seen|given|wanted|asked)\b|\bnone that\b|\bstands? for\b|\bat work\b|\bmay be said\b"
    rf"|\b(?:{_ACTORS})s? (?:says?|tells?|sees?|knows?|wants?|hears?|thinks?|likes?)\b|\blikewise\b",
    re.IGNORECASE,
)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, docstring, help text and message of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def idiom_found() -> list[str]:
    """Each place of the old idiom in the project, as path, line and phrase."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path in module_paths()
        for line, text in prose(path.read_text(encoding="utf-8"))
        for match in IDIOM.finditer(" ".join(text.split()))
    ]


if __name__ == "__main__":
    print(*idiom_found(), sep="\n")
