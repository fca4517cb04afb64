//! Requests, and the decisions of the Python edge: `tests/vectors/edge-vectors.json`, from `tests/support/edge/vectors.py`.

use base16ct::lower::encode_string as hex;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::decide::{Request, Rules, decide};
use super::request::Parameters;
use super::signature::{Signer, digest, signed_by};
use crate::cloudevents::{rfc3339, source};

const TYPES: [&str; 5] = ["created", "completed", "cancelled", "deleted", "copied"];

#[test]
fn usual_requests_are_accepted_and_decided_as_in_python() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/edge-vectors.json");
    let path = std::env::var("TASKBRIDGE_EDGE_VECTORS").unwrap_or(path.into());
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (rules, requests) = (rules(&vectors[0]), &vectors[1..]);
    let (mut accepted, mut proven) = (0, 0);
    for (at, vector) in requests.iter().enumerate() {
        let (query, body) = (latin(&vector["query"]), latin(&vector["body"]));
        let request = Request {
            wire_action: text(&vector["action"]),
            query: &query,
            content_type: vector["content_type"].as_str(),
            body: &body,
            received_at: vector["received_at"].as_i64().unwrap(),
        };
        proven += usize::from(!vector["decided"].is_null());
        let Some(decided) = decide(&rules, request) else {
            assert_ne!(vector["is_accepted"], json!(true), "{at}: {vector}");
            continue;
        };
        assert_ne!(vector["is_accepted"], json!(false), "{at}: {vector}");
        accepted += 1;
        let found = json!({
            "type": (TYPES[decided.action]),
            "event_id": std::str::from_utf8(&decided.event_id).unwrap(),
            "app_type": decided.app_type,
            "instance_id": decided.instance_id,
            "source": String::from_utf8(source(["yida", &decided.corp_id, &decided.app_type])).unwrap(),
            "time": std::str::from_utf8(&rfc3339(decided.occurred_at)).unwrap(),
            "digest": hex(&decided.digest),
            "token": rules.apps[&decided.app_type][decided.signer].token,
            "avro_sha1": hex(&Sha1::digest(&decided.body)),
            "avro_bytes": decided.body.len(),
        });
        assert_eq!(found, vector["decided"], "{at}: {vector}");
    }
    println!("{accepted} accepted of {proven} that prove an event, of {}", requests.len());
    assert!(accepted > 0);
}

#[test]
fn signatures_of_a_jvm_verify_where_all_keys_are_ascii() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/sign-vectors.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut verified = 0;
    for vector in &vectors {
        let body = vector["params"].to_string();
        let keys = || vector["params"].as_object().unwrap().keys();
        let is_plain = keys().all(|key| key.is_ascii()) && vector["ambiguous"] == json!(false) && body.len() <= 65_536;
        let parameters = Parameters::read(b"", None, body.as_bytes());
        assert_eq!(parameters.is_some(), is_plain, "{}", vector["name"]);
        let Some(parameters) = parameters else { continue };
        let mut digest = digest(text(&vector["sign"])).unwrap();
        let others = || Signer { corp_id: None, token: "another".to_owned() };
        let right = Signer { corp_id: None, token: text(&vector["system_token"]).to_owned() };
        let signers = [others(), right, others()];
        assert_eq!(signed_by(&parameters, &signers, &digest, "c"), Some(1), "{}", vector["name"]);
        verified += 1;
        for place in 0..16 {
            digest[place] ^= 1;
            assert_eq!(signed_by(&parameters, &signers, &digest, "c"), None);
            digest[place] ^= 1;
        }
    }
    assert!(verified > 25);
}

fn rules(figures: &Value) -> Rules {
    let namespace = text(&figures["id_namespace"]);
    let signer =
        |pair: &Value| Signer { corp_id: pair[0].as_str().map(str::to_owned), token: text(&pair[1]).to_owned() };
    let apps = figures["apps"].as_object().unwrap().iter();
    Rules {
        apps: apps.map(|(app, pairs)| (app.clone(), pairs.as_array().unwrap().iter().map(signer).collect())).collect(),
        id_characters: usize::try_from(figures["id_characters"].as_u64().unwrap()).unwrap(),
        ahead_ms: figures["ahead_ms"].as_i64().unwrap(),
        id_namespace: std::array::from_fn(|at| u8::from_str_radix(&namespace[2 * at..][..2], 16).unwrap()),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Bytes, written as the characters of their numbers.
fn latin(value: &Value) -> Vec<u8> {
    text(value).chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}
