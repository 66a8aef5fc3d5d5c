-- How a node stands with the fleet, and the labels that the fleet gives it.
ALTER TABLE nodes ADD COLUMN standing TEXT NOT NULL DEFAULT '{"is":"active"}';
ALTER TABLE nodes ADD COLUMN standing_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN fleet_labels TEXT NOT NULL DEFAULT '{}';
CREATE INDEX nodes_by_key ON nodes (key_digest);

ALTER TABLE claims ADD COLUMN approval BIGINT NOT NULL DEFAULT 0;
ALTER TABLE claims ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
ALTER TABLE claims ADD COLUMN revoked_ms BIGINT NOT NULL DEFAULT 0;

-- Keys that are let in by no claim that is older than their revocation.
CREATE TABLE barred_keys (
    key_digest TEXT PRIMARY KEY,
    barred_ms BIGINT NOT NULL
);
