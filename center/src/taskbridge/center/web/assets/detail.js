// One instance in full: who has it now, what happened, what was filled in.

import { taskKey } from "./actions.js";
import { Latest, search } from "./api.js";
import { commentsPanel } from "./comments.js";
import { changesShown, CurrentForm, formAge } from "./current-form.js";
import { decidingPanel } from "./deciding.js";
import { decisionsShown, resultShown } from "./decisions.js";
import { button, debounced, disclosure, element, facts, icon, outsideLink, replace } from "./dom.js";
import { formShown } from "./form-values.js";
import { Format, namesIn } from "./format.js";
import { allOf, keyOf } from "./inbox-state.js";
import { markTools } from "./mark-tools.js";
import { avatar, decisionOf, decisionShown, dueShown, hasEnded, nothingToShow, problemShown, statusShown } from "./states.js";
import { itemShown } from "./task-rows.js";
import { timelineShown } from "./timeline.js";

const AGAIN_AFTER_MS = 200;
const READ_AGAIN_MS = 1000;

/**
 * `close` leads back to the list where only one of them is shown. `opensFiles`: whether a link does, which sends no
 * program's token.
 */
export function detailPane(api, inbox, words, { close, actions, opensFiles }) {
  const format = new Format(words.tag);
  const { detail: said } = words;
  const loading = new Latest();
  const again = debounced(load, AGAIN_AFTER_MS);
  const body = element("div", { class: "detail-body", tabindex: "-1" });
  const marks = markTools(inbox, words);
  const bar = element("div", { class: "detail-bar strip" }, button([icon("back"), said.back], close, { class: "tool back" }), marks.root);
  const root = element("section", { class: "detail", "aria-label": said.label }, bar, body);
  /** What is shown: the id of an instance, its row where there is one, and what the service says of it so far. */
  let shown = null;
  let item = null;
  let state = null;
  let events = null;
  let deciding, comments;
  const current = new CurrentForm(api, () => state && render());
  inbox.addEventListener("instance", ({ detail }) => onInstance(detail.instanceId));
  actions.addEventListener("change", () => {
    deciding?.render();
    if (item !== null) current.refused(actions.of(item));
  });
  show(null);

  function show(instanceId, row = null) {
    const isOther = instanceId !== shown;
    item = row ?? (isOther ? null : item);
    marks.show(instanceId === null ? null : item);
    shown = instanceId;
    if (instanceId === null) replace(body, nothingToShow("inbox", said.choose));
    if (isOther) {
      [state, events, comments] = [null, null, null];
      current.show(instanceId);
      loading.cancel();
      again.cancel();
      if (instanceId === null) return;
      body.scrollTop = 0;
      replace(body, item === null ? element("p", { class: "note" }, words.loading) : head());
      load();
    } else if (state) render();
  }

  function onInstance(instanceId) {
    if (instanceId === shown) again();
  }

  function load() {
    const id = shown;
    const request = async (signal) => {
      const path = `/v1/instances/${encodeURIComponent(id)}`;
      const history = api.get(`${path}/history`, {}, signal).catch((error) => error);
      return [await api.get(path, {}, signal), await history];
    };
    return loading.run(request, {
      found: ([found, history]) => {
        state = found;
        if (!(history instanceof Error)) events = history;
        if (events?.reads_form) current.read();
        // Its events are not all read yet.
        if (history.status === 503) setTimeout(() => onInstance(id), READ_AGAIN_MS);
        render();
      },
      failed: (problem) => {
        state = null;
        if (problem.status === 404) replace(body, item && head(), nothingToShow("trash", said.gone));
        else replace(body, problemShown(problem, words, load));
      },
    });
  }

  function render() {
    const context = { words, format, name: nameOf() };
    const decisions = decisionsShown(state, current.found?.to_come ?? [], context);
    replace(
      body,
      head(),
      changesShown(current, events?.form_labels ?? {}, context),
      item && decidingShown(),
      people(context),
      decisions && section(said.stands, decisions),
      commentsShown(),
      section(said.timeline, timelineShown(events, context)),
      form(context),
      technical(),
    );
  }

  function decidingShown() {
    const isSame = deciding && taskKey(deciding.item) === taskKey(item);
    if (!isSame) deciding = decidingPanel(api, actions, words);
    // The callback may come before the row leaves, and the row leaves before these details.
    const isOpen = (task()?.status ?? "PENDING") === "PENDING";
    deciding.show({ item, revision: state.revision, isOpen, steps: earlierSteps(state, item), form: current });
    return deciding.root;
  }

  function commentsShown() {
    comments ??= commentsPanel(api, words, format, { instanceId: shown, title: state.title, me: inbox.person.userId });
    return comments.root;
  }

  /** How people of this instance are called: names where they are known. */
  function nameOf() {
    const names = namesIn(state.originator ?? item?.originator, state, events, current.found);
    return (id) => (id === inbox.person.userId ? words.you : (names.get(id) ?? id));
  }

  /** The one that the row is about, where it is about one. */
  function task() {
    return state?.tasks.find((each) => each.task_id === item?.task_id);
  }

  function head() {
    const { title, originator, process_name: process, app_type: app } = { ...item, ...known(state) };
    const name = originator?.name || originator?.user_id || words.unknownPerson;
    const link = outsideLink(
      task()?.url ?? item?.url ?? state?.url,
      { class: "primary-button open-page", "aria-label": said.openLabel, data: { keep: "open" } },
      said.open,
      icon("external"),
    );
    const isGone = item !== null && inbox.state.phase === "ready" && !item.on_behalf_of && !allOf(inbox.state).some((other) => keyOf(other) === keyOf(item));
    return element(
      "header",
      { class: "detail-head stack" },
      element(
        "div",
        { class: "detail-tags line note" },
        state ? requestShown(state, task(), words) : itemShown(item, words),
        element("bdi", {}, process || app),
        isGone ? element("span", { class: "detail-left" }, said.left) : null,
      ),
      element("h2", { class: title ? "" : "faint" }, element("bdi", {}, title || words.untitled)),
      element(
        "div",
        { class: "detail-by line note" },
        avatar(originator, name),
        element("bdi", { class: "detail-name" }, name),
        state ? format.time(state.created_at) : null,
      ),
      link ?? element("p", { class: "note" }, said.noPage),
    );
  }

  function people(context) {
    const chips = (ids) => (ids.length > 0 ? ids.map((id) => element("bdi", { class: "chip" }, context.name(id))) : null);
    const waiting = chips([...new Set(state.tasks.filter(({ status }) => status === "PENDING").flatMap(({ assignee_ids: ids }) => ids))]);
    const due = item?.view === "pending" ? item.due_at : null;
    return facts(
      [said.step, task()?.step_name ? element("bdi", {}, task().step_name) : null],
      [said.waitingFor, waiting ?? element("span", { class: "faint" }, said.nobodyWaits)],
      [said.copied, chips(state.copied.map(({ user_id: id }) => id))],
      [said.decision, task()?.actor_id === inbox.person.userId ? decisionShown(task(), words) : null],
      [said.result, resultShown(state, overall(state), context)],
      [words.due.label, due ? [format.time(due), " ", dueShown(item, words, format)] : null],
      [said.updated, format.time(state.updated_at)],
    );
  }

  function form(context) {
    const { form: sent = {}, form_title: title = null, form_labels: labels = {}, opens_files: opens = false } = events ?? {};
    const { form: values, files } = current.found ?? { form: sent, files: events?.files ?? {} };
    const changed = new Set(current.found?.changed.map(({ field }) => field));
    const path = `/v1/instances/${encodeURIComponent(shown)}/files`;
    // The service opens what was sent: not what was attached since then.
    const isSent = (place) => !changed.has(place.split("/")[0]);
    const address = (place, number) => (opens && opensFiles && isSent(place) ? path + search({ place, number }) : null);
    const sentAt = events?.events.find(({ event_id: id }) => id === events.form_of)?.occurred_at;
    const heading = [said.form, title].filter(Boolean).join(" · ");
    return section(heading, formAge(current, sentAt, context), formShown(values, { words, format, labels, files, address, changed }));
  }

  function technical() {
    const id = (value) => (value ? element("bdi", { class: "mono" }, String(value)) : null);
    const copy = button([icon("copy"), said.copy], async () => {
      await navigator.clipboard?.writeText(state.instance_id).catch(() => {});
      copy.lastChild.textContent = said.copiedToClipboard;
    }, { data: { keep: "copy" } });
    return disclosure(
      "technical",
      said.technical,
      facts(
        [said.instance, id(state.instance_id)],
        [said.task, id(item?.task_id)],
        [words.columns.app, id(state.app_type)],
        [words.columns.process, id(state.process_code)],
        [said.revision, id(state.revision)],
      ),
      copy,
    );
  }

  return {
    root,
    show,
    get instanceId() {
      return shown;
    },
    focus: () => body.focus({ preventScroll: true }),
    /** Put the keyboard where the shown task is decided. */
    decide: () => deciding?.focus(),
  };
}

/** What the service says, and not what it leaves open. */
const known = (state) => Object.fromEntries(Object.entries(state ?? {}).filter(([, value]) => value !== null));

function section(heading, ...content) {
  return element("section", { class: "detail-section" }, element("h3", {}, heading), ...content);
}

/** Where people decided before, oldest first: by the step's id, its name. */
function earlierSteps({ tasks }, { task_id: id }) {
  const here = tasks.find((task) => task.task_id === id)?.step_id;
  const done = tasks.filter((task) => task.status === "COMPLETED" && task.actor_id !== null && task.step_id && task.step_id !== here);
  const inOrder = done.toSorted((one, other) => Date.parse(one.decided_at) - Date.parse(other.decided_at));
  return new Map(inOrder.map(({ step_id: step, step_name: name }) => [step, name ?? step]));
}

/** Of the whole request: how it ended. Where nobody says so, how the row's task was decided is what is known. */
function requestShown(state, task, words) {
  const status = overall(state);
  if (hasEnded({ ...state, status })) return statusShown("ENDED", words);
  const outcome = decisionOf(state.result, words) === null ? task?.outcome : state.result;
  return decisionShown({ status, outcome }, words) ?? statusShown(status, words);
}

/** The contract's rule for an instance: pending while any task is, else completed, else cancelled, else active. */
function overall(state) {
  if (state.lifecycle === "DELETED") return "DELETED";
  const found = new Set(state.tasks.map((task) => task.status));
  return ["PENDING", "COMPLETED", "CANCELLED"].find((status) => found.has(status)) ?? "ACTIVE";
}
