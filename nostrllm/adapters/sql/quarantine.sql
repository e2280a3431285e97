-- What clients could show of a past that the store had lost, and what they were given for it.

-- migration: 1
CREATE TABLE honoured (
    id TEXT PRIMARY KEY,                   -- event id of the statement that was shown
    pubkey TEXT NOT NULL,
    seq BIGINT NOT NULL,
    msat BIGINT NOT NULL,                  -- by how much the balance changed; may be negative
    at BIGINT NOT NULL
);

-- name: honoured_insert
INSERT INTO honoured (id, pubkey, seq, msat, at) VALUES (:id, :pubkey, :seq, :msat, :at);

-- name: honoured_all
SELECT * FROM honoured ORDER BY at, id;

-- name: honoured_sum
SELECT coalesce(sum(msat), 0) AS msat FROM honoured WHERE msat > 0;

-- name: account_restore
INSERT INTO account (pubkey, balance_msat, seq) VALUES (:pubkey, :balance_msat, :seq)
ON CONFLICT (pubkey) DO UPDATE SET balance_msat = excluded.balance_msat, seq = excluded.seq
WHERE account.seq = :was;
