//! A case as its author writes it: what goes in, and what is expected to come out.
//!
//! ```text
//! tests/*.toml ─▶ RawCase (keys checked) ─▶ Case (everything parsed) ─▶ check
//! ```

use super::expect::{Expected, Published};
use super::matcher::{Matcher, payload, plain};
use super::secret::{self, Secrets};
use crate::event_file;
use crate::failure::Failure;
use anyhow::Context as _;
use sedge_protocol::local::{Input, Payload, State};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where cases lie in a project.
pub(super) const DIRECTORY: &str = "tests";
/// Cases of one project.
const CASES_MAX: usize = 10_000;
const FORMAT: &str = "docs/functions.md, \"Cases\", says what can be written there";

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) input: Input,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) secrets: Secrets,
    pub(super) state: State,
    pub(super) expected: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    case: Vec<RawCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: Option<String>,
    event: Option<toml::Value>,
    request: Option<RawRequest>,
    #[serde(default)]
    settings: BTreeMap<String, toml::Value>,
    #[serde(default)]
    secrets: BTreeMap<String, toml::Value>,
    #[serde(default)]
    state: BTreeMap<String, BTreeMap<String, toml::Value>>,
    #[serde(default)]
    expect: RawExpect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    failure: Option<toml::Value>,
    reply: Option<toml::Value>,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, toml::Value>,
    body: Option<toml::Value>,
    state: Option<BTreeMap<String, BTreeMap<String, toml::Value>>>,
    publications: Option<Vec<RawPublication>>,
    log: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublication {
    topic: toml::Value,
    data: Option<toml::Value>,
}

/// All cases of the project in `dir`, in the order of their files.
pub(super) fn read_all(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let mut files = Vec::new();
    let folder = dir.join(DIRECTORY);
    for entry in fs::read_dir(&folder).into_iter().flatten() {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with(secret::FILE) {
            files.push(path);
        }
    }
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        cases.extend(read_file(dir, &file)?);
        anyhow::ensure!(cases.len() <= CASES_MAX, "more than {CASES_MAX} cases");
    }
    if cases.is_empty() {
        let what = format!("there are no cases in {}", folder.display());
        return Err(Failure::configuration(what, format!("write one; {FORMAT}")).into());
    }
    Ok(cases)
}

fn read_file(dir: &Path, file: &Path) -> anyhow::Result<Vec<Case>> {
    let wrong = |what: String| Failure::configuration(format!("{}: {what}", file.display()), FORMAT);
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let several = toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("case"));
    let raw = if several { toml::from_str::<RawFile>(&text).map(|file| file.case) } else { toml::from_str(&text).map(|case| vec![case]) };
    let raw: Vec<RawCase> = raw.map_err(|cause| wrong(cause.to_string().trim_end().to_owned()))?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let one = raw.len() == 1;
    let mut cases = Vec::with_capacity(raw.len());
    for (number, raw) in (1..).zip(raw) {
        let name = match &raw.name {
            Some(name) => format!("{stem}: {name}"),
            None if one => stem.clone(),
            None => format!("{stem}: {number}"),
        };
        cases.push(build(raw, dir, name.clone()).map_err(|what| wrong(format!("{name}: {what}")))?);
    }
    Ok(cases)
}

fn build(raw: RawCase, dir: &Path, name: String) -> Result<Case, String> {
    let input = match (raw.event, raw.request) {
        (Some(event), None) => Input::Event(event_of(event, dir)?),
        (None, Some(request)) => request_of(request)?,
        (Some(_), Some(_)) | (None, None) => return Err("a case has exactly one of `event` and `request`".to_owned()),
    };
    let settings = raw.settings.into_iter().map(|(key, value)| Ok((key, plain(&value)?))).collect::<Result<_, String>>()?;
    let secrets = Secrets::of(raw.secrets)?;
    Ok(Case { name, input, settings, secrets, state: state_of(raw.state)?, expected: expected(raw.expect)? })
}

/// A file of the project, or the event itself.
fn event_of(value: toml::Value, dir: &Path) -> Result<sedge_protocol::Event, String> {
    match value {
        toml::Value::String(path) => event_file::read(&dir.join(PathBuf::from(path))).map_err(|error| format!("event: {error:#}")),
        table => {
            let json = serde_json::to_value(table).map_err(|cause| format!("event: {cause}"))?;
            event_file::parse(json).map_err(|broken| format!("event: {broken}"))
        }
    }
}

fn request_of(request: RawRequest) -> Result<Input, String> {
    let RawRequest { method, path, headers, body } = request;
    if !path.starts_with('/') {
        return Err(format!("request.path: `{path}` does not begin with `/`"));
    }
    let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let body =
        body.map_or_else(|| Ok(Payload::Text(String::new())), |body| payload(&body)).map_err(|broken| format!("request.body: {broken}"))?;
    Ok(Input::Request { method, path, headers: headers.into_iter().collect(), body })
}

fn state_of(raw: BTreeMap<String, BTreeMap<String, toml::Value>>) -> Result<State, String> {
    let store = |(name, pairs): (String, BTreeMap<String, toml::Value>)| {
        let pair = |(key, value): (String, toml::Value)| match payload(&value) {
            Ok(payload) => Ok((key, payload)),
            Err(broken) => Err(format!("state.{name}.{key}: {broken}")),
        };
        Ok((name.clone(), pairs.into_iter().map(pair).collect::<Result<_, String>>()?))
    };
    raw.into_iter().map(store).collect()
}

fn expected(raw: RawExpect) -> Result<Expected, String> {
    let one = |value: Option<toml::Value>, what: &str| {
        value.map(|value| Matcher::of(&value)).transpose().map_err(|broken| format!("expect.{what}: {broken}"))
    };
    let matcher = |value: &toml::Value, what: &str| Matcher::of(value).map_err(|broken| format!("expect.{what}: {broken}"));
    let headers = raw.headers.iter().map(|(name, value)| Ok((name.to_lowercase(), matcher(value, &format!("headers.{name}"))?)));
    let state = raw.state.map(|stores| {
        let pairs = stores.iter().flat_map(|(store, pairs)| pairs.iter().map(move |(key, value)| (store, key, value)));
        pairs
            .map(|(store, key, value)| Ok(((store.clone(), key.clone()), matcher(value, &format!("state.{store}.{key}"))?)))
            .collect::<Result<_, String>>()
    });
    let publications = raw.publications.map(|list| {
        let publication = |raw: RawPublication| {
            Ok(Published { topic: matcher(&raw.topic, "publications.topic")?, data: one(raw.data, "publications.data")? })
        };
        list.into_iter().map(publication).collect::<Result<_, String>>()
    });
    Ok(Expected {
        failure: one(raw.failure, "failure")?,
        reply: one(raw.reply, "reply")?,
        status: raw.status,
        headers: headers.collect::<Result<_, String>>()?,
        body: one(raw.body, "body")?,
        state: state.transpose()?,
        publications: publications.transpose()?,
        log: one(raw.log, "log")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_file_is_one_case_or_several() {
        let dir = project(&[
            ("event.json", r#"{ "topic": "a/b", "data": { "value": 1 } }"#),
            ("tests/b.toml", "event = 'event.json'\n[settings]\nlimit = 80\n[expect]\nreply = { json = { n = 1 } }\n"),
            (
                "tests/a.toml",
                "[[case]]\nname = 'get'\nrequest = { path = '/x' }\n[[case]]\nrequest = { path = '/x', body = { a = 1 } }\n\
                 state.default = { n = 3, raw = { base64 = '/w==' } }\n",
            ),
            ("tests/note.txt", "no case"),
        ]);
        let cases = read_all(dir.path()).unwrap();
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["a: get", "a: 2", "b"]);
        assert!(matches!(&cases[0].input, Input::Request { method, .. } if method == "GET"));
        assert!(
            matches!(&cases[1].input, Input::Request { method, body, .. } if method == "POST" && *body == Payload::Text("{\"a\":1}".into()))
        );
        assert_eq!(cases[1].state["default"]["n"], Payload::Text("3".to_owned()));
        assert!(matches!(&cases[2].input, Input::Event(event) if event.topic.as_str() == "a/b"));
        assert_eq!(cases[2].settings["limit"], "80");
    }

    #[test]
    fn a_wrong_case_is_named_with_file_and_key() {
        let check = |text: &str, expected: &str| {
            let dir = project(&[("tests/a.toml", text)]);
            let error = format!("{:#}", read_all(dir.path()).unwrap_err());
            assert!(error.contains("tests/a.toml: ") && error.contains(expected), "{error}");
        };
        check("evnt = 'x'", "unknown field `evnt`, expected one of `name`, `event`");
        check("[expect]\nreply = 'x'", "exactly one of `event` and `request`");
        check("request = { path = 'x' }", "does not begin with `/`");
        check("event = { data = 1 }", "event: the attribute `topic` is missing");
        check("event = 'none.json'", "none.json");
        check("event = { topic = 'a' }\nexpect = { reply = { regex = '(' } }", "expect.reply: ");
        check("event = { topic = 'a' }\nexpect = { reply = { exact = 'x', json = 1 } }", "expect.reply: ");
        check("event = { topic = 'a' }\nstate.default.n = { base64 = '?' }", "state.default.n: ");
        let empty = tempfile::tempdir().unwrap();
        assert!(format!("{:#}", read_all(empty.path()).unwrap_err()).contains("there are no cases"));
    }

    #[test]
    fn every_template_brings_cases_that_can_be_read() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node/functions/templates");
        for template in fs::read_dir(templates).unwrap() {
            let (template, copy) = (template.unwrap().path(), tempfile::tempdir().unwrap());
            fs::create_dir(copy.path().join(DIRECTORY)).unwrap();
            let cases = fs::read_dir(template.join(DIRECTORY)).unwrap().map(|case| case.unwrap().path());
            for file in cases.chain([template.join("event.json")]) {
                let text = fs::read_to_string(&file).unwrap().replace("{{name}}", "sample");
                fs::write(copy.path().join(file.strip_prefix(&template).unwrap()), text).unwrap();
            }
            assert!(read_all(copy.path()).unwrap().len() > 1, "{}", template.display());
            let ignored = fs::read_to_string(template.join(".gitignore")).unwrap();
            let secrets = format!("/{DIRECTORY}/{}", secret::FILE);
            assert!(ignored.lines().any(|line| line == secrets), "{}", template.display());
        }
    }
}
