//! `sedge claim create`, `sedge claim ls` and `sedge claim revoke`

mod bundle;

use crate::arguments::Context;
use crate::client::escape;
use crate::connection::leads_home;
use crate::failure::Failure;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table, facts};
use crate::text;
use clap::{Args, Subcommand};
use sedge_protocol::api::{self, CreatedClaim, NewClaim};
use sedge_protocol::label::Label;
use sedge_protocol::schedule::Interval;
use sedge_protocol::{Labels, NodeId};
use sedge_provisioning::ClaimFile;
use serde_json::json;
use std::process::ExitCode;
use ureq::http::Method;

/// What to say of a claim whose fleet is not where a box looks for it.
pub(super) fn home_note(fleet: &str) -> Option<String> {
    leads_home(fleet).then(|| {
        format!(
            "a box takes {fleet} for itself: the fleet has to listen on an address that boxes reach, and `names` has to hold that address"
        )
    })
}

/// What to do about a claim that does less than was asked for.
const HINT_OLDER: &str = "its token is shown to nobody, so nobody can use it; bring `sedge-fleet` up to date";

/// Rights to join the fleet
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    Create(Create),
    Bundle(bundle::Bundle),
    Ls(Ls),
    Revoke(Revoke),
}

/// Create a claim and print what a node needs to join
///
/// The token is shown this once. The printed `[fleet]` table goes into the node's `sedged.toml`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// How many nodes may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it is good for, such as 30m, 24h or 7d
    #[arg(long, default_value = "24h")]
    ttl: Interval,
    /// Label of the nodes that use it; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Label>,
    /// Nodes that use it get nothing until `sedge node approve`
    #[arg(long)]
    approve: bool,
    /// The box that uses it takes over this node: its id, its labels and what it is to run; the former key is let in no more
    #[arg(long, value_name = "NODE", conflicts_with = "uses")]
    replaces: Option<NodeId>,
    /// Print the `[fleet]` table alone, to append it to a node's configuration
    #[arg(long, conflicts_with = "json")]
    toml: bool,
}

/// Let nobody join with a claim any more; who has joined stays
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Which claims, as `sedge claim ls` names them
    #[arg(required = true, value_name = "CLAIM")]
    claims: Vec<String>,
}

/// List claims
#[derive(Debug, Args)]
pub(crate) struct Ls {}

impl Claim {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(context)?,
            Self::Bundle(bundle) => bundle.run(context)?,
            Self::Ls(Ls {}) => {
                let claims: Vec<api::Claim> = context.connection.client()?.get("/api/v1/claims")?;
                context.output.show(&claims, |style| list(&claims, text::now_ms(), style))?;
            }
            Self::Revoke(Revoke { claims }) => {
                let client = context.connection.client()?;
                for claim in &claims {
                    client.delete(&format!("/api/v1/claims/{}", escape(claim)))?;
                    context.output.said("revoked", Tone::Good, claim);
                }
                if context.output.is_json() {
                    context.output.show(&json!({ "revoked": claims }), |_| String::new())?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let labels = labels_of(&self.label)?;
        let (ttl_s, replaces) = (self.ttl.as_ms().div_ceil(1000), self.replaces.clone());
        let new = NewClaim { uses: self.uses, ttl_s, labels, approval: self.approve, replaces };
        let created: CreatedClaim = context.connection.client()?.send_json(Method::POST, "/api/v1/claims", &new)?;
        if created.claim.approval != new.approval || created.claim.replaces != new.replaces {
            let what = "the fleet is older than this command: it has made a claim without --approve or --replaces";
            return Err(Failure::Refused { status: 200, error: what.to_owned(), hint: Some(HINT_OLDER.to_owned()) }.into());
        }
        if self.toml {
            context.output.show(&created, |_| node_toml(&created))?;
            context.output.note("the token in it is not shown again");
            return Ok(());
        }
        context.output.show(&created, |style| describe(&created, text::now_ms(), style))?;
        Ok(())
    }
}

/// The labels of a command line, each key once.
pub(super) fn labels_of(given: &[Label]) -> anyhow::Result<Labels> {
    let mut labels = Labels::default();
    for Label { key, value } in given {
        if let Some(before) = labels.value(key) {
            let what = format!("label `{key}` is given twice, as `{before}` and as `{value}`");
            return Err(Failure::usage(what, "a label has one value").into());
        }
        labels.insert(key, value)?;
    }
    Ok(labels)
}

/// What goes into `sedged.toml`, or as `claim.toml` onto the boot partition, without the last line feed.
fn node_toml(created: &CreatedClaim) -> String {
    ClaimFile::new(created.fleet.clone(), created.ca_pin, created.token.clone()).to_toml().trim_end().to_owned()
}

fn describe(created: &CreatedClaim, now_ms: u64, style: Style) -> String {
    let claim = &created.claim;
    let mut known = vec![
        ("claim", Cell::from(&claim.id)),
        ("token", Cell::toned(&created.token, Tone::Strong)),
        ("fleet", Cell::from(&created.fleet)),
        ("pin", created.ca_pin.to_string().into()),
        ("uses", text::count(claim.uses.into()).into()),
        ("ends", text::until(now_ms, claim.expires_ms).into()),
    ];
    if !claim.labels.is_empty() {
        known.push(("labels", claim.labels.to_string().into()));
    }
    if claim.approval {
        known.push(("then", "nodes wait for `sedge node approve`".into()));
    }
    if let Some(node) = &claim.replaces {
        known.push(("replaces", node.as_str().into()));
    }
    let heading = style.paint("# for the node's sedged.toml; the token is not shown again", Tone::Dim);
    format!("{}\n\n{heading}\n{}", facts(style, &known), node_toml(created))
}

fn list(claims: &[api::Claim], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["CLAIM", ">USED", ">USES", "ENDS", "LABELS", "THEN"]);
    for claim in claims {
        let over = claim.expires_ms <= now_ms || claim.used >= claim.uses || claim.revoked;
        let then = match &claim.replaces {
            Some(node) => format!("replaces {node}"),
            None if claim.approval => "waits for approval".to_owned(),
            None => String::new(),
        };
        let ends = if claim.revoked { "revoked".to_owned() } else { text::until(now_ms, claim.expires_ms) };
        table.row([
            Cell::toned(&claim.id, if over { Tone::Dim } else { Tone::Plain }),
            text::count(claim.used.into()).into(),
            text::count(claim.uses.into()).into(),
            ends.into(),
            claim.labels.to_string().into(),
            then.into(),
        ]);
    }
    table.render(style, "no claims: `sedge claim create` makes one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::Digest;

    fn claim() -> api::Claim {
        let mut labels = Labels::default();
        labels.insert("site", "berlin").unwrap();
        api::Claim { id: "c1".to_owned(), uses: 3, used: 1, expires_ms: 90_000, labels, approval: false, replaces: None, revoked: false }
    }

    #[test]
    fn a_new_claim_comes_with_a_table_to_paste() {
        let pin = Digest::of(b"ca");
        let created = CreatedClaim { claim: claim(), token: "secret".to_owned(), fleet: "https://f:1".to_owned(), ca_pin: pin };
        let text = describe(&created, 0, Style::PLAIN);
        let expected = format!(
            "claim   c1\ntoken   secret\nfleet   https://f:1\npin     {pin}\nuses    3\nends    in 90 s\nlabels  site=berlin\n\n\
             # for the node's sedged.toml; the token is not shown again\n[fleet]\nurl = \"https://f:1\"\nca_pin = \"{pin}\"\nclaim = \"secret\""
        );
        assert_eq!(text, expected);
        assert!(text.ends_with(&node_toml(&created)), "{text}");
        assert!(node_toml(&created).starts_with("[fleet]\n"));
    }

    #[test]
    fn claims_are_listed() {
        let (asks, replaces) =
            (api::Claim { approval: true, ..claim() }, api::Claim { replaces: Some("gate".parse().unwrap()), ..claim() });
        let text = list(&[claim(), asks, replaces], 100_000, Style::PLAIN);
        let expected = "\
CLAIM  USED  USES  ENDS      LABELS       THEN
c1        1     3  10 s ago  site=berlin
c1        1     3  10 s ago  site=berlin  waits for approval
c1        1     3  10 s ago  site=berlin  replaces gate";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_label_is_given_once() {
        let labels = |given: &[&str]| labels_of(&given.iter().map(|label| label.parse().unwrap()).collect::<Vec<Label>>());
        assert_eq!(labels(&["a=1", "b=2"]).unwrap().to_string(), "a=1,b=2");
        assert!(labels(&["a=1", "b=2", "a=3"]).unwrap_err().to_string().contains("`a` is given twice"));
    }
}
