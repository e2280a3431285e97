-- Who may spend of whose account, and plans bought from it.

-- migration: 1

-- What `child` may spend of `owner`'s balance. period_s 0: for ever. expires_at 0: without end.
CREATE TABLE allowance (
    owner TEXT NOT NULL,
    child TEXT NOT NULL,
    grant_id TEXT NOT NULL,                -- the message that gave it
    limit_msat BIGINT NOT NULL,
    used_msat BIGINT NOT NULL CHECK (used_msat >= 0),
    period_s BIGINT NOT NULL,
    period_at BIGINT NOT NULL,             -- when the period began in which used_msat was used
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (owner, child)
);
CREATE INDEX allowance_child ON allowance (child);

-- A plan somebody bought, with its terms as they were then. state: active, ended, cancelled.
CREATE TABLE subscription (
    id TEXT PRIMARY KEY,
    author TEXT NOT NULL,
    dialect TEXT NOT NULL,
    plan TEXT NOT NULL,
    price_msat BIGINT NOT NULL,
    period_s BIGINT NOT NULL,
    quota_msat BIGINT NOT NULL,
    percent BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    starts_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    quota_left_msat BIGINT NOT NULL CHECK (quota_left_msat >= 0),
    renew BIGINT NOT NULL,
    state TEXT NOT NULL,
    refund_msat BIGINT NOT NULL
);
CREATE UNIQUE INDEX subscription_active ON subscription (author) WHERE state = 'active';

-- Orders that spend of an allowance or of a plan's quota; others are paid by their author alone.
CREATE TABLE drawn (
    order_id TEXT PRIMARY KEY,
    payer TEXT NOT NULL,                   -- whose balance it is
    taken_at BIGINT NOT NULL,
    grant_id TEXT NOT NULL,                -- the allowance, if payer is not the author
    subscription TEXT NOT NULL,
    quota_msat BIGINT NOT NULL             -- set aside of its quota
);

-- name: drawn_insert
INSERT INTO drawn (order_id, payer, taken_at, grant_id, subscription, quota_msat)
VALUES (:order_id, :payer, :taken_at, :grant_id, :subscription, :quota_msat);

-- name: drawn_get
SELECT * FROM drawn WHERE order_id = :order_id;

-- name: drawn_all
SELECT * FROM drawn ORDER BY order_id;

-- name: allowance_put
INSERT INTO allowance (owner, child, grant_id, limit_msat, used_msat, period_s, period_at, expires_at)
VALUES (:owner, :child, :grant_id, :limit_msat, 0, :period_s, :at, :expires_at)
ON CONFLICT (owner, child) DO UPDATE SET grant_id = excluded.grant_id,
    limit_msat = excluded.limit_msat, used_msat = 0, period_s = excluded.period_s,
    period_at = excluded.period_at, expires_at = excluded.expires_at;

-- name: allowance_drop
DELETE FROM allowance WHERE owner = :owner AND child = :child;

-- name: allowances_of
SELECT * FROM allowance WHERE owner = :pubkey OR child = :pubkey ORDER BY owner, child;

-- name: allowance_count
SELECT count(*) AS n FROM allowance WHERE owner = :owner AND child <> :child;

-- name: allowance_get
SELECT * FROM allowance WHERE owner = :owner AND child = :child;

-- name: allowance_take
UPDATE allowance SET
    used_msat = :msat
        + CASE WHEN period_s > 0 AND :at >= period_at + period_s THEN 0 ELSE used_msat END,
    period_at = CASE WHEN period_s > 0 AND :at >= period_at + period_s THEN :at ELSE period_at END
WHERE grant_id = :grant_id AND (expires_at = 0 OR expires_at > :at) AND :msat
    + CASE WHEN period_s > 0 AND :at >= period_at + period_s THEN 0 ELSE used_msat END <= limit_msat;

-- What was set aside and not used, unless another period has begun since.
-- name: allowance_give
UPDATE allowance SET used_msat = CASE WHEN used_msat > :msat THEN used_msat - :msat ELSE 0 END
WHERE grant_id = :grant_id AND period_at <= :taken_at;

-- name: subscription_insert
INSERT INTO subscription (id, author, dialect, plan, price_msat, period_s, quota_msat, percent,
    priority, starts_at, ends_at, quota_left_msat, renew, state, refund_msat)
VALUES (:id, :author, :dialect, :plan, :price_msat, :period_s, :quota_msat, :percent, :priority,
    :starts_at, :ends_at, :quota_left_msat, :renew, 'active', 0);

-- name: subscription_of
SELECT * FROM subscription WHERE author = :author AND state = 'active';

-- name: subscription_end
UPDATE subscription SET state = :state, refund_msat = :refund_msat
WHERE id = :id AND state = 'active' AND quota_left_msat = :quota_left_msat;

-- What the orders since a plan began cost at its prices; those that are not over count in full.
-- name: subscription_spent
SELECT coalesce(sum(CASE WHEN state IN ('settled', 'closed') THEN cost_msat ELSE ceiling_msat END), 0)
    AS msat
FROM orders WHERE author = :author AND created_at >= :since AND state <> 'refused';

-- name: subscription_spent_is
SELECT author FROM subscription WHERE id = :id AND :msat = (
    SELECT coalesce(
        sum(CASE WHEN orders.state IN ('settled', 'closed') THEN cost_msat ELSE ceiling_msat END), 0
    )
    FROM orders
    WHERE author = subscription.author AND created_at >= starts_at AND orders.state <> 'refused'
);

-- name: subscription_is
SELECT id FROM subscription WHERE id = :id AND state = 'active';

-- name: subscription_renew
UPDATE subscription SET renew = :renew WHERE id = :id AND state = 'active';

-- name: subscription_take
UPDATE subscription SET quota_left_msat = quota_left_msat - :msat
WHERE id = :id AND state = 'active' AND ends_at > :at AND quota_left_msat >= :msat;

-- name: subscription_give
UPDATE subscription SET quota_left_msat = quota_left_msat + :msat
WHERE id = :id AND state = 'active';

-- name: subscriptions_due
SELECT * FROM subscription WHERE state = 'active' AND ends_at <= :now ORDER BY ends_at, id;

-- name: subscriptions_all
SELECT * FROM subscription ORDER BY id;

-- A message that changes an account is acted on once.
-- name: heard_first
INSERT INTO heard (id, wrap, at) VALUES (:id, :wrap, :at);
