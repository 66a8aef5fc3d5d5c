//! Files that people write, read strictly: every fault at once, each with its line and, for an unknown key, the nearest known one.
//!
//! ```text
//! text ─▶ Reader ─▶ Section.parse("key") … ─▶ finish() ─▶ unknown keys ─▶ Faults
//! ```
//! A key is known because it was asked for, so the list of known keys cannot drift from the code that reads them.
//!
//! A text may be laid over another one ([`Reader::over`]): a key of a table is taken from above when it is there, else from below. What is found
//! to be wrong concerns the text above; the one below belongs to who ships it.

use crate::nearest::suggestion;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use toml_edit::{Document, DocumentMut, Item, TableLike};

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1; 0 when it concerns the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that is wrong in a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    /// The file's name, for people.
    pub file: String,
    /// At least one.
    pub list: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.list.iter().enumerate() {
            let end = if i + 1 == self.list.len() { "" } else { "\n" };
            match fault.line {
                0 => write!(f, "{}: {}{end}", self.file, fault.message)?,
                line => write!(f, "{}:{line}: {}{end}", self.file, fault.message)?,
            }
        }
        Ok(())
    }
}

/// Reads one TOML text and collects what is wrong with it.
#[derive(Debug)]
pub struct Reader {
    file: String,
    document: Document<String>,
    /// What the document is laid over. It has no lines.
    below: Option<DocumentMut>,
    faults: RefCell<Vec<Fault>>,
}

impl Reader {
    /// Parses `text`; `file` is the name that faults are reported under.
    ///
    /// # Errors
    /// When it is not TOML.
    pub fn new(file: &str, text: &str) -> Result<Self, Faults> {
        match Document::parse(text.to_owned()) {
            Ok(document) => Ok(Self { file: file.to_owned(), document, below: None, faults: RefCell::default() }),
            Err(cause) => {
                let line = cause.span().map_or(0, |span| line_of(text, span.start));
                let message = cause.message().replace('\n', ", ");
                Err(Faults { file: file.to_owned(), list: vec![Fault { line, message }] })
            }
        }
    }

    /// Parses `text`, which is laid over the text of `below` key by key; both are named as faults are reported.
    ///
    /// # Errors
    /// When one of them is not TOML.
    pub fn over(below: (&str, &str), file: &str, text: &str) -> Result<Self, Faults> {
        let (name, lower) = below;
        let lower = Self::new(name, lower)?.document.into_mut();
        Ok(Self { below: Some(lower), ..Self::new(file, text)? })
    }

    /// The top of the file.
    #[must_use]
    pub fn root(&self) -> Section<'_> {
        let below = self.below.as_ref().map(|below| below.as_table() as &dyn DebugTable);
        Section { reader: self, table: Some(self.document.as_table()), below, path: String::new(), line: 0, keys: RefCell::default() }
    }

    /// All faults found so far, or the value when there are none.
    ///
    /// # Errors
    /// When anything was wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        let mut list = self.faults.into_inner();
        list.sort_by_key(|fault| fault.line);
        match value {
            Some(value) if list.is_empty() => Ok(value),
            Some(_) | None => {
                if list.is_empty() {
                    list.push(Fault { line: 0, message: "incomplete".to_owned() });
                }
                Err(Faults { file: self.file, list })
            }
        }
    }

    fn line(&self, item: &Item) -> usize {
        item.span().map_or(0, |span| line_of(self.document.raw(), span.start))
    }

    fn fault(&self, line: usize, message: String) {
        self.faults.borrow_mut().push(Fault { line, message });
    }
}

/// One table of the file, or nothing where the file does not have it.
#[derive(Debug)]
pub struct Section<'a> {
    reader: &'a Reader,
    table: Option<&'a dyn DebugTable>,
    /// The same table of the text below.
    below: Option<&'a dyn DebugTable>,
    path: String,
    line: usize,
    keys: RefCell<Keys>,
}

/// What the code has said of the keys of a table.
#[derive(Debug, Default)]
struct Keys {
    /// Asked for.
    known: Vec<String>,
    /// Taken from the text below only.
    fixed: Vec<String>,
}

/// A table that can be shown in debug output.
trait DebugTable: TableLike + fmt::Debug {}
impl<T: TableLike + fmt::Debug> DebugTable for T {}

impl<'a> Section<'a> {
    /// Whether the file has this table.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.table.is_some() || self.below.is_some()
    }

    /// Whether the table has `key`.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        [self.table, self.below].into_iter().flatten().any(|table| table.contains_key(key))
    }

    /// Whether this is a text over another one.
    #[must_use]
    pub fn is_laid_over(&self) -> bool {
        self.reader.below.is_some()
    }

    /// Where one text is laid over another: `key` is for the one below to say, and a fault in the one above, with the reason `why`. To be said
    /// before the key is read. A text of its own may have it.
    pub fn fixed(&self, key: &str, why: &str) {
        if !self.is_laid_over() {
            return;
        }
        if self.table.is_some_and(|table| table.contains_key(key)) {
            let line = self.line_of(key);
            self.fault(line, format!("`{}` cannot be set here: {why}", self.name(key)));
        }
        self.keys.borrow_mut().fixed.push(key.to_owned());
    }

    /// Whether `key` is there and a text, for keys that may be something else as well.
    #[must_use]
    pub fn is_text(&self, key: &str) -> bool {
        self.table.and_then(|table| table.get(key)).is_some_and(Item::is_str)
    }

    /// The line of the table, 0 at the top.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// A text that is parsed into what it means; `None` when absent or wrong.
    pub fn parse<T: FromStr<Err: fmt::Display>>(&self, key: &str) -> Option<T> {
        let item = self.item(key)?;
        let Some(text) = item.as_str() else {
            self.wrong_type(key, item, "a text in quotes");
            return None;
        };
        self.keep(key, item, text.parse())
    }

    /// Like [`Section::parse`], and a fault when the key is absent.
    pub fn require<T: FromStr<Err: fmt::Display>>(&self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.item(key);
            self.fault(self.line, format!("`{}` is missing", self.name(key)));
            return None;
        }
        self.parse(key)
    }

    /// A text as it stands.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        self.parse::<String>(key)
    }

    /// A whole number inside `range`.
    #[must_use]
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let item = self.item(key)?;
        let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
        match number {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                let wanted = format!("a whole number from {} to {}", range.start(), range.end());
                self.wrong_type(key, item, &wanted);
                None
            }
        }
    }

    /// A share from 0 to 1, in millionths.
    #[must_use]
    pub fn millionths(&self, key: &str) -> Option<u32> {
        let item = self.item(key)?;
        #[expect(clippy::cast_precision_loss, reason = "only 0 and 1 are inside the range")]
        let number = item.as_float().or_else(|| item.as_integer().map(|number| number as f64));
        match number {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the range")]
            Some(number) if (0.0..=1.0).contains(&number) => Some((number * 1e6).round() as u32),
            Some(_) | None => {
                self.wrong_type(key, item, "a number from 0 to 1");
                None
            }
        }
    }

    /// A whole number inside `range`, of 32 bits.
    #[must_use]
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.integer(key, u64::from(*range.start())..=u64::from(*range.end()))?.try_into().ok()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self, key: &str) -> Option<bool> {
        let item = self.item(key)?;
        item.as_bool().or_else(|| {
            self.wrong_type(key, item, "true or false");
            None
        })
    }

    /// A list of texts, each parsed; wrong ones are faults and left out.
    #[must_use]
    pub fn list<T: FromStr<Err: fmt::Display>>(&self, key: &str) -> Vec<T> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let texts = item.as_array().map(|array| array.iter().map(|value| value.as_str()).collect::<Option<Vec<_>>>());
        let Some(Some(texts)) = texts else {
            self.wrong_type(key, item, "a list of texts");
            return Vec::new();
        };
        texts.into_iter().filter_map(|text| self.keep(key, item, text.parse())).collect()
    }

    /// A table of free keys whose values are texts, numbers or booleans, all kept as text.
    #[must_use]
    pub fn free(&self, key: &str) -> BTreeMap<String, String> {
        let Some(item) = self.item(key) else { return BTreeMap::new() };
        let Some(table) = item.as_table_like() else {
            self.wrong_type(key, item, "a table");
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for (name, value) in table.iter() {
            let text = match value.as_value() {
                Some(toml_edit::Value::String(text)) => text.value().clone(),
                Some(toml_edit::Value::Integer(number)) => number.value().to_string(),
                Some(toml_edit::Value::Float(number)) => number.value().to_string(),
                Some(toml_edit::Value::Boolean(flag)) => flag.value().to_string(),
                Some(_) | None => {
                    self.wrong_type(&format!("{key}.{name}"), value, "a text, a number, true or false");
                    continue;
                }
            };
            map.insert(name.to_owned(), text);
        }
        map
    }

    /// The table under `key`, present or not.
    #[must_use]
    pub fn section(&self, key: &str) -> Section<'a> {
        self.item(key);
        let (item, below) = self.layers(key);
        let table = item.and_then(as_table);
        if let (Some(item), None) = (item, table) {
            self.wrong_type(key, item, "a table");
        }
        Section {
            reader: self.reader,
            table,
            below: below.and_then(as_table),
            path: self.name(key),
            line: item.map_or(self.line, |item| self.reader.line(item)),
            keys: RefCell::default(),
        }
    }

    /// The tables of the list of tables under `key` (`[[key]]`).
    #[must_use]
    pub fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        if let Some(array) = item.as_array_of_tables() {
            let reader = self.reader;
            return array
                .iter()
                .enumerate()
                .map(|(i, table)| Section {
                    reader,
                    table: Some(table),
                    below: None,
                    path: self.name(&format!("{key}[{i}]")),
                    line: table.span().map_or(0, |span| line_of(reader.document.raw(), span.start)),
                    keys: RefCell::default(),
                })
                .collect();
        }
        self.wrong_type(key, item, &format!("written as [[{key}]]"));
        Vec::new()
    }

    /// Adds a fault of the caller's own on the line of `key`.
    pub fn reject(&self, key: &str, message: impl fmt::Display) {
        self.fault(self.line_of(key), format!("`{}`: {message}", self.name(key)));
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        let keys = self.keys.borrow();
        let known: Vec<&str> = keys.known.iter().map(String::as_str).collect();
        for (key, item) in table.iter() {
            if !known.contains(&key) {
                let line = match table.key(key).and_then(toml_edit::Key::span) {
                    Some(span) => line_of(self.reader.document.raw(), span.start),
                    None => self.reader.line(item),
                };
                self.fault(line, format!("unknown key `{}`{}", self.name(key), suggestion(key, &known)));
            }
        }
    }

    fn item(&self, key: &str) -> Option<&'a Item> {
        {
            let known = &mut self.keys.borrow_mut().known;
            if !known.iter().any(|word| word == key) {
                known.push(key.to_owned());
            }
        }
        let (own, below) = self.layers(key);
        own.or(below)
    }

    /// What the two texts have under `key`.
    fn layers(&self, key: &str) -> (Option<&'a Item>, Option<&'a Item>) {
        let fixed = self.keys.borrow().fixed.iter().any(|word| word == key);
        let own = self.table.filter(|_| !fixed).and_then(|table| table.get(key));
        (own, self.below.and_then(|table| table.get(key)))
    }

    /// The line of a key, else that of the table.
    fn line_of(&self, key: &str) -> usize {
        self.table.and_then(|table| table.get(key)).map_or(self.line, |item| self.reader.line(item))
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn keep<T, E: fmt::Display>(&self, key: &str, item: &Item, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|fault| self.fault(self.reader.line(item), format!("`{}`: {fault}", self.name(key)))).ok()
    }

    fn wrong_type(&self, key: &str, item: &Item, wanted: &str) {
        self.fault(self.reader.line(item), format!("`{}` must be {wanted}", self.name(key)));
    }

    fn fault(&self, line: usize, message: String) {
        self.reader.fault(line, message);
    }
}

fn as_table(item: &Item) -> Option<&dyn DebugTable> {
    match item {
        Item::Table(table) => Some(table),
        Item::Value(toml_edit::Value::InlineTable(table)) => Some(table),
        Item::None | Item::Value(_) | Item::ArrayOfTables(_) => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_with_its_line_and_the_nearest_key() {
        let text = "size = 3\nnmae = 'a'\n[limits]\nmemory_mb = 0\ntimeout = 5\n";
        let reader = Reader::new("f.toml", text).unwrap();
        let root = reader.root();
        assert_eq!(root.integer("size", 1..=9), Some(3));
        assert_eq!(root.require::<String>("name"), None);
        let limits = root.section("limits");
        assert_eq!(limits.integer("memory_mb", 1..=64), None);
        assert_eq!(limits.integer("timeout_ms", 1..=64), None);
        limits.finish();
        root.finish();
        let faults = reader.finish(Some(())).unwrap_err().to_string();
        assert_eq!(
            faults,
            "f.toml: `name` is missing\n\
             f.toml:2: unknown key `nmae`; did you mean `name`?\n\
             f.toml:4: `limits.memory_mb` must be a whole number from 1 to 64\n\
             f.toml:5: unknown key `limits.timeout`; did you mean `timeout_ms`?"
        );
    }

    #[test]
    fn what_is_not_toml_names_its_line() {
        let faults = Reader::new("f.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(faults.list[0].line, 2);
    }

    #[test]
    fn a_text_over_another_one_goes_before_it_key_by_key() {
        let lower = "a = 1\nkept = 'x'\n[one]\nx = 1\ny = 2\nfree = { p = 'lower', q = 'lower' }\n[two]\nz = 3\n";
        let read = |text: &str| {
            let reader = Reader::over(("lower", lower), "upper", text)?;
            let root = reader.root();
            root.fixed("kept", "the lower has it");
            let a = root.integer("a", 0..=9);
            let kept = root.text("kept");
            let one = root.section("one");
            let (x, y, free) = (one.integer("x", 0..=9), one.integer("y", 0..=9), one.free("free"));
            one.finish();
            let two = root.section("two");
            let (w, z) = (two.require::<String>("w"), two.integer("z", 0..=9));
            two.finish();
            root.finish();
            reader.finish(Some((a, [kept, w], [x, y, z], free.into_keys().collect::<String>())))
        };
        // A table inside a table is one value. What is missing in both has the line of its table, or none.
        let faults = read("a = 2\n[one]\nx = 7\nfree = { p = 'u' }\n").unwrap_err().to_string();
        assert_eq!(faults, "upper: `two.w` is missing");
        let faults = read("\nkept = 'mine'\nb = 1\none = 3\n[two]\nw = 'w'\nxx = 3\n").unwrap_err().to_string();
        assert_eq!(
            faults,
            "upper:2: `kept` cannot be set here: the lower has it\nupper:3: unknown key `b`; did you mean `a`?\n\
             upper:4: `one` must be a table\nupper:7: unknown key `two.xx`; known are w, z"
        );
        let found = read("a = 2\n[one]\nx = 7\nfree = { p = 'u' }\n[two]\nw = 'w'\n").unwrap();
        let texts = ["x", "w"].map(|text| Some(text.to_owned()));
        assert_eq!(found, (Some(2), texts, [Some(7), Some(2), Some(3)], "p".to_owned()));
        assert!(read("a = = 2").unwrap_err().to_string().starts_with("upper:1: "));
    }
}
