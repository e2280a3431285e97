"""What any store must do, by the statements that the provider and the client really run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nostrllm.ports import Conflict, Store, Write


def claim(y: str, owner: str = "o") -> Write:
    return Write("claim_insert", {"mint": "m", "y": y, "owner": owner})


def add(pubkey: str, msat: int) -> Write:
    return Write("account_add", {"pubkey": pubkey, "msat": msat})


def take(pubkey: str, msat: int) -> Write:
    return Write("account_take", {"pubkey": pubkey, "msat": msat}, rows=1)


def entry(name: str, n: int = 0, **changes: Any) -> Write:
    values = {"set_id": name, "n": n, "debit": "a", "credit": "b", "msat": 5, "at": 1}
    return Write("entry_insert", values | changes)


class StoreContract:
    """Tests of a store that a fixture `store` opens, empty, with a provider's parts."""

    async def test_what_is_committed_is_read(self, store: Store) -> None:
        assert await store.commit(claim("a"), claim("b", "p")) == [[], []]
        assert await store.read("claim_owner", mint="m", y="b") == [{"owner": "p"}]
        assert await store.read("claim_owner", mint="m", y="c") == []
        assert await store.commit() == []

    async def test_statements_give_their_rows(self, store: Store) -> None:
        counter = Write("counter_take", {"keyset_id": "k", "count": 5}, rows=1)
        assert await store.commit(counter, counter) == [[{"n": 5}], [{"n": 10}]]
        found = await store.commit(Write("claim_owner", {"mint": "m", "y": "a"}))
        assert found == [[]]

    async def test_a_unit_is_whole_or_not_at_all(self, store: Store) -> None:
        await store.commit(claim("a"))
        with pytest.raises(Conflict) as conflict:
            await store.commit(claim("b"), claim("a"), claim("c"))
        assert conflict.value.name == "claim_insert"
        for y in "bc":
            assert await store.read("claim_owner", mint="m", y=y) == []

    async def test_a_statement_that_meets_other_rows_undoes_its_unit(self, store: Store) -> None:
        await store.commit(add("me", 10))
        with pytest.raises(Conflict) as conflict:
            await store.commit(claim("a"), take("me", 11))
        assert conflict.value.name == "account_take"
        assert await store.read("claim_owner", mint="m", y="a") == []
        with pytest.raises(Conflict):
            await store.commit(claim("a"), Write("account_get", {"pubkey": "me"}, rows=0))
        await store.commit(claim("a"), take("me", 10))
        [row] = await store.read("account_get", pubkey="me")
        assert (row["balance_msat"], row["seq"]) == (0, 2)

    async def test_constraints_are_conflicts(self, store: Store) -> None:
        for wrong in (entry("s", msat=0), entry("s", credit="a")):
            with pytest.raises(Conflict):
                await store.commit(wrong)
        await store.commit(entry("s"), entry("s", 1))
        with pytest.raises(Conflict):
            await store.commit(entry("s", 1))

    async def test_sums_are_whole_numbers(self, store: Store) -> None:
        large = (1 << 53) + 1
        await store.commit(entry("s", msat=large), entry("t", msat=large))
        rows = {row["account"]: row["msat"] for row in await store.read("posting_balances")}
        assert rows == {"a": 2 * large, "b": -2 * large}
        assert all(isinstance(msat, int) for msat in rows.values())

    async def test_one_of_many_at_once_wins(self, store: Store) -> None:
        await store.commit(add("me", 100))
        done = await asyncio.gather(
            *(store.commit(claim(str(n)), take("me", 30)) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, Conflict) for each in done) == 7
        [row] = await store.read("account_get", pubkey="me")
        assert row["balance_msat"] == 10

    async def test_texts_are_kept_as_they_are(self, store: Store) -> None:
        text = "ünï \"'\\\n\t €𝄞 %_:name $1"
        await store.commit(Write("meta_set", {"name": text, "value": text}))
        assert await store.read("meta_get", name=text) == [{"value": text}]
