//! Says what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    // A clock before 1970 is a clock that was never set.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    println!(r#"{{"time_ms":{}}}"#, now.as_millis());
}
