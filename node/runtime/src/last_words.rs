//! What a guest said on standard error before it trapped: the message of its panic, which WebAssembly knows nothing about.

use crate::limits::LAST_WORDS_BYTES_MAX;

/// How a line begins that says why a program gives up: Go, AssemblyScript, C.
const BEGINNINGS: [&str; 4] = ["panic: ", "fatal error: ", "abort: ", "Assertion failed: "];
/// How the message of Rust begins, within a line or as its whole end.
const RUST: &str = "panicked at ";

/// Listens to the lines of one invocation.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    /// The line that says why, if there was one.
    panic: String,
    /// Rust puts the place on one line and the reason on the next.
    reason_follows: bool,
    /// The newest line that is not empty.
    last: String,
}

impl LastWords {
    /// Takes the next line.
    pub(crate) fn hear(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        if self.reason_follows {
            self.reason_follows = false;
            self.panic = cut(&format!("{} {line}", self.panic));
        } else if let Some(at) = line.find(RUST) {
            self.panic = cut(&line[at..]);
            self.reason_follows = line.ends_with(':');
        } else if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning)) {
            self.panic = cut(line);
        }
        self.last = cut(line);
    }

    /// The message of the panic, else the last line, if there was any.
    pub(crate) fn text(&self) -> Option<&str> {
        [&self.panic, &self.last].into_iter().map(String::as_str).find(|text| !text.is_empty())
    }
}

/// Without what controls a terminal, and bounded.
fn cut(line: &str) -> String {
    let clean: String = line.chars().filter(|character| !character.is_control()).collect();
    clean[..clean.floor_char_boundary(LAST_WORDS_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: Option<&str>) {
        let mut words = LastWords::default();
        lines.iter().for_each(|line| words.hear(line));
        assert_eq!(words.text(), expected);
    }

    #[test]
    fn a_panic_is_known_in_the_words_of_several_languages() {
        let note = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        check(
            &["starting", "", "thread 'main' panicked at src/lib.rs:10:5:", "index out of bounds: the len is 3", note],
            Some("panicked at src/lib.rs:10:5: index out of bounds: the len is 3"),
        );
        check(
            &["panic: runtime error: index out of range", "", "goroutine 1 [running]:"],
            Some("panic: runtime error: index out of range"),
        );
        check(&["Assertion failed: x > 0 (main.c: main: 4)"], Some("Assertion failed: x > 0 (main.c: main: 4)"));
        check(&["abort: Index out of range in a.ts(3:5)"], Some("abort: Index out of range in a.ts(3:5)"));
    }

    #[test]
    fn without_a_panic_the_last_line_is_what_is_known() {
        check(&["one", "two", "  "], Some("two"));
        check(&[], None);
    }

    #[test]
    fn what_a_guest_says_is_bounded_and_commands_no_terminal() {
        let long = "ü".repeat(LAST_WORDS_BYTES_MAX);
        check(&[&format!("\u{1b}]0;{long}")], Some(&format!("]0;{}", "ü".repeat((LAST_WORDS_BYTES_MAX - 3) / 2))));
    }
}
