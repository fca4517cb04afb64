//! Requests of any bytes are decided by the edge's core, guided by what of it they reach: `make fuzz`.
//!
//! The first byte says action and content type, then comes the query, after a zero the body. In place of 32 times `S`
//! stands the signature that is right for the rest, or nothing behind it would ever be reached. Here it is seen that
//! nothing panics and that the same request is decided in the same way; that Python decides it in that way, too, is seen
//! of the corpus, by `tests/unit/edge/test_native_decision.py`.

#![no_main]
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::LazyLock;

use edge::decide::{Request, Rules, decide};
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
const PLACE: [u8; 32] = [b'S'; 32];

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let signer = edge::signature::Signer { corp_id: Some("c".to_owned()), token: TOKEN.to_owned() };
    Rules { apps: HashMap::from([("A".to_owned(), vec![signer])]), id_characters: 128, ahead_ms: 300_000, id_namespace: [7; 16] }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&head, rest)) = bytes.split_first() else { return };
    let mut parts = rest.splitn(2, |&byte| byte == 0);
    let mut query = parts.next().unwrap_or_default().to_vec();
    let mut body = parts.next().unwrap_or_default().to_vec();
    let content_type = TYPES[usize::from(head) / 5 % 4];
    if let Some(parameters) = edge::parameters::Parameters::read(&query, content_type, &body) {
        let sign = edge::signature::hex(&parameters, TOKEN);
        for part in [&mut query, &mut body] {
            if let Some(at) = part.windows(32).position(|window| window == PLACE) {
                part[at..at + 32].copy_from_slice(&sign);
            }
        }
    }
    let request = Request {
        wire_action: ACTIONS[usize::from(head) % 5],
        query: &query,
        content_type,
        body: &body,
        received_at: 1_720_000_000_000,
    };
    let [once, again] = [decide(&RULES, request), decide(&RULES, request)];
    assert_eq!(once.map(|decided| decided.body), again.map(|decided| decided.body));
});
