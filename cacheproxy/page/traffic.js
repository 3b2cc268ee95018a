// Hit rate and asks a second over time, by outcome. Ten minutes come live from this proxy; longer times, and the minutes
// before the page was opened, from the history in Redis, which sums all proxies.

import { get } from "./api.js";
import { Columns } from "./chart.js";
import { el, fill, find, say } from "./dom.js";
import { clock, count, HITS, hitRate, OUTCOMES, percent, rate } from "./words.js";

const RANGES = { "10m": 0.2, "24h": 24, "14d": 336 };
const BIN_S = 5; // bars of single seconds are too restless to read
const ROLL_BINS = 12; // a rate over one bin jumps between nothing and all; over a minute it can be followed
const LIVE_BINS_MAX = 600 / BIN_S;
const REFRESH_MS = { "10m": 15_000, "24h": 60_000, "14d": 300_000 };

let range = "10m";
let proxies = 1;
let series = null; // {rows, step_s, from, to}
let joined = null; // start of the bin in which the line began; it is left to the history
let bins = []; // {t, outcome: n…} of BIN_S each, live, oldest first
let timer = 0;
let charts = null;

/** Build the panel; figures come later. */
export function openTraffic() {
  const layers = (names) => names.map((name) => ({ name, colour: name }));
  charts = {
    hits: new Columns(find("hit-chart"), layers(HITS), {
      top: 1,
      written: (share) => `${Math.round(share * 100)} %`,
      hovered: (at) => legend("hit", at),
    }),
    asks: new Columns(find("ask-chart"), layers(OUTCOMES), {
      least: 0.2,
      written: (number) => (number >= 1 || number === 0 ? String(Math.round(number * 10) / 10) : number.toFixed(2)),
      hovered: (at) => legend("ask", at),
    }),
  };
  for (const button of find("ranges").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      range = button.dataset.range;
      for (const other of find("ranges").querySelectorAll("button"))
        other.setAttribute("aria-pressed", String(other === button));
      refreshTraffic();
    });
  }
}

/** Read the history again, and go on doing so at the pace of the range. */
export async function refreshTraffic() {
  clearTimeout(timer);
  timer = setTimeout(refreshTraffic, REFRESH_MS[range]);
  if (document.visibilityState === "hidden") return;
  const asked = range;
  try {
    const found = await get("series", { hours: RANGES[asked], ...(asked === "10m" ? { step: 60 } : {}) });
    if (asked !== range) return;
    series = { ...found, read: bins.at(-1)?.t ?? Date.now() / 1000 };
    say(find("traffic-note"), "");
  } catch {
    series = null;
    say(
      find("traffic-note"),
      range === "10m"
        ? "The minutes before this page was opened need the history in Redis, which is away."
        : "This needs the history in Redis, which is away.",
    );
  }
  draw();
}

/** The line begins, perhaps again: the bin under way is only seen in part. */
export function lineBegan() {
  joined = null;
}

/** One second of this proxy: {at, per_s}. */
export function second({ at, per_s: counts }) {
  const start = Math.floor(at / BIN_S) * BIN_S;
  if (joined === null) joined = start;
  if (start === joined) return;
  if (!bins.length || bins.at(-1).t < start) bins.push({ t: start });
  const bin = bins.at(-1);
  for (const [outcome, number] of Object.entries(counts ?? {})) bin[outcome] = (bin[outcome] ?? 0) + number;
  if (bins.length > LIVE_BINS_MAX) bins = bins.slice(-LIVE_BINS_MAX);
  if (range === "10m" && charts) draw();
}

/** How many proxies share the Redis: with several, one proxy's seconds would not be the whole. */
export function seen(number) {
  proxies = number ?? 1;
}

/** What is drawn: {rows: [{t, outcome: n…}], step_s, from, to}. Pure. */
export function drawn(found, live, { now, alone }) {
  if (!live)
    return found
      ? { rows: found.rows, step_s: found.step_s, from: found.from, to: found.to }
      : { rows: [], step_s: 60, from: now - 600, to: now };
  const to = Math.floor(now / BIN_S) * BIN_S; // the bin that still fills up would look like a fall
  const from = to - 600;
  if (!alone && found) return { rows: found.rows, step_s: found.step_s, from: found.from, to: found.to };
  const byTime = new Map(live.map((bin) => [bin.t, bin]));
  const rows = [];
  for (let t = from; t < to; t += BIN_S) rows.push(byTime.get(t) ?? past(found, t));
  return { rows, step_s: BIN_S, from, to };
}

/** A bin that was not seen live: its share of the minute it lies in, or of what had passed of it. */
function past(found, t) {
  const minute = found?.rows.find((one) => one.t <= t && t < one.t + found.step_s);
  const bin = { t };
  const passed = minute ? Math.min(found.step_s, Math.max(BIN_S, found.read - minute.t)) : 1;
  for (const outcome of minute ? OUTCOMES : []) bin[outcome] = ((minute[outcome] ?? 0) * BIN_S) / passed;
  return bin;
}

let shown = { rows: [], rolled: [], step_s: 60 };

function draw() {
  const now = bins.length ? bins.at(-1).t : Date.now() / 1000;
  const { rows, step_s: step, from, to } = drawn(series, range === "10m" ? bins : null, { now, alone: proxies <= 1 });
  const rolled =
    step === BIN_S ? rows.map((_, at) => summed(rows.slice(Math.max(0, at - ROLL_BINS + 1), at + 1))) : rows;
  shown = { rows, rolled, step_s: step };
  const times = rows.map((one) => one.t);
  const shares = HITS.map((outcome) =>
    rolled.map((one) => {
      const looked = HITS.reduce((sum, name) => sum + (one[name] ?? 0), one.miss ?? 0);
      return looked ? (one[outcome] ?? 0) / looked : null;
    }),
  );
  charts.hits.set(times, shares, [from, to]);
  charts.asks.set(
    times,
    OUTCOMES.map((outcome) => rows.map((one) => (one[outcome] ?? 0) / step)),
    [from, to],
  );
  const all = summed(rows);
  const asks = OUTCOMES.reduce((sum, outcome) => sum + all[outcome], 0);
  find("hit-empty").hidden = find("ask-empty").hidden = asks > 0;
  legend("hit", null);
  legend("ask", null);
  find("hit-chart").setAttribute("aria-label", `Hit rate by outcome: ${percent(hitRate(all))} over the time shown`);
  find("ask-chart").setAttribute("aria-label", `Asks a second by outcome: ${count(asks)} asks over the time shown`);
}

function summed(rows) {
  const sums = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0]));
  for (const one of rows) for (const outcome of OUTCOMES) sums[outcome] += one[outcome] ?? 0;
  return sums;
}

/** The legend tells the figures under the pointer, else those of the whole time. */
function legend(which, at) {
  const { rows, rolled, step_s: step } = shown;
  const one = at === null || !rows[at] ? null : (which === "hit" ? rolled : rows)[at];
  const all = summed(rows);
  const of = one ?? all;
  const length = one ? step : step * rows.length;
  const names = (which === "hit" ? HITS : OUTCOMES).filter(
    (name) => all[name] || name === "exact" || name === "semantic",
  );
  const looked = HITS.reduce((sum, name) => sum + (of[name] ?? 0), of.miss ?? 0);
  const texts = names.map((name) =>
    which === "hit"
      ? percent(looked ? (of[name] ?? 0) / looked : null)
      : rate(length ? (of[name] ?? 0) / length : null),
  );
  const when = one ? clock(rows[at].t, { seconds: step < 60 }) : "whole time";
  const total =
    which === "hit"
      ? percent(hitRate(of))
      : rate(length ? OUTCOMES.reduce((sum, name) => sum + (of[name] ?? 0), 0) / length : null);
  fill(find(`${which}-legend`), [when, total, texts], () => [
    el("span", { class: "quiet when" }, when),
    el("strong", {}, total),
    ...names.map((name, index) =>
      el("span", { class: "key" }, el("span", { class: `outcome ${name}` }, name), " ", texts[index]),
    ),
  ]);
}
