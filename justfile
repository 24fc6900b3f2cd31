# One word for each action; `just` lists them.
python := ".venv/bin/python"

default:
    @just --list

# Make the virtual environment for development.
setup:
    python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]'

# Tests without the slow ones: under two minutes on two cores.
fast:
    {{python}} -m pytest -n 3 --dist loadfile -m "not slow" -q

# All tests, lint and types included.
test:
    {{python}} -m pytest -n 3 --dist loadfile

lint:
    {{python}} -m ruff check . && {{python}} -m ruff format --check .

types:
    {{python}} -m mypy

format:
    {{python}} -m ruff check --fix . && {{python}} -m ruff format .

# Segment the rendered demo scene.
demo:
    .venv/bin/cliprl-stream demo:

# Mutated files through decoder and encoder.
fuzz count="2000":
    .venv/bin/cliprl-bench fuzz --count {{count}}
