//! sedge-provisioning.
