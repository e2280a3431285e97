-- Tokens that are locked to us: they pay for an order at once and are swapped after it.

-- migration: 1

-- state: accepted (the order runs), due (it is over, and so much is ours), settling (in the swap
-- `batch`), settled, released (all of it went back), lost (the mint gave us nothing for it).
CREATE TABLE locked (
    id TEXT PRIMARY KEY,                   -- order, or refused message
    author TEXT NOT NULL,
    known BIGINT NOT NULL,                 -- 1: the author had paid for an answer before
    mint TEXT NOT NULL,
    unit TEXT NOT NULL,
    worth BIGINT NOT NULL,                 -- units
    worth_msat BIGINT NOT NULL,
    locktime BIGINT NOT NULL,
    proofs TEXT NOT NULL,                  -- JSON list
    outputs TEXT NOT NULL,                 -- JSON list of the client's blinded messages
    state TEXT NOT NULL CHECK (state IN
        ('accepted', 'due', 'settling', 'settled', 'released', 'lost')),
    change_units BIGINT NOT NULL DEFAULT 0,
    credit_units BIGINT NOT NULL DEFAULT 0, -- change that no mint signs: credited with the swap
    batch TEXT NOT NULL DEFAULT '',
    asked_at BIGINT NOT NULL DEFAULT 0,    -- when new outputs were asked for
    told BIGINT NOT NULL DEFAULT 1,        -- 0: the signatures are still to be sent
    created_at BIGINT NOT NULL
);
CREATE INDEX locked_open ON locked (state) WHERE state IN ('accepted', 'due', 'settling');
CREATE INDEX locked_batch ON locked (batch) WHERE state = 'settling';
CREATE INDEX locked_untold ON locked (told) WHERE told = 0;

-- Every output that a client ever sent. Never pruned: one is signed once.
CREATE TABLE rung (
    mint TEXT NOT NULL,
    b TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (mint, b)
);

-- name: locked_insert
INSERT INTO locked (id, author, known, mint, unit, worth, worth_msat, locktime, proofs, outputs,
    state, created_at)
VALUES (:id, :author, :known, :mint, :unit, :worth, :worth_msat, :locktime, :proofs, :outputs,
    :state, :at);

-- name: rung_insert
INSERT INTO rung (mint, b, owner) VALUES (:mint, :b, :owner);

-- name: locked_exposure
SELECT coalesce(sum(worth_msat), 0) AS total_msat,
    coalesce(sum(CASE WHEN mint = :mint THEN worth_msat ELSE 0 END), 0) AS mint_msat,
    coalesce(sum(CASE WHEN author = :author THEN worth_msat ELSE 0 END), 0) AS client_msat,
    coalesce(sum(CASE WHEN known = 0 THEN worth_msat ELSE 0 END), 0) AS strangers_msat
FROM locked WHERE state IN ('accepted', 'due', 'settling');

-- name: locked_over
SELECT total_msat FROM (
    SELECT coalesce(sum(worth_msat), 0) AS total_msat,
        coalesce(sum(CASE WHEN mint = :mint THEN worth_msat ELSE 0 END), 0) AS mint_msat,
        coalesce(sum(CASE WHEN author = :author THEN worth_msat ELSE 0 END), 0) AS client_msat,
        coalesce(sum(CASE WHEN known = 0 THEN worth_msat ELSE 0 END), 0) AS strangers_msat
    FROM locked WHERE state IN ('accepted', 'due', 'settling')
) AS held
WHERE total_msat > :total_max OR mint_msat > :mint_max OR client_msat > :client_max
    OR (:known = 0 AND strangers_msat > :strangers_max);

-- name: locked_get
SELECT * FROM locked WHERE id = :id;

-- name: locked_release
UPDATE locked SET state = 'released' WHERE id = :id AND state = 'accepted';

-- name: locked_due
UPDATE locked SET state = 'due', change_units = :change_units WHERE id = :id AND state = 'accepted';

-- name: locked_begin
UPDATE locked SET state = 'settling', batch = :batch WHERE id = :id AND state = 'due';

-- name: locked_back
UPDATE locked SET state = 'due', batch = '' WHERE batch = :batch AND state = 'settling';

-- name: locked_settled
UPDATE locked SET state = 'settled',
    told = CASE WHEN change_units + credit_units > 0 THEN 0 ELSE 1 END
WHERE id = :id AND state = 'settling';

-- name: locked_lost
UPDATE locked SET state = 'lost' WHERE id = :id AND state IN ('due', 'settling');

-- name: locked_told
UPDATE locked SET told = 1 WHERE id = :id;

-- name: locked_asked
UPDATE locked SET asked_at = :at WHERE id = :id AND state = 'due' AND asked_at = 0;

-- name: locked_outputs
UPDATE locked SET outputs = :outputs
WHERE id = :id AND state = 'due' AND outputs = :was AND credit_units = 0;

-- name: locked_unsigned
UPDATE locked SET outputs = '[]', credit_units = change_units, change_units = 0
WHERE id = :id AND state = 'due' AND credit_units = 0;

-- name: locked_all_due
SELECT * FROM locked WHERE state = 'due' ORDER BY locktime, created_at, id;

-- name: locked_batches
SELECT DISTINCT mint, batch FROM locked WHERE state = 'settling' ORDER BY batch;

-- name: locked_of_batch
SELECT * FROM locked WHERE batch = :batch ORDER BY id;

-- name: locked_to_tell
SELECT * FROM locked WHERE told = 0 AND state = 'settled' ORDER BY created_at, id LIMIT 256;

-- name: locked_late
SELECT id, state, mint, locktime FROM locked
WHERE state IN ('accepted', 'due', 'settling') AND locktime < :before
ORDER BY locktime, id;

-- name: locked_rows
SELECT id, author, mint, unit, worth_msat, state, change_units, credit_units, batch FROM locked
ORDER BY id;

-- name: author_paid
SELECT 1 AS paid FROM orders WHERE author = :author AND cost_msat > 0 LIMIT 1;
