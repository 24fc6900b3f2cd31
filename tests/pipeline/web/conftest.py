"""A running stream and a viewer of it, shared by the tests of a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,800",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))) as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "deny"})
        yield driver
