"""The GPU's benchmark, as far as it goes without one: its streams on a simulated GPU, its start on a bare machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu_fake import FakeGpu, HostNetwork
from gpu_host import needs_compiler
from media import make_clip

from cliprl.bench.gpu import ROOT, described
from cliprl.bench.gpu_runs import GpuStream, Sampler, run_together, scene_pictures
from cliprl.engines import load_engines, open_bundle
from cliprl.engines.nvidia import find_driver
from cliprl.pipeline.cuda.device import share

# What the bare machine does not have; without `site` the editable install is not found either.
BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("av", "openvino", "pycocotools", "tensorrt"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@needs_compiler
def test_streams_see_every_frame_out_and_tell_what_it_took() -> None:
    gpu = FakeGpu(random.Random(3).randrange)
    card, bundle = share(gpu, lambda engine: HostNetwork(gpu, engine)), open_bundle()
    engines, pictures = load_engines(bundle, precision="f32", threads=1), scene_pictures(200, 360, 2)
    assert not pictures[0][0][:8].any() or pictures[0][0][:8].max() <= 16
    streams = [GpuStream(card, bundle, pictures, engines=engines, steps=1) for _ in range(2)]
    seen = run_together(streams, 6)
    assert [(len(one.finished), one.wrong, one.dropped, one.fed) for one in seen] == [(6, 0, 0, 6)] * 2
    series = {one.name: one for one in described("both", seen)}
    assert len(series["latency"].rounds[0]) == 12
    assert series["frames that came out wrong"].rounds[0] == (0.0, 0.0)
    assert all(rate > 0 for rate in series["fps"].rounds[0])


@needs_compiler
def test_a_clip_is_played_again_and_again(tmp_path: Path) -> None:
    gpu = FakeGpu(random.Random(4).randrange)
    card, bundle = share(gpu, lambda engine: HostNetwork(gpu, engine), decoder=0), open_bundle()
    engines = load_engines(bundle, precision="f32", threads=1)
    clip = str(make_clip(tmp_path / "clip.mp4", frames=3))
    (seen,) = run_together([GpuStream(card, bundle, [], clip=clip, engines=engines, steps=0)], 7)
    assert (len(seen.finished), seen.wrong, seen.fed) == (7, 0, 7)
    if find_driver() is None:
        assert seen.notes[0].startswith("no NVDEC for this video")


def test_what_fails_in_a_stream_is_raised() -> None:
    class Broken(GpuStream):
        def __init__(self) -> None:
            from cliprl.bench.gpu_runs import Seen

            self.seen = Seen(error=OSError("the card fell off"))

        def run(self, frames: int, slow: float = 0.0) -> object:  # type: ignore[override]
            return self.seen

    with pytest.raises(OSError, match="fell off"):
        run_together([Broken()], 1)


def test_samples_are_collected_until_the_end() -> None:
    values = iter([1.0, None, 2.0])
    sampler = Sampler(lambda: next(values, None))
    sampler.start()
    while len(sampler.values) < 2:
        pass
    assert sampler.stop() == [1.0, 2.0]


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_on_a_bare_machine_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """All modules that the measurements need are imported without PyAV, OpenVINO and the installed package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHONPATH": str(Path(np.__file__).parent.parent)
    }
    script = BARE + (
        "import runpy; sys.argv = ['bench/gpu.py', '--tests-only']; "
        f"gpu = runpy.run_path({str(ROOT / 'bench' / 'gpu.py')!r}); gpu['arrange'](); "
        "import cliprl.bench.gpu_runs, cliprl.engines.candidate, cliprl.pipeline.cuda.opening; "
        "assert 'av' not in sys.modules and 'openvino' not in sys.modules; sys.exit(gpu['main'](['--tests-only']))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "bench/gpu.py: device 'cuda' can't serve here: no NVIDIA driver" in done.stderr
