"""Hide classes of a bundle: overlays, pages and reports leave them out unless they are named. Masks and events keep them.

python -m cliprl.models.export.hide_classes BUNDLE --hide tissue
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines import Bundle, UsageError, open_bundle, seal_bundle
from cliprl.engines.cli.cli_runner import run_app


def hide_classes(bundle: Bundle, words: Sequence[str]) -> Bundle:
    """Hide the classes of these names or kinds, show all others, and seal it again. Raises UsageError for another word."""
    classes = bundle.manifest.classes
    known = dict.fromkeys(word for spec in classes if spec.kind != "background" for word in (spec.kind, spec.name))
    for word in words:
        if word not in known:
            raise UsageError(
                f"'{word}' is no kind or class of bundle '{bundle.manifest.name}': one of {', '.join(known)}"
            )
    marked = tuple(replace(spec, shown=spec.name not in words and spec.kind not in words) for spec in classes)
    return seal_bundle(bundle.path, replace(bundle.manifest, classes=marked), bundle.embeddings)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def hide(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of the bundle, which is changed in place.", exists=True, file_okay=False)
    ],
    words: Annotated[
        list[str] | None,
        typer.Option("--hide", metavar="KIND|CLASS", help="Hide it; may be repeated. Without, show all."),
    ] = None,
) -> None:
    """Hide classes of a bundle, and show the others."""
    changed = hide_classes(open_bundle(bundle), words or ())
    hidden = [spec.name for spec in changed.manifest.classes if not spec.shown]
    typer.echo(f"hidden: {', '.join(hidden) or 'none'}")


if __name__ == "__main__":
    raise SystemExit(run_app(app, "hide_classes"))
