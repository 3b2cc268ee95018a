// Talks with the operator's port, and with nothing else. The token is kept for this tab only (sessionStorage) and sent
// as a header, which is why events come over `fetch`: an EventSource cannot send one.

const KEY = "cacheproxy-token";
const SILENCE_MS = 10_000; // the port tells its state once a second; ten without a byte mean that the line is dead

/** An answer with an error status. `status` 401: the token is missing or wrong. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const keepToken = (token) => sessionStorage.setItem(KEY, token);

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, "X-Cacheproxy-Token": encodeToken(token) } : more;
}

// A header holds bytes; the port reads them as UTF-8, fetch takes one character for each.
const encodeToken = (token) => String.fromCharCode(...new TextEncoder().encode(token));

async function checked(response) {
  if (response.ok) return response;
  let message = `status ${response.status}`;
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // no JSON: the status must do
  }
  throw new Refused(response.status, message);
}

/** GET an object. `query` members that are empty are left out. Throws Refused, or TypeError when nobody answers. */
export async function get(path, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const target = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  return (await checked(await fetch(target, { headers: headers(), cache: "no-store", signal }))).json();
}

/** POST or DELETE; the answer's object. */
export async function send(method, path, body = undefined) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(path, {
    method,
    headers: headers({ "Content-Type": "application/json" }),
    cache: "no-store",
    ...sent,
  });
  return (await checked(response)).json();
}

/** The events of /events as {event, data}, until the line ends or `signal` aborts. Throws as `get`. */
export async function* events(signal) {
  const line = new AbortController();
  const stop = () => line.abort();
  signal.addEventListener("abort", stop);
  let watchdog = setTimeout(stop, SILENCE_MS);
  try {
    const response = await checked(
      await fetch("events", {
        headers: headers({ Accept: "text/event-stream" }),
        cache: "no-store",
        signal: line.signal,
      }),
    );
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(stop, SILENCE_MS);
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", stop);
    stop();
  }
}

function parse(block) {
  let event = "message";
  const data = [];
  for (const text of block.split(/\r?\n/)) {
    if (text.startsWith("event:")) event = text.slice(6).trim();
    else if (text.startsWith("data:")) data.push(text.slice(5).trimStart());
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
