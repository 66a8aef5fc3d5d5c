//! Handles one event: data on standard input, attributes in the variables `CE_…`, the reply on standard output.

use std::process::ExitCode;

fn main() -> ExitCode {
    let topic = std::env::var("CE_TOPIC").unwrap_or_default();
    match std::io::read_to_string(std::io::stdin()) {
        Ok(data) => {
            println!("{} bytes from {topic}", data.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Standard error is the function's log; a failure makes the node try the event again.
            eprintln!("standard input: {error}");
            ExitCode::FAILURE
        }
    }
}
