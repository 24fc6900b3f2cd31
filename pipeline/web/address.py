"""Where the web viewer listens, and which names it may be called by."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from aioice.ice import get_host_addresses

from cliprl.engines import CliprlError, UsageError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8088
_FORM = "write HOST:PORT, HOST or :PORT, as in 127.0.0.1:8088 or [::1]:8088"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on. `fixed`: the port was asked for; otherwise a free one will do where it is taken."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    fixed: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "", "HOST", "HOST:PORT", ":PORT", "[IPv6]:PORT" or "PORT". Raises UsageError for anything else."""
        if text.isdigit():
            text = f":{text}"
        if text.count(":") > 1 and not text.startswith("["):
            raise UsageError(f"'{text}' is no address to listen on: {_FORM}")
        host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
        host = host.removeprefix("[").removesuffix("]") or DEFAULT_HOST
        if not port and text.endswith(":"):
            raise UsageError(f"'{text}' is no address to listen on: {_FORM}")
        return cls(host, _port(port, text), True) if port else cls(host)

    def listen(self) -> socket.socket:
        """A socket that listens here. Raises UsageError where the host is not this machine's or the port is taken."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except socket.gaierror:
            raise UsageError(f"can't listen on '{self.host}': no such host; {_FORM}") from None
        except OSError as error:
            if not self.fixed and self.port:
                return Address(self.host, 0).listen()
            reason = "the port is taken" if error.errno == 98 else error.strerror or str(error)
            raise UsageError(f"can't listen on {self.host}:{self.port} ({reason}): choose another address") from None


def _port(text: str, whole: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise UsageError(f"'{whole}' has no port of 0 to 65535: {_FORM}")
    return int(text)


def bound_address(listening: socket.socket) -> tuple[str, int]:
    """The (host, port) that a socket really listens on."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        raise CliprlError("the web viewer's socket has no address: choose HOST:PORT")
    return str(name[0]), int(name[1])


def is_loopback(host: str) -> bool:
    """Whether `host`, an IP address or "localhost", can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def own_addresses(*, ipv6: bool) -> list[str]:
    """This machine's addresses that others can reach, IPv4 or IPv6 ones, in a fixed order."""
    found = get_host_addresses(use_ipv4=not ipv6, use_ipv6=ipv6)
    addresses = {ipaddress.ip_address(text) for text in found}
    return sorted(str(address) for address in addresses if not (address.is_link_local or address.is_loopback))


def may_be_called(host: str, listening_on: str, *, name: str = "") -> bool:
    """Whether a request may name `host` (without its port) as the server's.

    A page of another site whose name is made to resolve to this machine (DNS rebinding) names itself; so names are refused,
    but for localhost, this machine's own and `name`, the one that was asked for. Addresses can't be rebound.
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
