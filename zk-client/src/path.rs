//! Paths: which are valid, and where a client's own root lies.

/// Checks a path by the rules of ZooKeeper's `PathUtils`, whose words these are.
///
/// # Errors
/// Which rule it breaks.
pub fn validate(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("Path length must be > 0");
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err("Path must start with / character");
    };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err("Path must not end with / character");
    }
    for name in rest.split('/') {
        match name {
            "" => return Err("empty node name specified"),
            "." | ".." => return Err("relative paths not allowed"),
            _ => {}
        }
    }
    let refused = |c: char| {
        matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}'
            | '\u{fff0}'..)
    };
    if rest.contains(refused) {
        return Err("invalid character");
    }
    Ok(())
}

/// The part of the tree that a client sees.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chroot(String);

impl Chroot {
    /// `/` and the empty text are the whole tree.
    pub(crate) fn new(path: &str) -> Result<Self, &'static str> {
        match path {
            "" | "/" => Ok(Self::default()),
            _ => validate(path).map(|()| Self(path.to_owned())),
        }
    }

    /// The path as the server knows it.
    pub(crate) fn full(&self, path: &str) -> String {
        match path {
            "/" if !self.0.is_empty() => self.0.clone(),
            _ => format!("{}{path}", self.0),
        }
    }

    /// The path as the caller knows it. One that lies outside, such as that of the configuration,
    /// stays as it is.
    pub(crate) fn strip(&self, path: &str) -> String {
        match path.strip_prefix(self.0.as_str()) {
            Some("") if !path.is_empty() => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a b", "/...", "/a..", "/\u{a0}", "/\u{d7ff}", "/\u{f900}"] {
            assert_eq!(validate(good), Ok(()), "{good:?}");
        }
        let bad = ["", "a", "/a/", "//", "//a", "/a//b", "/.", "/a/..", "/a/./b", "/\0", "/\u{1f}"];
        for bad in bad.into_iter().chain(["/\u{7f}", "/\u{e000}", "/\u{ffff}", "/\u{1f600}"]) {
            assert!(validate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_root_of_ones_own() {
        let root = Chroot::new("/app/x").expect("valid");
        for (own, full) in [("/", "/app/x"), ("/a", "/app/x/a")] {
            assert_eq!(root.full(own), full);
            assert_eq!(root.strip(full), own);
        }
        assert_eq!(root.strip("/app/xy"), "/app/xy", "a neighbour");
        assert_eq!(root.strip("/zookeeper/config"), "/zookeeper/config");
        let whole = Chroot::new("/").expect("valid");
        assert_eq!((whole.full("/a"), whole.strip("/")), ("/a".into(), "/".into()));
        assert!(Chroot::new("app").is_err());
    }
}
