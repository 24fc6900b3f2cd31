"""Stages end together: at the end of the input, after an error anywhere, and when the consumer leaves early."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cliprl.pipeline.stages import Stage


def counting(limit: int) -> Callable[[], int | None]:
    numbers = iter(range(limit))
    return lambda: next(numbers, None)


def chain(limit: int, second: Callable[[int], int]) -> tuple[Stage[int, int], Stage[int, int], threading.Event]:
    failed = threading.Event()
    first = Stage("first", counting(limit), lambda n: n + 1, failed.set)
    last = Stage("second", first.get, second, failed.set)
    first.start()
    last.start()
    return first, last, failed


def test_results_come_in_order() -> None:
    first, last, failed = chain(100, lambda n: n * 2)
    assert list(last) == [2 * (n + 1) for n in range(100)]
    assert last.get() is None
    first.join(5)
    last.join(5)
    assert not first.is_alive()
    assert not last.is_alive()
    assert not failed.is_set()


def test_an_error_takes_its_place_in_the_order_and_every_thread_ends() -> None:
    def fragile(number: int) -> int:
        if number == 5:
            raise ArithmeticError("five")
        return number

    first, last, failed = chain(1000, fragile)
    seen = []
    with pytest.raises(ArithmeticError, match="five"):
        seen.extend(iter(last.get, None))
    first.join(5)
    last.join(5)
    assert not first.is_alive()
    assert not last.is_alive()
    assert failed.is_set()


def test_an_error_upstream_reaches_the_consumer_once() -> None:
    def broken() -> int | None:
        raise OSError("no more")

    first: Stage[int, int] = Stage("first", broken, lambda n: n, lambda: None)
    last: Stage[int, int] = Stage("second", first.get, lambda n: n, lambda: None)
    first.start()
    last.start()
    with pytest.raises(OSError, match="no more"):
        last.get()
    assert last.get() is None
    last.join(5)
    assert not last.is_alive()


def test_a_consumer_that_leaves_early_frees_the_threads() -> None:
    first, last, _ = chain(50, lambda n: n)
    assert last.get() == 1
    last.drain()
    first.join(5)
    last.join(5)
    assert not first.is_alive()
    assert not last.is_alive()
