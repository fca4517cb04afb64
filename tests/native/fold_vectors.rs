//! Chunks, and the results of the Python fold: `tests/vectors/fold-vectors.json`, from `tests/support/streams/fold_vectors.py`.

use std::collections::{HashMap, HashSet};

use base16ct::lower::encode_string as hex;
use serde_json::{Value, json};

use crate::batches::{EncodedRecords, Record};
use crate::fold::stored::HEAD_BYTES;
use crate::fold::{ChunkOptions, Event, FixedHeaders, FormFields, Known, Rules, fold_all, prepare};

#[test]
fn every_chunk_has_the_result_of_python() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/fold-vectors.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rules = Rules {
        id_characters: number(&vectors["id_characters"]),
        moments: number(&vectors["moments"][0])..=number(&vectors["moments"][1]),
        ahead_ms: number(&vectors["ahead_ms"]),
        form_bytes: number(&vectors["form_bytes"]),
        every_field: vectors["every_field"].as_str().unwrap().into(),
        id_namespace: bytes(&vectors["id_namespace"]).try_into().unwrap(),
    };
    for (life, chunks) in list(&vectors["lives"]).iter().enumerate() {
        let mut stored = HashMap::new();
        for (at, chunk) in list(chunks).iter().enumerate() {
            let found = fold(&vectors, &rules, chunk, &stored);
            for (part, value) in found.as_object().unwrap() {
                assert_eq!(value, &chunk[part], "{part} of chunk {at} of life {life}");
            }
            stored.extend(list(&chunk["stored"]).iter().map(|pair| (bytes(&pair[0]), bytes(&pair[1]))));
        }
    }
}

/// The result of a chunk, in the form of the vectors.
fn fold(vectors: &Value, rules: &Rules, chunk: &Value, stored: &HashMap<Vec<u8>, Vec<u8>>) -> Value {
    let records: Vec<(Option<Vec<u8>>, Vec<u8>, i64)> =
        list(&chunk["records"]).iter().map(|each| (optional(&each[0]), bytes(&each[1]), number(&each[2]))).collect();
    let own = [bytes(&vectors["event_frame"])];
    let form_fields = list(&chunk["form_fields"]).iter().map(|each| each.as_str().unwrap().into()).collect();
    let fields = FormFields::new(form_fields, &rules.every_field, rules.form_bytes);
    let events: Vec<_> = records.iter().map(|(_, value, _)| Event::read_own(value, &own, &fields)).collect();
    let unread: Vec<usize> = (0..events.len()).filter(|&record| events[record].is_none()).collect();
    let placed = records.iter().map(|(key, _, offset)| (key.as_deref(), *offset));
    let (prepared, with_key) = prepare(placed, events, rules);
    let keys: Vec<&[u8]> = with_key.iter().map(|&record| records[record].0.as_deref().unwrap()).collect();

    let (state_frame, notification_frame) = (bytes(&vectors["state_frame"]), bytes(&vectors["notification_frame"]));
    let read = |key: &&[u8]| {
        stored.get(*key).map_or_else(Known::default, |bytes| Known::read(bytes, &state_frame).ok().unwrap())
    };
    let mut known: Vec<Known<'_>> = keys.iter().map(read).collect();
    let too_large: HashSet<i64> = list(&chunk["too_large"]).iter().map(number).collect();
    // The values of these say which one it is.
    let fixed = |value: usize| ("fixed".to_owned(), value.to_string().into_bytes());
    let headers = FixedHeaders {
        specversion: fixed(0),
        content_type: fixed(0),
        notification_types: (0..3).map(fixed).collect(),
        state_changed: fixed(0),
        state_deleted: fixed(1),
    };
    let options = ChunkOptions {
        rules,
        headers: &headers,
        state_frame: &state_frame,
        notification_frame: &notification_frame,
        now_ms: number(&vectors["now_ms"]),
        too_large: &too_large,
        max_published_bytes: number(&chunk["max_published_bytes"]),
    };
    let outcome = fold_all(&prepared, &mut known, &keys, options);
    let (changelog, states) = (outcome.changelog.finish(), outcome.states.finish());
    let notifications = outcome.notifications.finish();
    for (stored, state) in all(&changelog).zip(all(&states)) {
        let state = state.value.unwrap_or_default();
        assert_eq!(state, &stored.value.unwrap()[HEAD_BYTES..][..state.len()]);
    }
    json!({
        "unread": unread,
        "refused": outcome.refused.iter().map(|(record, refusal)| {
            let (code, about) = refusal.code();
            json!([record, code, about])
        }).collect::<Vec<_>>(),
        "stored": all(&changelog).map(|each| json!([hex(each.key.unwrap()), hex(each.value.unwrap())])).collect::<Vec<_>>(),
        "states": all(&states).map(|each| json!([
            hex(each.key.unwrap()),
            kind(&each) == 1,
            text(header(&each, 1)),
            text(header(&each, 3)),
            text(header(&each, 5)),
        ])).collect::<Vec<_>>(),
        "notifications": all(&notifications).map(|each| json!([
            hex(each.key.unwrap()),
            hex(each.value.unwrap()),
            kind(&each),
            text(header(&each, 3)),
            text(header(&each, 5)),
        ])).collect::<Vec<_>>(),
        "actions": outcome.actions,
        "changes": outcome.changes,
        "unpublished": outcome.unpublished.iter().map(|&cause| prepared[cause].offset).collect::<Vec<_>>(),
        "largest": outcome.largest,
    })
}

fn all(records: &EncodedRecords) -> impl Iterator<Item = Record<'_>> {
    (0..records.len()).map(|at| records.get(at).unwrap())
}

fn header<'a>(record: &Record<'a>, at: usize) -> &'a [u8] {
    record.headers[at].1.unwrap()
}

fn kind(record: &Record<'_>) -> usize {
    text(header(record, 2)).parse().unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn number<T: TryFrom<i64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_i64().unwrap().try_into().unwrap()
}

fn optional(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(|text| base16ct::lower::decode_vec(text).unwrap())
}

/// None is read as empty bytes, which are not a record either.
fn bytes(value: &Value) -> Vec<u8> {
    optional(value).unwrap_or_default()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
