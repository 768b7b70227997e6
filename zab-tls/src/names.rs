//! Whether a certificate is for a host: the rules of ZooKeeper's `ZKHostnameVerifier`.

use std::net::IpAddr;

use crate::x509::Certificate;

/// Whether `certificate` names `host`, a name or an address.
///
/// If it has names or addresses in `subjectAltName`, one of them must match; only otherwise the common name
/// must. A name may have one `*`, anywhere, which stands for what has no dot.
#[must_use]
pub fn matches(certificate: &Certificate<'_>, host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.parse::<IpAddr>().ok();
    if certificate.dns_names.is_empty() && certificate.addresses.is_empty() {
        return certificate.common_name().is_some_and(|name| name_matches(&name, bare));
    }
    match address {
        Some(address) => certificate.addresses.contains(&address.to_canonical()),
        None => certificate.dns_names.iter().any(|name| name_matches(name, bare)),
    }
}

fn name_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    let Some((before, behind)) = pattern.split_once('*') else { return pattern == host };
    if behind.contains('*') {
        return false;
    }
    let middle = host.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
    middle.is_some_and(|middle| !middle.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, host, expected) in [
            ("zk1.example.com", "ZK1.Example.com", true),
            ("zk1.example.com", "zk2.example.com", false),
            ("*.example.com", "zk1.example.com", true),
            ("*.example.com", "a.zk1.example.com", false),
            ("*.example.com", "example.com", false),
            ("zk-*.example.com", "zk-7.example.com", true),
            ("zk-*.example.com", "kz-7.example.com", false),
            ("*.*.com", "a.b.com", false),
            ("*", "localhost", true),
            ("*", "a.b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(name_matches(pattern, host), expected, "{pattern} {host}");
        }
    }
}
