//! Chunks, and the results of the Python fold: `tests/vectors/fold-vectors.json`, from `tests/support/streams/fold_vectors.py`.

use std::collections::{HashMap, HashSet};

use base16ct::lower::encode_string as hex;
use serde_json::{Value, json};

use crate::cloudevents::{rfc3339, source};
use crate::fold::stored::HEAD_BYTES;
use crate::fold::{ChunkOptions, Event, FormFields, Known, Outcome, Rules, fold_all, prepare};

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
    let options = ChunkOptions {
        rules,
        state_frame: &state_frame,
        notification_frame: &notification_frame,
        now_ms: number(&vectors["now_ms"]),
        too_large: &too_large,
        max_published_bytes: number(&chunk["max_published_bytes"]),
    };
    let outcome = fold_all(&prepared, &mut known, options);

    let Outcome { bytes: all, written, notifications, refused, actions, changes, unpublished, .. } = &outcome;
    for each in written {
        assert_eq!(each.state.start, each.stored.start + HEAD_BYTES);
    }
    for each in notifications {
        let begin = each.value.start + notification_frame.len() + 1;
        assert_eq!(text(&each.id), text(&all[begin..begin + each.id.len()]));
    }
    json!({
        "unread": unread,
        "refused": refused.iter().map(|(record, refusal)| {
            let (code, about) = refusal.code();
            json!([record, code, about])
        }).collect::<Vec<_>>(),
        "stored": written.iter().map(|each| json!([hex(keys[each.known]), hex(&all[each.stored.clone()])])).collect::<Vec<_>>(),
        "states": written.iter().map(|each| json!([
            hex(keys[each.known]),
            each.is_deleted,
            text(&each.id),
            text(&source(each.source)),
            text(&rfc3339(each.updated_at)),
        ])).collect::<Vec<_>>(),
        "notifications": notifications.iter().map(|each| {
            let event = &prepared[each.cause].event;
            json!([
                hex(&all[each.key.clone()]),
                hex(&all[each.value.clone()]),
                each.change.number(),
                text(&source(each.source)),
                text(&rfc3339(event.occurred_at)),
            ])
        }).collect::<Vec<_>>(),
        "actions": actions,
        "changes": changes,
        "unpublished": unpublished.iter().map(|&cause| prepared[cause].offset).collect::<Vec<_>>(),
        "largest": outcome.largest(),
    })
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
