// What a signed-in person may do with their account: sign out, and as an operator look at somebody else's tasks.

import { Problem } from "./api.js";
import { element } from "./dom.js";
import { forgetLists } from "./offline.js";
import { forgetPerson } from "./sign-in.js";

/** A menu that the browser opens and closes; null where there is nothing to choose. `isOwn`: the lists are theirs. */
export function accountMenu(api, me, words, { isOwn }) {
  const said = element("p", { class: "sign-in-problem", role: "alert", hidden: true }, words.account.failed);
  const item = (text, click) => element("li", {}, element("button", { type: "button", on: { click } }, text));
  const items = [];
  if (me.mode === "sso" && me.operator) {
    items.push(item(words.account.others, () => leavePerson("/?choose")));
    if (!isOwn) items.push(item(words.account.own, () => leavePerson("/")));
  }
  if (me.mode === "sso" && (me.operator || me.owned_apps?.length > 0)) {
    items.push(item(words.waiting.title, () => location.assign("/waiting")));
  }
  if (me.mode === "sso" && me.auditor) items.push(item(words.account.audit, () => location.assign("/audit")));
  if (me.session) {
    items.push(item(words.account.signOut, () => signOut(api, false, said)));
    items.push(item(words.account.everywhere, () => signOut(api, true, said)));
  }
  if (items.length === 0) return null;
  return element("div", { class: "account", id: "account", popover: "auto" }, element("ul", {}, ...items), said);
}

/** Forget whose lists were opened last. */
export function leavePerson(address) {
  forgetPerson();
  location.assign(address);
}

async function signOut(api, everywhere, said) {
  try {
    const next = await api.signOut(everywhere);
    await forgetLists();
    leavePerson(next);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) {
      await forgetLists();
      leavePerson("/");
    }
    said.hidden = false;
  }
}
