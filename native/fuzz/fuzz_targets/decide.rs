//! Gives arbitrary bytes to the edge's core, guided by coverage: `make fuzz`.
//!
//! The first byte of the input chooses action and content type, then comes the query, and after a zero byte the body.
//! 32 times `S` is replaced by the right signature: otherwise nearly all input ends at this check.
//!
//! The target checks that nothing panics, and that a request has one decision.
//! `tests/unit/edge/decision/test_native_decision.py` compares the decisions of the corpus with Python's.

#![no_main]
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::LazyLock;

use edge::decide::{Request, Rules, decide};
use edge::request::Parameters;
use libfuzzer_sys::fuzz_target;
use md5::Digest;

#[path = "../../src/avro.rs"]
mod avro;
#[path = "../../src/cloudevents.rs"]
mod cloudevents;
#[path = "../../src/edge/mod.rs"]
mod edge;
#[path = "../../src/json.rs"]
mod json;

const ACTIONS: [&str; 5] = ["create", "complete", "cancel", "delete", "cc"];
const TYPES: [Option<&str>; 4] = [
    Some("application/json"),
    Some("application/x-www-form-urlencoded"),
    None,
    Some("application/json; charset=UTF-8"),
];
const TOKEN: &str = "t";
const SIGNATURE_PLACE: [u8; 32] = [b'S'; 32];

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
    if let Some((&first, rest)) = bytes.split_first() {
        let mut parts = rest.splitn(2, |&byte| byte == 0);
        let query = parts.next().unwrap_or_default().to_vec();
        let body = parts.next().unwrap_or_default().to_vec();
        decide_parts(ACTIONS[usize::from(first) % 5], query, TYPES[usize::from(first) / 5 % 4], body);
    }
});

fn decide_parts(wire_action: &str, mut query: Vec<u8>, content_type: Option<&str>, mut body: Vec<u8>) {
    if let Some(parameters) = Parameters::read(&query, content_type, &body) {
        let signed = edge::signature::hash(&parameters).chain_update(TOKEN).finalize();
        let mut signature = [0; 32];
        base16ct::lower::encode(&signed, &mut signature).expect("twice as many");
        replace(&mut query, &SIGNATURE_PLACE, &signature);
        replace(&mut body, &SIGNATURE_PLACE, &signature);
    }
    let request = Request { wire_action, query: &query, content_type, body: &body, received_at: 1_720_000_000_000 };
    let [once, again] = [decide(&RULES, request), decide(&RULES, request)];
    assert_eq!(once.map(|decided| decided.body), again.map(|decided| decided.body));
}

/// Replace the first occurrence of a placeholder by as many bytes.
fn replace(bytes: &mut [u8], place: &[u8], by: &[u8]) {
    if let Some(at) = bytes.windows(place.len()).position(|window| window == place) {
        bytes[at..at + place.len()].copy_from_slice(by);
    }
}
