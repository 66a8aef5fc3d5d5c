//! `function.toml`: what a function is called, what starts it, what it may use.
//!
//! Read with [`Manifest::from_toml`] (strict, all faults at once); travels as part of a revision in its serde form.

use crate::limits::{
    ATTEMPTS_MAX, BACKOFF_MS_MAX, CONCURRENCY_MAX, MANIFEST_BYTES_MAX, MEMORY_MB_MAX, NAME_BYTES_MAX, SETTING_BYTES_MAX, SETTINGS_MAX,
    TIMEOUT_MS_MAX, TRIGGERS_MAX,
};
use crate::schedule::{CronExpression, Interval};
use crate::strict::{Fault, Faults, Reader, Section};
use crate::{FunctionName, Topic, TopicFilter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What the owner of a function says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The function's name.
    pub name: FunctionName,
    /// What starts it; may be empty, then only other means invoke it.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
    /// What one invocation may use.
    #[serde(default)]
    pub limits: Limits,
    /// How failed events are tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Read by the function through `wasi:config`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What it may reach.
    #[serde(default)]
    pub access: Access,
}

/// What starts a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum Trigger {
    /// An HTTP request whose path matches.
    Http {
        /// Path, exact or ending in `/*`.
        route: Route,
    },
    /// An event on a topic that matches: from MQTT clients, timers and other functions.
    Mqtt {
        /// Topics.
        filter: TopicFilter,
        /// Highest quality of service that is kept: 0 at most once, 1 at least once.
        qos: u8,
        /// When an event of QoS 1 is acknowledged.
        durability: Durability,
        /// Where the reply is published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<Topic>,
    },
    /// A fixed interval.
    Every {
        /// Time between two invocations.
        interval: Interval,
        /// Where the reply is published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<Topic>,
    },
    /// Times of a cron expression, UTC.
    Cron {
        /// The expression.
        expression: CronExpression,
        /// Where the reply is published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<Topic>,
    },
}

/// When an event of QoS 1 counts as kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// With the next group that reaches the disk (default).
    #[default]
    Grouped,
    /// At once, one disk write each.
    Each,
    /// Not written: lost when the power goes.
    None,
}

/// What one invocation may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Linear memory, MiB.
    pub memory_mb: u32,
    /// Everything from start to the end of the answer, milliseconds.
    pub timeout_ms: u64,
    /// Invocations at the same time on one node.
    pub concurrency: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mb: 64, timeout_ms: 10_000, concurrency: 32 }
    }
}

/// How failed events are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts in all, the first included; then the event is a dead letter.
    pub attempts: u32,
    /// Delay before the second attempt; doubles each time, capped at five minutes.
    pub backoff_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, backoff_ms: 1000 }
    }
}

/// What a function may reach beside its input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Key-value stores it may open.
    pub keyvalue: Vec<BucketName>,
    /// Topics it may publish to.
    pub publish: Vec<TopicFilter>,
}

/// The name of a key-value store of a function: 1 to 63 letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(String);

/// A path of an HTTP trigger: exact (`/hello`) or a prefix (`/hello/*`, which also takes `/hello`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route(String);

/// Why a text is not a route or a store name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a route.
    #[error("`{0}` is not a path: begin with `/`, use letters, digits and `-._~/`, and `*` only as the whole last part")]
    Route(String),
    /// Not a store name.
    #[error("`{0}` is not a store name: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")]
    Bucket(String),
    /// Not a durability.
    #[error("`{0}` is not a durability: grouped, each or none")]
    Durability(String),
}

impl Route {
    /// The route as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes requests for `path`.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.0.strip_suffix("/*") {
            Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => path == self.0,
        }
    }
}

impl FromStr for Route {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let body = text.strip_suffix("/*").unwrap_or(text);
        let fits = text.starts_with('/')
            && text.len() <= 256
            && !body.contains("//")
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b));
        if fits { Ok(Self(text.to_owned())) } else { Err(WordError::Route(text.chars().take(80).collect())) }
    }
}

impl BucketName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if fits { Ok(Self(text.to_owned())) } else { Err(WordError::Bucket(text.chars().take(80).collect())) }
    }
}

impl FromStr for Durability {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "grouped" => Ok(Self::Grouped),
            "each" => Ok(Self::Each),
            "none" => Ok(Self::None),
            other => Err(WordError::Durability(other.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Route {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, WordError> {
        text.parse()
    }
}

impl TryFrom<String> for BucketName {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, WordError> {
        text.parse()
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        route.0
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> Self {
        name.0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Trigger {
    /// Where the reply of an event is published, if anywhere.
    #[must_use]
    pub fn reply(&self) -> Option<&Topic> {
        match self {
            Self::Http { .. } => None,
            Self::Mqtt { reply, .. } | Self::Every { reply, .. } | Self::Cron { reply, .. } => reply.as_ref(),
        }
    }
}

/// How a function is built: the part of `function.toml` that stays on the desk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Build {
    /// Shell command; by default the language's own.
    pub command: Option<String>,
    /// Where the artifact lies afterwards, relative to the manifest.
    pub artifact: Option<String>,
}

impl Manifest {
    /// Reads `function.toml`; `file` is the name that faults are reported under.
    ///
    /// # Errors
    /// All faults, each with its line.
    pub fn from_toml(file: &str, text: &str) -> Result<(Self, Build), Faults> {
        if text.len() > MANIFEST_BYTES_MAX {
            let message = format!("larger than {MANIFEST_BYTES_MAX} bytes");
            return Err(Faults { file: file.to_owned(), list: vec![Fault { line: 0, message }] });
        }
        let reader = Reader::new(file, text)?;
        let value = read(reader.root());
        reader.finish(value)
    }

    /// The checks that hold between fields, for manifests that came over the wire.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), String> {
        let limits = &self.limits;
        let rules = [
            (self.triggers.len() <= TRIGGERS_MAX, format!("more than {TRIGGERS_MAX} triggers")),
            (self.settings.len() <= SETTINGS_MAX, format!("more than {SETTINGS_MAX} settings")),
            (
                self.settings.iter().all(|(key, value)| key.len() <= 256 && value.len() <= SETTING_BYTES_MAX),
                format!("a setting is longer than {SETTING_BYTES_MAX} bytes"),
            ),
            ((1..=MEMORY_MB_MAX).contains(&limits.memory_mb), "memory_mb out of range".to_owned()),
            ((1..=TIMEOUT_MS_MAX).contains(&limits.timeout_ms), "timeout_ms out of range".to_owned()),
            ((1..=CONCURRENCY_MAX).contains(&limits.concurrency), "concurrency out of range".to_owned()),
            ((1..=ATTEMPTS_MAX).contains(&self.retry.attempts), "retry.attempts out of range".to_owned()),
            (self.retry.backoff_ms <= BACKOFF_MS_MAX, "retry.backoff_ms out of range".to_owned()),
            (self.access.keyvalue.len() <= 32 && self.access.publish.len() <= 32, "more than 32 grants".to_owned()),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(broken),
            None => Ok(()),
        }
    }
}

fn read(root: Section<'_>) -> Option<(Manifest, Build)> {
    let name = root.require::<FunctionName>("name");
    let build = read_build(root.section("build"));
    let triggers: Vec<Trigger> = root.sections("trigger").into_iter().filter_map(read_trigger).collect();
    let manifest = Manifest {
        name: name.unwrap_or_else(|| "unnamed".parse().expect("a constant name")),
        triggers,
        limits: read_limits(root.section("limits")),
        retry: read_retry(root.section("retry")),
        settings: root.free("settings"),
        access: read_access(root.section("access")),
    };
    if let Err(broken) = manifest.check() {
        root.reject("name", broken);
    }
    root.finish();
    Some((manifest, build))
}

fn read_build(section: Section<'_>) -> Build {
    let build = Build { command: section.text("command"), artifact: section.text("artifact") };
    section.finish();
    build
}

fn read_trigger(section: Section<'_>) -> Option<Trigger> {
    let kinds = ["http", "mqtt", "every", "cron"];
    let named: Vec<&str> = kinds.into_iter().filter(|kind| section.has(kind)).collect();
    let http = section.parse::<Route>("http");
    let filter = section.parse::<TopicFilter>("mqtt");
    let interval = section.parse::<Interval>("every");
    let expression = section.parse::<CronExpression>("cron");
    if named.len() != 1 {
        let line_key = named.first().copied().unwrap_or("http");
        section.reject(line_key, "a trigger has exactly one of http, mqtt, every and cron");
        section.finish();
        return None;
    }
    let reply = if named == ["http"] { None } else { section.parse::<Topic>("reply") };
    let trigger = match (http, filter, interval, expression) {
        (Some(route), ..) => Some(Trigger::Http { route }),
        (_, Some(filter), ..) => Some(Trigger::Mqtt {
            filter,
            qos: section.integer("qos", 0..=1).map_or(1, |qos| u8::from(qos == 1)),
            durability: section.parse("durability").unwrap_or_default(),
            reply,
        }),
        (_, _, Some(interval), _) => Some(Trigger::Every { interval, reply }),
        (_, _, _, Some(expression)) => Some(Trigger::Cron { expression, reply }),
        (None, None, None, None) => None,
    };
    section.finish();
    trigger
}

fn read_limits(section: Section<'_>) -> Limits {
    let default = Limits::default();
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let limits = Limits {
        memory_mb: section.integer("memory_mb", 1..=MEMORY_MB_MAX.into()).map_or(default.memory_mb, small),
        timeout_ms: section.integer("timeout_ms", 1..=TIMEOUT_MS_MAX).unwrap_or(default.timeout_ms),
        concurrency: section.integer("concurrency", 1..=CONCURRENCY_MAX.into()).map_or(default.concurrency, small),
    };
    section.finish();
    limits
}

fn read_retry(section: Section<'_>) -> Retry {
    let default = Retry::default();
    let attempts = section.integer("attempts", 1..=ATTEMPTS_MAX.into());
    let retry = Retry {
        attempts: attempts.map_or(default.attempts, |number| u32::try_from(number).unwrap_or(ATTEMPTS_MAX)),
        backoff_ms: section.integer("backoff_ms", 0..=BACKOFF_MS_MAX).unwrap_or(default.backoff_ms),
    };
    section.finish();
    retry
}

fn read_access(section: Section<'_>) -> Access {
    let access = Access { keyvalue: section.list("keyvalue"), publish: section.list("publish") };
    section.finish();
    access
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "average"
[build]
artifact = "out.wasm"
[[trigger]]
mqtt = "plant/+/temp"
durability = "each"
reply = "plant/average"
[[trigger]]
http = "/average/*"
[[trigger]]
every = "5s"
[[trigger]]
cron = "*/5 * * * *"
[limits]
memory_mb = 32
[settings]
alarm_above = 80
name = "x"
[access]
keyvalue = ["default"]
publish = ["alarm/#"]
"#;

    #[test]
    fn a_whole_manifest_is_read_and_survives_the_wire() {
        let (manifest, build) = Manifest::from_toml("function.toml", WHOLE).unwrap();
        assert_eq!(manifest.triggers.len(), 4);
        assert_eq!(manifest.limits.memory_mb, 32);
        assert_eq!(manifest.settings["alarm_above"], "80");
        assert_eq!(build.artifact.as_deref(), Some("out.wasm"));
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }

    #[test]
    fn all_faults_of_a_manifest_come_at_once() {
        let text = "name = 'Bad'\n[[trigger]]\ncron = '99 * * * *'\n[[trigger]]\nmqtt = 'a/#/b'\n[limit]\nmemory_mb = 1\n";
        let faults = Manifest::from_toml("f", text).unwrap_err();
        assert_eq!(faults.list.len(), 4, "{faults}");
        assert!(faults.to_string().contains("did you mean `limits`"), "{faults}");
    }

    #[test]
    fn a_trigger_is_one_thing() {
        for text in
            ["name='a'\n[[trigger]]\n", "name='a'\n[[trigger]]\nhttp='/a'\nmqtt='b'\n", "name='a'\n[[trigger]]\nhttp='/a'\nreply='b'\n"]
        {
            assert!(Manifest::from_toml("f", text).is_err(), "{text}");
        }
    }

    #[test]
    fn routes_match_whole_parts() {
        let route: Route = "/hello/*".parse().unwrap();
        assert!(route.matches("/hello") && route.matches("/hello/a/b") && !route.matches("/hellou"));
        let all: Route = "/*".parse().unwrap();
        assert!(all.matches("/") && all.matches("/x"));
        assert!("/a*".parse::<Route>().is_err() && "a".parse::<Route>().is_err());
    }
}
