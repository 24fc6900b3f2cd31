"""Addresses: the one that the web viewer listens on, its names in requests, and those of its clients."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from aioice.ice import get_host_addresses
from yarl import URL

from cliprl.engines import CliprlError, UsageError, reason_of

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8088
_FORM = "write HOST:PORT, HOST or :PORT, as in 127.0.0.1:8088 or [::1]:8088"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on. `fixed`: the user chose the port; otherwise any free port replaces a taken one."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    fixed: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "", "HOST", "HOST:PORT", ":PORT", "[IPv6]:PORT" or "PORT". Raises UsageError for anything else."""
        if text.isdecimal():
            text = f":{text}"
        if text.count(":") > 1 and not text.startswith("["):
            raise UsageError(f"'{text}' is not an address to listen on: {_FORM}")
        host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
        host = host.removeprefix("[").removesuffix("]") or DEFAULT_HOST
        if not port and text.endswith(":"):
            raise UsageError(f"'{text}' is not an address to listen on: {_FORM}")
        return cls(host, _port(port, text), True) if port else cls(host)

    def listen(self) -> socket.socket:
        """Return a listening socket. Raises UsageError if the host is not this machine's or the port is taken."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, *_, place = min(
                found, key=lambda one: one[0] != socket.AF_INET
            )  # a name's IPv4 address, if it has one
            return socket.create_server(place, family=family)  # with the interface of a link-local address
        except socket.gaierror:
            raise UsageError(f"can't listen on '{self.host}': no such host; {_FORM}") from None
        except OSError as error:
            if not self.fixed and self.port:
                return Address(self.host, 0).listen()
            reason = "the port is taken" if error.errno == 98 else error.strerror or reason_of(error)
            raise UsageError(f"can't listen on {self.host}:{self.port} ({reason}): choose another address") from None


def _port(text: str, whole: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise UsageError(f"'{whole}' has no port of 0 to 65535: {_FORM}")
    return int(text)


def check_proxy_url(url: str) -> str:
    """Return the page's address behind a reverse proxy, with a slash at its end. Raises UsageError for anything else."""
    try:
        page = URL(url)  # with the host as browsers send it, and without the usual port
        fine = page.scheme in ("http", "https") and page.host and not (page.query_string or page.fragment or "@" in url)
    except ValueError:
        fine = False
    if not fine:
        raise UsageError(f"'{url}' is not the address of a page behind a proxy: write it as https://HOST/PATH/")
    return f"{page.origin()}{page.raw_path.rstrip('/')}/"


def bound_address(listening: socket.socket) -> tuple[str, int]:
    """Return the (host, port) that a socket listens on."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        raise CliprlError("the web viewer's socket has no address: choose HOST:PORT")
    return str(name[0]), int(name[1])


def is_loopback(host: str) -> bool:
    """Return whether `host`, an IP address or "localhost", is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def external_addresses(*, ipv6: bool) -> list[str]:
    """Return this machine's addresses that other machines can reach, IPv4 or IPv6, sorted."""
    found = get_host_addresses(use_ipv4=not ipv6, use_ipv6=ipv6)
    addresses = {ipaddress.ip_address(text) for text in found}
    return sorted(str(address) for address in addresses if not (address.is_link_local or address.is_loopback))


def is_accepted_host(host: str, listening_on: str, *, name: str = "") -> bool:
    """Return whether a request may name `host` (without a port) as its server.

    After DNS rebinding, a page of another site names that site as its host. Names are therefore refused, except localhost,
    this machine's names and `name`, which the user gave. Addresses are accepted: they can't be rebound.
    """
    host = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    if is_loopback(listening_on):
        return is_loopback(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        own = socket.gethostname().lower()
        return host in {"localhost", name.lower(), own, f"{own}.local"}
    return True


def peer_key(address: Any) -> str:
    """Return the key by which clients are counted: an IPv4 address, or an IPv6 network of 64 bits, which one machine may own."""
    text = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
