// Figures as people read them. Pure functions; unknown is a dash, never a zero. A figure and its unit never part: the
// blank between them is one that no line breaks at.

export const OUTCOMES = ["exact", "semantic", "joined", "stale", "miss", "bypass"];
export const HITS = ["exact", "semantic", "joined", "stale"];
/** What each step of an ask does; the names are those of /stats. */
export const STEPS = {
  parse: "read the request",
  memory: "look in this process",
  exact: "look in Redis by key",
  embed: "question to vector",
  semantic: "look in Redis by meaning",
  queue: "wait for a place at Ollama",
  upstream_first_byte: "Ollama’s first byte",
  upstream_total: "Ollama’s whole answer",
  reply: "send the reply",
  store: "write to Redis",
};

export const DASH = "–";

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const known = (number) => typeof number === "number" && Number.isFinite(number);

/** 4,544; from 100,000 on 1.2M. */
export const count = (number) => (known(number) ? (number < 100_000 ? grouped : compact).format(number) : DASH);

/** "1 ask", "4,544 asks". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A share (0..1) as "46.1 %". What is neither nothing nor all never reads as 0 or 100. */
export function percent(share) {
  if (!known(share)) return DASH;
  if (share > 0 && share < 0.0005) return "<\u00a00.1\u00a0%";
  if (share < 1 && share > 0.9995) return ">\u00a099.9\u00a0%";
  return `${(share * 100).toFixed(share === 0 || share === 1 ? 0 : 1)}\u00a0%`;
}

/** A difference of two shares as "+7.1 points". */
export function points(difference) {
  if (!known(difference)) return DASH;
  const rounded = (difference * 100).toFixed(1);
  if (Number(rounded) === 0) return difference === 0 ? "no change" : "under 0.1 points";
  return `${difference > 0 ? "+" : "−"}${rounded.replace("-", "")}\u00a0points`;
}

const significant = (number) => number.toFixed(number >= 10 ? 0 : 1);

/** Seconds as "0.4 ms", "13 ms", "3.4 s", "12 min", "1.4 h", "3.2 days". */
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds === 0) return "0\u00a0s";
  if (seconds < 0.000005) return "<\u00a00.01\u00a0ms";
  if (seconds < 0.00095) return `${(seconds * 1000).toFixed(2)}\u00a0ms`;
  if (seconds < 0.9995) return `${significant(seconds * 1000)}\u00a0ms`;
  if (seconds < 99.5) return `${significant(seconds)}\u00a0s`;
  if (seconds < 5970) return `${significant(seconds / 60)}\u00a0min`;
  if (seconds < 48 * 3600) return `${significant(seconds / 3600)}\u00a0h`;
  return `${significant(seconds / 86400)}\u00a0days`;
}

/** Bytes as "8.4 MB". */
export function bytes(number) {
  if (!known(number)) return DASH;
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ]) {
    if (number >= size) return `${significant(number / size)}\u00a0${unit}`;
  }
  return `${grouped.format(number)}\u00a0B`;
}

/** Asks a second, with as many digits as tell something. */
export const rate = (number) =>
  known(number)
    ? `${number >= 10 ? number.toFixed(0) : number >= 1 || number === 0 ? number.toFixed(1) : number.toFixed(2)}\u00a0/\u00a0s`
    : DASH;

export const similarity = (number) => (known(number) ? number.toFixed(3) : DASH);

/** A threshold as one writes it in config.toml. */
export const threshold = (number) =>
  known(number)
    ? String(Math.round(number * 1000) / 1000)
        .padEnd(4, "0")
        .replace(/^([01])0+$/, "$1.00")
    : DASH;

const pad = (number) => String(number).padStart(2, "0");

/** Unix seconds as the reader's time of day; with the date when it is not of today. */
export function clock(at, { seconds = true } = {}) {
  if (!known(at)) return DASH;
  const when = new Date(at * 1000);
  const time = `${pad(when.getHours())}:${pad(when.getMinutes())}${seconds ? `:${pad(when.getSeconds())}` : ""}`;
  return when.toDateString() === new Date().toDateString()
    ? time
    : `${when.getFullYear()}-${pad(when.getMonth() + 1)}-${pad(when.getDate())} ${time}`;
}

/** Hits / (hits + misses) of counts by outcome; null while there is neither. */
export function hitRate(outcomes) {
  const hits = HITS.reduce((sum, outcome) => sum + (outcomes[outcome] || 0), 0);
  const looked = hits + (outcomes.miss || 0);
  return looked ? hits / looked : null;
}
