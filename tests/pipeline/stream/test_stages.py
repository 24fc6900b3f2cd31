"""Stages give results in order and end together: at the end, after an error anywhere, when the consumer leaves early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from waiting import until

from cliprl.pipeline.core.frame import Frame, FrameContext, Stage
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.stream.scheduler import WAITING, StageScheduler

# Workers for three stages: shared ones, with the consumer's help, and one for each stage.
SHARED, OWN = (1, 2), 3


@dataclass
class Cell:
    """An item: a number that the stages change."""

    number: int


class Numbers:
    """A supply that has all of its items at once, and may fail instead of giving one."""

    def __init__(self, limit: int, fail_at: int | None = None) -> None:
        self.taken = 0
        self.ready = True
        self.stopped = threading.Event()
        self.on_ready: Callable[[], None] = lambda: None
        self._limit, self._fail_at = limit, fail_at

    def take(self) -> Cell | None:
        if self.taken == self._fail_at:
            raise OSError("no more")
        if self.taken == self._limit:
            return None
        self.taken += 1
        return Cell(self.taken - 1)

    def stop(self) -> None:
        self.stopped.set()


class Late(Numbers):
    """A supply whose items come one by one, from another thread."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.ready = False

    def take(self) -> Cell | None:
        self.ready = False
        return super().take()

    def feed(self, until: Callable[[], bool]) -> None:
        while not until():
            time.sleep(0.0005)
            self.ready = True
            self.on_ready()


def chain(*works: Callable[[int], int]) -> list[Stage[Cell]]:
    def in_place(work: Callable[[int], int]) -> Callable[[Cell], None]:
        def run(cell: Cell) -> None:
            cell.number = work(cell.number)

        return run

    return [Stage(f"stage {i}", in_place(work)) for i, work in enumerate(works)]


def plus_one(number: int) -> int:
    return number + 1


def fragile(number: int) -> int:
    if number == 5:
        raise ArithmeticError("five")
    return number


def started(supply: Numbers, stages: list[Stage[Cell]], workers: int) -> StageScheduler[Cell]:
    scheduler = StageScheduler(supply, stages, workers)
    scheduler.start()
    return scheduler


def results(scheduler: StageScheduler[Cell]) -> list[int]:
    return [cell.number for cell in scheduler]


def result(scheduler: StageScheduler[Cell]) -> int | None:
    cell = scheduler.get()
    return cell and cell.number


def ended(stages: StageScheduler[Cell]) -> bool:
    for thread in stages.threads:
        thread.join(30)
    return not any(thread.is_alive() for thread in stages.threads)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_results_come_in_order(workers: int) -> None:
    supply = Numbers(200)
    stages = started(supply, chain(plus_one, lambda n: n * 2, plus_one), workers)
    assert results(stages) == [2 * (n + 1) + 1 for n in range(200)]
    assert result(stages) is None
    assert ended(stages)
    assert not supply.stopped.is_set()


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_items_may_come_late(workers: int) -> None:
    supply = Late(50)
    stages = started(supply, chain(plus_one, plus_one, plus_one), workers)
    feeder = threading.Thread(target=supply.feed, args=(lambda: supply.taken == 50 and stages._exhausted,))
    feeder.start()
    assert results(stages) == [n + 3 for n in range(50)]
    feeder.join(30)
    assert ended(stages)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_stages_process_single_items_and_run_in_parallel(workers: int) -> None:
    at_work, most, lock = [0, 0, 0], [0, 0], threading.Lock()

    def busy(stage: int) -> Callable[[int], int]:
        def work(number: int) -> int:
            with lock:
                at_work[stage] += 1
                most[0], most[1] = max(most[0], *at_work), max(most[1], sum(at_work))
            time.sleep(0.002)
            with lock:
                at_work[stage] -= 1
            return number

        return work

    stages = started(Numbers(60), chain(busy(0), busy(1), busy(2)), workers)
    assert results(stages) == list(range(60))
    assert most[0] == 1
    assert 2 <= most[1] <= min(workers + 1, 3)


@pytest.mark.parametrize("fails", [False, True])
def test_two_items_at_once_come_out_in_order(fails: bool) -> None:
    """The first of two items ends last: the second one waits for it, also if its own work failed."""
    second = threading.Event()

    def meet(cell: Cell) -> None:
        if cell.number == 0:
            assert second.wait(30)
        elif cell.number == 1:
            second.set()
            if fails:
                raise ArithmeticError("one")

    supply, seen = Numbers(7), list[int]()
    stages = [Stage("first", lambda cell: None), Stage("meet", meet, at_once=2), Stage("last", note_in(seen))]
    scheduler = StageScheduler(supply, stages, 2)
    scheduler.start()
    if fails:
        assert result(scheduler) == 0
        with pytest.raises(ArithmeticError, match="one"):
            result(scheduler)
    else:
        assert results(scheduler) == seen == list(range(7))
    assert ended(scheduler)


def note_in(seen: list[int]) -> Callable[[Cell], None]:
    return lambda cell: seen.append(cell.number)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_no_more_than_a_few_items_are_taken_ahead(workers: int) -> None:
    supply = Numbers(1000)
    stages = started(supply, chain(plus_one, plus_one, plus_one), workers)
    for n in range(20):
        assert result(stages) == n + 3
        time.sleep(0.002)
        assert supply.taken <= n + 1 + 3 * (WAITING + 1)
    stages.close()
    assert ended(stages)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_error_keeps_its_place_and_every_thread_ends(place: int, workers: int) -> None:
    works: list[Callable[[int], int]] = [lambda n: n] * 3
    works[place] = fragile
    supply = Numbers(1000)
    stages = started(supply, chain(*works), workers)
    assert [result(stages) for _ in range(5)] == list(range(5))
    with pytest.raises(ArithmeticError, match="five"):
        result(stages)
    assert result(stages) is None
    assert supply.stopped.is_set()
    assert ended(stages)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_an_error_of_the_supply_reaches_the_consumer_once(workers: int) -> None:
    stages = started(Numbers(9, fail_at=3), chain(plus_one, plus_one, plus_one), workers)
    assert [result(stages) for _ in range(3)] == [3, 4, 5]
    with pytest.raises(OSError, match="no more"):
        result(stages)
    assert result(stages) is None
    assert ended(stages)


@pytest.mark.parametrize("workers", [*SHARED, OWN])
def test_a_consumer_that_leaves_early_frees_the_threads(workers: int) -> None:
    stages = started(Numbers(50), chain(plus_one, plus_one, plus_one), workers)
    assert result(stages) == 3
    stages.close()
    assert ended(stages)
    assert result(stages) is None


def test_each_stage_has_a_separate_thread_if_available() -> None:
    seen: list[set[str]] = [set(), set(), set()]

    def note(stage: int) -> Callable[[int], int]:
        def work(number: int) -> int:
            seen[stage].add(threading.current_thread().name)
            return number

        return work

    assert results(started(Numbers(30), chain(note(0), note(1), note(2)), OWN)) == list(range(30))
    assert seen == [{"stage 0"}, {"stage 1"}, {"stage 2"}]


def test_frames_ahead_leave_the_last_stage_its_image() -> None:
    """The first stage of three runs ahead while the last one is held up, which reads the image of its frame later."""
    free, ahead = threading.Event(), list[int]()

    def count(item: Cell) -> None:
        ahead.append(item.number)

    def wait(item: Cell) -> None:
        free.wait()

    stages = [Stage("prepare", count), Stage("encode", lambda item: None), Stage("refine", wait)]
    scheduler = StageScheduler(Numbers(40), stages, OWN)
    scheduler.start()
    until(lambda: len(ahead) == 2 * WAITING + 1)
    time.sleep(0.1)
    furthest = max(ahead)
    free.set()
    scheduler.close()
    segmenter = Segmenter("small", input_size="128x160", precision="f32", threads=1, steps=0)
    contexts = [FrameContext(gray(number)) for number in range(furthest + 1)]
    for context in contexts:
        segmenter.prepare(context)
    assert not np.shares_memory(contexts[0].image, contexts[-1].image)


def gray(number: int) -> Frame:
    return Frame(np.full((96, 128), 90, np.uint8), np.full((48, 64, 2), 128, np.uint8), number, Fraction(1, 25), number)
