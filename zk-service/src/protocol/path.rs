//! Which paths are legal, and how they divide.

/// ZooKeeper's full validation: absolute, no empty or relative component, no forbidden character.
///
/// ZooKeeper works on UTF-16 code units; a character beyond the BMP is refused there because its
/// surrogates are.
pub(crate) fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    if !path.starts_with('/') || path.ends_with('/') {
        return false;
    }
    // Asked with every write, and most paths are ASCII without a component that begins with a dot.
    let bytes = path.as_bytes();
    let is_plain = |(before, byte): (&u8, &u8)| {
        matches!(byte, b' '..=b'~') && (*before != b'/' || !matches!(byte, b'/' | b'.'))
    };
    if bytes.iter().zip(bytes.iter().skip(1)).all(is_plain) {
        return true;
    }
    path[1..]
        .split('/')
        .all(|name| !matches!(name, "" | "." | "..") && !name.chars().any(is_forbidden))
}

fn is_forbidden(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fff0}'..='\u{ffff}'
            | '\u{10000}'..
    )
}

/// Splits into parent and name. The parent of a top-level node is `""`, the root; `None` if there
/// is no slash or a NUL.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    if path.contains('\0') { None } else { path.rsplit_once('/') }
}

/// The parent as clients know it: `/` for a top-level node.
pub(super) fn shown_parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// Paths that exist from the start and are never deleted.
pub(crate) fn is_built_in(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config")
}

/// The ancestors of a path from its parent up to `/`.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let first = (path != "/").then(|| shown_parent(path));
    std::iter::successors(first, |p| (*p != "/").then(|| shown_parent(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        for path in [
            "/",
            "/a",
            "/a b",
            "/...",
            "/a..",
            "/..a",
            "/\u{a0}",
            "/\u{d7ff}",
            "/\u{f900}",
            "/\u{ffef}",
        ] {
            assert!(is_valid(path), "{path:?}");
        }
        for path in [
            "",
            "a",
            "/a/",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/..",
            "/\0",
            "/\u{1}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{1f600}",
        ] {
            assert!(!is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn division() {
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a"), Some(("", "a")));
        assert_eq!(split("a"), None);
        assert_eq!(split("/a\0"), None);
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(ancestors("/").count(), 0);
        assert_eq!(shown_parent("/a"), "/");
    }
}
