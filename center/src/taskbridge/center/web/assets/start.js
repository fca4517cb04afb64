// The forms with which a person may start a request, by app: links into the system that has them.

import { pathOf } from "./api.js";
import { drawList, element, icon, labelled, outsideLink, replace } from "./dom.js";
import { noneShown, panelContent, panelPage } from "./page-head.js";
import { insist, pageApi, whoIsAsking } from "./sign-in.js";
import { nothingToShow } from "./states.js";
import { chosenWords } from "./words.js";

/** Of those that were used last. */
const LATEST = 6;

const root = document.querySelector("#page");
const api = pageApi();
const me = await whoIsAsking(api, root, chosenWords());
const words = chosenWords();
const person = { corpId: me.corp_id, userId: me.user_id };
const nothing = { items: [], complete: true };
const { items: forms, complete } = me.start_forms ? await insist(root, words, () => api.get(pathOf(person, "forms"))) : nothing;

const field = element("input", { type: "search", name: "q", autocomplete: "off", on: { input: () => show() } });
const groups = element("div", { class: "panels" });
const none = element("div", { role: "status" });
panelPage(
  root,
  words,
  { title: words.start.title },
  forms.length > 0 ? element("search", { class: "panel" }, labelled(words.start.search, field)) : null,
  complete ? null : element("p", { class: "faint" }, words.start.incomplete),
  groups,
  none,
  forms.length > 0 ? element("p", { class: "faint" }, words.start.unchecked) : null,
);
show();

function nameOf({ title, title_en: english, form_uuid: id }) {
  return (words.tag === "en" ? english || title : title || english) || id;
}

function show() {
  const typed = field.value.trim().toLocaleLowerCase();
  const found = forms
    .filter((form) => [nameOf(form), form.title, form.app_name].join("\n").toLocaleLowerCase().includes(typed))
    .toSorted((one, other) => nameOf(one).localeCompare(nameOf(other), words.tag));
  const byApp = Map.groupBy(found, ({ app_type: app }) => app);
  const used = found.filter(({ used_at: at }) => at !== null).toSorted((one, other) => (one.used_at < other.used_at ? 1 : -1));
  const shown = [...byApp].map(([app, its]) => ({ key: app, heading: its[0].app_name ?? app, forms: its }));
  shown.sort((one, other) => one.heading.localeCompare(other.heading, words.tag));
  if (used.length > 0) shown.unshift({ key: "", heading: words.start.latest, forms: used.slice(0, LATEST) });
  drawList(groups, shown, ({ key }) => key, group);
  if (forms.length === 0) replace(none, nothingToShow("inbox", words.start.none));
  else replace(none, shown.length === 0 ? noneShown(words.start.notFound) : null);
}

function group({ heading, forms: its }, before) {
  const made = before ?? element("section", { class: "panel start" }, ...panelContent(heading, null, element("ul", { class: "start-forms" })));
  const keyOf = ({ app_type: app, form_uuid: id }) => `${app} ${id}`;
  drawList(made.querySelector("ul"), its, keyOf, (form, drawn) => drawn ?? element("li", {}, link(form)));
  return made;
}

function link(form) {
  const shown = [element("span", { class: "cut" }, nameOf(form)), icon("external")];
  return outsideLink(form.url, { class: "quiet-button", title: words.start.opens }, ...shown) ?? element("span", {}, nameOf(form));
}
