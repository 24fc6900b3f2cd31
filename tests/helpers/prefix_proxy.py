"""A reverse proxy below a path prefix, as a hospital's web server would be. Its network can be cut without closing anything."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import Self

_HEAD_END = b"\r\n\r\n"


class PrefixProxy:
    """Passes requests for `prefix` on to a port of this machine, without the prefix. `host` replaces Host, if given."""

    def __init__(self, port: int, prefix: str = "/or1/", *, host: str | None = None) -> None:
        self._target, self._prefix, self._host = port, prefix.encode(), host
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.requested: list[str] = []
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self._prefix.decode()}"

    def cut(self) -> None:
        """Pass nothing on; connections stay open, as when a cable is pulled."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Pass on what new connections send. Old ones stay dead, as behind a router that has forgotten them."""
        self._sockets, dead = [], self._sockets
        self._dead = dead
        self._is_whole.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._is_whole.wait()
        self._sockets.append(client)
        head = b""
        with suppress(OSError):
            while _HEAD_END not in head:
                data = client.recv(65536)
                if not data:
                    return client.close()
                head += data
            head, body = head.split(_HEAD_END, 1)
            method, path, rest = head.split(b" ", 2)
            self.requested.append(path.decode())
            if not path.startswith(self._prefix):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return client.close()
            if b"pgrade: websocket" not in rest:  # one request a connection, so that each path is seen
                rest = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", rest) + b"\r\nConnection: close"
            if self._host is not None:
                rest = re.sub(rb"(?i)\r\nhost: [^\r]*", b"\r\nHost: " + self._host.encode(), rest)
            server = socket.create_connection(("127.0.0.1", self._target))
            server.sendall(b" ".join((method, b"/" + path[len(self._prefix) :], rest)) + _HEAD_END + body)
            threading.Thread(target=self._pass, args=(client, server, client), daemon=True).start()
            self._pass(server, client, client)
        return None

    def _pass(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._is_whole.is_set() or client not in self._sockets:
                    return  # and keep both open
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
                one.close()

    def close(self) -> None:
        self._listening.close()
        for one in (*self._sockets, *getattr(self, "_dead", [])):
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
