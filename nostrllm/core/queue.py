"""Who may wait for a back-end, and who is next: fair by tokens, bounded, and without starvation.

Fairness is that of virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024, arXiv 2401.00588): each client has a counter of the tokens it was served,
weighted by what they cost, and the lowest counter is next. One who comes in is lifted to the lowest
counter of those who wait, so that nobody saves up for later, and at least to what each would have
got by now of a server that serves all at once (the virtual time of Parekh and Gallager, "A
Generalized Processor Sharing Approach to Flow Control", 1993): else who has been served once would
starve behind ever new clients. The rule is applied twice: between classes of priority, where a
class of priority p counts each token as 1 / (1 + p), and between the clients of a class.

Who may wait follows dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches", 1998): a client may have as many orders waiting as seats are free,
strangers together three times as many. However many flood the queue, there is always a seat left
for one who is known.

Pure: no clock, no waiting. The caller says when an order came, was paid, wrote and ended.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

#: What a token costs to read and to write (the weights of the paper).
PROMPT_WEIGHT: Final = 1
OUTPUT_WEIGHT: Final = 2

#: So many times the free seats may be taken by all strangers together.
STRANGERS_ALPHA: Final = 3
#: Counters that are kept of clients with nothing waiting or running.
KEPT_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Asked:
    """An order that wants to be served: `known` if its client has paid before, or has a balance."""

    id: str
    client: str
    prompt_tokens: int = 0
    priority: int = 0
    known: bool = True

    @property
    def weight(self) -> int:
        """How many times the share of one without priority."""
        return _weight(self.priority)


class _Counters(Generic[K]):
    """How much each was served, in tokens by its weight, of those that share something."""

    def __init__(self) -> None:
        self._served: OrderedDict[K, float] = OrderedDict()
        self._fair = 0.0
        self._waiting: dict[K, int] = {}
        self.open: dict[K, int] = {}

    def of(self, key: K) -> float:
        """Its counter, or what it would be if it came in now."""
        served = self._served.get(key, 0.0)
        if key in self._waiting:
            return served
        lowest = min((self._served[each] for each in self._waiting), default=0.0)
        return max(served, lowest, self._fair)

    def enter(self, key: K) -> None:
        """It has one more order waiting."""
        self._served[key] = self.of(key)
        _count(self._waiting, key, 1)
        _count(self.open, key, 1)
        if len(self._served) > KEPT_MAX:
            forgotten = next((each for each in self._served if each not in self.open), None)
            if forgotten is not None:
                del self._served[forgotten]

    def begin(self, key: K) -> None:
        """An order of its waits no longer."""
        _count(self._waiting, key, -1)

    def end(self, key: K) -> None:
        """An order of its is over."""
        _count(self.open, key, -1)

    def charge(self, key: K, tokens: float, fair: float) -> None:
        """It was served; `fair` is what each would have got if all were served at once."""
        self._served[key] += tokens
        self._served.move_to_end(key)
        self._fair += fair


def _count(counts: dict[K, int], key: K, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
    if not counts[key]:
        del counts[key]


class FairQueue:
    """Orders that wait and run at one back-end: `limit` run at once, `bound` more wait."""

    def __init__(self, limit: int, bound: int) -> None:
        self.limit = limit
        self._bound = bound
        self._waiting: dict[str, Asked] = {}  # in the order in which they came
        self._ready: set[str] = set()
        self._running: dict[str, Asked] = {}
        self._charged = 0.0  # without weights, of all that
        self._started = 0
        self._clear()

    def _clear(self) -> None:
        """Nobody is served: what was before gives no claim and no debt."""
        self._classes: _Counters[int] = _Counters()
        self._clients: defaultdict[int, _Counters[str]] = defaultdict(_Counters)

    @property
    def running(self) -> int:
        """Orders that are being served."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Orders that are not."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Would anybody be refused?"""
        return self.running + self.waiting >= self.limit + self._bound

    def fits(self, asked: Asked) -> bool:
        """Is there a slot, or a seat that this client may take?"""
        inside = self.running + self.waiting
        if inside < self.limit:
            return True
        free = self.limit + self._bound - inside
        turns = max(0, self.limit - self.running)  # as many of those that wait have a slot already
        own = sum(each.client == asked.client for each in self._waiting.values())
        if max(0, own - turns) >= free:
            return False
        strangers = sum(not each.known for each in self._waiting.values())
        return asked.known or max(0, strangers - turns) < STRANGERS_ALPHA * free

    def enter(self, asked: Asked) -> bool:
        """Let an order wait; False if it does not fit. It is passed over until it is `ready`."""
        if not self.fits(asked):
            return False
        self._classes.enter(asked.priority)
        self._clients[asked.priority].enter(asked.client)
        self._waiting[asked.id] = asked
        return True

    def ready(self, order_id: str) -> None:
        """A waiting order is paid and may run."""
        self._ready.add(order_id)

    def next(self) -> str | None:
        """The order whose turn it is, which runs from now on; None if none is ready, or no slot."""
        if self.running >= self.limit or not self._ready:
            return None
        ready = [each for each in self._waiting.values() if each.id in self._ready]
        first = min(
            {each.priority for each in ready},
            key=lambda priority: (self._classes.of(priority), -priority),
        )
        # min() keeps the first of equals: who came first.
        chosen = min(
            (each for each in ready if each.priority == first),
            key=lambda each: self._clients[first].of(each.client),
        )
        self._leave_line(chosen)
        self._running[chosen.id] = chosen
        self._started += 1
        self._charge(chosen, PROMPT_WEIGHT * chosen.prompt_tokens)
        return chosen.id

    def wrote(self, order_id: str, tokens: int) -> None:
        """A running order was served so many tokens of answer."""
        self._charge(self._running[order_id], OUTPUT_WEIGHT * tokens)

    def leave(self, order_id: str) -> None:
        """An order is over, or will never run. Unknown ones are no matter."""
        waiting = self._waiting.get(order_id)
        if waiting is not None:
            self._leave_line(waiting)
        over = waiting or self._running.pop(order_id, None)
        if over is not None:
            self._classes.end(over.priority)
            self._clients[over.priority].end(over.client)
        if not self._running and not self._waiting:
            self._clear()

    def ahead_of(self, asked: Asked) -> int:
        """How many of those that wait will be served before this one, as far as can be told now.

        Each order is taken for an average one: behind the other clients' orders that begin lower or
        equal in service, and behind as many of another class as its share gives it meanwhile.
        """
        peers = [each for each in self._waiting.values() if each.priority == asked.priority]
        before = self._peers_before(asked, peers)
        total = before
        for priority in {each.priority for each in self._waiting.values()} - {asked.priority}:
            others = [each for each in self._waiting.values() if each.priority == priority]
            share = -(-(before + 1) * others[0].weight // asked.weight)
            total += min(len(others), share)
        return total

    def _peers_before(self, asked: Asked, peers: list[Asked]) -> int:
        """Those of its class; a client's n-th begins n average orders after the first."""
        step = self._charged / self._started if self._started else 1.0
        counters = self._clients[asked.priority]
        earlier: Counter[str] = Counter()
        begins = []
        for each in peers:
            begins.append(counters.of(each.client) + earlier[each.client] * step)
            earlier[each.client] += 1
        own = counters.of(asked.client) + earlier[asked.client] * step
        return sum(begin <= own for begin in begins)

    def _charge(self, asked: Asked, tokens: float) -> None:
        self._charged += tokens
        clients = self._clients[asked.priority]
        clients.charge(asked.client, tokens, tokens / len(clients.open))
        weights = sum(map(_weight, self._classes.open))
        self._classes.charge(asked.priority, tokens / asked.weight, tokens / weights)

    def _leave_line(self, asked: Asked) -> None:
        del self._waiting[asked.id]
        self._ready.discard(asked.id)
        self._classes.begin(asked.priority)
        self._clients[asked.priority].begin(asked.client)


def _weight(priority: int) -> int:
    return 1 + max(0, priority)
