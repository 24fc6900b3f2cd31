"""How old pictures are, and what is skipped: scripted packets, a scripted machine, and a clock that the test holds."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cliprl.pipeline.live.lateness import BEHIND, Debouncer, Lateness
from cliprl.pipeline.sources.decoding import packet_queue
from cliprl.pipeline.sources.decoding.arrival_clock import ArrivalClock, PacketStamp
from cliprl.pipeline.sources.decoding.packet_queue import LATE_SECONDS, Arrived, LivePacketQueue, Overdue

# The network's own delay, which every packet has and nobody can know.
DELAY = 0.02
# What is promised: older than this is marked, and the latency that is shown is true to within this.
OLD, EXACT = 1.0, 0.1


@dataclass(frozen=True)
class Machine:
    """Runs for `share` of each `period` seconds; decoding a packet takes `cost` seconds of running."""

    share: float
    period: float
    cost: float

    def running(self, moment: float) -> float:
        """The first moment from `moment` on at which it runs."""
        turn = math.floor(moment / self.period)
        return moment if moment - turn * self.period < self.share * self.period else (turn + 1) * self.period

    def after(self, moment: float, work: float) -> float:
        """When `work` seconds are done that begin at `moment`."""
        turn, slot = math.floor(moment / self.period), self.share * self.period
        done = turn * slot + min(moment - turn * self.period, slot) + work
        return math.floor(done / slot) * self.period + done % slot


@dataclass(frozen=True)
class Camera:
    """Pictures at `rate`, a key frame each `group`; its clock runs wrong by `drift`, and jumps by `jump` seconds at second 8.

    burst: so many seconds of pictures wait at the server when one connects. reorder: B-frames, decoded in another order.
    """

    rate: float = 25.0
    group: int = 25
    drift: float = 0.0
    jump: float = 0.0
    burst: float = 0.0
    jitter: float = 0.0
    reorder: bool = False

    def packets(self, seconds: float) -> list[tuple[float, float, float, float, bool]]:
        """Each one's moment of capture, moment of arrival, pts, dts, and whether it is a key frame, in decoding order."""
        chance, made = random.Random(0), []
        for number in range(int((seconds + self.burst) * self.rate)):
            shown = number
            if self.reorder and number % self.group:
                shown = number + (1 if number % 3 == 1 else -1 if number % 3 == 2 else 0)
            times = []
            for index in (shown, number - 1):
                moment = index / self.rate
                jumped = self.jump if number / self.rate - self.burst >= 8 else 0.0
                times.append(500 + moment * (1 + self.drift) + jumped)
            captured = shown / self.rate - self.burst
            sent = max(number / self.rate - self.burst, captured, 0.0)
            made.append(
                (captured, sent + DELAY + chance.random() * self.jitter, times[0], times[1], not number % self.group)
            )
        arrivals = [0.0]
        for one in made:  # a connection keeps the order
            arrivals.append(max(arrivals[-1], one[1]))
        return [(c, arrivals[i + 1], pts, dts, key) for i, (c, _, pts, dts, key) in enumerate(made)]


@dataclass(frozen=True)
class Seen:
    """A picture as it is shown: when, its true age, the age that is told, and whether it is marked as behind.

    known: whether any packet has been read in time so far, which is what others are measured by.
    """

    moment: float
    true: float
    told: float
    behind: bool
    known: bool


def shown(camera: Camera, machine: Machine, seconds: float = 20.0) -> tuple[list[Seen], LivePacketQueue]:
    """What is displayed of a camera's pictures, where the reader goes first whenever the machine runs."""
    clock, lateness = ArrivalClock(), Lateness()
    queue, coming = LivePacketQueue(clock), camera.packets(seconds)
    seen: list[Seen] = []
    now, read, least = 0.0, 0.0, math.inf

    def receive() -> None:
        nonlocal read, least
        while coming and machine.running(coming[0][1]) <= now:
            captured, arrived, pts, dts, key = coming.pop(0)
            at = max(machine.running(arrived), read)
            stamp = clock.stamp(pts, dts, at, waited=arrived > read)
            queue.put(Arrived(captured, stamp, 1000, key))
            read, least = at, min(least, at - captured - DELAY)

    while coming or len(queue):
        if not len(queue):
            now = max(now, machine.running(coming[0][1]))
            receive()
        taken = queue.take(now)
        assert taken is not None
        now = machine.after(now, machine.cost)
        receive()
        told = now - clock.due(taken[0].stamp)
        seen.append(Seen(now, now - taken[0].packet - DELAY, told, lateness.is_behind(told, now), least < EXACT / 2))
    return seen, queue


def check(seen: list[Seen], since: float = 0.0, until: float = math.inf) -> None:
    """Each picture's age is told as it is, and none is old without being marked."""
    judged = [one for one in seen if since <= one.moment < until and one.known]
    wrong = [one for one in judged if abs(one.told - one.true) > EXACT]
    assert not wrong, wrong[:3]
    assert all(one.behind for one in judged if one.true > OLD)


cameras = st.builds(
    Camera,
    rate=st.sampled_from([5.0, 25.0, 30.0, 60.0]),
    group=st.sampled_from([1, 12, 50, 10_000]),
    drift=st.sampled_from([0.0, 1e-4, -1e-4, -1e-3, 1e-3]),
    burst=st.sampled_from([0.0, 0.5, 3.0]),
    jitter=st.sampled_from([0.0, 0.02, 0.06]),
    reorder=st.booleans(),
)
machines = st.builds(
    Machine,
    share=st.sampled_from([0.1, 0.3, 0.6, 1.0]),
    period=st.sampled_from([0.05, 0.1, 0.5]),
    cost=st.sampled_from([0.001, 0.01, 0.03, 0.08]),
)


@given(cameras, machines)
@example(Camera(), Machine(0.3, 0.1, 0.03))
@settings(max_examples=150)
def test_age_is_reported_correctly_and_old_frames_are_marked(camera: Camera, machine: Machine) -> None:
    """On a machine of any speed, to the end of the backlog that is left when the server dies at second 20."""
    seen, queue = shown(camera, machine)
    check(seen, since=1.0)  # until then pictures of before the connection come
    assert len(seen) + queue.skipped == len(camera.packets(20))


@pytest.mark.parametrize("jump", [-400.0, -5.0, -0.5, 0.3, 5.0, 90_000.0])
@pytest.mark.parametrize("machine", [Machine(1.0, 0.1, 0.01), Machine(0.3, 0.1, 0.03), Machine(0.3, 0.5, 0.01)])
def test_a_clock_that_jumps_makes_nothing_old_and_nothing_young(jump: float, machine: Machine) -> None:
    seen, _ = shown(Camera(jump=jump), machine)
    check(seen, since=0.5, until=8.0)
    check(seen, since=10.0)


def test_most_frames_are_under_one_second_old_at_low_cpu() -> None:
    seen, queue = shown(Camera(), Machine(0.3, 0.1, 0.03))
    assert all(one.known for one in seen[3:])
    assert queue.skipped > 0
    young = [one for one in seen if one.true <= OLD]
    assert len(young) > 0.5 * len(seen)
    assert max(one.true for one in seen) < 3


def test_a_fast_machine_skips_nothing_and_marks_nothing() -> None:
    seen, queue = shown(Camera(jitter=0.06, reorder=True), Machine(1.0, 0.1, 0.01))
    assert queue.skipped == 0
    assert not any(one.behind for one in seen)


@pytest.mark.parametrize("pause", [0.4, 2.0, 3.0])
def test_a_machine_that_only_pauses_loses_nothing(pause: float) -> None:
    seen, queue = shown(Camera(), Machine(1 - pause / 10, 10.0, 0.005), 25)
    check(seen, since=0.5)
    assert queue.skipped == 0
    assert any(one.behind for one in seen) is (pause > 1)


@pytest.mark.parametrize("drift", [2e-4, -2e-4, 1e-3, -1e-3])
def test_a_clock_that_runs_wrong_for_hours_is_followed(drift: float) -> None:
    clock, worst = ArrivalClock(), 0.0
    for number in range(4 * 3600 * 5):
        now = 10 + number / 5
        media = number / 5 * (1 + drift)
        stamp = clock.stamp(media, media, now, waited=True)
        worst = max(worst, now - clock.due(stamp))
    assert worst < EXACT


def test_a_growing_backlog_is_not_taken_for_a_slow_clock() -> None:
    """Also a slow one: a network that brings 95 % of what a camera sends."""
    clock = ArrivalClock()
    for number in range(25 * 120):
        sent = number / 25
        now = 10 + max(sent, sent / 0.95 - 0.5)
        stamp = clock.stamp(sent, sent, now, waited=True)
        assert now - clock.due(stamp) == pytest.approx(now - 10 - sent, abs=EXACT)


def test_a_clock_that_stands_still_makes_no_frame_old() -> None:
    clock = ArrivalClock()
    for number in range(500):
        now = 10 + number / 25
        media = number / 25 if number < 50 or number > 400 else 2.0
        assert now - clock.due(clock.stamp(media, media, now, waited=True)) <= LATE_SECONDS + EXACT


def test_packets_without_times_are_as_old_as_their_arrival() -> None:
    clock = ArrivalClock()
    stamp = clock.stamp(None, None, 7.0, waited=True)
    assert (stamp, clock.due(stamp)) == (PacketStamp(7.0, None), 7.0)


def queue_of(keys: str, *, stored: bool = False) -> tuple[LivePacketQueue, ArrivalClock]:
    """Packets at 25 a second from second 0 on, "K" or "p" each; its number is the packet."""
    clock = ArrivalClock()
    queue = LivePacketQueue(clock, stored=stored)
    for number, key in enumerate(keys):
        stamp = clock.stamp(number / 25, None, number / 25, waited=True)
        queue.put(Arrived(number, stamp, 10, key == "K"))
    return queue, clock


def test_lasting_lateness_skips_to_the_newest_key_frame() -> None:
    queue, _ = queue_of("KpppKpppKpp")
    first = queue.take(2.0)
    assert first is not None
    assert (first[0].packet, first[1]) == (0, False), "late now; perhaps only a pause"
    second = queue.take(2.0 + packet_queue._HOLD)
    assert second is not None
    assert (second[0].packet, second[1], queue.skipped) == (8, True, 7)
    third = queue.take(2.6)
    assert third is not None
    assert (third[0].packet, third[1]) == (9, False)
    queue, _ = queue_of("K" + 40 * "p")
    for moment in (3.0, 4.0, 5.0):
        assert queue.take(moment)
    assert queue.skipped == 0, "there is nothing newer to begin with"


@pytest.mark.parametrize(
    ("keys", "left"), [("KpppKpppp", [4, 5, 6, 7, 8]), ("KppppppppK", [9]), ("KpppppppppppKp", [12, 13])]
)
def test_what_overflows_is_dropped_to_the_newest_key_frame(
    keys: str, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is none, the next one is waited for."""
    monkeypatch.setattr(packet_queue, "_PACKETS", 8)
    queue, _ = queue_of(keys)
    taken = []
    while (one := queue.take(0.4)) is not None:
        taken.append(one[0].packet)
        assert one[1] == (len(taken) == 1)
    assert taken == left
    assert queue.skipped == len(keys) - len(left)


def test_a_stream_without_key_frames_goes_on_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_queue, "_PACKETS", 8)
    queue, _ = queue_of(9 * "p" + 255 * "p")
    assert len(queue) > 0


def test_bytes_are_bounded() -> None:
    clock = ArrivalClock()
    queue = LivePacketQueue(clock)
    for number in range(100):
        queue.put(Arrived(number, PacketStamp(0.0, None), 10 << 20, True))
        assert len(queue) <= 6


def test_stored_stream_drops_nothing_and_its_reader_waits() -> None:
    queue, _ = queue_of(240 * "p", stored=True)
    assert not queue.full
    queue, _ = queue_of(260 * "p", stored=True)
    assert queue.full
    for moment in range(100, 360):
        assert queue.take(moment)
    assert queue.skipped == 0


def test_only_what_stays_late_is_overdue() -> None:
    overdue = Overdue()
    assert [
        overdue(age, now) for age, now in [(9, 0), (9, 0.4), (LATE_SECONDS, 0.6), (9, 0.7), (9, 1.1), (9, 1.3)]
    ] == [
        *5 * [False],
        True,
    ]


def test_behind_comes_at_once_and_goes_slowly() -> None:
    lateness = Lateness()
    told = [lateness.is_behind(age, now / 8) for now, age in enumerate([0.1, BEHIND + 0.01, 0.1, 0.7, *10 * [0.1]])]
    assert told == [False, *11 * [True], *2 * [False]]


def test_steady_state_is_reported_and_flicker_ever_less() -> None:
    steady, told = Debouncer(), []
    for tick in range(6000):  # ten minutes
        now = tick / 10
        state = "live" if 200 <= now < 300 or now % 4 < 2 else "stalled"
        if text := steady.update(state, f"source {state}", now):
            told.append((now, text))
    assert told[0] == (1.0, "source live")
    assert told[1] == (3.0, "source stalled")
    assert len(told) < 8
    quiet = Debouncer()
    assert [quiet.update("away", f"away: {now}", now) for now in range(4)] == [None, "away: 1", None, None]
