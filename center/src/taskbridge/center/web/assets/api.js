// The read API over fetch: the caller's token on each request, problems as errors that say what to do.

const ATTEMPTS = 3;
const LONGEST_WAIT_S = 5;
const NO_CONTENT = 204;

/** What the service answered instead (RFC 9457), or status 0 when it was not reached. */
export class Problem extends Error {
  constructor(status, detail, { kind = null, retryAfterS = null } = {}) {
    super(detail || `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.kind = kind;
    this.retryAfterS = retryAfterS;
  }

  /** Whether another token or user is needed before it is any use to ask again. */
  get isRefusal() {
    return this.status === 401 || this.status === 403;
  }

  /** Whether a person may sign in here. */
  get isSignIn() {
    return this.kind?.endsWith(":sign-in-required") ?? false;
  }

  /** Whether the lists are not complete yet, which may take minutes. */
  get isFilling() {
    return this.kind?.endsWith(":filling") ?? false;
  }
}

export class Api {
  /** `token` gives the bearer token, or null; it is asked each time, so that it may change. */
  constructor({ base = "", token = async () => null, credentials = "same-origin" } = {}) {
    this._base = base.replace(/\/+$/, "");
    this._token = token;
    this._credentials = credentials;
  }

  me = (signal) => this.get("/v1/me", {}, signal);

  tasks = ({ corpId, userId }, query, signal) => this.get(`${person(corpId, userId)}/tasks`, query, signal);

  /** The pinned and the hidden items of a view. */
  marked = ({ corpId, userId }, view, signal) => this.get(`${person(corpId, userId)}/marked`, { view }, signal);

  counts = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/counts`, {}, signal);

  apps = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/apps`, {}, signal);

  /** An empty name of a process counts: that of tasks without one. */
  waiting = (corpId, query, signal) => {
    const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null));
    return this.get(`/v1/corps/${encodeURIComponent(corpId)}/waiting?${given}`, {}, signal);
  };

  corps = (signal) => this.get("/v1/corps", {}, signal);

  people = (q, limit, signal) => this.get("/v1/people", { q, limit }, signal);

  actions = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/actions`, {}, signal);

  delegated = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/delegated-tasks`, {}, signal);

  yidaAgents = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/yida-agents`, {}, signal);

  delegations = ({ corpId, userId }, signal) => this.get(`${person(corpId, userId)}/delegations`, {}, signal);

  colleagues = ({ corpId, userId }, query, signal) => this.get(`${person(corpId, userId)}/colleagues`, query, signal);

  instance = (id, signal) => this.get(`/v1/instances/${encodeURIComponent(id)}`, {}, signal);

  history = (id, signal) => this.get(`/v1/instances/${encodeURIComponent(id)}/history`, {}, signal);

  overview = (signal) => this.get("/v1/ops/overview", {}, signal);

  callbacks = (id, signal) => this.get("/v1/ops/callbacks", { instance_id: id }, signal);

  audit = (query, signal) => this.get("/v1/audit", query, signal);

  // Sent once: nothing is tried again.

  /** Decide tasks, or withdraw requests. */
  act = ({ corpId, userId }, wanted) => this._change("POST", `${person(corpId, userId)}/actions`, wanted);

  delegate = ({ corpId, userId }, wanted) => this._change("POST", `${person(corpId, userId)}/delegations`, wanted);

  undelegate = ({ corpId, userId }, id) => this._change("DELETE", `${person(corpId, userId)}/delegations/${encodeURIComponent(id)}`);

  /** Mark items: each with its keys and what changes about it. */
  mark = ({ corpId, userId }, items) => this._change("PUT", `${person(corpId, userId)}/marks`, { items });

  prefer = (preferences) => this._change("PUT", "/v1/me/preferences", preferences);

  /** Have an endpoint send a test, or deliver again. */
  actOnWebhooks = (endpoint, action) => this._change("POST", `/v1/ops/webhooks/${encodeURIComponent(endpoint)}/${action}`);

  /** End this session, or all of the person; resolves with where to go to sign out of the identity provider too. */
  signOut = async (everywhere) => (await this._change("POST", `/sign-out?everywhere=${everywhere}`)).next;

  /** A whole view as a file for a spreadsheet. By a request, and not a link, which would send no token. */
  async spreadsheet({ corpId, userId }, query) {
    const response = await this._request(`${person(corpId, userId)}/tasks.csv${search(query)}`, { accept: "text/csv" });
    return response.blob();
  }

  /** The share that the lists contain already, from 0 to 1; null where the service does not say. */
  async filled() {
    try {
      const response = await fetch(`${this._base}/readyz`, { cache: "no-store" });
      return (await response.json()).lists?.filled ?? null;
    } catch {
      return null;
    }
  }

  /** The stream of somebody's notifications, as an open response. */
  events({ corpId, userId }, lastEventId, signal) {
    const headers = { accept: "text/event-stream" };
    if (lastEventId !== null) headers["last-event-id"] = lastEventId;
    return this._request(`${person(corpId, userId)}/events`, headers, signal);
  }

  /** The answer's JSON. A service that is restoring (503) is asked again, for as long as it says and a little patience lasts. */
  async get(path, query = {}, signal = undefined) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const response = await this._request(path + search(query), { accept: "application/json" }, signal);
        const found = await response.json();
        // Of the service worker, while the service cannot be reached.
        const asOf = response.headers.get("taskbridge-as-of");
        return asOf === null ? found : { ...found, as_of: asOf };
      } catch (error) {
        if (!(error instanceof Problem)) throw signal?.aborted ? error : unreachable();
        if (error.status !== 503 || error.isFilling || attempt === ATTEMPTS) throw error;
        await pause(Math.min(error.retryAfterS ?? attempt, LONGEST_WAIT_S) * 1000, signal);
      }
    }
  }

  /** The answer's JSON, or null where it has none. */
  async _change(method, path, content = undefined) {
    const headers = { accept: "application/json", ...(content === undefined ? {} : { "content-type": "application/json" }) };
    const response = await this._request(path, headers, undefined, method, JSON.stringify(content));
    return response.status === NO_CONTENT ? null : response.json();
  }

  async _request(path, headers, signal, method = "GET", body = undefined) {
    const token = await this._token();
    if (token) headers.authorization = `Bearer ${token}`;
    let response;
    try {
      response = await fetch(this._base + path, {
        method,
        headers,
        body,
        signal,
        credentials: this._credentials,
        cache: "no-store",
        redirect: "error",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw unreachable();
    }
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

const person = (corpId, userId) => `/v1/corps/${encodeURIComponent(corpId)}/users/${encodeURIComponent(userId)}`;

function search(query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
}

const unreachable = () => new Problem(0, "");

async function problemOf(response) {
  const retryAfterS = Number.parseFloat(response.headers.get("retry-after") ?? "");
  let said = {};
  try {
    said = await response.json();
  } catch {
    // A proxy's page in between: the status says enough.
  }
  return new Problem(response.status, typeof said?.detail === "string" ? said.detail : "", {
    kind: typeof said?.type === "string" ? said.type : null,
    retryAfterS: Number.isFinite(retryAfterS) ? retryAfterS : null,
  });
}

/** The result of work whose failure is no harm: null, until the next time. */
export async function quietly(work) {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return null;
  }
}

/** One request at a time: a newer one aborts the one before, whose outcome nobody hears of. */
export class Latest {
  cancel() {
    this._running?.abort();
  }

  async run(request, { found, failed }) {
    this.cancel();
    const { signal } = (this._running = new AbortController());
    try {
      const answer = await request(signal);
      if (!signal.aborted) found(answer);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      failed(error);
    }
  }
}

/** Resolves after `ms`; rejects at once when `signal` is aborted. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
