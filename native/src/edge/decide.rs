//! From the parts of a request to a verified event.
//!
//! Mirrors `edge/decision.py` and `event_of` of `edge/callbacks.py`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::callback::{Action, Callback, Field, Form, Ids, TASK_INSTANCE, URLS, form, moment, web_address};
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
    /// The Avro body of the event.
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
    let details = Details::read(action, &callback, ids, latest)?;

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
    details.write(&mut body, occurred_at, received_at);
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

/// The fields of a callback other than its ids.
#[derive(Default)]
struct Details<'a> {
    actor_id: Option<&'a str>,
    recipient_ids: Vec<Cow<'a, str>>,
    originator: Option<(&'a str, Option<&'a str>)>,
    title: Option<&'a str>,
    url: Option<&'a str>,
    /// In the order of the schema, from `process_code` on.
    texts: [Option<&'a str>; 6],
    created_at: Option<i64>,
    finished_at: Option<i64>,
    step_name: Option<&'a str>,
    step_id: Option<&'a str>,
    decided_by: Option<&'static str>,
    form: Form<'a>,
}

impl<'a> Details<'a> {
    fn read(action: Action, callback: &'a Callback<'a>, ids: Ids, latest: i64) -> Option<Self> {
        const TEXTS: [&str; 6] =
            ["processCode", "processName", "formUuid", "serialNo", "processInstanceStatus", "processApprovedResult"];
        if action == Action::Deleted {
            return Some(Self::default());
        }
        let (step_name, step_id) = (callback.get("showName").plain()?, callback.get("activityId").plain()?);
        if action.is_of_one_task() {
            let (actor_id, decided_by) = (ids.person(callback.get("actualWorkId"))?, decided_by(callback, ids)?);
            return Some(Self { actor_id, step_name, step_id, decided_by, ..Self::default() });
        }
        let keys = action.recipients().iter();
        let named = keys.clone().map(|key| callback.in_task(key)).chain(keys.map(|key| callback.parameter(key)));
        let recipient_ids = ids.people(named)?;
        let originator = match ids.person(callback.get("originatorId"))? {
            Some(user_id) => Some((user_id, callback.get("originatorDisplayName").plain()?)),
            None => None,
        };
        let mut url = None;
        for key in URLS {
            if url.is_none() {
                url = web_address(callback.get(key))?;
            }
        }
        let mut texts = [None; 6];
        for (text, key) in texts.iter_mut().zip(TEXTS) {
            *text = callback.get(key).plain()?;
        }
        Some(Self {
            actor_id: None,
            recipient_ids,
            originator,
            title: callback.get("title").plain()?,
            url,
            texts,
            created_at: moment(callback.get("createTime"), latest)?,
            finished_at: moment(callback.get("finishTime"), latest)?,
            step_name,
            step_id,
            decided_by: None,
            form: form(callback.get("dataMap"))?,
        })
    }

    /// In the order of `schemas/avro/TaskEvent.avsc`, from `actor_id` to `form_data`.
    fn write(&self, body: &mut Vec<u8>, occurred_at: i64, received_at: i64) {
        body.optional_text(self.actor_id);
        body.array(&self.recipient_ids, |body, id| body.text(id));
        body.optional(self.originator, |body, (user_id, name)| {
            body.text(user_id);
            body.optional_text(name);
        });
        body.optional_text(self.title);
        body.optional_text(self.url);
        for text in self.texts {
            body.optional_text(text);
        }
        body.optional_long(self.created_at);
        body.optional_long(self.finished_at);
        body.long(occurred_at);
        body.long(received_at);
        for text in [None, None, self.step_name, self.step_id, self.decided_by] {
            body.optional_text(text); // the first two: outcome and remark
        }
        for _ in ["due_at", "recovered_by"] {
            body.optional_text(None);
        }
        body.array(&self.form, |body, (name, value)| {
            body.text(name);
            body.optional_text(value.as_deref());
        });
    }
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
