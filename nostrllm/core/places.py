"""Which addresses a stranger may make us connect to.

Reply relays and inbox relays are named by whoever writes to us. Without this check he could have us
knock at services of our own network (server-side request forgery).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

_GATEWAYS: Final = (ip_network("64:ff9b::/96"), ip_network("2002::/16"), ip_network("2001::/32"))
_LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@lru_cache(4_096)
def is_public(url: str) -> bool:
    """Does the URL name a host of the open network? A name is judged by its ending, not resolved.

    Total: a URL that cannot be read is not public.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    try:
        address = ip_address(host.partition("%")[0])
        return address.is_global and not address.is_multicast and not _carries_ipv4(address)
    except ValueError:
        # No literal in full; 127.1, 0x7f000001 and 2130706433 are short ones, and end in no word.
        name = host.rpartition(".")[2]
        named = "." in host and name[:1].isalpha()
        return named and not f".{host}".endswith(_LOCAL_NAMES)


def _carries_ipv4(address: IPv4Address | IPv6Address) -> bool:
    """An IPv6 address that a gateway turns into an IPv4 one, which may be private."""
    return any(address in network for network in _GATEWAYS if network.version == address.version)
