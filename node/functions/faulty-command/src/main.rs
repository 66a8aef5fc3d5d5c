//! Misbehaves on demand.

use std::hint::black_box;
use std::process::ExitCode;

const MIB: usize = 1024 * 1024;
const EXIT_WISHED: u8 = 3;

fn main() -> ExitCode {
    let word = std::io::read_to_string(std::io::stdin()).unwrap_or_default();
    match word.trim() {
        "ok" => {
            println!("ok");
            ExitCode::SUCCESS
        }
        "trap" => std::process::abort(),
        "loop" => spin(),
        "allocate" => allocate(),
        "exit3" => ExitCode::from(EXIT_WISHED),
        other => {
            eprintln!("no such fault: `{other}`");
            ExitCode::FAILURE
        }
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn allocate() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(Vec::<u8>::with_capacity(MIB)));
    }
}
