//! From the parts of a request to a verified event. Mirrors `edge/deciding/interpret.py` and `event_of` of `edge/callbacks.py`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::callback::{Action, Callback, TASK_INSTANCE, URLS};
use super::fields::{self, Form, Ids, Told};
use super::parameters::Parameters;
use super::signature::{SIGN, Signer, digest, event_id, signed_by};
use crate::avro::Writer;
use crate::cloudevents::Id;

/// What callbacks are decided by: the tokens of each app, and figures that Python has.
pub struct Rules {
    pub apps: HashMap<String, Vec<Signer>>,
    pub id_characters: usize,
    pub ahead_ms: i64,
    pub id_namespace: [u8; 16],
}

/// A request as far as it counts.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub wire_action: &'a str,
    pub query: &'a [u8],
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
    pub received_at: i64,
}

/// What is decided: an event that its app signed.
pub struct Decided {
    pub event_id: Id,
    /// Its place among the schema's symbols.
    pub action: usize,
    pub app_type: String,
    pub corp_id: String,
    pub instance_id: String,
    pub occurred_at: i64,
    /// The signature, which is spent on the event.
    pub digest: [u8; 16],
    /// The place among the app's tokens of the one that signed.
    pub signer: usize,
    /// The Avro body of the event.
    pub body: Vec<u8>,
}

/// The event that the request proves; None for whatever is not plainly one: Python then decides from the start.
pub fn decide(rules: &Rules, request: Request<'_>) -> Option<Decided> {
    const FIRST_MS: i64 = 0;
    const LAST_MS: i64 = 1 << 47;
    let Request { wire_action, received_at, .. } = request;
    (FIRST_MS < received_at && received_at < LAST_MS).then_some(())?;
    let action = Action::of(wire_action)?;
    let parameters = Parameters::read(request.query, request.content_type, request.body)?;
    let callback = Callback::of(action, &parameters)?;
    let ids = Ids { characters: rules.id_characters };

    let app_type = ids.required(Told::text(callback.same("appType")?))?;
    let corp_id = match callback.same("corpId")? {
        Some(corp_id) => corp_id,
        None => callback.described("originatorCorpId").plain()??,
    };
    let digest = digest(parameters.get(SIGN)?)?;
    let signer = signed_by(&parameters, rules.apps.get(app_type)?, &digest, corp_id)?;

    let corp_id = ids.required(Told::Text(corp_id))?;
    let instance_id = callback.beside("formInstId");
    let instance_id = TASK_INSTANCE.iter().fold(instance_id, |told, key| told.or(|| callback.described(key)));
    let instance_id = ids.required(instance_id)?;
    let task_id = ids.optional(callback.told("taskId"))?;
    (task_id.is_some() || !action.is_of_one_task()).then_some(())?;
    let latest = received_at + rules.ahead_ms;
    let occurred_at = fields::moment(callback.told("dateTime"), latest)?.unwrap_or(received_at);
    let told = Described::read(action, &callback, ids, latest)?;

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
    told.write(&mut body, occurred_at, received_at);
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

/// What a callback tells beside its ids.
#[derive(Default)]
struct Described<'a> {
    actor_id: Option<&'a str>,
    recipient_ids: Vec<Cow<'a, str>>,
    originator: Option<(&'a str, Option<&'a str>)>,
    title: Option<&'a str>,
    url: Option<&'a str>,
    /// In the order of the schema, from `process_code` on.
    texts: [Option<&'a str>; 6],
    created_at: Option<i64>,
    finished_at: Option<i64>,
    form: Form<'a>,
}

impl<'a> Described<'a> {
    fn read(action: Action, callback: &'a Callback<'a>, ids: Ids, latest: i64) -> Option<Self> {
        const TEXTS: [&str; 6] =
            ["processCode", "processName", "formUuid", "serialNo", "processInstanceStatus", "processApprovedResult"];
        if action.is_of_one_task() {
            return Some(Self { actor_id: ids.person(callback.told("actualWorkId"))?, ..Self::default() });
        }
        if !action.describes() {
            return Some(Self::default());
        }
        let keys = action.recipients().iter();
        let named = keys.clone().map(|key| callback.described(key)).chain(keys.map(|key| callback.beside(key)));
        let recipient_ids = ids.people(named)?;
        let originator = match ids.person(callback.told("originatorId"))? {
            Some(user_id) => Some((user_id, callback.told("originatorDisplayName").plain()?)),
            None => None,
        };
        let mut url = None;
        for key in URLS {
            if url.is_none() {
                url = fields::web_address(callback.told(key))?;
            }
        }
        let mut texts = [None; 6];
        for (text, key) in texts.iter_mut().zip(TEXTS) {
            *text = callback.told(key).plain()?;
        }
        Some(Self {
            actor_id: None,
            recipient_ids,
            originator,
            title: callback.told("title").plain()?,
            url,
            texts,
            created_at: fields::moment(callback.told("createTime"), latest)?,
            finished_at: fields::moment(callback.told("finishTime"), latest)?,
            form: fields::form(callback.told("dataMap"))?,
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
        for _ in ["outcome", "remark", "recovered_by"] {
            body.optional_text(None);
        }
        body.array(&self.form, |body, (name, value)| {
            body.text(name);
            body.optional_text(value.as_deref());
        });
    }
}
