//! sedge-fleet-core.
