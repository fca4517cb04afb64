// Server-sent events over fetch: EventSource can send neither a bearer token nor a Last-Event-ID of ours.

import { Problem } from "./api.js";
import { debounced } from "./dom.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
/** The service comments every 15 s: silence beyond this means that the connection is gone and nobody was told. */
const SILENCE_MS = 40_000;

/**
 * The events of a stream, each `{event, id, data}` as far as it has them; comments have an empty name. Of the standard,
 * what the service sends: lines end in LF, and data are one line.
 */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) yield Object.fromEntries(event.split("\n").map((line) => line.match(/^([^:]*):? ?(.*)$/s).slice(1)));
  }
}

/**
 * Keeps one stream open until stopped, and goes on where it ended. Calls `onState` (`connecting`, `live`, `waiting`,
 * `paused`, `refused`, and the problem), `onOpen` (`true`: resumed, nothing was missed) and `onEvent`.
 */
export class EventStream {
  constructor(connect, { onState, onOpen, onEvent }) {
    this._connect = connect;
    this._tell = (state, problem = null) => onState(state, problem);
    this._onOpen = onOpen;
    this._onEvent = onEvent;
    this._lastEventId = null;
    this._stop = null;
    /** Try now instead of when the back-off ends: the network is back, or somebody looks. */
    this.wake = () => {};
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

  async _run(stopped) {
    let wait = FIRST_WAIT_MS;
    while (!stopped.aborted) {
      this._tell("connecting");
      const attempt = new AbortController();
      const silence = debounced(() => attempt.abort(), SILENCE_MS);
      silence();
      try {
        const resumed = this._lastEventId !== null;
        const response = await this._connect(this._lastEventId, AbortSignal.any([stopped, attempt.signal]));
        wait = FIRST_WAIT_MS;
        this._tell("live");
        this._onOpen(resumed);
        for await (const event of serverSentEvents(response.body)) {
          silence();
          // First: an event that cannot be shown is not sent again and again.
          this._lastEventId = event.id ?? this._lastEventId;
          this._onEvent(event);
        }
      } catch (error) {
        if (stopped.aborted) return;
        if (error instanceof Problem && error.isRefusal) {
          this._stop = null;
          this._tell("refused", error);
          return;
        }
        // An id that is too old, or another service's: everything is read again instead.
        if (error.status === 400) this._lastEventId = null;
        wait = Math.max(wait, (error.retryAfterS ?? 0) * 1000);
      } finally {
        silence.cancel();
        attempt.abort();
      }
      if (stopped.aborted) return;
      this._tell("waiting");
      const { promise, resolve } = Promise.withResolvers();
      this.wake = resolve;
      setTimeout(resolve, wait * (0.75 + Math.random() / 2));
      stopped.addEventListener("abort", resolve, { once: true });
      await promise;
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }
}
