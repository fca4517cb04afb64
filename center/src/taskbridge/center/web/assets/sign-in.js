// Who is asking, and about whom: the user enters what /v1/me leaves open.

import { Api, Problem } from "./api.js";
import { button, element, labelled, offer, ownLink, replace } from "./dom.js";
import { everybody, peoplePicker } from "./people-picker.js";
import { followPerson, keepForTab, keptForTab, remember, remembered } from "./preferences.js";
import { problemShown } from "./states.js";

const TOKEN = "token";
const PERSON = "person";

/** The page's API: with the token of this tab, if there is one. */
export const pageApi = () => new Api({ token: async () => keptForTab(TOKEN) });

export function forgetPerson() {
  keepForTab(PERSON, null);
  remember(PERSON, null);
}

export function forgetToken() {
  keepForTab(TOKEN, null);
}

/**
 * Resolves with `{corpId, userId, me}` once both are known. `given` is what the address says; it wins over what was
 * typed before, and who signed in wins over both, unless they are an operator.
 */
export async function signIn(api, root, words, given) {
  const me = await whoIsAsking(api, root, words);
  const own = me.mode === "sso" ? { corpId: me.corp_id, userId: me.user_id } : null;
  if (own !== null && !me.operator) return { ...own, me };
  const known = given.corpId && given.userId ? given : (lastPerson() ?? (given.choose ? null : own));
  if (known !== null) return { ...known, me };
  const corps = (me.corps ?? []).filter((corp) => corp !== "*");
  const typed = await ask(root, words, {
    title: words.signIn.personTitle,
    text: words.signIn.personText,
    fields: [
      { name: "corpId", label: words.signIn.corp, value: given.corpId || corps[0] || "", choices: corps },
      { name: "userId", label: words.signIn.user, value: given.userId || "" },
    ],
    picker: (choose) => peoplePicker(everybody(api), words, ({ corp_id: corpId, user_id: userId }) => choose({ corpId, userId })),
  });
  // A token is a program's or an operator's: whom they looked at ends with the tab.
  const person = JSON.stringify(typed);
  if (me.mode === "open") remember(PERSON, person);
  else keepForTab(PERSON, person);
  return { ...typed, me };
}

/**
 * Resolves with the `/v1/me` of somebody who may enter. Others are asked for a token, and are told why; people who
 * signed in are first shown `only`, whom the page is for, and the way back.
 */
export async function signInAs(api, root, words, mayEnter, { title, text, refused, only }) {
  let problem = null;
  for (;;) {
    const me = await whoIsAsking(api, root, words, { title, text, problem });
    if (mayEnter(me)) return me;
    forgetToken();
    if (me.mode === "sso") await offerWayBack(root, words, only, me);
    else problem = refused;
    await askToken(root, words, { title, text, problem });
  }
}

/** Resolves with `/v1/me`, once somebody may ask. */
export async function whoIsAsking(api, root, words, said = {}) {
  let { problem = null } = said;
  for (;;) {
    try {
      const me = await api.get("/v1/me");
      followPerson(api, me);
      return me;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 401) {
        await new Promise((resolve) => {
          replace(root, element("main", { class: "sign-in" }, problemShown(error, words, resolve)));
        });
        continue;
      }
      if (keptForTab(TOKEN) !== null) problem = words.signIn.wrongToken;
      forgetToken();
      if (error.isSignIn && problem === null) await offerSignIn(root, words);
      await askToken(root, words, { title: words.signIn.tokenTitle, text: words.signIn.tokenText, ...said, problem });
    }
  }
}

/** The way to the identity provider; resolves when somebody would rather use a token. */
function offerSignIn(root, words) {
  const { title, text, enter } = words.signIn;
  const href = `/sign-in?${new URLSearchParams({ return_to: location.pathname + location.search + location.hash })}`;
  // Inside DingTalk everybody is signed in already.
  if (navigator.userAgent.includes("DingTalk")) location.replace(href);
  return offerLink(root, words, { title, text, href, enter });
}

/** The way to the task center, for people whom this page is not for; resolves when somebody would rather use a token. */
function offerWayBack(root, words, [title, text], { user_id: id, user_name: name }) {
  return offerLink(root, words, { title, text: text(name ?? id), href: "/", enter: words.tasks });
}

function offerLink(root, words, { title, text, href, enter }) {
  const { promise, resolve } = Promise.withResolvers();
  const link = ownLink(href, enter, "primary-button");
  showForm(root, "div", title, {}, element("p", { class: "faint" }, text), link, button(words.signIn.useToken, resolve));
  link.focus();
  return promise;
}

/** In place of the page. */
function showForm(root, tag, title, properties, ...content) {
  const form = element(tag, { class: "sign-in-form", ...properties }, element("h1", {}, title), ...content);
  replace(root, element("main", { class: "sign-in" }, form));
}

async function askToken(root, words, said) {
  const fields = [{ name: "token", label: words.signIn.token, value: "", secret: true }];
  const { token } = await ask(root, words, { ...said, fields });
  keepForTab(TOKEN, token);
}

function lastPerson() {
  try {
    const { corpId, userId } = JSON.parse(keptForTab(PERSON) ?? remembered(PERSON));
    return corpId && userId ? { corpId, userId } : null;
  } catch {
    return null;
  }
}

/** Resolves with what was typed in a small form in place of the page, or picked. */
async function ask(root, words, { title, text, fields, problem = null, picker = async () => null }) {
  const { promise, resolve } = Promise.withResolvers();
  const picked = await picker(resolve);
  const inputs = fields.map(inputOf);
  const submit = (event) => {
    event.preventDefault();
    const missing = inputs.find((input) => input.value.trim() === "");
    if (missing) missing.focus();
    else resolve(Object.fromEntries(inputs.map(({ name, value }) => [name, value.trim()])));
  };
  showForm(
    root,
    "form",
    title,
    { on: { submit } },
    picked,
    element("p", { class: "faint" }, text),
    problem === null ? null : element("p", { class: "problem", role: "alert" }, problem),
    ...fields.map(({ label }, index) => labelled(label, inputs[index])),
    element("button", { type: "submit", class: "primary-button" }, words.signIn.submit),
  );
  (picked?.querySelector("input") ?? inputs.find((input) => input.value === "") ?? inputs[0]).focus();
  return promise;
}

function inputOf({ name, value, secret = false, choices = [] }) {
  if (choices.length > 1) return offer(element("select", { name }), choices.map((choice) => [choice, choice]), value);
  const typed = { required: true, autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: "512" };
  const input = element("input", { name, type: secret ? "password" : "text", ...typed });
  input.value = value;
  return input;
}
