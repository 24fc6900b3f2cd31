"""A running stream and a viewer of it, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from webplayer import Player, serve

if TYPE_CHECKING:
    from cliprl.pipeline.web.server import WebViewer

# Seconds until the first frame must have come.
LIMIT = 60.0


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    with Player() as running:
        running.broadcast.wait_newer(-1, LIMIT)
        yield running


@pytest.fixture(scope="module")
def viewer(player: Player) -> Iterator[WebViewer]:
    with serve(player) as running:
        yield running
