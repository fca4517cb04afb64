//! The parameters of the harness: topics and folders in `PEER_*`, and the constants of the service in `PEER_RULES`.

use std::env;

use _native::fold::{FixedHeader, FixedHeaders, Rules};
use serde_json::Value;

pub struct Given {
    pub events: String,
    pub states: String,
    pub notifications: String,
    pub changelog: String,
    pub state_dir: String,
    pub ready_file: String,
    pub partitions: i32,
    /// Settings of the service's producers, and of a consumer of its group.
    pub producer: Vec<(String, String)>,
    pub consumer: Vec<(String, String)>,
    pub rules: Rules,
    pub max_published_bytes: usize,
    /// The bytes before each encoded record.
    pub event_frame: Vec<u8>,
    pub state_frame: Vec<u8>,
    pub notification_frame: Vec<u8>,
    pub headers: FixedHeaders,
}

impl Given {
    /// Panics where a parameter is missing.
    pub fn read() -> Self {
        let given = |name: &str| env::var(format!("PEER_{name}")).unwrap_or_else(|_| panic!("no PEER_{name}"));
        let rules: Value = serde_json::from_str(&given("RULES")).expect("PEER_RULES is JSON");
        let text = |name: &str| rules[name].as_str().unwrap_or_else(|| panic!("no text {name}")).to_owned();
        Self {
            events: given("EVENTS_TOPIC"),
            states: given("STATES_TOPIC"),
            notifications: given("NOTIFICATIONS_TOPIC"),
            changelog: given("CHANGELOG_TOPIC"),
            state_dir: given("STATE_DIR"),
            ready_file: given("READY_FILE"),
            partitions: given("PARTITIONS").parse().expect("PEER_PARTITIONS is a number"),
            producer: settings(&rules["producer"]),
            consumer: [settings(&rules["consumer"]), vec![("group.id".into(), given("GROUP"))]].concat(),
            rules: Rules {
                id_characters: number(&rules["id_characters"]),
                moments: number(&rules["moments"][0])..=number(&rules["moments"][1]),
                ahead_ms: number(&rules["ahead_ms"]),
                form_bytes: number(&rules["form_bytes"]),
                every_field: text("every_field"),
                id_namespace: bytes(&rules["id_namespace"]).try_into().expect("a namespace has 16 bytes"),
            },
            max_published_bytes: number(&rules["max_published_bytes"]),
            event_frame: bytes(&rules["event_frame"]),
            state_frame: bytes(&rules["state_frame"]),
            notification_frame: bytes(&rules["notification_frame"]),
            headers: FixedHeaders {
                specversion: header(&rules["specversion"]),
                content_type: header(&rules["content_type"]),
                notification_types: list(&rules["notification_types"]).iter().map(header).collect(),
                state_changed: header(&rules["state_changed"]),
                state_deleted: header(&rules["state_deleted"]),
            },
        }
    }
}

fn settings(value: &Value) -> Vec<(String, String)> {
    value.as_object().expect("settings").iter().map(|(name, value)| (name.clone(), plain(value))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A name and a value.
fn header(value: &Value) -> FixedHeader {
    (plain(&value[0]), plain(&value[1]).into_bytes())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number<T: TryFrom<i64>>(value: &Value) -> T {
    value.as_i64().and_then(|number| number.try_into().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

/// Python gives bytes as a list of numbers.
fn bytes(value: &Value) -> Vec<u8> {
    list(value).iter().map(number).collect()
}
