// Server-sent events over fetch: EventSource can send neither a bearer token nor a Last-Event-ID of ours.

import { Problem } from "./api.js";
import { debounced } from "./dom.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
/** The service comments every 15 s: silence beyond this means that the connection is gone and nobody was told. */
const SILENCE_MS = 40_000;

/** The events of an SSE body, each `{type, data, id}`; `null` for anything else that arrived and shows life. */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { type: "message", data: [], id: null };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A CR at the end may be half of a CRLF: it waits for what follows.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line !== "") {
          readField(event, line);
        } else {
          if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
          else if (event.id !== null) yield { ...event, type: "id", data: "" };
          event = { type: "message", data: [], id: null };
        }
      }
      yield null;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function readField(event, line) {
  if (line.startsWith(":")) return;
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "event") event.type = value;
  else if (name === "data") event.data.push(value);
  else if (name === "id" && !value.includes("\0")) event.id = value;
}

/**
 * Keeps one stream open until stopped, and goes on where it ended. Emits
 * "state" (`connecting`, `live`, `waiting`, `paused`, `refused`), "open" (`resumed`: nothing was missed) and "event".
 */
export class EventStream extends EventTarget {
  constructor(connect) {
    super();
    this._connect = connect;
    this._lastEventId = null;
    this._stop = null;
    this.state = "paused";
  }

  start() {
    if (this._stop !== null) return;
    this._stop = new AbortController();
    this._run(this._stop.signal);
  }

  stop() {
    this._stop?.abort();
    this._stop = null;
    this._tell("paused");
  }

  /** Try now instead of when the back-off ends: the network is back, or somebody looks. */
  wake() {
    this._wake?.();
  }

  async _run(stopped) {
    let wait = FIRST_WAIT_MS;
    while (!stopped.aborted) {
      this._tell("connecting");
      try {
        await this._follow(stopped, () => {
          wait = FIRST_WAIT_MS;
        });
      } catch (error) {
        if (stopped.aborted) return;
        if (error instanceof Problem && error.isRefusal) {
          this._stop = null;
          this._tell("refused", error);
          return;
        }
        // An id that is too old, or another service's: everything is read again instead.
        if (error instanceof Problem && error.status === 400) this._lastEventId = null;
        if (error instanceof Problem && error.retryAfterS !== null) wait = Math.max(wait, error.retryAfterS * 1000);
      }
      if (stopped.aborted) return;
      this._tell("waiting");
      await this._sleep(wait * (0.75 + Math.random() / 2), stopped);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  async _follow(stopped, succeeded) {
    const attempt = new AbortController();
    const silence = debounced(() => attempt.abort(), SILENCE_MS);
    silence();
    try {
      const resumed = this._lastEventId !== null;
      const response = await this._connect(this._lastEventId, AbortSignal.any([stopped, attempt.signal]));
      succeeded();
      this._tell("live");
      this.dispatchEvent(new CustomEvent("open", { detail: { resumed } }));
      for await (const event of serverSentEvents(response.body)) {
        silence();
        if (event === null) continue;
        this.dispatchEvent(new CustomEvent("event", { detail: event }));
        if (event.id !== null) this._lastEventId = event.id;
      }
    } finally {
      silence.cancel();
      attempt.abort();
    }
  }

  /** Until then, or until somebody wakes or stops it. */
  _sleep(ms, stopped) {
    const { promise, resolve } = Promise.withResolvers();
    this._wake = resolve;
    setTimeout(resolve, ms);
    stopped.addEventListener("abort", resolve, { once: true });
    return promise;
  }

  _tell(state, problem = null) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, problem } }));
  }
}
