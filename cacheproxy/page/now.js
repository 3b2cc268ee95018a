// The top of the page: is anything broken, which parts work, and the tiles.

import { condition, tiles } from "./answers.js";
import { el, fill, find, say } from "./dom.js";
import { estimate } from "./whatif.js";
import { percent } from "./words.js";

const PARTS = { redis: "Redis", upstream: "Ollama", models: "Models", embedder: "Embedder", workers: "Workers" };
const STATES = { ok: "works", degraded: "impaired", down: "away", off: "off" };
const LINES = {
  connecting: ["wait", "connecting"],
  live: ["ok", "live"],
  slower: ["ok", "every 5 s"],
  paused: ["wait", "paused"],
  reconnecting: ["bad", "reconnecting"],
  locked: ["wait", "needs token"],
};

/** How the live line is. */
export function showLine(word) {
  const place = find("live");
  const [tone, text] = LINES[word];
  place.className = `badge ${tone}`;
  say(place, text);
  document.body.classList.toggle("stale", word === "reconnecting");
}

/** What would be given a little below the present threshold, from /similarity; null where nothing can be said. */
export function whatIfBelow(found) {
  if (!found || found.mode === "off" || !found.asks || !found.rows.some((row) => row.served + row.below + row.guarded))
    return null;
  const at = Math.round(found.threshold * 100 - 2) / 100;
  return { at, ...estimate(found, at) };
}

/** Show what /stats tells; `before`: what it told some minutes ago. */
export function showNow(stats, found, before) {
  const { tone, text, detail } = condition(stats, before);
  const place = find("condition");
  place.className = `condition ${tone}`;
  say(place.querySelector("h1"), text);
  say(place.querySelector("p"), detail);
  const parts = Object.entries(stats.parts ?? {}).filter(isThere);
  fill(find("parts"), parts, () => parts.map(part));
  const shown = tiles(stats, whatIfBelow(found));
  fill(find("tiles"), shown, () => shown.map(tile));
  say(find("version"), stats.version ? `version ${stats.version}` : "");
  const rate = stats.fleet?.windows?.["1h"]?.hit_rate ?? stats.hit_rate;
  document.title = `${tone === "ok" ? "" : "! "}${rate === null || rate === undefined ? "" : `${percent(rate)} hits · `}cacheproxy`;
}

/** One process has no workers; of the other parts "off" is worth a word. */
function isThere([name, { state }]) {
  return name !== "workers" || state !== "off";
}

function part([name, { state, reason }]) {
  if (name === "redis" && state === "degraded") state = "down"; // the proxy goes on without it; Redis itself does not
  const tone = { ok: "ok", off: "off", degraded: "warn", down: "bad" }[state] ?? "warn";
  return el(
    "li",
    { class: `part ${tone}`, title: reason || null },
    el("span", {}, PARTS[name] ?? name),
    el("span", { class: "quiet" }, STATES[state] ?? state),
  );
}

function tile({ key, label, value, note, tone }) {
  return el(
    "div",
    { class: `tile ${tone ?? ""}`, "data-key": key },
    el("dt", {}, label),
    el("dd", { class: "value" }, value),
    el("dd", { class: "quiet" }, note),
  );
}
