//! Data on standard input, reply on standard output, both as streams of WASI 0.3.

use futures::join;
use wasip3::cli::{environment, stdin, stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::wit_stream;

struct Command;
wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let (input, _read) = stdin::read_via_stream();
        let data = input.collect().await;
        match data.split(|byte| *byte == b' ').next().unwrap_or_default() {
            b"fail" => return Err(()),
            b"trap" => panic!("told to"),
            b"wait" => monotonic_clock::wait_for(60_000_000_000).await,
            b"fill" => say(vec![b'x'; 8 << 20]).await,
            _ => {
                let topic = environment::get_environment().into_iter().find(|(name, _)| name == "CE_TOPIC");
                eprintln!("an event on {}", topic.map(|(_, topic)| topic).unwrap_or_default());
                say(data.to_ascii_uppercase()).await;
            }
        }
        Ok(())
    }
}

/// Writes all of it; a refusal is no reason to stop.
async fn say(bytes: Vec<u8>) {
    let (mut output, contents) = wit_stream::new();
    let written = stdout::write_via_stream(contents);
    join!(
        async {
            output.write_all(bytes).await;
            drop(output);
        },
        async {
            let _ = written.await;
        }
    );
}
