"""The fuzz test finds what it looks for, and finds nothing in the program: see `cliprl.bench.commands.fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

from cliprl.bench.fixtures.fuzz_inputs import SEEDS, make_seed, mutate


def test_a_short_run_finds_no_fault() -> None:
    """In a process of its own: one that forks must have no threads, which the tests' has."""
    command = [sys.executable, "-m", "cliprl.bench", "fuzz", "--count", "96", "--seed", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("96 files: ")
    assert "refused" in done.stdout
    assert "written" in done.stdout


def test_the_same_seed_gives_the_same_files() -> None:
    data = make_seed(SEEDS[0])
    made = [[mutate(data, Random(f"3/{n}")) for n in range(40)] for _ in range(2)]
    assert made[0] == made[1]
    assert len({name for name, _ in made[0]}) > 5
    assert all(mutated != data for _, mutated in made[0])


FAULTS = [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash"),
    ("raise ValueError('planted')", "traceback"),
    ("import time; time.sleep(60)", "hang"),
    ("result = 1", "silent"),
    ("(output.parent / 'bystander.mp4').write_bytes(b'x')", "touched"),
    ("source.unlink()", "touched"),
    ("output.write_bytes(b'no video')", "unreadable"),
    ("pass", "unreadable"),
    ("print('a reason'); result = 2", "refused"),
]


def test_every_fault_is_seen(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from cliprl.bench.commands import fuzz
fuzz.TIME_LIMIT = 3.0
for number, fault in enumerate({[fault for fault, _ in FAULTS]}):
    def convert(source, output):
        scope = {{"source": source, "output": output, "result": 0}}
        exec(fault, scope)
        return scope["result"]
    fuzz._convert, folder = convert, Path(str(number))
    folder.mkdir()
    (folder / "in.mp4").write_bytes(b"data")
    print(fuzz.examine(0, folder, "in.mp4").outcome)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == [outcome for _, outcome in FAULTS], done.stderr


def test_streams_that_appear_late_end_no_run(tmp_path: Path) -> None:
    """An FLV whose first part is cut off has a sound stream that its header does not list."""
    flv = make_seed(next(seed for seed in SEEDS if seed.suffix == "flv"))
    script = """
import sys
from pathlib import Path
from cliprl.bench.commands import fuzz
fuzz._load()
for number in range(12):
    folder = Path(sys.argv[1]) / str(number)
    print(fuzz.examine(number, folder, "in.flv").outcome)
"""
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "in.flv").write_bytes(flv[:13] + flv[len(flv) * (number + 1) // 14 :])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    outcomes = done.stdout.split()
    assert len(outcomes) == 12, done.stderr
    assert set(outcomes) <= {"written", "refused"}
