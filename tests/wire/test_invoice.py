"""Lightning invoices: the examples of BOLT 11, a second implementation, and every damage."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrllm.errors import RemoteError
from nostrllm.wire import bech32
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.order import INVOICE_CHARS_MAX

HASH = "0001020304050607080900010203040506070809000102030405060708090102"
HASH_FIELD = "pp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypq"
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
STAMP = "pvjluez"
SIGNATURE = "q" * 104

DONATION = (
    "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetj"
    "ypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq8rkx3yf5tcsyz3d73gafnh3cax9rn449d9p5uxz9ezhhypd0elx87sj"
    "le52x86fux2ypatgddc6k63n7erqz25le42c4u4ecky03ylcqca784w"
)
COFFEE = (
    "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4js"
    "xqzpuaztrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq6"
    "3nyw24cg27h2rspfj9srp"
)
TESTNET = (
    "lntb20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyq"
    "cyq5rqwzqfqqqsyqcyq5rqwzqfqypqfpp3x9et2e20v6pu37c5d9vax37wxq72un98kmzzhznpurw9sgl2v0nklu2g4d0k"
    "eph5t7tj9tcqd8rexnd07ux4uv2cjvcqwaxgj7v4uwn5wmypjd5n69z2xm3xgksg28nwht7f6zspwp3f9t"
)
PICO = (
    "lnbc9678785340p1pwmna7lpp5gc3xfm08u9qy06djf8dfflhugl6p7lgza6dsjxq454gxhj9t7a0sd8dgfkx7cmtwd68ye"
    "tpd5s9xar0wfjn5gpc8qhrsdfq24f5ggrxdaezqsnvda3kkum5wfjkzmfqf3jkgem9wgsyuctwdus9xgrcyqcjcgpzgfsk"
    "x6eqf9hzqnteypzxz7fzypfhg6trddjhygrcyqezcgpzfysywmm5ypxxjemgw3hxjmn8yptk7untd9hxwg3q2d6xjcmtv4"
    "ezq7pqxgsxzmnyyqcjqmt0wfjjq6t5v4khxxqyjw5qcqp2rzjq0gxwkzc8w6323m55m4jyxcjwmy7stt9hwkwe2qxmy8zp"
    "sgg7jcuwz87fcqqeuqqqyqqqqlgqqqqn3qq9qn07ytgrxxzad9hc4xt3mawjjt8znfv8xzscs7007v9gh9j569lencxa8x"
    "eujzkxs0uamak9aln6ez02uunw6rd2ht2sqe4hz8thcdagpleym0j"
)
SECRET = (
    "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdeessp"
    "5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqpqsq67gye39hfg3zd8rgc8"
    "0k32tvy9xk2xunwm5lzexnvpx6fd77en8qaq424dxgt56cag2dpt359k3ssyhetktkpqh24jqnjyw6uqd08sgptq44qu"
)
STAMPED = 1_496_314_658


@pytest.mark.parametrize(
    ("text", "network", "amount_msat", "payment_hash", "created_at", "expiry_s"),
    [
        (DONATION, "bc", None, HASH, STAMPED, 3_600),
        (COFFEE, "bc", 250_000_000, HASH, STAMPED, 60),
        (TESTNET, "tb", 2_000_000_000, HASH, STAMPED, 3_600),
        (
            PICO,
            "bc",
            967_878_534,
            "462264ede7e14047e9b249da94fefc47f41f7d02ee9b091815a5506bc8abf75f",
            1_572_468_703,
            604_800,
        ),
        (SECRET, "bc", 2_500_000_000, HASH, STAMPED, 3_600),
    ],
)
def test_examples_of_the_standard(
    text: str,
    network: str,
    amount_msat: int | None,
    payment_hash: str,
    created_at: int,
    expiry_s: int,
) -> None:
    found = parse_invoice(text)
    assert (found.text, found.network, found.amount_msat) == (text, network, amount_msat)
    assert (found.payment_hash, found.created_at) == (payment_hash, created_at)
    assert found.expires_at == created_at + expiry_s
    assert parse_invoice(text.upper()) == found


def sealed(prefix: str, data: str) -> str:
    """Prefix and words with the checksum that makes them bech32."""
    words = [ALPHABET.index(letter) for letter in data]
    return bech32.encode_words(prefix, words, modified=False)


def made(prefix: str = "lnbc20u", fields: str = HASH_FIELD) -> str:
    return sealed(prefix, STAMP + fields + SIGNATURE)


@pytest.mark.parametrize(
    ("prefix", "amount_msat"),
    [
        ("lnbc", None),
        ("lnbc1", 10**11),
        ("lnbc1m", 10**8),
        ("lnbc1u", 10**5),
        ("lnbc1n", 100),
        ("lnbc10p", 1),
        ("lnbcrt5u", 500_000),
        ("lntbs5u", 500_000),
        ("lnbc21000000", 2_100_000_000_000_000_000),
    ],
)
def test_amounts(prefix: str, amount_msat: int | None) -> None:
    assert parse_invoice(made(prefix)).amount_msat == amount_msat


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "lnbc",
        "lnbc1",
        "lnbc1q",
        "lnbc1" + "q" * 20,
        # as in the standard: checksum, no separator, mixed case, too short, multiplier, half a msat
        DONATION[:-1] + "t",
        DONATION[5:],
        DONATION[:20].upper() + DONATION[20:],
        "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kge"
        "tjypeh2ursdae8g6na6hlh",
        made("lnbc2500x"),
        made("lnbc2500000001p"),
        # amounts
        made("lnbc0"),
        made("lnbc020u"),
        made("lnbcu"),
        made("lnbc21000001"),
        made("lnbc" + "9" * 40),
        made("lnzz20u"),
        made("bc20u"),
        made("lnbc20U".lower() + "\x7f"),
        # fields: no hash, two, one of another length, two expiries, one without end, cut ones
        made(fields=""),
        made(fields=HASH_FIELD * 2),
        made(fields="ppn" + "q" * 51),
        made(fields=HASH_FIELD + "xqzpu" * 2),
        made(fields=HASH_FIELD + "xqf" + "l" * 9),
        made(fields=HASH_FIELD + "x"),
        made(fields=HASH_FIELD + "xqz"),
        made(fields=HASH_FIELD + "xqzp"),
        # texts
        " " + COFFEE,
        COFFEE + "\n",
        "lightning:" + COFFEE,
        COFFEE.replace("l", "ⅼ"),
        "lnbc1" + "q" * INVOICE_CHARS_MAX,
    ],
)
def test_what_is_no_invoice(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_invoice(text)
    assert caught.value.code == "payment-invoice-invalid"


def test_fields_that_are_passed_over() -> None:
    other = "ppn" + "q" * 51 + "pp4" + "q" * 53 + "hp5" + "q" * 52 + "2qr" + "qqq"
    assert parse_invoice(made(fields=HASH_FIELD + other)).payment_hash == HASH
    assert parse_invoice(made(fields=HASH_FIELD + "xqq")).expiry_s == 0


@given(st.integers(0, len(COFFEE) - 1), st.sampled_from(ALPHABET + "1b"))
def test_one_wrong_letter_is_always_seen(place: int, letter: str) -> None:
    damaged = COFFEE[:place] + letter + COFFEE[place + 1 :]
    if damaged != COFFEE:
        with pytest.raises(RemoteError):
            parse_invoice(damaged)


@pytest.mark.skipif(
    importlib.util.find_spec("bolt11") is None, reason="comes with the devnet extra"
)
@settings(deadline=None)
@given(
    st.none() | st.integers(1, 10**12),
    st.binary(min_size=32, max_size=32),
    st.integers(1, (1 << 35) - 1),
    st.none() | st.integers(1, 1 << 25),
)
def test_a_second_implementation_agrees(
    amount_msat: int | None, payment_hash: bytes, created_at: int, expiry_s: int | None
) -> None:
    import bolt11

    tags = bolt11.Tags()
    tags.add(bolt11.TagChar.payment_hash, payment_hash.hex())
    tags.add(bolt11.TagChar.payment_secret, hashlib.sha256(payment_hash).hexdigest())
    tags.add(bolt11.TagChar.description, "a cup of coffee")
    if expiry_s is not None:
        tags.add(bolt11.TagChar.expire_time, expiry_s)
    amount = None if amount_msat is None else bolt11.MilliSatoshi(amount_msat)
    text = bolt11.encode(bolt11.Bolt11("bc", created_at, tags, amount), "11" * 32)
    found = parse_invoice(text)
    assert (found.amount_msat, found.payment_hash) == (amount_msat, payment_hash.hex())
    assert (found.created_at, found.expiry_s) == (created_at, expiry_s or 3_600)
