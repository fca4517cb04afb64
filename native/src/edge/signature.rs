//! Who signed a callback, and the id of its event.
//!
//! Mirrors `edge/verification/signature.py` and `event_id_for` of `schemas/events.py`.

use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq};

use super::request::Parameters;
use crate::cloudevents::{Id, uuid_text};

pub const SIGN: &str = "sign";

/// A token of an app, and the organisation that it belongs to.
pub struct Signer {
    pub corp_id: Option<String>,
    pub token: String,
}

/// The digest of `sign`, which is hexadecimal in either case.
pub fn digest(sign: &str) -> Option<[u8; 16]> {
    let mut digest = [0; 16];
    base16ct::mixed::decode(sign, &mut digest).is_ok_and(|read| read.len() == 16).then_some(digest)
}

/// The index of the token that signed the parameters. All are compared, so that the time does not reveal which it was.
pub fn signed_by(parameters: &Parameters<'_>, signers: &[Signer], digest: &[u8; 16], corp_id: &str) -> Option<usize> {
    let hash = hash(parameters);
    let found: Vec<Choice> = signers
        .iter()
        .map(|signer| {
            let mut hash = hash.clone();
            hash.update(&signer.token);
            hash.finalize().as_slice().ct_eq(digest)
        })
        .collect();
    found.into_iter().zip(signers).position(|(is_signer, signer)| {
        bool::from(is_signer) && signer.corp_id.as_deref().is_none_or(|known| known == corp_id)
    })
}

/// The hash of the signed values, before the token.
pub fn hash(parameters: &Parameters<'_>) -> Md5 {
    let mut hash = Md5::new();
    for &at in &parameters.order {
        let (key, value) = &parameters.pairs[at];
        if key != SIGN {
            hash.update(value.as_bytes());
        }
    }
    hash
}

/// Always the same for the same callback.
pub fn event_id(namespace: [u8; 16], wire_action: &str, parameters: &Parameters<'_>) -> Id {
    let mut pairs: Vec<_> = parameters.pairs.iter().filter(|(key, _)| key != SIGN).collect();
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let length: usize = pairs.iter().map(|(key, value)| key.len() + value.len() + 12).sum();
    let mut name = Vec::with_capacity(length + 48);
    name.extend_from_slice(&namespace);
    write_part(&mut name, "yida");
    write_part(&mut name, wire_action);
    for (key, value) in pairs {
        write_part(&mut name, key);
        write_part(&mut name, value);
    }
    uuid_text(&Sha1::digest(&name))
}

/// Append a part after its length in characters.
fn write_part(name: &mut Vec<u8>, part: &str) {
    name.extend_from_slice(itoa::Buffer::new().format(part.chars().count()).as_bytes());
    name.push(b':');
    name.extend_from_slice(part.as_bytes());
}
