-- The provider's books. Part `provider` made a table of single postings; entries take its place.

-- migration: 1

-- So many msat from one account to another: each entry sums to zero by its form, so a set of them
-- does, whoever writes it. A set is written once, for its entries are numbered from 0.
CREATE TABLE entry (
    set_id TEXT NOT NULL,
    n BIGINT NOT NULL,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    msat BIGINT NOT NULL CHECK (msat > 0),
    at BIGINT NOT NULL,
    PRIMARY KEY (set_id, n),
    CHECK (debit <> credit)
);
CREATE INDEX entry_debit ON entry (debit);
CREATE INDEX entry_credit ON entry (credit);

-- A posting that was there goes by way of an account that each set leaves as it was.
INSERT INTO entry (set_id, n, debit, credit, msat, at)
SELECT set_id, ROW_NUMBER() OVER (PARTITION BY set_id ORDER BY account) - 1,
    CASE WHEN msat > 0 THEN account ELSE 'transit' END,
    CASE WHEN msat > 0 THEN 'transit' ELSE account END, ABS(msat), at
FROM posting
WHERE msat <> 0;
DROP TABLE posting;

-- Coins had an account per mint; they have one per mint and unit.
UPDATE entry SET debit = 'coins:' || operation.unit || substr(debit, 6)
FROM operation WHERE entry.set_id = 'paid:' || operation.id AND debit LIKE 'coins:%';
UPDATE entry SET debit = 'coins:' || operation.unit || substr(debit, 6)
FROM operation WHERE entry.set_id = 'topup:' || operation.id AND debit LIKE 'coins:%';
UPDATE entry SET credit = 'coins:' || operation.unit || substr(credit, 6)
FROM operation WHERE entry.set_id = 'refund:' || operation.id AND credit LIKE 'coins:%';
UPDATE entry SET credit = 'coins:' || operation.unit || substr(credit, 6)
FROM operation WHERE entry.set_id = 'spent:' || operation.id AND credit LIKE 'coins:%';
UPDATE entry SET credit = 'coins:' || operation.unit || substr(credit, 6)
FROM operation WHERE entry.set_id = 'withdrawn:' || operation.id AND credit LIKE 'coins:%';

-- Both sides of every entry; a debit is positive.
CREATE VIEW posting AS
SELECT set_id, debit AS account, msat, at FROM entry
UNION ALL
SELECT set_id, credit AS account, -msat AS msat, at FROM entry;

-- `msat` is the amount in the currency of the two accounts, which their names tell (core/ledger).

-- name: entry_insert
INSERT INTO entry (set_id, n, debit, credit, msat, at)
VALUES (:set_id, :n, :debit, :credit, :msat, :at);

-- name: posting_balances
SELECT account, sum(msat) AS msat FROM posting GROUP BY account ORDER BY account;

-- name: exchange_balances
SELECT account, sum(msat) AS msat FROM posting
WHERE account IN ('exchange', 'exchange' || ':' || 'usd') GROUP BY account;

-- name: postings_all
SELECT at, set_id, account, msat FROM posting ORDER BY at, set_id, account, msat;

-- name: change_unspent
SELECT id, mint, unit, msat FROM (
    SELECT id, mint, unit,
        coalesce((SELECT sum(msat) FROM entry WHERE credit = given.account), 0)
        - coalesce((SELECT sum(msat) FROM entry WHERE debit = given.account), 0) AS msat
    FROM (
        SELECT id, mint, unit,
            'change:' || CASE unit WHEN 'usd' THEN unit || ':' ELSE '' END || id AS account
        FROM orders WHERE change_units > 0 AND funding <> 'locked'
        UNION ALL
        SELECT id, mint, unit, 'change:' || id AS account
        FROM transfer WHERE kind = 'refund' AND state = 'done'
    ) AS given
) AS owed
WHERE msat > 0;
