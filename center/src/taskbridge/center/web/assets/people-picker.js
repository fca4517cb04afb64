// Finds whose lists to open, among the people who were imported.

import { Latest, outcome, pathOf, quietly } from "./api.js";
import { UNTOUCHED, button, debounced, element, focusByKey, labelled, replace } from "./dom.js";
import { sayProblem } from "./states.js";

const SEARCH_AFTER_MS = 200;
const MOST = 20;

/** All people, for `peoplePicker`. */
export const everybody = (api) => (q, signal) => api.get("/v1/people", { q, limit: MOST }, signal);

/** The name of a user; null where none is known to who asks. */
export async function nameOf(api, { corpId, userId }) {
  const found = await quietly(everybody(api)(userId));
  return found?.items.find(({ corp_id: corp, user_id: user }) => corp === corpId && user === userId)?.name ?? null;
}

/** Finds one of the person's colleagues, as `peoplePicker`; never the one `without` whom it makes no sense. */
export function colleaguePicker(api, person, words, choose, without = person.userId) {
  const colleagues = async (q, signal) => {
    const { items } = await api.get(pathOf(person, "colleagues"), { q, limit: MOST + 1 }, signal);
    return { items: items.filter(({ user_id: user }) => user !== without).slice(0, MOST) };
  };
  return peoplePicker(colleagues, words, choose);
}

/** A search field and those of `people(q, signal)` it finds; null where nobody was imported. `choose` takes the one who is picked. */
export async function peoplePicker(people, words, choose) {
  const [first, problem] = await outcome(people(""));
  if (problem === null ? first.items.length === 0 : !problem.isFilling) return null;
  const searching = new Latest();
  const field = element("input", {
    type: "search",
    maxlength: "200",
    ...UNTOUCHED,
    on: {
      input: () => later(),
      keydown: async (event) => {
        if (event.isComposing || !["Enter", "ArrowDown"].includes(event.key)) return;
        event.preventDefault();
        later.cancel();
        await search();
        list.querySelector("button")?.focus();
      },
    },
  });
  const said = element("p", { class: "people-found note", role: "status" });
  const list = element("ul", { class: "people", on: { keydown: (event) => focusByKey(event, [field, ...list.querySelectorAll("button")]) } });
  const later = debounced(() => search(), SEARCH_AFTER_MS);

  const search = () =>
    searching.run((signal) => people(field.value.trim(), signal), {
      found: ({ items }) => show(items),
      failed,
    });

  function failed(reason) {
    show([]);
    said.textContent = sayProblem(reason, words)[0];
  }

  function show(items) {
    const severalCorps = new Set(items.map(({ corp_id: corp }) => corp)).size > 1;
    const row = (person) => {
      const { name, department, user_id: user, corp_id: corp } = person;
      const more = [department, user, severalCorps ? corp : null].filter(Boolean).map((text) => element("bdi", { class: "faint" }, text));
      return element("li", {}, button([element("bdi", {}, name || user), ...more], () => choose(person), { class: "line" }));
    };
    replace(list, ...items.map(row));
    said.textContent = words.signIn.found(items.length, items.length === MOST);
  }

  if (problem === null) show(first.items);
  else failed(problem);
  return element("div", { class: "people-picker stack" }, labelled(words.signIn.people, field), said, list);
}
