"""Who may wait for a back-end, and who is next: fair by tokens, bounded, and without starvation.

Fairness is that of virtual token counters (Sheng et al., "Fairness in Serving Large Language
Models", OSDI 2024, arXiv 2401.00588): each client has a counter of the tokens it was served,
weighted by what they cost, and the lowest counter is next. One who comes back is lifted to the
lowest counter of those who wait, so that nobody saves up for later. The same rule is applied twice:
between classes of priority, where a class of priority p counts each token as 1 / (1 + p), and
between the clients of a class. A class that waits thus always gets its share, and none starves.

Who may wait follows dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches", 1998): a client may have as many orders waiting as seats are free,
strangers together three times as many. However many flood the queue, there is always a seat left
for one who is known.

Pure: no clock, no waiting. The caller says when an order came, was paid, wrote and ended.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
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
        return 1 + max(0, self.priority)


class _Counters(Generic[K]):
    """How much each was served; `busy` are those whose counter must not be forgotten."""

    def __init__(self) -> None:
        self._served: OrderedDict[K, float] = OrderedDict()
        self._last: K | None = None

    def of(self, key: K, waiting: Collection[K]) -> float:
        """What its counter is, or would be if it came in now."""
        if key in waiting:
            return self._served[key]
        last = 0.0 if self._last is None else self._served[self._last]
        floor = min((self._served[each] for each in waiting), default=last)
        return max(self._served.get(key, floor), floor)

    def lift(self, key: K, waiting: Collection[K], busy: Collection[K]) -> None:
        """It has something waiting again."""
        self._served[key] = self.of(key, waiting)
        self._served.move_to_end(key)
        if len(self._served) > KEPT_MAX:
            kept = {*busy, key, self._last}
            forgotten = next((each for each in self._served if each not in kept), None)
            if forgotten is not None:
                del self._served[forgotten]

    def charge(self, key: K, tokens: float) -> None:
        self._served[key] += tokens
        self._served.move_to_end(key)

    def left(self, key: K) -> None:
        """It has nothing waiting any more; if it was the last, the next begins where it stands."""
        self._last = key


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
        self._clients: _Counters[tuple[int, str]] = _Counters()

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
        everybody = (*self._waiting.values(), *self._running.values())
        self._classes.lift(
            asked.priority,
            {each.priority for each in self._waiting.values()},
            {each.priority for each in everybody},
        )
        self._clients.lift(
            _place(asked),
            {_place(each) for each in self._waiting.values() if each.priority == asked.priority},
            {_place(each) for each in everybody},
        )
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
        classes = {each.priority for each in self._waiting.values()}
        first = min(
            {each.priority for each in ready},
            key=lambda priority: (self._classes.of(priority, classes), -priority),
        )
        # min() keeps the first of equals: who came first.
        chosen = min(
            (each for each in ready if each.priority == first),
            key=lambda each: self._clients.of(_place(each), {_place(each)}),
        )
        self._run(chosen)
        return chosen.id

    def _run(self, chosen: Asked) -> None:
        self._leave_queue(chosen)
        self._running[chosen.id] = chosen
        self._started += 1
        self._charge(chosen, PROMPT_WEIGHT * chosen.prompt_tokens)

    def wrote(self, order_id: str, tokens: int) -> None:
        """A running order was served so many tokens of answer."""
        self._charge(self._running[order_id], OUTPUT_WEIGHT * tokens)

    def leave(self, order_id: str) -> None:
        """An order is over, or will never run. Unknown ones are no matter."""
        waiting = self._waiting.get(order_id)
        if waiting is not None:
            self._leave_queue(waiting)
        self._running.pop(order_id, None)
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
        places = {_place(each) for each in peers}
        step = self._mean_charge
        seen: dict[tuple[int, str], int] = {}
        begins = []
        for each in peers:
            place = _place(each)
            begins.append(self._clients.of(place, places) + seen.get(place, 0) * step)
            seen[place] = seen.get(place, 0) + 1
        own = self._clients.of(_place(asked), places) + seen.get(_place(asked), 0) * step
        return sum(begin <= own for begin in begins)

    @property
    def _mean_charge(self) -> float:
        """What an order counts, about; only its ratio to the counters matters."""
        return self._charged / self._started if self._started else 1.0

    def _charge(self, asked: Asked, tokens: float) -> None:
        self._charged += tokens
        self._classes.charge(asked.priority, tokens / asked.weight)
        self._clients.charge(_place(asked), tokens)

    def _leave_queue(self, asked: Asked) -> None:
        del self._waiting[asked.id]
        self._ready.discard(asked.id)
        rest = self._waiting.values()
        if all(each.priority != asked.priority for each in rest):
            self._classes.left(asked.priority)
        if all(_place(each) != _place(asked) for each in rest):
            self._clients.left(_place(asked))


def _place(asked: Asked) -> tuple[int, str]:
    return asked.priority, asked.client
