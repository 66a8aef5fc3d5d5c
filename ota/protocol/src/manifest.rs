//! `function.toml`: what a function is called, what starts it, what it may use.
//!
//! Read with [`Manifest::from_toml`] (strict, all faults at once); travels as part of a revision in its serde form.

mod access;
mod diagnosis;
mod limit;
mod word;

pub use access::{Access, Quota};
pub use diagnosis::Diagnosis;
pub use limit::{Limits, Retry, Reuse};
pub use word::{BucketName, INTERNAL_SUFFIX, Origin, Route, SecretName, Socket, WordError};

use crate::limits::{MANIFEST_BYTES_MAX, SETTING_BYTES_MAX, SETTINGS_MAX, TRIGGERS_MAX};
use crate::schedule::{CronExpression, Interval};
use crate::strict::{Fault, Faults, Reader, Section};
use crate::{FunctionName, Topic, TopicFilter};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Whether an instance serves several invocations.
    #[serde(default, skip_serializing_if = "Reuse::is_off")]
    pub reuse: Reuse,
    /// How failed events are tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Read by the function through `wasi:config`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// What it may reach.
    #[serde(default)]
    pub access: Access,
    /// How much it may keep.
    #[serde(default, skip_serializing_if = "Quota::is_default")]
    pub quota: Quota,
    /// What is kept of a trap.
    #[serde(default, skip_serializing_if = "Diagnosis::is_default")]
    pub debug: Diagnosis,
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

impl Trigger {
    /// The path of an HTTP trigger.
    fn route(&self) -> Option<&Route> {
        match self {
            Self::Http { route } => Some(route),
            Self::Mqtt { .. } | Self::Every { .. } | Self::Cron { .. } => None,
        }
    }

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
    /// A directory of files that travel inside the artifact, relative to the manifest.
    pub assets: Option<String>,
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
        self.rules().map_err(|(_, broken)| broken)
    }

    /// The same, with the place that has to be mended.
    fn rules(&self) -> Result<(), (Place, String)> {
        let of = |table| move |broken| (Place::Table(table), broken);
        self.limits.check().map_err(of("limits"))?;
        self.reuse.check().map_err(of("reuse"))?;
        self.retry.check().map_err(of("retry"))?;
        self.access.check().map_err(of("access"))?;
        self.quota.check().map_err(of("quota"))?;
        if let Some(name) = self.access.secrets.iter().find(|name| self.settings.contains_key(name.as_str())) {
            return Err((Place::Secrets, format!("`{name}` is both a setting and a secret: wasi:config could not tell them apart")));
        }
        let mut routes = BTreeSet::new();
        let twice =
            self.triggers.iter().enumerate().find_map(|(at, trigger)| Some((at, trigger.route().filter(|route| !routes.insert(*route))?)));
        if let Some((at, twice)) = twice {
            return Err((Place::Route(at), format!("two triggers have the route `{twice}`")));
        }
        if self.triggers.len() > TRIGGERS_MAX {
            return Err((Place::Table("trigger"), format!("more than {TRIGGERS_MAX} triggers")));
        }
        if self.settings.len() > SETTINGS_MAX {
            return Err((Place::Table("settings"), format!("more than {SETTINGS_MAX} settings")));
        }
        if self.settings.iter().any(|(key, value)| key.len() > 256 || value.len() > SETTING_BYTES_MAX) {
            return Err((Place::Table("settings"), format!("a setting is longer than {SETTING_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// The paths of its HTTP triggers.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.triggers.iter().filter_map(Trigger::route)
    }
}

/// Where in the file a rule is broken.
enum Place {
    /// Somewhere in this table.
    Table(&'static str),
    /// In `access.secrets`.
    Secrets,
    /// In the route of the trigger at this place.
    Route(usize),
}

fn read(root: Section<'_>) -> Option<(Manifest, Build)> {
    let name = root.require::<FunctionName>("name");
    let build = read_build(root.section("build"));
    let triggers: Vec<Trigger> = root.sections("trigger").into_iter().filter_map(read_trigger).collect();
    let manifest = Manifest {
        name: name.unwrap_or_else(|| "unnamed".parse().expect("a constant name")),
        triggers,
        limits: Limits::read(root.section("limits")),
        reuse: Reuse::read(root.section("reuse")),
        retry: Retry::read(root.section("retry")),
        settings: root.free("settings"),
        access: Access::read(root.section("access")),
        quota: Quota::read(root.section("quota")),
        debug: Diagnosis::read(root.section("debug")),
    };
    if let Err((place, broken)) = manifest.rules() {
        reject(&root, manifest.triggers.len(), &place, &broken);
    }
    root.finish();
    Some((manifest, build))
}

fn reject(root: &Section<'_>, triggers: usize, place: &Place, broken: &str) {
    match *place {
        Place::Table(table) => root.reject(table, broken),
        Place::Secrets => root.section("access").reject("secrets", broken),
        Place::Route(at) => {
            let sections = root.sections("trigger");
            // Triggers that could not be read shift the places; they have faults of their own, and this one is told when those are mended.
            if let Some(section) = sections.get(at).filter(|_| sections.len() == triggers) {
                section.reject("http", broken);
            }
        }
    }
}

fn read_build(section: Section<'_>) -> Build {
    let build = Build { command: section.text("command"), artifact: section.text("artifact"), assets: section.text("assets") };
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
    fn what_a_manifest_does_not_use_leaves_no_trace_on_the_wire() {
        // The id of a revision is a digest of this text: a new key must not change the ids of those that do not use it.
        let (manifest, _) = Manifest::from_toml("f", "name = 'a'").unwrap();
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(
            json,
            "{\"name\":\"a\",\"triggers\":[],\"limits\":{\"memory_mb\":64,\"timeout_ms\":10000,\"concurrency\":32},\
             \"retry\":{\"attempts\":5,\"backoff_ms\":1000},\"settings\":{},\"access\":{\"keyvalue\":[],\"publish\":[]}}"
        );
    }

    #[test]
    fn what_is_granted_twice_or_too_much_is_refused() {
        let check = |text: &str, expected: &str| {
            let fault = Manifest::from_toml("f", &format!("name = 'a'\n{text}")).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault}");
        };
        check("[access]\nkeyvalue = ['a']\nkeyvalue_shared = ['a']", "both the function's own and shared");
        check("[settings]\nkey = '1'\n[access]\nsecrets = ['key']", "both a setting and a secret");
        check("[access]\noutgoing = ['example.com']", "not an origin");
        check("[limits]\nconcurrency = 2\nreserved = 3", "reserved");
        check("[reuse]\ncount = 0", "reuse.count");
    }

    #[test]
    fn a_rule_between_keys_is_told_at_the_key_that_breaks_it() {
        let check = |text: &str, expected: &str| assert_eq!(Manifest::from_toml("f", text).unwrap_err().to_string(), expected);
        check(
            "name = 'a'\n[settings]\nkey = '1'\n[access]\nsecrets = ['other', 'key']",
            "f:5: `access.secrets`: `key` is both a setting and a secret: wasi:config could not tell them apart",
        );
        check(
            "name = 'a'\n[[trigger]]\nhttp = '/a'\n[[trigger]]\nevery = '5s'\n[[trigger]]\nhttp = '/a'\n",
            "f:7: `trigger[2].http`: two triggers have the route `/a`",
        );
    }

    #[test]
    fn a_trigger_is_one_thing() {
        for text in
            ["name='a'\n[[trigger]]\n", "name='a'\n[[trigger]]\nhttp='/a'\nmqtt='b'\n", "name='a'\n[[trigger]]\nhttp='/a'\nreply='b'\n"]
        {
            assert!(Manifest::from_toml("f", text).is_err(), "{text}");
        }
    }
}
