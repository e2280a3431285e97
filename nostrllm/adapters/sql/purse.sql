-- The coins of a seed and every operation on them. Used by the provider and by the client.

-- migration: 1

-- A coin of ours. state: free (spendable), held (promised to owner, not to be spent), reserved
-- (input of the operation `owner`), sent (in a token that `owner` names), spent.
CREATE TABLE proof (
    y TEXT PRIMARY KEY,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    keyset_id TEXT NOT NULL,
    amount BIGINT NOT NULL CHECK (amount > 0),
    secret TEXT NOT NULL,
    c TEXT NOT NULL,
    dleq_e TEXT NOT NULL,
    dleq_s TEXT NOT NULL,
    dleq_r TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('free', 'held', 'reserved', 'sent', 'spent')),
    owner TEXT NOT NULL,
    operation TEXT NOT NULL
);
CREATE INDEX proof_by_state ON proof (state, mint, unit);
CREATE INDEX proof_by_owner ON proof (owner);
CREATE INDEX proof_by_operation ON proof (operation);

-- The next output number of each keyset that no operation may have used.
CREATE TABLE counter (
    keyset_id TEXT PRIMARY KEY,
    n BIGINT NOT NULL
);

-- Every coin that somebody paid with, and for what. Never pruned: a coin is taken once.
CREATE TABLE claim (
    mint TEXT NOT NULL,
    y TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (mint, y)
);

-- One request to a mint, written before it is sent. body: the exact inputs and outputs; own: for
-- each output its amount, its counter and the state and owner of the coin it becomes.
CREATE TABLE operation (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PREPARED', 'DONE', 'REJECTED', 'SUSPECT')),
    amount BIGINT NOT NULL,
    fee BIGINT NOT NULL,
    body TEXT NOT NULL,
    own TEXT NOT NULL,
    code TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    created_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION
);
CREATE INDEX operation_by_state ON operation (state, created_at);

-- A Lightning invoice of a mint whose payment gives us coins.
CREATE TABLE quote (
    id TEXT PRIMARY KEY,
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount BIGINT NOT NULL,
    request TEXT NOT NULL,
    expiry BIGINT,
    state TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL
);

-- name: proof_insert
INSERT INTO proof (y, mint, unit, keyset_id, amount, secret, c, dleq_e, dleq_s, dleq_r, state,
    owner, operation)
VALUES (:y, :mint, :unit, :keyset_id, :amount, :secret, :c, :dleq_e, :dleq_s, :dleq_r, :state,
    :owner, :operation);

-- name: proof_found
INSERT INTO proof (y, mint, unit, keyset_id, amount, secret, c, dleq_e, dleq_s, dleq_r, state,
    owner, operation)
VALUES (:y, :mint, :unit, :keyset_id, :amount, :secret, :c, :dleq_e, :dleq_s, :dleq_r, :state,
    :owner, :operation)
ON CONFLICT (y) DO NOTHING
RETURNING amount;

-- name: proof_mark
UPDATE proof SET state = :to_state, owner = :owner
WHERE y = :y AND state = :from_state;

-- name: proof_mark_all
UPDATE proof SET state = :to_state
WHERE owner = :owner AND state = :from_state;

-- name: proof_spend_all
UPDATE proof SET state = 'spent', owner = ''
WHERE owner = :owner AND state = 'reserved';

-- name: proof_free
SELECT * FROM proof
WHERE state = 'free' AND mint = :mint AND unit = :unit
ORDER BY amount DESC, y;

-- name: proof_of_owner
SELECT * FROM proof
WHERE owner = :owner AND state = :state
ORDER BY amount DESC, y;

-- name: proof_of_operation
SELECT * FROM proof
WHERE operation = :operation
ORDER BY amount DESC, y;

-- name: proof_sent
SELECT y, mint, owner FROM proof
WHERE state = 'sent'
ORDER BY mint, owner, y;

-- name: proof_locked
SELECT owner, mint, unit, amount, secret FROM proof
WHERE state = 'sent' AND secret LIKE '[%'
ORDER BY owner, amount DESC, y;

-- name: proof_reserved
SELECT COUNT(*) AS n FROM proof
WHERE state = 'reserved' AND mint = :mint AND unit = :unit;

-- name: proof_balance
SELECT mint, unit, SUM(amount) AS amount FROM proof
WHERE state = 'free'
GROUP BY mint, unit;

-- name: counter_take
INSERT INTO counter (keyset_id, n) VALUES (:keyset_id, :count)
ON CONFLICT (keyset_id) DO UPDATE SET n = counter.n + excluded.n
RETURNING n;

-- name: counter_raise
INSERT INTO counter (keyset_id, n) VALUES (:keyset_id, :n)
ON CONFLICT (keyset_id) DO UPDATE
SET n = CASE WHEN counter.n < excluded.n THEN excluded.n ELSE counter.n END;

-- name: claim_insert
INSERT INTO claim (mint, y, owner) VALUES (:mint, :y, :owner);

-- name: claim_anywhere
SELECT owner FROM claim WHERE y = :y;

-- name: claim_owner
SELECT owner FROM claim WHERE mint = :mint AND y = :y;

-- name: operation_insert
INSERT INTO operation (id, kind, mint, unit, state, amount, fee, body, own, created_at, finished_at)
VALUES (:id, :kind, :mint, :unit, :state, :amount, :fee, :body, :own, :created_at, :finished_at);

-- name: operation_renumber
UPDATE operation SET body = :body, own = :own
WHERE id = :id AND state = 'PREPARED';

-- name: operation_finish
UPDATE operation SET state = :state, fee = :fee, code = :code, note = :note,
    finished_at = :finished_at
WHERE id = :id AND state = 'PREPARED';

-- name: operation_unused
UPDATE operation SET state = 'REJECTED', code = '', note = 'unused', finished_at = :at
WHERE id = :id AND kind = 'ladder' AND state = 'PREPARED';

-- name: operation_reopen
UPDATE operation SET state = 'PREPARED', code = '', note = '', finished_at = NULL
WHERE id = :id AND kind = 'receive' AND state = 'REJECTED' AND code <> 'payment-token-spent';

-- name: operation_mints
SELECT mint FROM operation WHERE state = 'DONE' AND (kind = 'mint' OR id LIKE :like)
UNION
SELECT mint FROM proof WHERE operation = 'scan';

-- name: operation_get
SELECT * FROM operation WHERE id = :id;

-- name: operation_pending
SELECT id, kind FROM operation WHERE state = 'PREPARED' ORDER BY created_at, id;

-- name: operation_waiting
SELECT id, kind, mint, unit, amount, created_at FROM operation
WHERE state = 'PREPARED' AND kind <> 'ladder' AND created_at < :before
ORDER BY created_at, id LIMIT 100;

-- name: operation_history
SELECT id, CASE kind WHEN 'ladder' THEN 'change' ELSE kind END AS kind, mint, unit, state,
    CASE kind WHEN 'ladder' THEN CAST((
        SELECT COALESCE(SUM(proof.amount), 0) FROM proof WHERE proof.operation = operation.id
    ) AS BIGINT) ELSE amount END AS amount,
    fee, code, note, created_at, finished_at
FROM operation
WHERE kind <> 'ladder' OR state = 'DONE'
ORDER BY created_at DESC, id
LIMIT :count;

-- name: quote_insert
INSERT INTO quote (id, mint, unit, amount, request, expiry, state, created_at)
VALUES (:id, :mint, :unit, :amount, :request, :expiry, :state, :created_at);

-- name: quote_mark
UPDATE quote SET state = :state WHERE id = :id;

-- name: quote_get
SELECT * FROM quote WHERE id = :id;

-- name: quote_open
SELECT * FROM quote WHERE state <> 'ISSUED' ORDER BY created_at, id;
