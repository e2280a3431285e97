"""Which addresses a stranger may make us connect to.

Reply relays and inbox relays are named by whoever writes to us. Without this check he could have us
knock at services of our own network (server-side request forgery).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


def is_public(url: str) -> bool:
    """Does the URL name a host of the open network? A name is judged by its ending, not resolved.

    Total: a URL that cannot be read is not public.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return False
    try:
        return ip_address(host.partition("%")[0]).is_global
    except ValueError:
        # No literal in full; 127.1, 0x7f000001 and 2130706433 are short ones, and end in no word.
        name = host.rpartition(".")[2]
        named = "." in host and name[:1].isalpha()
        return named and not f".{host}".endswith(_LOCAL_NAMES)
