//! From the parts of a request to a verified event.
//!
//! Mirrors `edge/decision/decide.py` and `event_of` of `edge/decision/callbacks.py`.

use std::collections::HashMap;

use super::callback::{Action, Callback, Field, Ids, TASK_INSTANCE, URLS, form, moment, web_address};
use super::request::Parameters;
use super::signature::{SIGN, Signer, digest, event_id, signed_by};
use crate::avro::Writer;
use crate::cloudevents::Id;

/// The tokens of each app, and the limits, which Python defines.
pub struct Rules {
    pub apps: HashMap<String, Vec<Signer>>,
    pub id_characters: usize,
    pub ahead_ms: i64,
    pub id_namespace: [u8; 16],
}

/// The parts of a request that decide.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub wire_action: &'a str,
    pub query: &'a [u8],
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
    pub received_at: i64,
}

/// An event that its app signed.
pub struct Decided {
    pub event_id: Id,
    /// Index of the schema's symbol.
    pub action: usize,
    pub app_type: String,
    pub corp_id: String,
    pub instance_id: String,
    pub occurred_at: i64,
    /// The signature, which is accepted for this event only.
    pub digest: [u8; 16],
    /// Index of the app's token that signed.
    pub signer: usize,
    pub body: Vec<u8>,
}

/// The event that the request proves; None where Python decides.
pub fn decide(rules: &Rules, request: Request<'_>) -> Option<Decided> {
    const FIRST_MS: i64 = 0;
    const LAST_MS: i64 = 1 << 47;
    let Request { wire_action, received_at, .. } = request;
    (FIRST_MS < received_at && received_at < LAST_MS).then_some(())?;
    let action = Action::of(wire_action)?;
    let parameters = Parameters::read(request.query, request.content_type, request.body)?;
    let callback = Callback::of(action, &parameters)?;
    let ids = Ids { max_characters: rules.id_characters };

    let app_type = ids.required(Field::text(callback.agreed("appType")?))?;
    let corp_id = match callback.agreed("corpId")? {
        Some(corp_id) => corp_id,
        None => callback.in_task("originatorCorpId").plain()??,
    };
    let digest = digest(parameters.get(SIGN)?)?;
    let signer = signed_by(&parameters, rules.apps.get(app_type)?, &digest, corp_id)?;

    let corp_id = ids.required(Field::Text(corp_id))?;
    let instance_id = callback.parameter("formInstId");
    let instance_id = TASK_INSTANCE.iter().fold(instance_id, |found, key| found.or(|| callback.in_task(key)));
    let instance_id = ids.required(instance_id)?;
    let task_id = ids.optional(callback.get("taskId"))?;
    (task_id.is_some() || !action.is_of_one_task()).then_some(())?;
    let latest = received_at + rules.ahead_ms;
    let occurred_at = moment(callback.get("dateTime"), latest)?.unwrap_or(received_at);

    let event_id = event_id(rules.id_namespace, wire_action, &parameters);
    let mut body = Vec::with_capacity(request.body.len() * 2 + request.query.len() * 2 + 512);
    body.count(event_id.len());
    body.extend_from_slice(&event_id);
    body.text("yida");
    body.count(action as usize);
    for text in [corp_id, app_type, instance_id] {
        body.text(text);
    }
    body.optional_text(task_id);
    write_details(&mut body, action, &callback, ids, [occurred_at, received_at, latest])?;
    body.array(&parameters.pairs, |body, (key, value)| {
        body.text(key);
        body.text(value);
    });
    Some(Decided {
        event_id,
        action: action as usize,
        app_type: app_type.to_owned(),
        corp_id: corp_id.to_owned(),
        instance_id: instance_id.to_owned(),
        occurred_at,
        digest,
        signer,
        body,
    })
}

/// Append the fields from `actor_id` to `form_data`, in the order of `schemas/avro/TaskEvent.avsc`.
fn write_details(
    body: &mut Vec<u8>,
    action: Action,
    callback: &Callback<'_>,
    ids: Ids,
    [occurred_at, received_at, latest]: [i64; 3],
) -> Option<()> {
    const TEXTS: [&str; 6] =
        ["processCode", "processName", "formUuid", "serialNo", "processInstanceStatus", "processApprovedResult"];
    let (decides, describes) = (action.is_of_one_task(), action.describes());
    let field = |has: bool, key| if has { callback.get(key) } else { Field::Absent };
    body.optional_text(ids.person(field(decides, "actualWorkId"))?);
    let keys = action.recipients().iter();
    let named = keys.clone().map(|key| callback.in_task(key)).chain(keys.map(|key| callback.parameter(key)));
    body.array(&ids.people(named)?, |body, id| body.text(id));
    let originator = match ids.person(field(describes, "originatorId"))? {
        Some(user_id) => Some((user_id, callback.get("originatorDisplayName").plain()?)),
        None => None,
    };
    body.optional(originator, |body, (user_id, name)| {
        body.text(user_id);
        body.optional_text(name);
    });
    body.optional_text(field(describes, "title").plain()?);
    let mut url = None;
    for key in URLS {
        if url.is_none() {
            url = web_address(field(describes, key))?;
        }
    }
    body.optional_text(url);
    for key in TEXTS {
        body.optional_text(field(describes, key).plain()?);
    }
    for key in ["createTime", "finishTime"] {
        body.optional_long(moment(field(describes, key), latest)?);
    }
    body.long(occurred_at);
    body.long(received_at);
    for _ in ["outcome", "remark"] {
        body.optional_text(None);
    }
    for key in ["showName", "activityId"] {
        body.optional_text(field(decides || describes, key).plain()?);
    }
    body.optional_text(if decides { decided_by(callback, ids)? } else { None });
    for _ in ["due_at", "recovered_by"] {
        body.optional_text(None);
    }
    body.array(&form(field(describes, "dataMap"))?, |body, (name, value)| {
        body.text(name);
        body.optional_text(value.as_deref());
    });
    Some(())
}

fn decided_by(callback: &Callback<'_>, ids: Ids) -> Option<Option<&'static str>> {
    let agents = ids.people(std::iter::once(callback.get("operatorAgentIdList")))?;
    Some(match callback.get("taskExecuteType").plain()? {
        Some("AUTO" | "FILTERED") => Some("AUTOMATIC"),
        Some("NORMAL") | None if !agents.is_empty() => Some("DELEGATE"),
        Some("NORMAL") => Some("PERSON"),
        None => None,
        Some(_) => return None,
    })
}
