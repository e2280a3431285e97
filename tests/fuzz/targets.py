"""Every fuzz target by name. A parser that reads what others wrote belongs into one of the files
imported here; its first inputs go to corpus/<name>/.
"""

from __future__ import annotations

from tests.fuzz import coins, encrypted, events, messages, payments, streams
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    **events.TARGETS,
    **encrypted.TARGETS,
    **streams.TARGETS,
    **messages.TARGETS,
    **coins.TARGETS,
    **payments.TARGETS,
}
