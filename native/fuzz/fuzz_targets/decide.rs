//! Requests of any bytes are decided by the edge's core, guided by what of it they reach: `make fuzz`.
//!
//! What begins with `POST ` is a whole request. Else the first byte says action and content type, then comes the query,
//! after a zero the body. In place of 32 times `S` stands the signature that is right for the rest, and in a head in
//! place of six times `L` the body's length, or nothing behind them would ever be reached. Here it is seen that nothing
//! panics, that the same request is decided in the same way, and that neither less nor more of a whole one is whole; that
//! Python decides in that way, too, is seen of the corpus, by `tests/unit/edge/test_native_decision.py`.

#![no_main]
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::LazyLock;

use edge::decide::{Request, Rules, decide};
use edge::head::{Whole, whole};
use libfuzzer_sys::fuzz_target;

#[path = "../../src/avro.rs"]
mod avro;
#[path = "../../src/cloudevents.rs"]
mod cloudevents;
#[path = "../../src/edge/mod.rs"]
mod edge;

const ACTIONS: [&str; 5] = ["create", "complete", "cancel", "delete", "cc"];
const TYPES: [Option<&str>; 4] = [
    Some("application/json"),
    Some("application/x-www-form-urlencoded"),
    None,
    Some("application/json; charset=UTF-8"),
];
const TOKEN: &str = "t";
const SIGNATURE_PLACE: [u8; 32] = [b'S'; 32];
const LENGTH_PLACE: [u8; 6] = [b'L'; 6];

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let signer = edge::signature::Signer { corp_id: Some("c".to_owned()), token: TOKEN.to_owned() };
    Rules {
        apps: HashMap::from([("A".to_owned(), vec![signer])]),
        id_characters: 128,
        ahead_ms: 300_000,
        id_namespace: [7; 16],
    }
});

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"POST ") {
        decide_whole(bytes.to_vec());
    } else if let Some((&first, rest)) = bytes.split_first() {
        let mut parts = rest.splitn(2, |&byte| byte == 0);
        let query = parts.next().unwrap_or_default().to_vec();
        let body = parts.next().unwrap_or_default().to_vec();
        decide_parts(ACTIONS[usize::from(first) % 5], query, TYPES[usize::from(first) / 5 % 4], body);
    }
});

fn decide_whole(mut bytes: Vec<u8>) {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return };
    let length = format!("{:06}", bytes.len() - end - 4);
    put(&mut bytes[..end], &LENGTH_PLACE, length.as_bytes());
    let Some(Whole { wire_action, content_type, body, .. }) = whole(&bytes) else { return };
    assert!(whole(&bytes[..bytes.len() - 1]).is_none());
    assert!(whole(&[&bytes[..], b"x"].concat()).is_none());
    decide_parts(wire_action, Vec::new(), content_type, body.to_vec());
}

fn decide_parts(wire_action: &str, mut query: Vec<u8>, content_type: Option<&str>, mut body: Vec<u8>) {
    if let Some(parameters) = edge::parameters::Parameters::read(&query, content_type, &body) {
        let signature = edge::signature::hex(&parameters, TOKEN);
        put(&mut query, &SIGNATURE_PLACE, &signature);
        put(&mut body, &SIGNATURE_PLACE, &signature);
    }
    let request = Request { wire_action, query: &query, content_type, body: &body, received_at: 1_720_000_000_000 };
    let [once, again] = [decide(&RULES, request), decide(&RULES, request)];
    assert_eq!(once.map(|decided| decided.body), again.map(|decided| decided.body));
}

/// Bytes in place of as many others, where these stand first.
fn put(within: &mut [u8], place: &[u8], instead: &[u8]) {
    if let Some(at) = within.windows(place.len()).position(|window| window == place) {
        within[at..at + place.len()].copy_from_slice(instead);
    }
}
