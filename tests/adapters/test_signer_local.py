"""The local signer does what the port says, and keeps its secret."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import pytest

from nostrllm.adapters import signer_local
from nostrllm.adapters.clock import SystemClock
from nostrllm.adapters.signer_local import LocalKeyring, LocalSigner
from nostrllm.crypto import keys, nip44
from nostrllm.errors import LocalError, RemoteError
from nostrllm.ports import Clock, Keyring, Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, rumor

ALICE, BOB = (bytes([number]) * 32 for number in (1, 2))


@dataclass
class StoppedClock:
    """Time stands at one moment, so that a test can name it."""

    at: float = 1_700_000_000.5

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


CLOCK: Clock = StoppedClock()
KEYRING: Keyring = LocalKeyring(CLOCK)


@pytest.fixture
def alice() -> Signer:
    return KEYRING.signer(ALICE)


@pytest.fixture
def bob() -> Signer:
    return KEYRING.signer(BOB)


async def test_signed_event_verifies(alice: Signer) -> None:
    event = await alice.sign(Draft(1, "hello", 5))
    assert event.pubkey == alice.pubkey == keys.public_key(ALICE)
    assert KEYRING.verify(event)
    assert not KEYRING.verify(replace(event, content="changed"))


async def test_stored_wrap_is_backdated(alice: Signer, bob: Signer) -> None:
    hello = rumor(Draft(kinds.MESSAGE, "hello", 5), alice.pubkey)
    wraps = [await alice.wrap(hello, bob.pubkey, expiration=9) for _ in range(8)]
    now = int(CLOCK.now())
    assert {wrap.kind for wrap in wraps} == {kinds.GIFT_WRAP}
    assert all(now - signer_local.BACKDATE_S < wrap.created_at <= now for wrap in wraps)
    assert len({wrap.created_at for wrap in wraps}) > 1
    assert len({wrap.pubkey for wrap in wraps}) == 8
    assert wraps[0].value("expiration") == "9"
    assert all(KEYRING.verify(wrap) for wrap in wraps)
    assert [await bob.unwrap(wrap) for wrap in wraps] == [hello] * 8


async def test_ephemeral_wrap_tells_the_time(alice: Signer, bob: Signer) -> None:
    hello = rumor(Draft(kinds.MESSAGE, "hello", 5), alice.pubkey)
    wrap = await alice.wrap(hello, bob.pubkey, ephemeral=True)
    assert (wrap.kind, wrap.created_at) == (kinds.GIFT_WRAP_EPHEMERAL, 1_700_000_000)
    assert await bob.unwrap(wrap) == hello
    with pytest.raises(RemoteError):
        await alice.unwrap(wrap)


async def test_wrapping_anothers_rumor_is_refused(alice: Signer, bob: Signer) -> None:
    with pytest.raises(LocalError):
        await alice.wrap(rumor(Draft(14, "hello", 5), bob.pubkey), bob.pubkey)


async def test_too_long_rumor_is_refused(alice: Signer, bob: Signer) -> None:
    with pytest.raises(RemoteError) as caught:
        await alice.wrap(rumor(Draft(14, "x" * 60_000, 5), alice.pubkey), bob.pubkey)
    assert caught.value.code == "message-too-large"


async def test_encryption_both_ways(alice: Signer, bob: Signer) -> None:
    for text in ("hello", "grüße \n 🦆"):
        payload = await alice.encrypt(text, bob.pubkey)
        assert payload != await alice.encrypt(text, bob.pubkey)
        assert await bob.decrypt(payload, alice.pubkey) == text
        legacy = await alice.encrypt_legacy(text, bob.pubkey)
        assert await bob.decrypt_legacy(legacy, alice.pubkey) == text


async def test_what_is_no_text_is_refused(alice: Signer, bob: Signer) -> None:
    with pytest.raises(RemoteError):
        await alice.encrypt("\ud800", bob.pubkey)
    with pytest.raises(RemoteError):
        await alice.encrypt_legacy("\ud800", bob.pubkey)
    with pytest.raises(RemoteError):
        await alice.encrypt("hello", "f" * 64)
    with pytest.raises(RemoteError):
        await alice.decrypt("hello", bob.pubkey)
    with pytest.raises(RemoteError):
        await alice.decrypt_legacy("hello", bob.pubkey)


async def test_plaintext_that_is_not_utf8_is_refused(bob: Signer) -> None:
    key = nip44.conversation_key(ALICE, bob.pubkey)
    payload = nip44.encrypt(key, b"\xff\xfe", bytes(32))
    with pytest.raises(RemoteError):
        await bob.decrypt(payload, keys.public_key(ALICE))


async def test_conversation_keys_are_few_and_the_used_stay(bob: Signer) -> None:
    signer = LocalSigner(ALICE, CLOCK)
    first = keys.public_key((10).to_bytes(32, "big"))
    for number in range(10, 12 + signer_local.CONVERSATIONS_MAX):
        await signer.encrypt("x", keys.public_key(number.to_bytes(32, "big")))
        await signer.encrypt("x", first)
    kept = signer._conversations
    assert len(kept) == signer_local.CONVERSATIONS_MAX
    assert first in kept
    assert keys.public_key((11).to_bytes(32, "big")) not in kept


def test_nothing_shows_the_secret() -> None:
    signer = LocalSigner(ALICE, CLOCK)
    for text in (repr(signer), str(signer), f"{[signer]}"):
        assert ALICE.hex() not in text
        assert repr(ALICE)[2:-1] not in text
    assert not hasattr(signer, "secret")
    with pytest.raises(TypeError):
        pickle.dumps(signer)


def test_bad_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(LocalError) as caught:
        KEYRING.signer(b"\xff" * 32)
    assert "ff" not in str(caught.value).replace("off", "")


def test_fresh_keys_differ() -> None:
    assert KEYRING.signer().pubkey != KEYRING.signer().pubkey


async def test_system_clock_runs() -> None:
    clock = SystemClock()
    before, wall = clock.monotonic(), clock.now()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert wall > 1_700_000_000
