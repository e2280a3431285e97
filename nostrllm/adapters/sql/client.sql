-- What a client bought and must not forget: purchases under way, receipts, account statements.

-- migration: 1

-- A message that money depends on. n also names its reply key, so it is never given twice.
-- state: reserved (the key is taken), sent (it may have reached the provider), accepted,
-- settling (the reply is here, its coins are not yet ours), late (nobody has seen the answer), done,
-- failed (nothing was paid).
CREATE TABLE purchase (
    n INTEGER PRIMARY KEY,
    what TEXT NOT NULL,                    -- order, topup, refund
    id TEXT UNIQUE,                        -- rumor id
    provider TEXT NOT NULL,
    state TEXT NOT NULL,
    bargain TEXT NOT NULL DEFAULT '',      -- what was asked, JSON; never the prompt
    accepted TEXT NOT NULL DEFAULT '',     -- the provider's signed acceptance, JSON
    reply TEXT NOT NULL DEFAULT '',        -- the reply; its change token goes when it is ours
    breaches TEXT NOT NULL DEFAULT '',     -- how the reply departs from the bargain
    cost_msat BIGINT NOT NULL DEFAULT 0,
    fee_msat BIGINT NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX purchase_open ON purchase (n)
WHERE state IN ('reserved', 'sent', 'accepted', 'settling');
CREATE INDEX purchase_late ON purchase (n) WHERE state = 'late';

CREATE TABLE receipt (
    id TEXT PRIMARY KEY,                   -- event id
    provider TEXT NOT NULL,
    d TEXT NOT NULL,
    model TEXT NOT NULL,
    purchase BIGINT NOT NULL,
    event TEXT NOT NULL,
    details TEXT NOT NULL,
    salt TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    reviewed_at BIGINT
);
CREATE INDEX receipt_by_provider ON receipt (provider, created_at);

CREATE TABLE statement (
    provider TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    balance_msat BIGINT NOT NULL,
    event TEXT NOT NULL
);

-- Two statements of a provider that do not go together: what we knew, and what he said then.
CREATE TABLE dispute (
    id TEXT PRIMARY KEY,                   -- event id of what he said
    provider TEXT NOT NULL,
    known TEXT NOT NULL,
    event TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- migration: 2

-- Of an order that is over and was paid by locked coins: owed (they or their change are still to
-- come), due (they came back; what the answer cost is to be paid from the account).
ALTER TABLE purchase ADD COLUMN locked TEXT NOT NULL DEFAULT '';
-- The order that a top-up pays for, by its rumor id.
ALTER TABLE purchase ADD COLUMN pays TEXT NOT NULL DEFAULT '';
CREATE INDEX purchase_owed ON purchase (n) WHERE locked <> '';

-- migration: 3

-- The provider's invoice that fills the account with him, if it is paid by then (unix seconds).
ALTER TABLE purchase ADD COLUMN to_pay TEXT NOT NULL DEFAULT '';
ALTER TABLE purchase ADD COLUMN to_pay_by BIGINT NOT NULL DEFAULT 0;

-- Who else may take from an account of ours, and how much in each period (0: once): keys that we
-- allowed, and the standing order of a plan (key '').
CREATE TABLE grant_out (
    provider TEXT NOT NULL,
    key TEXT NOT NULL,
    limit_msat BIGINT NOT NULL,
    period_s BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (provider, key, created_at)
);

-- migration: 4

-- A payment request that we pay (NUT-18); id is the wallet operation that makes the token.
-- state: begun (it may have been delivered), delivered, failed (nothing was paid, or it came back).
CREATE TABLE payment (
    id TEXT PRIMARY KEY,
    request TEXT NOT NULL,                 -- creqA
    request_id TEXT NOT NULL,              -- '' if it has none
    single_use BIGINT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX payment_once ON payment (request_id)
WHERE single_use = 1 AND state <> 'failed';

-- name: purchase_reserve
INSERT INTO purchase (what, provider, state, pays, created_at, updated_at)
VALUES (:what, :provider, 'reserved', :pays, :at, :at)
RETURNING n;

-- name: purchase_send
UPDATE purchase SET state = 'sent', id = :id, bargain = :bargain, updated_at = :at
WHERE n = :n AND state = 'reserved';

-- name: purchase_invoice
UPDATE purchase SET to_pay = :to_pay, to_pay_by = :to_pay_by, updated_at = :at
WHERE n = :n AND state = 'sent' AND to_pay = '';

-- name: purchase_to_pay
SELECT * FROM purchase WHERE state = 'sent' AND to_pay <> '' ORDER BY n;

-- name: purchase_accept
UPDATE purchase SET state = 'accepted', accepted = :accepted, updated_at = :at
WHERE n = :n AND state = 'sent';

-- name: purchase_settle
UPDATE purchase SET state = 'settling', reply = :reply, updated_at = :at
WHERE n = :n AND state IN ('sent', 'accepted');

-- name: purchase_done
UPDATE purchase SET state = :state, reply = :reply, breaches = :breaches, cost_msat = :cost_msat,
    fee_msat = :fee_msat, code = :code, locked = :locked, updated_at = :at
WHERE n = :n AND state = 'settling';

-- name: purchase_fail
UPDATE purchase SET state = 'failed', code = :code, updated_at = :at
WHERE n = :n AND state IN ('reserved', 'sent', 'accepted');

-- name: purchase_found
UPDATE purchase SET breaches = :breaches, updated_at = :at WHERE n = :n;

-- name: purchase_unlock
UPDATE purchase SET locked = :locked, breaches = :breaches, updated_at = :at
WHERE n = :n AND locked = :before;

-- name: purchase_owed
SELECT * FROM purchase WHERE locked <> '' ORDER BY n;

-- name: purchase_paying
SELECT * FROM purchase WHERE pays = :order ORDER BY n DESC;

-- name: purchase_get
SELECT * FROM purchase WHERE n = :n;

-- name: purchase_open
SELECT * FROM purchase
WHERE state IN ('reserved', 'sent', 'accepted', 'settling')
ORDER BY n;

-- name: purchase_beside
SELECT * FROM purchase
WHERE provider = :provider AND n <> :n AND (state IN ('sent', 'accepted', 'settling')
    OR state IN ('late', 'done') AND updated_at >= :since)
ORDER BY n;

-- name: purchase_amiss
SELECT * FROM purchase
WHERE updated_at > :since
    AND (breaches <> '' OR code = 'provider-silent' OR state IN ('sent', 'accepted'))
ORDER BY n;

-- name: purchase_late
SELECT purchase.*, receipt.event AS receipt FROM purchase
LEFT JOIN receipt ON receipt.purchase = purchase.n
WHERE state = 'late'
ORDER BY n;

-- name: purchase_seen
UPDATE purchase SET state = 'done', reply = :reply, updated_at = :at
WHERE n = :n AND state = 'late';

-- name: purchase_untaken
SELECT * FROM purchase
WHERE state IN ('late', 'done') AND created_at > :since
    AND (breaches LIKE '%change-refused%' OR breaches LIKE '%mint-unknown%')
ORDER BY n;

-- name: purchase_taken
UPDATE purchase SET reply = :reply, breaches = :breaches, updated_at = :at
WHERE n = :n AND state IN ('late', 'done');

-- name: purchase_list
SELECT n, what, id, provider, state, breaches, cost_msat, fee_msat, code, locked, created_at
FROM purchase
ORDER BY n DESC
LIMIT :count;

-- name: receipt_keep
INSERT INTO receipt (id, provider, d, model, purchase, event, details, salt, created_at)
VALUES (:id, :provider, :d, :model, :purchase, :event, :details, :salt, :at)
ON CONFLICT (id) DO NOTHING;

-- name: receipt_latest
SELECT * FROM receipt
WHERE provider = :provider
ORDER BY created_at DESC, purchase DESC
LIMIT 1;

-- name: receipt_reviewed
UPDATE receipt SET reviewed_at = :at WHERE id = :id;

-- name: statement_keep
INSERT INTO statement (provider, seq, balance_msat, event)
VALUES (:provider, :seq, :balance_msat, :event)
ON CONFLICT (provider) DO UPDATE
SET seq = excluded.seq, balance_msat = excluded.balance_msat, event = excluded.event
WHERE excluded.seq > statement.seq;

-- name: statement_of
SELECT * FROM statement WHERE provider = :provider;

-- name: grant_put
INSERT INTO grant_out (provider, key, limit_msat, period_s, created_at)
VALUES (:provider, :key, :limit_msat, :period_s, :at)
ON CONFLICT (provider, key, created_at) DO UPDATE
SET limit_msat = CASE WHEN grant_out.limit_msat < excluded.limit_msat
        THEN excluded.limit_msat ELSE grant_out.limit_msat END,
    ended_at = NULL;

-- name: grant_end
UPDATE grant_out SET ended_at = :at
WHERE provider = :provider AND key = :key AND ended_at IS NULL AND created_at < :before;

-- name: grants_since
SELECT * FROM grant_out
WHERE provider = :provider AND (ended_at IS NULL OR ended_at >= :since);

-- name: payment_insert
INSERT INTO payment (id, request, request_id, single_use, state, created_at, updated_at)
VALUES (:id, :request, :request_id, :single_use, 'begun', :at, :at);

-- name: payment_once_of
SELECT id FROM payment
WHERE request_id = :request_id AND single_use = 1 AND state <> 'failed';

-- name: payment_move
UPDATE payment SET state = :state, updated_at = :at WHERE id = :id AND state <> 'failed';

-- name: payment_open
SELECT * FROM payment WHERE state = 'begun' ORDER BY created_at, id;

-- name: statement_dispute
INSERT INTO dispute (id, provider, known, event, created_at)
VALUES (:id, :provider, :known, :event, :at)
ON CONFLICT (id) DO NOTHING;

-- name: dispute_list
SELECT * FROM dispute ORDER BY created_at, id;
