"""The names of `cliprl.pipeline` are imported when they are used, all the same as if they were there from the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cliprl.pipeline
from cliprl.pipeline import public


def test_every_public_name_is_importable_from_the_package() -> None:
    star: dict[str, object] = {}
    exec("from cliprl.pipeline import *", star)
    assert len(public.__all__) == len(set(public.__all__)) > 25
    for name in public.__all__:
        assert getattr(cliprl.pipeline, name) is star[name] is getattr(public, name)
    assert set(public.__all__) <= set(dir(cliprl.pipeline))


def test_the_first_use_of_a_name_imports_its_modules() -> None:
    code = (
        "import sys, cliprl.pipeline; assert 'cliprl.pipeline.public' not in sys.modules;"
        "print(cliprl.pipeline.sinks.register_sink.__name__, cliprl.pipeline.Stream.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["register_sink", "Stream"]


@pytest.mark.parametrize("name", ["Streams", "annotations", "_Private"])
def test_a_name_that_the_package_lacks_is_an_error(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'cliprl.pipeline' has no attribute '{name}'"):
        getattr(cliprl.pipeline, name)
