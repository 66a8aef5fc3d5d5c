//! User names and passwords.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// Who may connect; empty means everybody, without a name.
pub(crate) struct Users(Vec<(String, String)>);

impl fmt::Debug for Users {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Users({})", self.0.len())
    }
}

impl Users {
    pub(crate) fn new(users: Vec<(String, String)>) -> Self {
        Self(users)
    }

    /// Whether these credentials are good.  Takes the same time whichever user or byte is wrong.
    pub(crate) fn accept(&self, name: Option<&str>, password: Option<&[u8]>) -> bool {
        let (name, password) = (name.unwrap_or_default(), password.unwrap_or_default());
        let known = self.0.iter().fold(Choice::from(0), |known, (user, secret)| {
            known | (user.as_bytes().ct_eq(name.as_bytes()) & secret.as_bytes().ct_eq(password))
        });
        self.0.is_empty() || known.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_users_are_accepted_unless_there_is_none() {
        let users = Users::new(vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert!(users.accept(Some("a"), Some(b"1")) && users.accept(Some("b"), Some(b"2")));
        for (name, password) in
            [(Some("a"), Some(b"2".as_slice())), (Some("a"), None), (None, Some(b"1")), (None, None), (Some(""), Some(b""))]
        {
            assert!(!users.accept(name, password), "{name:?}");
        }
        assert!(Users::new(Vec::new()).accept(None, None));
    }
}
