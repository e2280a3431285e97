-- The provider's rows: orders, transfers of accounts, the ledger, and messages on their way out.

-- migration: 1
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE heard (                       -- messages that were acted on, by rumor id
    id TEXT PRIMARY KEY,
    wrap TEXT NOT NULL,                    -- the event that carried it first
    at BIGINT NOT NULL
);

CREATE TABLE orders (
    id TEXT PRIMARY KEY,                   -- rumor id
    wrap TEXT NOT NULL,
    author TEXT NOT NULL,                  -- who owns credit and account
    dialect TEXT NOT NULL,                 -- client, chat, legacy
    reply_key TEXT NOT NULL,
    reply_relays TEXT NOT NULL,            -- JSON list
    funding TEXT NOT NULL,                 -- token, account
    state TEXT NOT NULL,                   -- paying, paid, settled, closed, refused
    model TEXT NOT NULL,
    price TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    ceiling_msat BIGINT NOT NULL,
    fee_msat BIGINT NOT NULL,
    change_fee_units BIGINT NOT NULL,
    wants_ecash BIGINT NOT NULL,
    net_msat BIGINT NOT NULL DEFAULT 0,
    cost_msat BIGINT NOT NULL DEFAULT 0,
    change_units BIGINT NOT NULL DEFAULT 0,
    credit_msat BIGINT NOT NULL DEFAULT 0,
    commitment TEXT NOT NULL,
    accepted TEXT NOT NULL DEFAULT '',     -- the signed acceptance, JSON
    receipt TEXT NOT NULL DEFAULT '',      -- the signed receipt, JSON
    code TEXT NOT NULL DEFAULT '',
    deadline BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX orders_open ON orders (state) WHERE state IN ('paying', 'paid');
CREATE INDEX orders_author ON orders (author, created_at);

CREATE TABLE transfer (                    -- top-ups and refunds of accounts
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                    -- topup, refund
    author TEXT NOT NULL,
    dialect TEXT NOT NULL,
    reply_key TEXT NOT NULL,
    reply_relays TEXT NOT NULL,
    state TEXT NOT NULL,                   -- pending, done, refused
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    msat BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX transfer_open ON transfer (state) WHERE state = 'pending';

CREATE TABLE account (
    pubkey TEXT PRIMARY KEY,
    balance_msat BIGINT NOT NULL CHECK (balance_msat >= 0),
    seq BIGINT NOT NULL,
    model TEXT NOT NULL DEFAULT ''
);

CREATE TABLE posting (
    set_id TEXT NOT NULL,
    account TEXT NOT NULL,
    msat BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (set_id, account)
);
CREATE INDEX posting_account ON posting (account);

CREATE TABLE outbox (
    id TEXT PRIMARY KEY,                   -- event id
    owner TEXT NOT NULL,                   -- order or message it answers
    position BIGINT NOT NULL,
    event TEXT NOT NULL,
    relays TEXT NOT NULL,
    state TEXT NOT NULL,                   -- waiting, sent
    tries BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX outbox_waiting ON outbox (next_at) WHERE state = 'waiting';
CREATE INDEX outbox_owner ON outbox (owner, position);

CREATE TABLE price_page (
    id TEXT PRIMARY KEY,                   -- event id
    content TEXT NOT NULL,
    valid_until BIGINT NOT NULL
);

-- migration: 2

-- What one coin was worth when the order was accepted: no rate is looked up again to end it.
ALTER TABLE orders ADD COLUMN unit_msat BIGINT NOT NULL DEFAULT 1000 CHECK (unit_msat > 0);
UPDATE orders SET unit_msat = 1 WHERE unit = 'msat';

-- name: meta_get
SELECT value FROM meta WHERE name = :name;
-- name: meta_set
INSERT INTO meta (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: heard_note
INSERT INTO heard (id, wrap, at) VALUES (:id, :wrap, :at) ON CONFLICT (id) DO NOTHING;
-- name: known_wrap
SELECT wrap FROM orders WHERE id = :id
UNION ALL SELECT wrap FROM heard WHERE id = :id
UNION ALL SELECT '' AS wrap FROM transfer WHERE id = :id;
-- name: heard_prune
DELETE FROM heard WHERE at < :before;

-- name: order_insert
INSERT INTO orders (id, wrap, author, dialect, reply_key, reply_relays, funding, state, model, price,
    mint, unit, unit_msat, ceiling_msat, fee_msat, change_fee_units, wants_ecash, net_msat, commitment,
    accepted, deadline, created_at, updated_at)
VALUES (:id, :wrap, :author, :dialect, :reply_key, :reply_relays, :funding, :state, :model, :price,
    :mint, :unit, :unit_msat, :ceiling_msat, :fee_msat, :change_fee_units, :wants_ecash, :net_msat,
    :commitment, :accepted, :deadline, :at, :at);
-- name: order_get
SELECT * FROM orders WHERE id = :id;
-- name: orders_open
SELECT * FROM orders WHERE state IN ('paying', 'paid') ORDER BY created_at;
-- name: orders_all
SELECT * FROM orders ORDER BY created_at, id;
-- name: orders_untold
SELECT * FROM orders WHERE state = 'refused' AND created_at > :since
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.owner = orders.id)
ORDER BY created_at;
-- name: order_last
SELECT * FROM orders WHERE author = :author ORDER BY created_at DESC, id LIMIT 1;
-- name: order_last_receipt
SELECT * FROM orders WHERE author = :author AND receipt <> ''
ORDER BY created_at DESC, id LIMIT 1;
-- name: order_last_change
SELECT * FROM orders WHERE author = :author AND change_units > 0
ORDER BY created_at DESC, id LIMIT 1;
-- name: order_move
UPDATE orders SET state = :state, updated_at = :at WHERE id = :id AND state = :was;
-- name: order_paid
UPDATE orders SET state = 'paid', net_msat = :net_msat, updated_at = :at
WHERE id = :id AND state = 'paying';
-- name: order_refused
UPDATE orders SET state = 'refused', code = :code, updated_at = :at
WHERE id = :id AND state = 'paying';
-- name: order_settled
UPDATE orders SET state = 'settled', cost_msat = :cost_msat, change_units = :change_units,
    credit_msat = :credit_msat, receipt = :receipt, code = :code, updated_at = :at
WHERE id = :id AND state = 'paid';
-- name: order_counts
SELECT state, count(*) AS n, coalesce(sum(cost_msat), 0) AS cost_msat FROM orders GROUP BY state;

-- name: transfer_insert
INSERT INTO transfer (id, kind, author, dialect, reply_key, reply_relays, state, mint, unit, msat,
    created_at)
VALUES (:id, :kind, :author, :dialect, :reply_key, :reply_relays, 'pending', :mint, :unit, :msat,
    :at);
-- name: transfer_get
SELECT * FROM transfer WHERE id = :id;
-- name: transfers_open
SELECT * FROM transfer WHERE state = 'pending' ORDER BY created_at;
-- name: transfers_untold
SELECT * FROM transfer WHERE state <> 'pending' AND created_at > :since
    AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.owner = transfer.id)
ORDER BY created_at;
-- name: transfer_move
UPDATE transfer SET state = :state, msat = :msat WHERE id = :id AND state = 'pending';
-- name: transfer_last_refund
SELECT * FROM transfer WHERE author = :author AND kind = 'refund' AND state = 'done'
ORDER BY created_at DESC, id LIMIT 1;

-- name: account_get
SELECT * FROM account WHERE pubkey = :pubkey;
-- name: account_add
INSERT INTO account (pubkey, balance_msat, seq) VALUES (:pubkey, :msat, 1)
ON CONFLICT (pubkey) DO UPDATE
SET balance_msat = account.balance_msat + excluded.balance_msat, seq = account.seq + 1;
-- name: account_take
UPDATE account SET balance_msat = balance_msat - :msat, seq = seq + 1
WHERE pubkey = :pubkey AND balance_msat >= :msat;
-- name: account_expect
SELECT pubkey FROM account WHERE pubkey = :pubkey AND seq = :seq AND balance_msat = :msat;
-- name: account_moved
SELECT pubkey FROM account WHERE pubkey = :pubkey AND seq > 0;
-- name: account_model
INSERT INTO account (pubkey, balance_msat, seq, model) VALUES (:pubkey, 0, 0, :model)
ON CONFLICT (pubkey) DO UPDATE SET model = excluded.model;

-- name: outbox_insert
INSERT INTO outbox (id, owner, position, event, relays, state, next_at, expires_at)
VALUES (:id, :owner, :position, :event, :relays, 'waiting', :next_at, :expires_at);
-- name: outbox_due
SELECT owner FROM outbox WHERE state = 'waiting' AND next_at <= :now ORDER BY next_at LIMIT 256;
-- name: outbox_waiting
SELECT * FROM outbox WHERE state = 'waiting' AND owner = :owner ORDER BY position;
-- name: outbox_of
SELECT * FROM outbox WHERE owner = :owner ORDER BY position;
-- name: outbox_sent
UPDATE outbox SET state = 'sent' WHERE id = :id;
-- name: outbox_sent_of
UPDATE outbox SET state = 'sent' WHERE owner = :owner;
-- name: outbox_later
UPDATE outbox SET tries = tries + 1, next_at = :next_at WHERE owner = :owner AND state = 'waiting';
-- name: outbox_prune
DELETE FROM outbox WHERE expires_at < :now;
-- name: outbox_waiting_count
SELECT count(*) AS n FROM outbox WHERE state = 'waiting';

-- name: price_page_insert
INSERT INTO price_page (id, content, valid_until) VALUES (:id, :content, :valid_until)
ON CONFLICT (id) DO NOTHING;
-- name: price_pages_all
SELECT * FROM price_page ORDER BY valid_until;
-- name: price_page_prune
DELETE FROM price_page WHERE valid_until < :before;

-- name: transfers_all
SELECT * FROM transfer ORDER BY created_at, id;
-- name: accounts_all
SELECT pubkey, balance_msat FROM account ORDER BY pubkey;
-- name: audit_proofs
SELECT * FROM proof WHERE state <> 'spent' OR operation = 'scan' OR operation LIKE 'found:%'
ORDER BY mint, unit, y;
-- name: audit_operations
SELECT id, kind, mint, unit, state, amount, fee,
    CASE WHEN kind = 'receive' AND state = 'DONE' THEN body ELSE '' END AS body,
    CASE WHEN kind = 'settle' AND state = 'SUSPECT' THEN note ELSE '' END AS evidence
FROM operation ORDER BY created_at, id;
-- name: audit_claims
SELECT mint, y, owner FROM claim ORDER BY mint, y;
