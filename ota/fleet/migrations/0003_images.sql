-- Images of the operating system, the rollouts that move nodes to them, and what each node is and was told.
CREATE TABLE images (
    board TEXT NOT NULL,
    version TEXT NOT NULL,
    artifact TEXT NOT NULL,
    size BIGINT NOT NULL,
    head BIGINT NOT NULL,
    signers TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (board, version)
);

CREATE TABLE image_rollouts (
    number BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    board TEXT NOT NULL,
    version TEXT NOT NULL,
    filter TEXT NOT NULL,
    restart TEXT NOT NULL,
    offline BIGINT NOT NULL,
    created_ms BIGINT NOT NULL
);

-- What images a node takes; empty until it says so.
ALTER TABLE nodes ADD COLUMN board TEXT NOT NULL DEFAULT '';
-- Number of the rollout whose image it is told; 0 for none.
ALTER TABLE nodes ADD COLUMN image BIGINT NOT NULL DEFAULT 0;
