//! `wasi:logging`: lines with a level.

use super::bindings::logging::logging;
use super::{LogLevel, LogLine, LogStream};
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::state::State;

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        let text = if context.is_empty() { message } else { format!("{context}: {message}") };
        let stream = LogStream::Logging(convert(level));
        for line in text.lines() {
            self.emit(LogLine { stream, text: cut(line).to_owned() });
        }
        Ok(())
    }
}

fn convert(level: logging::Level) -> LogLevel {
    match level {
        logging::Level::Trace => LogLevel::Trace,
        logging::Level::Debug => LogLevel::Debug,
        logging::Level::Info => LogLevel::Info,
        logging::Level::Warn => LogLevel::Warn,
        logging::Level::Error => LogLevel::Error,
        logging::Level::Critical => LogLevel::Critical,
    }
}

/// The beginning of a line, as much as is kept.
pub(crate) fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(LOG_LINE_BYTES_MAX)]
}
