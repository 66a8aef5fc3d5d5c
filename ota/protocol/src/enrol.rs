//! Bodies of enrolment, JSON over HTTPS: the one exchange that happens without a client certificate.
//!
//! ```text
//! POST /enrol         {claim, csr, name, labels}  ─▶ 200 Enrolled | 403, 429 Refused      TLS with the fleet's CA pinned
//! POST /enrol/return  {node, csr}                 ─▶ 200 Enrolled | 403, 429 Refused      a known key whose certificate has expired
//! ```
//! Renewal is a stream of the mutually authenticated connection (`message::FromNode::Renew`).

use crate::{Labels, NodeId};
use serde::{Deserialize, Serialize};

/// What a node sends with its claim.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The claim token.
    pub claim: String,
    /// Certificate signing request, PEM. Its key is the node's own.
    pub csr: String,
    /// The name the node would like; the fleet adds to it when it is taken.
    #[serde(default)]
    pub name: Option<NodeId>,
    /// Labels of the node's own configuration.
    #[serde(default)]
    pub labels: Labels,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// What a node sends whose certificate has expired. The request is signed by the key that the fleet knows: that is the proof. It needs no
/// nonce, since a certificate is of no use to who does not have the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnRequest {
    /// Its id.
    pub node: NodeId,
    /// Certificate signing request, PEM, with the node's key.
    pub csr: String,
}

/// What a node gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its id.
    pub node: NodeId,
    /// Its certificate, PEM, with the chain up to but without the CA.
    pub certificate: String,
    /// Where to open the QUIC connection, `host:port`.
    pub sync: String,
}

/// A refusal with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub error: String,
    /// Whether the node was revoked: no other try helps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}
