//! Which bytes of a serial line are one frame.
//!
//! ```text
//! Between ─ byte ─▶ Within ─ its end ─▶ ready             Within ─ more than may be ─▶ Skipping ─ its end ─▶ Between
//! ```
//! Draining order: after [`Framer::handle_bytes`] or when [`Framer::poll_wake`] has come, [`Framer::poll_frame`] until `None`.

use crate::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// A frame of a fixed length that does not go on for so long is given up: what comes next is the beginning of another.
pub const LENGTH_GAP: Duration = Duration::from_secs(1);

/// What ends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A line feed; carriage returns before it are left out, and so are empty lines.
    Line,
    /// So many bytes.
    Length(usize),
    /// Silence of this length.
    Idle(Duration),
}

/// Cuts what comes into frames.
#[derive(Debug, Clone)]
pub struct Framer {
    framing: Framing,
    bytes_max: usize,
    state: State,
    /// When the newest byte came.
    heard: Mono,
    ready: VecDeque<Vec<u8>>,
    dropped: u64,
}

#[derive(Debug, Clone)]
enum State {
    Between,
    Within(Vec<u8>),
    /// Until the end of a frame that was too long.
    Skipping,
}

impl Framer {
    /// A line on which nothing has come yet; a frame has at most `bytes_max` bytes, its end not counted.
    #[must_use]
    pub fn new(framing: Framing, bytes_max: usize) -> Self {
        Self { framing, bytes_max, state: State::Between, heard: Mono(0), ready: VecDeque::new(), dropped: 0 }
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Mono) {
        if bytes.is_empty() {
            return;
        }
        self.handle_silence(now);
        self.heard = now;
        match self.framing {
            Framing::Line => self.take_lines(bytes),
            Framing::Length(length) => self.take_lengths(bytes, length),
            Framing::Idle(_) => self.take(bytes),
        }
    }

    /// The next whole frame.
    pub fn poll_frame(&mut self, now: Mono) -> Option<Vec<u8>> {
        self.handle_silence(now);
        self.ready.pop_front()
    }

    /// When silence ends the frame that has begun.
    #[must_use]
    pub fn poll_wake(&self) -> Option<Mono> {
        let gap = self.gap()?;
        match self.state {
            State::Between => None,
            State::Within(_) | State::Skipping => Some(self.heard.after(gap)),
        }
    }

    /// Frames that were left out since the last call: too long, or given up half-way.
    pub fn poll_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn gap(&self) -> Option<Duration> {
        match self.framing {
            Framing::Line => None,
            Framing::Length(_) => Some(LENGTH_GAP),
            Framing::Idle(gap) => Some(gap),
        }
    }

    fn handle_silence(&mut self, now: Mono) {
        if self.poll_wake().is_none_or(|wake| wake > now) {
            return;
        }
        match self.framing {
            Framing::Idle(_) => self.end(),
            Framing::Line | Framing::Length(_) => {
                self.state = State::Between;
                self.dropped += 1;
            }
        }
    }

    fn take_lines(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take(&bytes[..at]);
            self.end();
            bytes = &bytes[at + 1..];
        }
        self.take(bytes);
    }

    fn take_lengths(&mut self, mut bytes: &[u8], length: usize) {
        while !bytes.is_empty() {
            let missing = match &self.state {
                State::Within(begun) => length - begun.len(),
                State::Between | State::Skipping => length,
            };
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.take(now);
            if now.len() == missing {
                self.end();
            }
            bytes = later;
        }
    }

    /// Bytes of the frame that has begun, or begins.
    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut frame = match std::mem::replace(&mut self.state, State::Skipping) {
            State::Between => Vec::new(),
            State::Within(frame) => frame,
            State::Skipping => return,
        };
        if frame.len() + bytes.len() > self.bytes_max {
            self.dropped += 1;
            return;
        }
        frame.extend_from_slice(bytes);
        self.state = State::Within(frame);
    }

    /// The frame that has begun is whole.
    fn end(&mut self) {
        let State::Within(mut frame) = std::mem::replace(&mut self.state, State::Between) else { return };
        if self.framing == Framing::Line {
            frame.truncate(frame.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1));
        }
        if !frame.is_empty() {
            self.ready.push_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 8;

    fn frames(framer: &mut Framer, now: Mono) -> Vec<String> {
        std::iter::from_fn(|| framer.poll_frame(now)).map(|frame| String::from_utf8_lossy(&frame).into_owned()).collect()
    }

    fn lines(text: &str) -> (Vec<String>, u64) {
        let mut framer = Framer::new(Framing::Line, MAX);
        framer.handle_bytes(text.as_bytes(), Mono(0));
        (frames(&mut framer, Mono(0)), framer.poll_dropped())
    }

    #[test]
    fn a_line_ends_with_a_line_feed() {
        for (text, expected, dropped) in [
            ("12.5 kg\r\n13\n", &["12.5 kg", "13"][..], 0),
            ("\r\n\n\r\r\na\rb\r\r\n", &["a\rb"], 0),
            ("half", &[], 0),
            ("12345678\n123456789\nok\n", &["12345678", "ok"], 1),
        ] {
            assert_eq!(lines(text), (expected.iter().map(|line| (*line).to_owned()).collect(), dropped), "{text:?}");
        }
    }

    #[test]
    fn a_fixed_length_finds_its_beginning_again_after_silence() {
        let mut framer = Framer::new(Framing::Length(4), MAX);
        framer.handle_bytes(b"abcdefg", Mono(0));
        assert_eq!(frames(&mut framer, Mono(999)), ["abcd"]);
        framer.handle_bytes(b"wxyz", Mono(1000));
        assert_eq!((frames(&mut framer, Mono(1000)), framer.poll_dropped()), (vec!["wxyz".to_owned()], 1));
    }

    #[test]
    fn silence_ends_a_frame_and_one_that_is_too_long() {
        let mut framer = Framer::new(Framing::Idle(Duration::from_millis(20)), MAX);
        framer.handle_bytes(b"ab", Mono(0));
        framer.handle_bytes(b"cd", Mono(19));
        assert_eq!((frames(&mut framer, Mono(38)), framer.poll_wake()), (vec![], Some(Mono(39))));
        assert_eq!((frames(&mut framer, Mono(39)), framer.poll_wake()), (vec!["abcd".to_owned()], None));
        framer.handle_bytes(b"123456789", Mono(40));
        framer.handle_bytes(b"more", Mono(50));
        // Bytes that come after the silence are another frame, looked at in between or not.
        framer.handle_bytes(b"ok", Mono(70));
        assert_eq!((frames(&mut framer, Mono(90)), framer.poll_dropped()), (vec!["ok".to_owned()], 1));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_their_bytes_come(text in "[ab\r\n]{0,80}", cuts in prop::collection::vec(1_usize..9, 1..40)) {
            let mut framer = Framer::new(Framing::Line, MAX);
            let (mut rest, mut cut, mut found) = (text.as_bytes(), cuts.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cut.next().unwrap()));
                framer.handle_bytes(now, Mono(0));
                found.extend(frames(&mut framer, Mono(0)));
                rest = later;
            }
            prop_assert_eq!((found, framer.poll_dropped()), lines(&text));
        }

        #[test]
        fn hostile_bytes_are_bounded_and_a_good_frame_after_them_is_found(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0_u64..2000), 0..40),
            framing in prop::sample::select(vec![Framing::Line, Framing::Length(4), Framing::Idle(Duration::from_millis(20))]),
        ) {
            let (mut framer, mut now) = (Framer::new(framing, MAX), 0);
            for (chunk, later) in chunks {
                now += later;
                framer.handle_bytes(&chunk, Mono(now));
                while let Some(frame) = framer.poll_frame(Mono(now)) {
                    prop_assert!((1..=MAX).contains(&frame.len()), "{frame:?}");
                }
                let State::Within(begun) = &framer.state else { continue };
                prop_assert!(begun.len() <= MAX);
            }
            framer.handle_bytes(b"\n", Mono(now));
            now += 5000;
            while framer.poll_frame(Mono(now)).is_some() {}
            framer.handle_bytes(if framing == Framing::Line { b"good\n" } else { b"good" }, Mono(now));
            prop_assert_eq!(framer.poll_frame(Mono(now + 999)), Some(b"good".to_vec()));
        }
    }
}
