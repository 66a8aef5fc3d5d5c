//! One module per command: its arguments, its work, and how its result looks.

use crate::client::Client;
use crate::connection::SOCKET;
use clap::Args;
use std::env;
use std::path::PathBuf;

pub(crate) mod build;
pub(crate) mod claim;
pub(crate) mod completions;
pub(crate) mod dead_letters;
pub(crate) mod errors;
pub(crate) mod flash;
pub(crate) mod give;
pub(crate) mod image;
pub(crate) mod invocation;
pub(crate) mod invoke;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod publish;
pub(crate) mod revisions;
pub(crate) mod rm;
pub(crate) mod rollout;
pub(crate) mod rollouts;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod standing;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod usage;

/// For commands that speak to one node of this machine.
#[derive(Debug, Args)]
pub(crate) struct NodeSocket {
    /// Unix socket of the node
    #[arg(long = "node", env = "SEDGE_NODE", value_name = "SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

impl NodeSocket {
    fn client(&self) -> Client {
        Client::node(&self.socket)
    }
}

/// For commands that speak to the fleet, or to one node of this machine when asked to.
#[derive(Debug, Args)]
pub(crate) struct MaybeNode {
    /// Ask the node at this Unix socket instead of the fleet; without a socket that of SEDGE_NODE, else /run/sedged/sedged.sock
    #[arg(long = "node", value_name = "SOCKET", num_args = 0..=1)]
    socket: Option<Option<PathBuf>>,
}

impl MaybeNode {
    fn client(&self) -> Option<Client> {
        let usual = || env::var_os("SEDGE_NODE").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        Some(Client::node(&self.socket.clone()?.unwrap_or_else(usual)))
    }
}
