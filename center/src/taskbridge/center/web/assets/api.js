// The API over fetch: the caller's token on each request, problems as errors that say what to do.

const ATTEMPTS = 3;
const LONGEST_WAIT_S = 5;
const NO_CONTENT = 204;

/** What the service answered instead (RFC 9457), or status 0 when it was not reached. */
export class Problem extends Error {
  constructor(status, { detail = "", type = "", retryAfterS = null } = {}) {
    super(detail || `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.kind = String(type);
    this.retryAfterS = retryAfterS;
  }

  /** Whether another token or user is needed before it is any use to ask again. */
  get isRefusal() {
    return this.status === 401 || this.status === 403;
  }

  /** Whether a person may sign in here. */
  get isSignIn() {
    return this.kind.endsWith(":sign-in-required");
  }

  /** Whether the lists are not complete yet, which may take minutes. */
  get isFilling() {
    return this.kind.endsWith(":filling");
  }
}

export class Api {
  /** `token` gives the bearer token, or null; it is asked each time, so that it may change. */
  constructor({ base = "", token = async () => null, credentials = "same-origin" } = {}) {
    this._base = base.replace(/\/+$/, "");
    this._token = token;
    this._credentials = credentials;
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

  /** The answer's JSON. A service that is restoring (503) is asked again, for as long as it says and a little patience lasts. */
  async get(path, query = {}, signal = undefined) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const response = await this.open(path + search(query), { signal });
        const found = await response.json();
        // Of the service worker, while the service cannot be reached.
        const asOf = response.headers.get("taskbridge-as-of");
        return asOf === null ? found : { ...found, as_of: asOf };
      } catch (error) {
        if (!(error instanceof Problem)) throw signal?.aborted ? error : new Problem(0);
        if (error.status !== 503 || error.isFilling || attempt === ATTEMPTS) throw error;
        await new Promise((resume) => setTimeout(resume, Math.min(error.retryAfterS ?? attempt, LONGEST_WAIT_S) * 1000));
      }
    }
  }

  /** Sent once: nothing is tried again. The answer's JSON, or null where it has none. */
  async send(method, path, content = undefined) {
    const body = content === undefined ? {} : { body: JSON.stringify(content), headers: { "content-type": "application/json" } };
    const response = await this.open(path, { method, ...body });
    return response.status === NO_CONTENT ? null : response.json();
  }

  /** The response, whose content may still come. */
  async open(path, { accept = "application/json", headers = {}, ...options } = {}) {
    const token = await this._token();
    const sent = { accept, ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const always = { credentials: this._credentials, cache: "no-store", redirect: "error" };
    const response = await fetch(this._base + path, { ...always, ...options, headers: sent }).catch((error) => {
      throw options.signal?.aborted ? error : new Problem(0);
    });
    if (!response.ok) throw await problemOf(response);
    return response;
  }
}

/** Where what belongs to a person is. */
export const pathOf = ({ corpId, userId }, part) => `/v1/corps/${encodeURIComponent(corpId)}/users/${encodeURIComponent(userId)}/${part}`;

/** With its question mark; without what is not given. */
export function search(query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length > 0 ? `?${new URLSearchParams(given)}` : "";
}

async function problemOf(response) {
  // A proxy's answer in between may be a page, or any JSON: the status says enough.
  const { detail, type } = (await response.json().catch(() => null)) ?? {};
  return new Problem(response.status, { detail, type, retryAfterS: Number.parseFloat(response.headers.get("retry-after")) || null });
}

/** What work resolves with, and its problem: one of the two is null. */
export async function outcome(work) {
  try {
    return [await work, null];
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return [null, error];
  }
}

/** The result of work whose failure is no harm: null, until the next time. */
export const quietly = async (work) => (await outcome(work))[0];

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
