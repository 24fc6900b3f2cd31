"""The ring of frames in GPU memory: each slot has GPU planes, pinned planes on the host, and events that order access."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.cuda.gpu_api import Buffer, CudaStream, Event, Gpu


@dataclass(slots=True)
class Slot:
    """The GPU memory of one frame.

    luma (H, W), chroma (ceil(H/2), ceil(W/2), 2): uint8. `ready` completes when a frame has been written. readers: events of
    the streams that have read it since; each has waited for `ready`. `filled`: the planes were written on the GPU, so there is
    nothing to upload. memory: both planes, chroma directly behind luma; pinned: the same on the host, so that one copy moves a
    frame. `idle`: the host has waited for everything that touches the planes. planes: address and pitch of luma and chroma.
    """

    luma: Buffer
    chroma: Buffer
    ready: Event
    memory: Buffer
    pinned: NDArray[np.uint8]
    planes: tuple[tuple[int, int], tuple[int, int]]
    readers: dict[CudaStream, Event] = field(default_factory=dict)
    events: dict[CudaStream, Event] = field(default_factory=dict)
    filled: bool = False
    idle: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the luma."""
        return int(self.luma.shape[0]), int(self.luma.shape[1])


class CudaRing(FrameRing):
    """A `FrameRing` whose frames are on the GPU as soon as they are published.

    `acquire` gives the slot's pinned planes. Publishing starts their upload on the ring's own stream, after every stream that
    read the slot's last frame has gone past it. A reader's stream calls `enter` before it touches a taken frame's slot, and
    `leave` when it was given all that does; only then may the frame be released. A stream that paints calls `own` and
    `rewritten` instead, and sets `idle` on the slot where it has waited for it afterwards: then nothing is waited for again.
    """

    def __init__(self, gpu: Gpu, slots: int, policy: Policy, stream: CudaStream) -> None:
        super().__init__(slots, policy)
        self._gpu, self.stream = gpu, stream
        self._slots: list[Slot | None] = [None] * slots

    def acquire(self, height: int, width: int) -> tuple[Plane, Plane]:
        """Pinned NV12 planes of a slot to write the next frame into: see `FrameRing.acquire`."""
        held = self._slots[self.reserve()]
        if held is not None:
            # The upload of the slot's last frame may still be reading the pinned planes, if that frame was dropped.
            if not held.idle:
                self._gpu.synchronize(held.ready)
            held.filled = False
        return super().acquire(height, width)

    def _allocate(self, slot: int, height: int, width: int) -> tuple[Plane, Plane]:
        old = self._slots[slot]
        if old is not None:  # its memory goes back to the GPU, which must not read it any more
            for event in old.readers.values():
                self._gpu.synchronize(event)
        lines, shape = height * width, ((height + 1) // 2, (width + 1) // 2, 2)
        size = lines + int(np.prod(shape))
        memory, pinned = self._gpu.empty((size,), np.uint8), self._gpu.pinned((size,), np.uint8)
        luma = self._gpu.slice(memory, 0, lines, (height, width))
        chroma = self._gpu.slice(memory, lines, size, shape)
        address = self._gpu.address(memory)
        planes = ((address, width), (address + lines, 2 * shape[1]))
        self._slots[slot] = Slot(luma, chroma, self._gpu.event(), memory, pinned, planes)
        return pinned[:lines].reshape(height, width), pinned[lines:].reshape(shape)

    def writing(self) -> Slot:
        """Return the acquired slot to a decoder that writes it on the GPU, in the ring's `stream`."""
        slot = self._held(self.reserve())
        self._admit(slot)
        slot.filled = True
        return slot

    def publish(self, frame: Frame) -> None:
        """Publish the frame written into the acquired slot, and upload it unless it was written on the GPU."""
        index = self.reserve()
        slot = self._slots[index]
        if slot is not None:
            if not slot.filled:
                self._admit(slot)
                self._gpu.copy(slot.memory, slot.pinned, self.stream)
            slot.idle = False
            self._gpu.record(slot.ready, self.stream)
        super().publish(frame)

    def _admit(self, slot: Slot) -> None:
        if not slot.idle:
            for event in slot.readers.values() or [slot.ready]:
                self._gpu.wait(self.stream, event)
        slot.readers.clear()

    def slot_of(self, frame: Frame) -> Slot:
        """Return the slot of a taken frame."""
        return self._held(frame.slot)

    def enter(self, frame: Frame, stream: CudaStream) -> Slot:
        """Make a stream wait for the frame, before it reads the slot."""
        slot = self.slot_of(frame)
        self._gpu.wait(stream, slot.ready)
        return slot

    def own(self, frame: Frame, stream: CudaStream, *events: Event) -> Slot:
        """`enter` for a stream that writes: it also waits for all streams that have read the slot, and for other events."""
        slot = self.slot_of(frame)
        awaited = list(slot.readers.values()) or [slot.ready]  # what has read the slot has waited for it
        awaited += [event for event in events if not any(event is each for each in awaited)]
        for event in awaited:
            self._gpu.wait(stream, event)
        return slot

    def rewritten(self, frame: Frame, stream: CudaStream) -> None:
        """`leave` for a stream that has enqueued its writes: streams that enter later wait for them."""
        slot = self.slot_of(frame)
        self._gpu.record(slot.ready, stream)
        slot.readers.clear()

    def leave(self, frame: Frame, stream: CudaStream, event: Event | None = None) -> None:
        """Note that a stream has enqueued all its work on the slot. `event`: recorded on the stream since, None to record one."""
        slot = self.slot_of(frame)
        if event is None:
            event = slot.events.get(stream) or slot.events.setdefault(stream, self._gpu.event())
            self._gpu.record(event, stream)
        slot.readers[stream], slot.idle = event, False

    def _held(self, index: int) -> Slot:
        slot = self._slots[index] if index >= 0 else None
        if slot is None:
            raise ValueError("the frame lies in no slot of this ring: acquire, publish and take it first")
        return slot
