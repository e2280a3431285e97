"""Blind signatures: the official vectors, and agreement with nutshell's own implementation."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cashu.core.crypto import b_dhke
from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.crypto import bdhke
from nostrllm.wire.token import BlindSignature, Dleq, Proof

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
scalars = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
secrets = st.text(st.characters(codec="utf-8"), max_size=80)


def vectors(name: str) -> Any:
    return json.loads((Path(__file__).parents[1] / "data" / f"{name}.json").read_text())


NUT00, NUT02, NUT11, NUT12 = map(vectors, ("nut00", "nut02", "nut11", "nut12"))


def signed(secret: str, r: bytes, key: bytes) -> tuple[str, str, Dleq, str]:
    """B_, C_, the mint's DLEQ and its public key, by nutshell."""
    B_ = bdhke.blind(secret, r)
    mint = PrivateKey(key)
    C_, e, s = b_dhke.step2_bob(PublicKey(bytes.fromhex(B_)), mint)
    dleq = Dleq(e.secret.hex(), s.secret.hex())
    return B_, C_.format().hex(), dleq, mint.public_key.format().hex()


@pytest.mark.parametrize(("message", "point"), NUT00["hash_to_curve"])
def test_hash_to_curve(message: str, point: str) -> None:
    assert bdhke.hash_to_curve(bytes.fromhex(message)).format().hex() == point


@pytest.mark.parametrize(("x", "r", "B_"), NUT00["blind"])
def test_blind(x: str, r: str, B_: str) -> None:
    plus = PublicKey.combine_keys(
        [bdhke.hash_to_curve(bytes.fromhex(x)), PrivateKey(bytes.fromhex(r)).public_key]
    )
    assert plus.format().hex() == B_


@given(secrets, scalars, scalars)
@settings(max_examples=40)
def test_agrees_with_nutshell(secret: str, r: bytes, key: bytes) -> None:
    theirs, _ = b_dhke.step1_alice(secret, PrivateKey(r))
    B_, C_, dleq, public = signed(secret, r, key)
    assert theirs.format().hex() == B_
    assert bdhke.y_of(secret) == b_dhke.hash_to_curve(secret.encode()).format().hex()
    C = bdhke.unblind(C_, r, public)
    assert b_dhke.verify(PrivateKey(key), PublicKey(bytes.fromhex(C)), secret)
    assert bdhke.verify_dleq(B_, C_, dleq, public)
    proof = Proof("00" * 8, 1, secret, C, replace(dleq, r=r.hex()))
    assert bdhke.verify_proof_dleq(proof, public)
    assert not bdhke.verify_proof_dleq(replace(proof, secret=secret + "!"), public)


def test_hash_e() -> None:
    h = NUT12["hash_e"]
    points = [PublicKey(bytes.fromhex(h[name])) for name in ("R1", "R2", "K", "C_")]
    assert bdhke.hash_e(points).hex() == h["e"]


def test_official_dleq_proofs() -> None:
    fixed = NUT12["deterministic"]
    assert bdhke.verify_dleq(fixed["B_"], fixed["C_"], Dleq(fixed["e"], fixed["s"]), fixed["A"])
    signature = BlindSignature.from_dict(NUT12["signature"])
    assert bdhke.verify_dleq(NUT12["B_"], signature.C_, signature.dleq, NUT12["A"])
    assert bdhke.verify_proof_dleq(Proof.from_dict(NUT12["proof"]), NUT12["A"])


def test_a_missing_or_impossible_dleq_is_a_failure() -> None:
    B_, C_, dleq, key = signed("secret", b"\1" * 32, b"\2" * 32)
    assert bdhke.verify_dleq(B_, C_, dleq, key)
    assert not bdhke.verify_dleq(B_, C_, None, key)
    zero, large = "00" * 32, "ff" * 32
    for wrong in (
        replace(dleq, e=zero),
        replace(dleq, s=zero),
        replace(dleq, e=large),
        replace(dleq, e=dleq.s, s=dleq.e),
    ):
        assert not bdhke.verify_dleq(B_, C_, wrong, key)
    assert not bdhke.verify_dleq("02" + "ff" * 32, C_, dleq, key)
    assert not bdhke.verify_dleq(B_, C_, dleq, B_)
    coin = Proof("00" * 8, 1, "secret", bdhke.unblind(C_, b"\1" * 32, key), None)
    assert not bdhke.verify_proof_dleq(coin, key)
    assert not bdhke.verify_proof_dleq(replace(coin, dleq=dleq), key)
    assert not bdhke.verify_proof_dleq(replace(coin, dleq=replace(dleq, r=zero)), key)
    assert bdhke.verify_proof_dleq(replace(coin, dleq=replace(dleq, r="01" * 32)), key)


@given(st.text(max_size=70) | st.binary(min_size=33, max_size=33).map(bytes.hex))
def test_is_point_never_raises(text: str) -> None:
    assert bdhke.is_point(text) in (True, False)


def test_is_point() -> None:
    key = PrivateKey(b"\1" * 32).public_key
    assert bdhke.is_point(key.format().hex())
    assert not bdhke.is_point(key.format(compressed=False).hex())
    assert not bdhke.is_point("02" + "ff" * 32)
    assert not bdhke.is_point("zz" * 33)


def keys_of(row: dict[str, Any]) -> dict[int, str]:
    return {int(amount): key for amount, key in row["keys"].items()}


def test_keyset_ids() -> None:
    for row in NUT02["v0"]:
        assert bdhke.keyset_id_v0(keys_of(row)) == row["id"]
    for row in NUT02["v1"]:
        found = bdhke.keyset_id_v1(keys_of(row), row["unit"], row["fee_ppk"], row["final_expiry"])
        assert found == row["id"]


def test_witness_is_a_signature_of_the_secret() -> None:
    valid = NUT11["valid"]
    assert verifies(valid["secret"], valid["witness"])
    assert not verifies(NUT11["invalid"]["secret"], NUT11["invalid"]["witness"])
    key = PrivateKey(b"\3" * 32)
    data = key.public_key.format().hex()
    secret = json.dumps(["P2PK", {"nonce": "00", "data": data, "tags": []}])
    assert verifies(secret, bdhke.sign_witness(secret, key.secret, b"\4" * 32))


def test_a_signature_on_a_secret_is_checked() -> None:
    key = PrivateKey(b"\7" * 32)
    public = bdhke.public_key_of(key.secret)
    signature = bdhke.sign_secret("s", key.secret, b"\4" * 32)
    assert bdhke.verify_secret("s", signature, public)
    assert not bdhke.verify_secret("t", signature, public)
    assert not bdhke.verify_secret("s", signature, "02" + "11" * 32)
    assert not bdhke.verify_secret("s", "zz", public)


def verifies(secret: str, witness: str) -> bool:
    key = PublicKeyXOnly(bytes.fromhex(json.loads(secret)[1]["data"])[1:])
    signature = bytes.fromhex(json.loads(witness)["signatures"][0])
    return key.verify(signature, hashlib.sha256(secret.encode()).digest())
