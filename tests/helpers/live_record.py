"""Records a test camera for ever, in the folder given; for a test that kills it. Says so once it has written something."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from live_camera import TestCamera
from live_faults import CLASSES

from cliprl.pipeline import Overlay
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.recording.recorder import RecordOptions, recordings
from cliprl.pipeline.live.stream import LiveStream

if __name__ == "__main__":
    source = TestCamera(live=False)  # it waits where the machine is busy: what is missing was lost in the recording
    camera = LiveCapture(TestCamera, source, name="camera")
    made = recordings(RecordOptions(Path(sys.argv[1]), minutes=3 / 60), lambda: camera.info)
    stream = LiveStream(
        camera,
        Overlay(CLASSES),
        recordings=made,
        controls=Controls(CLASSES, Settings(recording=True)),
        policy=DisplayPolicy(guard=False),
    )
    threading.Thread(target=stream.run, daemon=True).start()
    while True:  # the newest frame that the camera gave, for who asks what was lost
        time.sleep(0.01)
        print(source.given[-1] if source.given else -1, flush=True)
