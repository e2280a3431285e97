-- What clients' keys are charged with. Author '' stands for all keys together that never paid.

-- migration: 1
CREATE TABLE conduct (
    author TEXT NOT NULL,
    kind TEXT NOT NULL,
    count BIGINT NOT NULL,                 -- ever
    recent BIGINT NOT NULL,                -- since the window began
    since BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    cautioned BIGINT NOT NULL,             -- too often, and no answer paid for since
    PRIMARY KEY (author, kind)
);

-- name: conduct_put
INSERT INTO conduct (author, kind, count, recent, since, last_at, cautioned)
VALUES (:author, :kind, :count, :recent, :since, :last_at, :cautioned)
ON CONFLICT (author, kind) DO UPDATE SET count = excluded.count, recent = excluded.recent,
    since = excluded.since, last_at = excluded.last_at, cautioned = excluded.cautioned;

-- name: conduct_drop
DELETE FROM conduct WHERE author = :author;

-- name: conduct_all
SELECT * FROM conduct ORDER BY last_at, author, kind;

-- name: conduct_paid
SELECT 1 AS paid FROM orders WHERE author = :author AND cost_msat > 0 LIMIT 1;

-- name: conduct_seen
SELECT 1 AS seen FROM orders WHERE author = :author AND id <> :but
UNION ALL SELECT 1 FROM transfer WHERE author = :author AND id <> :but
LIMIT 1;

-- name: clients_orders
SELECT author, count(*) AS orders, sum(CASE WHEN cost_msat > 0 THEN 1 ELSE 0 END) AS paid,
    sum(cost_msat) AS paid_msat, max(created_at) AS last_at
FROM orders GROUP BY author;

-- name: topup_room
SELECT 1 AS room WHERE
    (SELECT coalesce(max(balance_msat), 0) FROM account WHERE pubkey = :author)
    + (SELECT coalesce(sum(msat), 0) FROM transfer
        WHERE author = :author AND kind = 'topup' AND state = 'pending') <= :most;
