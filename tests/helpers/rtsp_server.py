"""GStreamer's RTSP server with a moving picture, for the system's Python: `python3 rtsp_server.py PORT [WIDTHxHEIGHT [FILE]]`.

Not imported by any test: it is run as a child process, and killed. Prints a line once it serves rtsp://127.0.0.1:PORT/live.
What is sent to rtsp://127.0.0.1:PORT/store is stored in FILE.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = (
    "( videotestsrc pattern=ball is-live=true ! video/x-raw,width={width},height={height},framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 threads=1 ! h264parse ! rtph264pay name=pay0 pt=96 )"
)


STORE = "( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink location={path} async=false )"


def main() -> None:
    Gst.init(None)
    width, height = (sys.argv[2] if len(sys.argv) > 2 else "320x240").split("x")
    server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory.set_launch(LAUNCH.format(width=width, height=height))
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    if len(sys.argv) > 3:
        store = GstRtspServer.RTSPMediaFactory()
        store.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        store.set_launch(STORE.format(path=sys.argv[3]))
        server.get_mount_points().add_factory("/store", store)
    if not server.attach(None):
        sys.exit(f"port {sys.argv[1]} is taken")
    print("serving", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
