-- Payment requests that people were sent (NUT-18), and what their wallets answered.

-- migration: 1
CREATE TABLE payment_request (
    id TEXT PRIMARY KEY,
    author TEXT NOT NULL,                  -- who asked, and whose account a payment fills
    dialect TEXT NOT NULL,
    reply_key TEXT NOT NULL,
    reply_relays TEXT NOT NULL,            -- JSON list
    question TEXT NOT NULL,                -- the message that waits for the money; '' for a top-up
    amount BIGINT NOT NULL,                -- sat; 0: as much as the payer likes
    state TEXT NOT NULL,                   -- open, paid (its question is to run), over
    created_at BIGINT NOT NULL
);
CREATE INDEX payment_request_author ON payment_request (author, created_at);

CREATE TABLE payment (                     -- what came for a request of ours
    id TEXT PRIMARY KEY,                   -- rumor id; its transfer and its swap have it too
    request TEXT NOT NULL,
    sender TEXT NOT NULL,
    dialect TEXT NOT NULL,
    payload TEXT NOT NULL,                 -- the coins, until it is known what became of them
    state TEXT NOT NULL,                   -- waiting (for the mint's keys), taken, done, refused
    created_at BIGINT NOT NULL
);
CREATE INDEX payment_waiting ON payment (state) WHERE state = 'waiting';

-- A coin is taken or given back once, whatever its mint is called.
CREATE UNIQUE INDEX claim_y ON claim (y);

-- name: request_put
INSERT INTO payment_request (id, author, dialect, reply_key, reply_relays, question, amount, state,
    created_at)
VALUES (:id, :author, :dialect, :reply_key, :reply_relays, :question, :amount, 'open', :at)
ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, state = 'open';
-- name: request_get
SELECT * FROM payment_request WHERE id = :id;
-- name: request_last
SELECT * FROM payment_request WHERE author = :author AND state = 'open'
ORDER BY created_at DESC, id LIMIT 1;
-- name: request_move
UPDATE payment_request SET state = :state WHERE id = :id AND state = :was;
-- name: requests_unanswered
SELECT * FROM payment_request WHERE state = 'paid' AND question <> ''
    AND NOT EXISTS (SELECT 1 FROM orders WHERE orders.id = payment_request.question)
ORDER BY created_at;
-- name: request_prune
DELETE FROM payment_request WHERE created_at < :before
    AND NOT EXISTS (SELECT 1 FROM payment WHERE payment.request = payment_request.id);

-- name: payment_insert
INSERT INTO payment (id, request, sender, dialect, payload, state, created_at)
VALUES (:id, :request, :sender, :dialect, :payload, :state, :at);
-- name: payment_get
SELECT * FROM payment WHERE id = :id;
-- name: payments_waiting
SELECT * FROM payment WHERE state = 'waiting' ORDER BY created_at;
-- name: payment_move
UPDATE payment SET state = :state WHERE id = :id AND state = :was;
-- name: payment_end
UPDATE payment SET state = :state, payload = '' WHERE id = :id;
-- name: payments_all
SELECT payment.id AS id, payment.state AS state, payment_request.author AS author
FROM payment JOIN payment_request ON payment_request.id = payment.request
ORDER BY payment.created_at, payment.id;

-- Give a coin back: only one that was never taken, under whatever name of its mint.
-- name: claim_release
INSERT INTO claim (mint, y, owner)
SELECT :mint, :y, :owner
WHERE NOT EXISTS (SELECT 1 FROM claim WHERE y = :y AND owner <> :owner);
