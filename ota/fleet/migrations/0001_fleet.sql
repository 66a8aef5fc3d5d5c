-- Only BIGINT and TEXT, so that SQLite and PostgreSQL run the same statements: digests and ids as text, structures as JSON.
CREATE TABLE claims (
    id TEXT PRIMARY KEY,
    token_digest TEXT NOT NULL UNIQUE,
    uses BIGINT NOT NULL,
    used BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    labels TEXT NOT NULL
);

CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    claim TEXT NOT NULL,
    key_digest TEXT NOT NULL,
    claim_labels TEXT NOT NULL,
    own_labels TEXT NOT NULL,
    daemon TEXT NOT NULL,
    architecture TEXT NOT NULL,
    enrolled_ms BIGINT NOT NULL,
    certificate_until_ms BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL,
    desired_epoch BIGINT NOT NULL,
    desired TEXT NOT NULL,
    report TEXT NOT NULL
);
CREATE UNIQUE INDEX nodes_of_claim ON nodes (claim, key_digest);

CREATE TABLE functions (
    name TEXT PRIMARY KEY,
    newest TEXT NOT NULL,
    removed BIGINT NOT NULL
);

CREATE TABLE revisions (
    id TEXT PRIMARY KEY,
    function TEXT NOT NULL,
    number BIGINT NOT NULL,
    artifact TEXT NOT NULL,
    size BIGINT NOT NULL,
    kind TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    manifest TEXT NOT NULL
);
CREATE UNIQUE INDEX revisions_of_function ON revisions (function, number);

CREATE TABLE rollouts (
    number BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    function TEXT NOT NULL,
    revision TEXT NOT NULL,
    filter TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    active BIGINT NOT NULL
);

CREATE TABLE errors (
    node TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    number BIGINT NOT NULL,
    time_ms BIGINT NOT NULL,
    function TEXT NOT NULL,
    revision TEXT NOT NULL,
    reason TEXT NOT NULL,
    received_ms BIGINT NOT NULL,
    PRIMARY KEY (node, started_ms, number)
);
CREATE INDEX errors_by_time ON errors (received_ms);

CREATE TABLE ledgers (
    node TEXT NOT NULL,
    epoch TEXT NOT NULL,
    applied BIGINT NOT NULL,
    PRIMARY KEY (node, epoch)
);

CREATE TABLE usage_windows (
    node TEXT NOT NULL,
    epoch TEXT NOT NULL,
    function TEXT NOT NULL,
    revision TEXT NOT NULL,
    start_ms BIGINT NOT NULL,
    calls_ok BIGINT NOT NULL,
    calls_failed BIGINT NOT NULL,
    calls_platform BIGINT NOT NULL,
    calls_shed BIGINT NOT NULL,
    cold_starts BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    wall_ms BIGINT NOT NULL,
    memory_mib_ms BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    kv_ops BIGINT NOT NULL,
    PRIMARY KEY (node, epoch, function, revision, start_ms)
);

CREATE TABLE sessions (
    token_digest TEXT PRIMARY KEY,
    csrf TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
