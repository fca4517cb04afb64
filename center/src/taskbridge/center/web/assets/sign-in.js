// Who is asking, and about whom: the user enters what /v1/me leaves open.

import { Api, Problem, outcome } from "./api.js";
import { UNTOUCHED, button, element, labelled, offer, ownLink, replace } from "./dom.js";
import { everybody, peoplePicker } from "./people-picker.js";
import { followPerson, keepForTab, keptForTab, remember, remembered } from "./preferences.js";
import { problemShown } from "./states.js";

const TOKEN = "token";
const PERSON = "person";
/** A field that somebody must fill in, and not with spaces. */
const TYPED = { required: true, pattern: ".*\\S.*", maxlength: "512", ...UNTOUCHED };

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
  const corp = corps.length > 1 ? offer(element("select", { name: "corpId" }), corps.map((each) => [each, each])) : element("input", { name: "corpId", ...TYPED });
  corp.value = given.corpId || corps[0] || "";
  const user = element("input", { name: "userId", ...TYPED });
  user.value = given.userId || "";
  const typed = await ask(root, words, {
    title: words.signIn.personTitle,
    text: words.signIn.personText,
    fields: [labelled(words.signIn.corp, corp), labelled(words.signIn.user, user)],
    picker: (choose) => peoplePicker(everybody(api), words, ({ corp_id: corpId, user_id: userId }) => choose({ corpId, userId })),
  });
  // A token is a program's or an operator's: whom they looked at ends with the tab.
  const person = JSON.stringify(typed);
  if (me.mode === "open") remember(PERSON, person);
  else keepForTab(PERSON, person);
  return { ...typed, me };
}

/** What `request` resolves with. Its failure is shown in place of the page, with a button to try again. */
export async function insist(root, words, request) {
  for (;;) {
    const [found, problem] = await outcome(request());
    if (problem === null) return found;
    const { promise, resolve } = Promise.withResolvers();
    replace(root, element("main", { class: "sign-in" }, problemShown(problem, words, resolve)));
    await promise;
  }
}

/**
 * Resolves with `/v1/me`, once somebody may ask who may enter the page, whose part of the words is `page`. Others are
 * asked for a token, and are told why; people who signed in are first shown the way back.
 */
export async function whoIsAsking(api, root, words, { page = null, mayEnter = () => true } = {}) {
  const { signIn: said } = words;
  const title = words[page]?.title;
  const asked = page === null ? { title: said.tokenTitle, text: said.tokenText } : { title: said.page(title), text: said.pageText };
  const request = () => api.get("/v1/me").catch((error) => (error.status === 401 ? error : Promise.reject(error)));
  let problem = null;
  for (;;) {
    const me = await insist(root, words, request);
    const isKnown = !(me instanceof Problem);
    if (isKnown) followPerson(api, me);
    if (isKnown && mayEnter(me)) return me;
    if (keptForTab(TOKEN) !== null) problem = isKnown ? said.refused : said.wrongToken;
    forgetToken();
    if (isKnown && me.mode === "sso") await offerLink(root, words, said.only(title, me.user_name ?? me.user_id), "/", words.product);
    else if (!isKnown && me.isSignIn && problem === null) {
      const href = `/sign-in?${new URLSearchParams({ return_to: location.pathname + location.search + location.hash })}`;
      // Inside DingTalk everybody is signed in already.
      if (navigator.userAgent.includes("DingTalk")) location.replace(href);
      await offerLink(root, words, [said.title, said.text], href, said.title);
    }
    await askToken(root, words, { ...asked, problem });
  }
}

/** A link to where people enter; resolves when somebody would rather use a token. */
function offerLink(root, words, [title, text], href, enter) {
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
  const fields = [labelled(words.signIn.token, element("input", { name: "token", type: "password", ...TYPED }))];
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
  const submit = (event) => {
    event.preventDefault();
    resolve(Object.fromEntries([...new FormData(event.target)].map(([name, value]) => [name, value.trim()])));
  };
  showForm(
    root,
    "form",
    title,
    { on: { submit } },
    picked,
    element("p", { class: "faint" }, text),
    problem === null ? null : element("p", { class: "problem", role: "alert" }, problem),
    ...fields,
    element("button", { type: "submit", class: "primary-button" }, words.signIn.submit),
  );
  (root.querySelector("input[type=search], input:invalid") ?? root.querySelector("input, select")).focus();
  return promise;
}
