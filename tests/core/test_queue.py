"""Who waits, who is next: fair, bounded, work-conserving, and nobody starves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import queue
from nostrllm.core.queue import OUTPUT_WEIGHT, PROMPT_WEIGHT, Asked, FairQueue

SLOTS = 3
PROMPT, OUTPUT = 40, 30

#: Clients a to d, with what each of their orders reads and writes.
orders = st.tuples(
    st.sampled_from("abcd"), st.integers(0, PROMPT), st.integers(1, OUTPUT), st.integers(0, 3)
)


def entered(line: FairQueue, *asked: Asked) -> None:
    """All of them wait, paid for."""
    for each in asked:
        assert line.enter(each)
        line.ready(each.id)


def served(line: FairQueue, tokens: int = 10) -> list[str]:
    """The orders as they are served one after the other."""
    had = []
    while (order := line.next()) is not None:
        had.append(order)
        line.wrote(order, tokens)
        line.leave(order)
    return had


def test_one_after_the_other_in_the_order_they_came_where_all_are_equal() -> None:
    line = FairQueue(1, 9)
    entered(line, *(Asked(f"{n}", f"client-{n}", 5) for n in range(5)))
    assert served(line) == ["0", "1", "2", "3", "4"]
    assert (line.running, line.waiting) == (0, 0)


def test_a_flooder_is_behind_those_who_come_after_him() -> None:
    line = FairQueue(1, 40)
    entered(line, *(Asked(f"f{n}", "flooder", 5) for n in range(10)))
    entered(line, *(Asked(f"{n}", f"client-{n}", 5) for n in range(3)))
    assert served(line)[:4] == ["f0", "0", "1", "2"]


def test_who_comes_back_has_saved_nothing_up() -> None:
    line = FairQueue(1, 40)
    entered(line, *(Asked(f"a{n}", "a", 5) for n in range(8)))
    for _ in range(3):
        order = line.next()
        assert order is not None
        line.wrote(order, 10)
        line.leave(order)
    entered(line, *(Asked(f"b{n}", "b", 5) for n in range(3)))
    assert served(line)[:6] == ["a3", "b0", "a4", "b1", "a5", "b2"]


def test_who_comes_into_an_empty_line_is_not_behind_those_who_are_served() -> None:
    line = FairQueue(1, 40)
    entered(line, Asked("a0", "a", 100))
    assert line.next() == "a0"  # it runs, nobody waits
    entered(line, Asked("b0", "b", 1), Asked("a1", "a", 1))
    line.leave("a0")
    assert served(line) == ["b0", "a1"]  # b was not lifted above a


def test_an_idle_back_end_forgets() -> None:
    line = FairQueue(1, 40)
    entered(line, Asked("a0", "a", 100))
    served(line, 1_000)
    entered(line, Asked("a1", "a"), Asked("b0", "b"))
    assert served(line) == ["a1", "b0"]


def test_one_that_is_not_paid_yet_is_passed_over_and_keeps_its_place() -> None:
    line = FairQueue(1, 40)
    assert line.enter(Asked("late", "a"))
    assert line.next() is None
    entered(line, Asked("b0", "b"), Asked("b1", "b"))
    assert line.next() == "b0"
    line.ready("late")
    assert line.next() is None  # no slot
    line.leave("b0")
    assert line.next() == "late"


def test_priority_goes_first_and_starves_nobody() -> None:
    line = FairQueue(1, 1_000)
    entered(line, *(Asked(f"n{n}", f"client-{n}", 10) for n in range(10)))
    entered(line, *(Asked(f"gold{n}", "gold", 10, priority=4) for n in range(50)))
    first = served(line)[:30]
    assert first[0].startswith("gold")
    assert Counter(order[0] for order in first) == {"g": 25, "n": 5}  # five times the share


def test_what_leaves_is_as_if_it_had_never_come() -> None:
    line = FairQueue(1, 1)
    entered(line, Asked("a0", "a"), Asked("a1", "b"))
    line.leave("a0")
    line.leave("unknown")
    assert served(line) == ["a1"]


def test_seats_are_bounded_and_nobody_takes_them_all() -> None:
    line = FairQueue(2, 8)
    taken = [line.enter(Asked(f"f{n}", "flooder")) for n in range(20)]
    assert sum(taken) == 2 + 4  # of the 8 seats half: then as many are free
    known = [line.enter(Asked(f"{n}", f"client-{n}")) for n in range(9)]
    assert sum(known) == 4
    assert line.is_full
    assert not line.fits(Asked("one more", "somebody"))


def test_strangers_leave_seats_for_those_who_are_known() -> None:
    line = FairQueue(0, 16)
    taken = [line.enter(Asked(f"s{n}", f"stranger-{n}", known=False)) for n in range(50)]
    assert sum(taken) == 12
    assert not line.is_full
    assert line.enter(Asked("k", "known"))


def test_a_single_seat_is_for_anybody_and_none_for_nobody() -> None:
    line = FairQueue(1, 1)
    assert line.enter(Asked("0", "a", known=False))
    assert line.enter(Asked("1", "a", known=False))
    assert not line.enter(Asked("2", "b"))
    line = FairQueue(1, 0)
    assert line.enter(Asked("0", "a", known=False))
    assert not line.enter(Asked("1", "b"))


def test_how_many_are_ahead() -> None:
    line = FairQueue(1, 100)
    assert line.ahead_of(Asked("?", "a")) == 0
    entered(line, *(Asked(f"a{n}", "a", 5) for n in range(9)))
    assert line.next() == "a0"
    line.wrote("a0", 10)
    assert line.ahead_of(Asked("?", "a")) == 8
    assert line.ahead_of(Asked("?", "b")) == 1  # a1 came first, and counts as much
    assert line.ahead_of(Asked("?", "gold", priority=9)) == 1
    entered(line, *(Asked(f"g{n}", "gold", 5, priority=4) for n in range(4)))
    assert line.ahead_of(Asked("?", "b")) == 1 + 4
    assert line.ahead_of(Asked("?", "gold", priority=4)) == 4 + 1


def test_counters_of_those_who_left_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "KEPT_MAX", 2)
    line = FairQueue(1, 100)
    entered(line, Asked("long", "long", 5))
    assert line.next() == "long"
    for n in range(10):
        entered(line, Asked(f"{n}", f"client-{n}", 5))
        line.leave(f"{n}")
    assert len(line._clients[0]._served) <= 3
    entered(line, *(Asked(f"w{n}", f"wait-{n}", 5) for n in range(5)))  # all busy: none forgotten
    line.leave("long")
    assert served(line) == [f"w{n}" for n in range(5)]


# properties


@given(st.lists(orders, min_size=1, max_size=80), st.integers(1, 4))
def test_a_slot_is_never_idle_while_somebody_waits(
    asked: list[tuple[str, int, int, int]], slots: int
) -> None:
    line = FairQueue(slots, 1_000)
    entered(line, *(Asked(str(n), who, p, priority=pr) for n, (who, p, _, pr) in enumerate(asked)))
    left = len(asked)
    running: list[str] = []
    while left:
        while (order := line.next()) is not None:
            running.append(order)
        assert line.running == min(slots, left)
        assert line.running + line.waiting == left
        over = running.pop(0)
        line.wrote(over, asked[int(over)][2])
        line.leave(over)
        left -= 1
    assert line.next() is None


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=200),
    st.integers(1, 4),
    st.integers(0, 12),
    st.randoms(use_true_random=False),
)
def test_never_over_the_bound(
    asked: list[tuple[str, bool]], slots: int, bound: int, dice: object
) -> None:
    line = FairQueue(slots, bound)
    inside: list[str] = []
    for n, (who, known) in enumerate(asked):
        one = Asked(str(n), who, known=known)
        was_full = line.is_full
        if line.enter(one):
            assert not was_full
            line.ready(one.id)
            inside.append(one.id)
        line.next()
        assert line.running <= slots
        assert line.running + line.waiting == len(inside) <= slots + bound
        if inside and dice.random() < 0.3:  # type: ignore[attr-defined]
            line.leave(inside.pop(dice.randrange(len(inside))))  # type: ignore[attr-defined]


@given(st.lists(orders, min_size=40, max_size=200), st.integers(1, SLOTS))
def test_two_who_always_wait_are_served_alike(
    asked: list[tuple[str, int, int, int]], slots: int
) -> None:
    """The bound of the paper: 2 max(wp Lin, wq M), M what the running ones can write in all."""
    line = FairQueue(slots, 1_000)
    entered(line, *(Asked(str(n), who, p) for n, (who, p, _, _) in enumerate(asked)))
    waits = Counter(who for who, *_ in asked)
    total = dict.fromkeys("abcd", 0)
    running: dict[str, int] = {}
    bound = 2 * max(PROMPT_WEIGHT * PROMPT, OUTPUT_WEIGHT * OUTPUT * slots) + PROMPT_WEIGHT * PROMPT
    while True:
        while (order := line.next()) is not None:
            who, prompt, output, _ = asked[int(order)]
            waits[who] -= 1
            total[who] += PROMPT_WEIGHT * prompt
            running[order] = output
        backlogged = [total[who] for who in "abcd" if waits[who]]
        if not backlogged:
            break
        assert max(backlogged) - min(backlogged) <= bound
        for order in list(running):  # a token each, as a batch writes
            line.wrote(order, 1)
            total[asked[int(order)][0]] += OUTPUT_WEIGHT
            running[order] -= 1
            if not running[order]:
                del running[order]
                line.leave(order)


@given(st.integers(0, 9), st.integers(1, PROMPT), st.integers(1, OUTPUT))
def test_nobody_starves_behind_newcomers(priority: int, prompt: int, output: int) -> None:
    """One large order waits, while every turn new clients of a higher class come in."""
    line = FairQueue(1, 1_000)
    entered(line, Asked("first", "first", 1), Asked("large", "patient", PROMPT * 10))
    for n in range(20):
        entered(line, Asked(f"{n}", f"new-{n}", prompt, priority=priority))
        order = line.next()
        assert order is not None
        if order == "large":
            return
        line.wrote(order, output)
        line.leave(order)
    raise AssertionError


@given(st.integers(1, 6), st.integers(1, PROMPT), st.integers(1, OUTPUT))
def test_the_second_order_does_not_starve_behind_ever_new_clients(
    crowd: int, prompt: int, output: int
) -> None:
    line = FairQueue(1, 1_000)
    entered(line, *(Asked(f"r{n}", "regular", prompt) for n in range(3)))
    entered(line, *(Asked(f"{n}", f"new-{n}", prompt) for n in range(crowd)))
    turns = 0
    while line.running + line.waiting > crowd:  # until the regular's last is served
        order = line.next()
        assert order is not None
        turns += 1
        line.wrote(order, output)
        if not order.startswith("r"):
            new = Asked(f"late-{turns}", f"late-{turns}", prompt)
            entered(line, new)
        line.leave(order)
    assert turns <= 3 * (crowd + 2)
