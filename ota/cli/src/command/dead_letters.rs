//! `sedge dead-letters`

use super::NodeSocket;
use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::local::DeadLetter;
use std::process::ExitCode;

/// List the events that failed every attempt on a node
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(flatten)]
    node: NodeSocket,
}

impl DeadLetters {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let letters: Vec<DeadLetter> = self.node.client().get("/v1/dead-letters")?;
        context.output.show(&letters, |style| list(&letters, text::now_ms(), style))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn list(letters: &[DeadLetter], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&[">ID", "FUNCTION", "TOPIC", ">ATTEMPTS", ">DATA", "GIVEN UP", "REASON"]);
    for letter in letters {
        table.row([
            letter.id.to_string().into(),
            letter.function.as_str().into(),
            letter.event.topic.to_string().into(),
            letter.attempts.to_string().into(),
            text::bytes(letter.event.data.len() as u64).into(),
            text::ago(now_ms, letter.time_ms).into(),
            Cell::toned(&letter.reason, Tone::Bad),
        ]);
    }
    table.render(style, "no dead letters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_listed_without_their_data() {
        let letter: DeadLetter = serde_json::from_str(
            r#"{"id":7,"function":"average","attempts":5,"reason":"exit 1","time_ms":1000,
                "event":{"id":"e","source":"/mqtt/s","type":"t","topic":"plant/1","data":"hot"}}"#,
        )
        .unwrap();
        let expected = "ID  FUNCTION  TOPIC    ATTEMPTS  DATA  GIVEN UP  REASON\n 7  average   plant/1         5   3 B  4 s ago   exit 1";
        assert_eq!(list(&[letter], 5000, Style::PLAIN), expected);
    }
}
