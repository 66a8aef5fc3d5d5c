//! A strict reader of Prometheus' text format 0.0.4, written from its description and apart from what writes it.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// A name with its labels.
type Series = (String, BTreeMap<String, String>);

/// One scrape, wholly valid.
#[derive(Debug, Default)]
pub struct Scrape {
    kinds: BTreeMap<String, String>,
    values: BTreeMap<Series, f64>,
}

impl Scrape {
    /// Reads a scrape.
    ///
    /// # Errors
    /// At the first line that is not valid, and when a histogram contradicts itself.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "the last line has no end");
        let (mut scrape, mut closed, mut open) = (Self::default(), BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                scrape.comment(comment).with_context(|| line.to_owned())?;
                continue;
            }
            let (series, value) = sample(line).with_context(|| line.to_owned())?;
            let family = scrape.family(&series.0).with_context(|| line.to_owned())?;
            if family != open {
                ensure!(closed.insert(family.clone()), "{line}: the lines of a family are not together");
                open = family;
            }
            ensure!(scrape.values.insert(series, value).is_none(), "{line}: twice");
        }
        scrape.check_histograms()?;
        Ok(scrape)
    }

    /// The sum of all series of `name` that have these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = |(series, _): &(&Series, &f64)| {
            series.0 == name && labels.iter().all(|(label, value)| series.1.get(*label).is_some_and(|found| found == value))
        };
        self.values.iter().filter(wanted).map(|(_, value)| value).sum()
    }

    /// Whether there is such a family, of this kind.
    #[must_use]
    pub fn has(&self, name: &str, kind: &str) -> bool {
        self.kinds.get(name).is_some_and(|found| found == kind)
    }

    /// All values of a label.
    #[must_use]
    pub fn values_of(&self, label: &str) -> BTreeSet<&str> {
        self.values.keys().filter_map(|(_, labels)| labels.get(label).map(String::as_str)).collect()
    }

    fn comment(&mut self, comment: &str) -> Result<()> {
        let mut words = comment.splitn(3, ' ');
        let (what, name, rest) = (words.next(), words.next().context("no name")?, words.next().context("nothing said")?);
        is_name(name)?;
        match what {
            Some("HELP") => {}
            Some("TYPE") => {
                ensure!(matches!(rest, "counter" | "gauge" | "histogram"), "no such type");
                ensure!(rest != "counter" || name.ends_with("_total"), "a counter ends in _total");
                ensure!(self.kinds.insert(name.to_owned(), rest.to_owned()).is_none(), "a type twice");
            }
            _ => bail!("neither HELP nor TYPE"),
        }
        Ok(())
    }

    fn family(&self, name: &str) -> Result<String> {
        if self.kinds.get(name).is_some_and(|kind| kind != "histogram") {
            return Ok(name.to_owned());
        }
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).context("a sample without a type")?;
        ensure!(self.has(stem, "histogram"), "a sample without a type");
        Ok(stem.to_owned())
    }

    fn check_histograms(&self) -> Result<()> {
        let mut buckets: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.values {
            let Some(stem) = name.strip_suffix("_bucket").filter(|stem| self.has(stem, "histogram")) else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").with_context(|| format!("{name}: no bound"))?;
            buckets.entry((stem.to_owned(), labels)).or_default().push((number(&bound)?, *value));
        }
        for ((stem, labels), mut list) in buckets {
            list.sort_by(|one, other| one.0.total_cmp(&other.0));
            ensure!(list.is_sorted_by(|one, other| one.1 <= other.1), "{stem}: a bucket has less than the one below");
            let last = list.last().copied().unwrap_or_default();
            let count = self.values.get(&(format!("{stem}_count"), labels.clone())).copied();
            ensure!(last.0 == f64::INFINITY && Some(last.1) == count, "{stem}{labels:?}: {last:?} is not the count {count:?}");
            ensure!(self.values.contains_key(&(format!("{stem}_sum"), labels)), "{stem}: no sum");
        }
        Ok(())
    }
}

fn sample(line: &str) -> Result<(Series, f64)> {
    let name_end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(name_end);
    is_name(name)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ').context("no space before the value")?;
    Ok(((name.to_owned(), labels), number(value)?))
}

/// The labels up to the brace, and what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        is_name(name)?;
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().context("a label without an end")? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => '\n',
                    Some(escaped @ ('"' | '\\')) => escaped,
                    _ => bail!("no such escape"),
                }),
                (_, other) => value.push(other),
            }
        };
        ensure!(labels.insert(name.to_owned(), value).is_none(), "a label twice");
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').context("neither a comma nor the end of the labels")?;
    }
}

fn is_name(name: &str) -> Result<()> {
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    ensure!(begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "`{name}` is no name");
    Ok(())
}

fn number(text: &str) -> Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        digits => digits.parse().ok().filter(|number: &f64| number.is_finite()).with_context(|| format!("`{text}` is no number")),
    }
}
