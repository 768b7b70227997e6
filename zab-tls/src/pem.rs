//! PEM: text with `-----BEGIN …-----`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;

use crate::der::{Der, OCTET_STRING};
use crate::error::StoreError;
use crate::pbe::{Password, decrypt};
use crate::store::{Contents, KeyEntry};

pub(crate) const BEGIN: &str = "-----BEGIN ";

/// Reads all blocks; the first private key, if keys are wanted, with all certificates as its chain.
pub(crate) fn parse(
    text: &str,
    password: Password<'_>,
    keys: bool,
) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    let mut key = None;
    for block in blocks(text) {
        let (label, body) = block?;
        if label.ends_with("CERTIFICATE") {
            // What `openssl x509 -trustout` writes has something after the certificate.
            contents.trusted.push(Der::new(&body).any()?.whole.to_vec());
        } else if label.ends_with("PRIVATE KEY") && keys && key.is_none() {
            key = Some(private_key(label, body, password)?);
        }
    }
    if let Some(key) = key {
        let chain = contents.trusted.clone();
        contents.keys.push(KeyEntry { alias: String::new(), key, chain });
    }
    Ok(contents)
}

fn private_key(
    label: &str,
    body: Vec<u8>,
    password: Password<'_>,
) -> Result<PrivateKeyDer<'static>, StoreError> {
    Ok(match label {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(body.into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(body.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(body.into()),
        "ENCRYPTED PRIVATE KEY" => {
            let mut info = Der::new(&body).sequence()?;
            let algorithm = info.algorithm()?;
            PrivateKeyDer::Pkcs8(decrypt(algorithm, password, info.take(OCTET_STRING)?)?.into())
        }
        other => return Err(StoreError::Unsupported(format!("a block {other}"))),
    })
}

/// Labels and decoded bodies.
fn blocks(text: &str) -> impl Iterator<Item = Result<(&str, Vec<u8>), StoreError>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(BEGIN)?;
        rest = "";
        let Some((label, behind)) = behind.split_once("-----") else {
            return Some(Err(StoreError::Damaged));
        };
        let end = format!("-----END {label}-----");
        let Some((body, behind)) = behind.split_once(&end) else {
            return Some(Err(StoreError::Damaged));
        };
        rest = behind;
        if body.contains(':') {
            let what =
                "a key encrypted in OpenSSL's old way (Proc-Type; convert it with openssl pkcs8)";
            return Some(Err(StoreError::Unsupported(what.into())));
        }
        let digits: String = body.split_ascii_whitespace().collect();
        Some(STANDARD.decode(digits).map(|body| (label, body)).map_err(|_| StoreError::Damaged))
    })
}
