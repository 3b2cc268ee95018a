// The live line: follows /events, tells how it is, and comes back by itself. While the tab is hidden it lets go.

import { events, get, Refused } from "./api.js";

const WAITS_MS = [1000, 2000, 3000, 5000];
const POLL_MS = 5000;

/**
 * Follow until the page is left. `given` are handlers: `stats(stats)`, `ask(ask)`, `second({at, per_s})`, `line(word)`
 * with the words connecting, live, slower (asking every few seconds, since the port has listeners enough), paused,
 * reconnecting, locked; `joined()` after each (re)connection; `locked(tried)` must return when there is a token to try.
 */
export async function follow(given) {
  const handlers = apart(given);
  let failures = 0;
  handlers.line("connecting");
  for (;;) {
    await shown(handlers);
    const hidden = whenHidden();
    try {
      handlers.stats(await get("stats", {}, hidden));
      handlers.joined();
      failures = 0;
      await listen(handlers, hidden);
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        handlers.line("locked");
        await handlers.locked();
        continue;
      }
    }
    if (hidden.aborted) continue;
    handlers.line("reconnecting");
    await pause(WAITS_MS[Math.min(failures, WAITS_MS.length - 1)]);
    failures += 1;
  }
}

async function listen(handlers, hidden) {
  try {
    for await (const { event, data } of events(hidden)) {
      if (event === "stats") {
        handlers.line("live");
        handlers.second(data);
        handlers.stats(data.stats);
      } else if (event === "ask") {
        handlers.ask(data);
      }
    }
  } catch (error) {
    if (!(error instanceof Refused) || ![404, 429, 503].includes(error.status)) throw error;
    handlers.line("slower");
    for (let times = 0; times < 12 && !hidden.aborted; times += 1) {
      await pause(POLL_MS);
      handlers.stats(await get("stats", {}, hidden));
    }
  }
}

/** A handler that fails is a mistake of the page: told as one, and not taken for the end of the line. */
function apart(handlers) {
  const careful =
    (handler) =>
    (...given) => {
      try {
        return handler(...given);
      } catch (error) {
        reportError(error);
      }
    };
  return Object.fromEntries(Object.entries(handlers).map(([name, handler]) => [name, careful(handler)]));
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function whenHidden() {
  const gone = new AbortController();
  const look = () => {
    if (document.visibilityState === "hidden") {
      document.removeEventListener("visibilitychange", look);
      gone.abort();
    }
  };
  document.addEventListener("visibilitychange", look);
  return gone.signal;
}

async function shown(handlers) {
  if (document.visibilityState !== "hidden") return;
  handlers.line("paused");
  await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
}
