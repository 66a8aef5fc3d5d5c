//! Values of secrets for cases: of the project's own file, which stays out of version control, and of the cases.

use super::case::{Case, DIRECTORY};
use super::matcher::plain;
use crate::client::Client;
use crate::failure::Failure;
use sedge_protocol::Manifest;
use sedge_protocol::manifest::SecretName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs, io};

/// The file beside the cases: `name = "value"`. Hidden, so that it is no case, and ignored by git in what `sedge new` makes.
pub(super) const FILE: &str = ".secrets.toml";
const HINT: &str = "one line for each secret that `access.secrets` of function.toml names: NAME = \"VALUE\"";

/// Names and values. They have no debug text.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Secrets(BTreeMap<SecretName, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Those of the file beside the cases, if there is one.
    pub(super) fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(DIRECTORY).join(FILE);
        let wrong = |what: String| Failure::configuration(format!("{}: {what}", path.display()), HINT);
        let text = match fs::read_to_string(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|cause| wrong(cause.to_string()))?,
        };
        // The whole text of the error would show the line.
        let table = toml::from_str(&text).map_err(|cause: toml::de::Error| {
            let line = cause.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            wrong(format!("line {line}: {}", cause.message()))
        })?;
        Self::of(table).map_err(wrong)
    }

    /// Those of a table.
    pub(super) fn of(table: BTreeMap<String, toml::Value>) -> Result<Self, String> {
        let one = |(name, value): (String, toml::Value)| match name.parse::<SecretName>() {
            Ok(key) => Ok((key, plain(&value).map_err(|broken| format!("secrets.{name}: {broken}"))?)),
            Err(broken) => Err(format!("secrets: {broken}")),
        };
        table.into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// These, where `other` says nothing else, and only what the manifest names.
    fn with(&self, other: &Self, manifest: &Manifest) -> Self {
        let mut all = self.0.clone();
        all.extend(other.0.clone());
        all.retain(|name, _| manifest.access.secrets.contains(name));
        Self(all)
    }
}

/// The secrets of the node of the cases.
#[derive(Debug)]
pub(super) struct Keeper {
    of_file: Secrets,
    /// What the node has now.
    given: Secrets,
}

impl Keeper {
    pub(super) fn new(of_file: Secrets) -> Self {
        Self { of_file, given: Secrets::default() }
    }

    /// Refuses values for secrets that the manifest does not name: nobody would read them.
    pub(super) fn check(cases: &[Case], manifest: &Manifest) -> Result<(), Failure> {
        for case in cases {
            if let Some(name) = case.secrets.0.keys().find(|name| !manifest.access.secrets.contains(name)) {
                let what = format!("the case `{}` gives a value to the secret `{name}`, which the manifest does not name", case.name);
                return Err(Failure::configuration(what, format!("add `secrets = [\"{name}\"]` under [access] in function.toml")));
            }
        }
        Ok(())
    }

    /// The secrets that some case of these has no value for.
    pub(super) fn missing(&self, cases: &[Case], manifest: &Manifest) -> BTreeSet<SecretName> {
        cases.iter().flat_map(|case| self.missing_in(case, manifest)).collect()
    }

    /// Those that this case has no value for.
    pub(super) fn missing_in(&self, case: &Case, manifest: &Manifest) -> Vec<SecretName> {
        let has = self.of_file.with(&case.secrets, manifest);
        manifest.access.secrets.iter().filter(|name| !has.0.contains_key(*name)).cloned().collect()
    }

    /// Gives the node what the case wants it to have, and nothing else.
    pub(super) fn give(&mut self, node: &Client, case: &Case, manifest: &Manifest) -> Result<(), Failure> {
        let wanted = self.of_file.with(&case.secrets, manifest);
        let path = |name: &SecretName| format!("/v1/secrets/{name}");
        for (name, value) in wanted.0.iter().filter(|(name, value)| self.given.0.get(*name) != Some(*value)) {
            node.put_bytes(&path(name), value.len() as u64, &mut value.as_bytes())?;
        }
        for name in self.given.0.keys().filter(|name| !wanted.0.contains_key(*name)) {
            node.delete(&path(name))?;
        }
        self.given = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_told_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Secrets::read(dir.path()).unwrap(), Secrets::default(), "there need not be one");
        fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        for (text, expected) in
            [("a = 'hush'\nb = 'hush", "line 2: "), ("a = ['hush']", "secrets.a: write a text"), ("'a b' = 'hush'", "secrets: ")]
        {
            fs::write(dir.path().join(DIRECTORY).join(FILE), text).unwrap();
            let error = Secrets::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(expected) && !error.contains("hush"), "{error}");
        }
        fs::write(dir.path().join(DIRECTORY).join(FILE), "a = 'hush'").unwrap();
        assert_eq!(format!("{:?}", Secrets::read(dir.path()).unwrap()), r#"{SecretName("a")}"#);
    }
}
