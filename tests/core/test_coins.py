"""Coins: every split sums up, every change is in the ladder, every selection pays its own fee."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrllm.core import coins
from nostrllm.errors import LocalError
from nostrllm.wire.token import Proof


@dataclass(frozen=True)
class Keyset:
    fee_ppk: int


def proof(amount: int, number: int = 0) -> Proof:
    return Proof("k", amount, str(number), "")


powers = st.lists(st.integers(0, 20).map(lambda bit: 1 << bit), max_size=20)


@given(st.integers(0, 1 << 62))
def test_split_sums_up_in_different_powers(amount: int) -> None:
    parts = coins.split(amount)
    assert sum(parts) == amount
    assert len(set(parts)) == len(parts)


@given(st.integers(0, 1 << 40), st.data())
def test_any_change_is_in_the_ladder(amount: int, data: st.DataObject) -> None:
    rungs = coins.ladder(amount)
    assert sum(rungs) == amount
    assert rungs == sorted(rungs)
    target = data.draw(st.integers(0, amount))
    chosen = coins.subset(rungs, target)
    assert chosen is not None
    assert sum(rungs[index] for index in chosen) == target
    assert len(set(chosen)) == len(chosen)


def test_every_change_of_every_small_ladder() -> None:
    for amount in range(130):
        rungs = coins.ladder(amount)
        assert all(coins.subset(rungs, target) is not None for target in range(amount + 1))
        assert coins.subset(rungs, amount + 1) is None


def test_ladder_example() -> None:
    assert coins.ladder(100) == [1, 1, 2, 4, 4, 8, 16, 32, 32]


@given(powers, st.integers(0, 1 << 22))
def test_subset_finds_a_sum_when_there_is_one(amounts: list[int], target: int) -> None:
    chosen = coins.subset(amounts, target)
    sums = {0}
    for amount in amounts:
        sums |= {total + amount for total in sums} if len(sums) < 5_000 else set()
    if chosen is None:
        assert target not in sums
    else:
        assert sum(amounts[index] for index in chosen) == target


@pytest.mark.parametrize(
    ("ppk", "count", "units"), [(0, 5, 0), (100, 1, 1), (100, 10, 1), (100, 11, 2)]
)
def test_fee_is_rounded_up_once(ppk: int, count: int, units: int) -> None:
    assert coins.fee([proof(1)] * count, {"k": Keyset(ppk)}) == units


def test_exact() -> None:
    have = [proof(8), proof(1), proof(4)]
    assert coins.exact(have, 9) == [proof(8), proof(1)]
    assert coins.exact(have, 2) is None


@given(powers, st.integers(1, 1 << 21), st.sampled_from([0, 100, 1000]))
def test_selection_covers_amount_and_fee(amounts: list[int], amount: int, ppk: int) -> None:
    keysets = {"k": Keyset(ppk)}
    have = [proof(value, number) for number, value in enumerate(amounts)]
    try:
        chosen = coins.select(have, amount, keysets)
    except LocalError:
        best = [p for p in have if p.amount * 1000 > ppk]
        assert sum(p.amount for p in best) - coins.fee(best, keysets) < amount
        return
    assert sum(p.amount for p in chosen) - coins.fee(chosen, keysets) >= amount
    assert len({p.secret for p in chosen}) == len(chosen)


def test_selection_takes_one_coin_where_one_does() -> None:
    have = [proof(amount, amount) for amount in (1, 2, 4, 64, 32)]
    assert coins.select(have, 20, {"k": Keyset(100)}) == [proof(32, 32)]


def test_too_few_coins() -> None:
    with pytest.raises(LocalError) as caught:
        coins.select([proof(4)], 5, {"k": Keyset(0)})
    assert caught.value.code == "wallet-empty"


def test_a_name_for_coins_does_not_depend_on_their_order() -> None:
    some = [proof(1, 1), proof(2, 2)]
    assert coins.digest(some) == coins.digest(some[::-1])
    assert coins.digest(some) != coins.digest(some[:1])


@given(powers, st.integers(0, 1 << 12))
def test_covers_says_whether_all_smaller_amounts_can_be_made(
    amounts: list[int], target: int
) -> None:
    every = all(coins.subset(amounts, each) is not None for each in range(target + 1))
    assert coins.covers(amounts, target) == every


@given(powers, st.integers(0, 1 << 21))
def test_most_is_the_largest_sum_that_fits(amounts: list[int], target: int) -> None:
    found = coins.most(amounts, target)
    assert found <= target
    assert coins.subset(amounts, found) is not None
    sums = {0}
    for amount in amounts[:8]:
        sums |= {one + amount for one in sums}
    assert coins.most(amounts[:8], target) == max(one for one in sums if one <= target)


@given(powers, st.integers(0, 1 << 21), st.sampled_from([0, 100, 999, 2_500]))
def test_a_token_and_its_fee_fit_into_a_budget(amounts: list[int], budget: int, ppk: int) -> None:
    wallet = [proof(amount, number) for number, amount in enumerate(amounts)]
    keysets = {"k": Keyset(ppk)}
    if min(budget, sum(amounts)) <= coins.fee(wallet, keysets):
        with contextlib.suppress(LocalError):
            coins.payable(wallet, budget, keysets)
        return
    chosen, token, fee = coins.payable(wallet, budget, keysets)
    assert token >= 1
    assert token + fee <= budget
    assert fee == coins.fee(chosen, keysets)
    assert sum(one.amount for one in chosen) >= token + fee


def test_no_token_without_coins_or_budget() -> None:
    for wallet, budget in (([], 5), ([proof(8)], 0), ([proof(1)], 1)):
        with pytest.raises(LocalError) as caught:
            coins.payable(wallet, budget, {"k": Keyset(100)})
        assert caught.value.code == "wallet-empty"


def test_many_small_coins_are_paid_for_by_him_who_gets_them() -> None:
    wallet = [proof(1, number) for number in range(40)]
    chosen, token, fee = coins.payable(wallet, 20, {"k": Keyset(100)})
    assert (len(chosen), token, fee) == (20, 18, 2)
