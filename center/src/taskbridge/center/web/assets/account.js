// What a signed-in person may do with their account: sign out, and as an operator look at somebody else's tasks.

import { outcome } from "./api.js";
import { menu } from "./menu.js";
import { forgetLists } from "./offline.js";
import { forgetPerson } from "./sign-in.js";

/** Null where there is nothing to choose. `isOwn`: the lists are theirs. */
export function accountMenu(api, me, words, { isOwn }) {
  const isPerson = me.mode === "sso";
  const item = (isThere, text, act) => (isThere ? [{ text: () => text, act }] : []);
  const items = [
    item(isPerson && me.operator, words.account.others, () => leavePerson("/?choose")),
    item(isPerson && me.operator && !isOwn, words.account.own, () => leavePerson("/")),
    item(isPerson && (me.operator || me.owned_apps?.length > 0), words.waiting.title, () => location.assign("/waiting")),
    item(isPerson && me.auditor, words.audit.title, () => location.assign("/audit")),
    item(me.session, words.account.signOut, () => signOut(api, false, words)),
    item(me.session, words.account.everywhere, () => signOut(api, true, words)),
  ].flat();
  return items.length > 0 ? menu("account", items).root : null;
}

/** Forget whose lists were opened last. */
export function leavePerson(address) {
  forgetPerson();
  location.assign(address);
}

/** Resolves with what failed. */
async function signOut(api, everywhere, words) {
  const [answer, problem] = await outcome(api.send("POST", `/sign-out?everywhere=${everywhere}`));
  if (problem !== null && problem.status !== 401) return words.account.failed;
  await forgetLists();
  // Where to go to sign out of the identity provider too.
  return leavePerson(answer?.next ?? "/");
}
