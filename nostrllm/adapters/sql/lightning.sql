-- Lightning in and out of accounts: invoices that fill one, and invoices that one pays.

-- migration: 1
CREATE TABLE deposit (
    id TEXT PRIMARY KEY,                   -- rumor id of the message that asked for the invoice
    author TEXT NOT NULL,
    dialect TEXT NOT NULL,
    reply_key TEXT NOT NULL,
    reply_relays TEXT NOT NULL,            -- JSON list
    state TEXT NOT NULL,                   -- waiting, done, expired, refused
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    quote TEXT NOT NULL UNIQUE,            -- the mint's (NUT-04)
    msat BIGINT NOT NULL,
    told BIGINT NOT NULL DEFAULT 0,        -- was its author told how it ended?
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX deposit_open ON deposit (created_at) WHERE state = 'waiting' OR told = 0;
CREATE INDEX deposit_author ON deposit (author, state);

CREATE TABLE melt (
    id TEXT PRIMARY KEY,                   -- also of its operation at the mint
    message TEXT NOT NULL,                 -- rumor id of the refund, or of the order
    kind TEXT NOT NULL,                    -- refund, change
    author TEXT NOT NULL,
    dialect TEXT NOT NULL,
    reply_key TEXT NOT NULL,
    reply_relays TEXT NOT NULL,            -- JSON list
    state TEXT NOT NULL,                   -- waiting (for the end of its order), pending, done, refused
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    invoice TEXT NOT NULL,                 -- BOLT 11
    payment_hash TEXT NOT NULL UNIQUE,     -- for ever: no invoice is paid twice
    msat BIGINT NOT NULL,                  -- the invoice's amount
    held_msat BIGINT NOT NULL,             -- set aside from the account: the most that it can cost
    paid_msat BIGINT NOT NULL DEFAULT 0,   -- what the mint took for the invoice
    fee_msat BIGINT NOT NULL DEFAULT 0,    -- and for paying it
    code TEXT NOT NULL DEFAULT '',
    told BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX melt_open ON melt (created_at) WHERE state IN ('waiting', 'pending') OR told = 0;

-- name: deposit_insert
INSERT INTO deposit (id, author, dialect, reply_key, reply_relays, state, mint, unit, quote, msat,
    expires_at, created_at)
VALUES (:id, :author, :dialect, :reply_key, :reply_relays, 'waiting', :mint, :unit, :quote, :msat,
    :expires_at, :at);
-- name: deposit_get
SELECT * FROM deposit WHERE id = :id;
-- name: deposits_open
SELECT * FROM deposit WHERE state = 'waiting' OR told = 0 ORDER BY created_at, id;
-- name: deposits_waiting
SELECT count(*) AS n, coalesce(sum(CASE WHEN author = :author THEN 1 ELSE 0 END), 0) AS own,
    CASE WHEN EXISTS (SELECT 1 FROM orders WHERE author = :author AND cost_msat > 0)
        OR EXISTS (SELECT 1 FROM account WHERE pubkey = :author AND seq > 0)
        THEN 1 ELSE 0 END AS known
FROM deposit WHERE state = 'waiting';
-- name: deposit_move
UPDATE deposit SET state = :state, told = :told WHERE id = :id AND state = 'waiting';
-- name: deposit_told
UPDATE deposit SET told = 1 WHERE id = :id AND told = 0;
-- name: deposits_all
SELECT * FROM deposit ORDER BY created_at, id;

-- name: melt_insert
INSERT INTO melt (id, message, kind, author, dialect, reply_key, reply_relays, state, mint, unit,
    invoice, payment_hash, msat, held_msat, expires_at, created_at)
VALUES (:id, :message, :kind, :author, :dialect, :reply_key, :reply_relays, :state, :mint, :unit,
    :invoice, :payment_hash, :msat, :held_msat, :expires_at, :at);
-- name: melt_get
SELECT * FROM melt WHERE id = :id;
-- name: melt_of_hash
SELECT id FROM melt WHERE payment_hash = :payment_hash;
-- name: melts_open
SELECT * FROM melt WHERE state IN ('waiting', 'pending') OR told = 0 ORDER BY created_at, id;
-- name: melt_begin
UPDATE melt SET state = 'pending', mint = :mint, unit = :unit, held_msat = :held_msat
WHERE id = :id AND state = 'waiting';
-- name: melt_end
UPDATE melt SET state = :state, paid_msat = :paid_msat, fee_msat = :fee_msat, code = :code
WHERE id = :id AND state IN ('waiting', 'pending');
-- name: melt_told
UPDATE melt SET told = 1 WHERE id = :id AND told = 0;
-- name: melts_all
SELECT * FROM melt ORDER BY created_at, id;

-- Tokens of the owner whose file is not known to be there.
-- name: sweeps_unwritten
SELECT id FROM operation
WHERE id LIKE 'withdraw-sweep-%' AND state IN ('PREPARED', 'DONE') AND NOT EXISTS (
    SELECT 1 FROM meta WHERE meta.name = 'swept:' || operation.id
)
ORDER BY created_at, id;
