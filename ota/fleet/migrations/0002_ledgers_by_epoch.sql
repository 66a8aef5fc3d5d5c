-- A box that enrols anew shows the ledger of its former identity: found by the epoch alone.
CREATE INDEX ledgers_by_epoch ON ledgers (epoch);
