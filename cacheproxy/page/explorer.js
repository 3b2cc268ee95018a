// The threshold explorer: where the similarities lie, what another threshold would have given, and the pairs at the line.

import { get } from "./api.js";
import { Columns } from "./chart.js";
import { note } from "./dialogs.js";
import { el, fill, find, say } from "./dom.js";
import { wrongHit } from "./undo.js";
import { estimate, split, toml, totals } from "./whatif.js";
import { count, counted, percent, points, similarity, threshold } from "./words.js";

const SHOWN_FROM = 0.6; // below lie questions that have nothing in common; their number is told in words
const PAIRS = 12;
const PAIRS_READ = 100; // the same pair may have come up many times
const SETTLE_MS = 250; // the pairs are asked for when the slider rests

const LAYERS = [
  { name: "kept", colour: "semantic" },
  { name: "gained", colour: "gained" },
  { name: "lost", colour: "lost" },
  { name: "guarded", colour: "stale" },
  { name: "below", colour: "miss" },
];

let found = null; // what /similarity told
let at = null; // the threshold looked at; null: the present one
let chart = null;
let settling = 0;
let onFound = () => {};

/** Build the panel. `told(found)` gets each new answer for all models. */
export function openExplorer(told) {
  onFound = told;
  chart = new Columns(find("similarity-chart"), LAYERS, {
    height: 220,
    time: false,
    least: 4,
    written: (number) => (Number.isInteger(number) ? count(number) : ""),
    marks,
  });
  const slider = find("threshold-slider");
  slider.addEventListener("input", () => move(Number(slider.value)));
  find("threshold-back").addEventListener("click", () => move(null));
  find("threshold-model").addEventListener("change", refreshExplorer);
  find("threshold-copy").addEventListener("click", copy);
  dragged(find("similarity-chart"));
}

/** The models one may choose from. */
export function offerModels(names) {
  const choice = find("threshold-model");
  fill(choice, names, () => {
    const chosen = choice.value;
    return [
      el("option", { value: "" }, "all models"),
      ...names.map((name) => el("option", { value: name, selected: name === chosen }, name)),
    ];
  });
}

/** Read the similarities again. */
export async function refreshExplorer() {
  const model = find("threshold-model").value;
  try {
    const told = await get("similarity", { hours: 24, model });
    if (model !== find("threshold-model").value) return;
    found = told;
    if (!model) onFound(found);
    say(find("threshold-note"), "");
  } catch {
    found = null;
    say(find("threshold-note"), "This needs the history in Redis, which is away.");
  }
  show();
  await pairs();
}

function move(value) {
  at = found && value !== null && Math.abs(value - found.threshold) < 0.0005 ? null : value;
  show();
  clearTimeout(settling);
  settling = setTimeout(pairs, SETTLE_MS);
}

const looked = () => at ?? found.threshold;

function marks() {
  if (!found) return [];
  const now = {
    x: found.threshold,
    text: `now ${threshold(found.threshold)}`,
    left: at !== null && at > found.threshold,
  };
  return at === null
    ? [now]
    : [now, { x: at, text: `what if ${threshold(at)}`, dashed: true, row: 1, left: at < found.threshold }];
}

function show() {
  const body = find("threshold-body");
  const off = !found || found.mode === "off";
  body.hidden = off;
  if (found?.mode === "off")
    say(find("threshold-note"), 'Questions are not compared by meaning here: semantic.mode is "off" in config.toml.');
  if (off) return;
  const slider = find("threshold-slider");
  if (document.activeElement !== slider || at === null) slider.value = looked();
  slider.setAttribute("aria-valuetext", threshold(looked()));
  const rows = split(found, looked());
  const visible = rows.filter((row) => row.at >= SHOWN_FROM - 1e-9);
  chart.set(
    visible.map((row) => row.at),
    LAYERS.map(({ name }) => visible.map((row) => row[name])),
    [SHOWN_FROM, 1 + found.bin],
  );
  chart.redraw();
  words(rows.length - visible.length ? rows.slice(0, rows.length - visible.length) : []);
}

function words(unseen) {
  const then = estimate(found, looked());
  say(find("threshold-value"), threshold(looked()));
  say(find("threshold-rate"), percent(then.rate));
  say(
    find("threshold-change"),
    at === null ? (found.mode === "shadow" ? "with serving on" : "as it is now") : `${points(then.change)}, estimate`,
  );
  say(
    find("threshold-pairs"),
    at === null
      ? ""
      : then.gained
        ? `${count(then.gained)} more would be served`
        : then.lost
          ? `${count(then.lost)} fewer would be served`
          : "nothing would change",
  );
  say(find("threshold-hits"), `${count(then.hits)} of ${counted(found.asks, "ask")} that were looked up in 24 h`);
  const model = find("threshold-model").value;
  say(find("threshold-toml"), toml(looked(), model, threshold(looked())));
  find("threshold-back").hidden = at === null;
  say(find("threshold-back"), `Back to ${threshold(found.threshold)}`);
  say(find("threshold-trust"), trust(unseen));
  find("threshold-estimate").hidden = at === null;
}

/** Whether a semantic hit can be trusted, as far as figures say it. */
function trust(unseen) {
  const { served, guarded, below } = totals(found);
  if (!(served + guarded + below))
    return "No question had a neighbour yet: nothing was compared by meaning in the last 24 h.";
  const far = unseen.reduce((sum, row) => sum + row.served + row.guarded + row.below, 0);
  const serve = found.mode === "shadow" ? "would have been served (shadow mode serves none)" : "were served";
  const parts = [
    `A near answer needs a similarity of ${threshold(found.threshold)} and no guard’s objection. ${count(served)} ${serve}`,
  ];
  parts.push(`guards refused ${count(guarded)} that were near enough`);
  parts.push(
    `${count(below)} were not near enough${far ? `, ${count(far)} of them below ${threshold(SHOWN_FROM)} and not drawn` : ""}`,
  );
  return `${parts.join(", ")}.`;
}

async function copy() {
  const lines = find("threshold-toml");
  try {
    await navigator.clipboard.writeText(lines.textContent);
    note("Copied. Paste it into config.toml; SIGHUP or a restart puts it into force.");
  } catch {
    getSelection().selectAllChildren(lines); // no clipboard over plain HTTP from another machine
    note("The lines are selected: copy them with your keyboard.");
  }
}

/** Pointing at the chart moves the slider, as dragging it does. */
function dragged(place) {
  let held = false;
  const look = (event) => {
    const over = place.querySelector(".u-over");
    if (!held || !over || !found) return;
    const box = over.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const value = SHOWN_FROM + share * (1 + found.bin - SHOWN_FROM);
    move(Math.round(Math.min(1, Math.max(SHOWN_FROM, value)) * 100) / 100);
  };
  place.addEventListener("pointerdown", (event) => {
    held = event.pointerType !== "touch"; // a finger on the chart scrolls the page
    look(event);
  });
  addEventListener("pointermove", look);
  addEventListener("pointerup", () => (held = false));
}

async function pairs() {
  const place = find("pair-list");
  if (!found || found.mode === "off") return fill(place, null, () => []);
  const around = looked();
  let told;
  try {
    told = await get("pairs", { around, limit: PAIRS_READ });
  } catch {
    return fill(place, "away", () => el("p", { class: "quiet" }, "The pairs lie in Redis, which is away."));
  }
  if (around !== looked()) return undefined;
  const model = find("threshold-model").value;
  const listed = once(told.pairs.filter((pair) => !model || pair.model === model))
    .slice(0, PAIRS)
    .sort((one, other) => other.similarity - one.similarity);
  fill(place, [told.prompts, listed, around], () => {
    if (!told.prompts)
      return el(
        "p",
        { class: "quiet" },
        "The questions themselves are not shown and not kept: that needs ",
        el("code", {}, "[log] prompts = true"),
        " in config.toml, and holds from then on.",
      );
    if (!listed.length) return el("p", { class: "quiet" }, "No pair of questions near this line yet.");
    return el("ul", { class: "pairs" }, ...listed.map((pair) => pairRow(pair, around)));
  });
  return undefined;
}

/** Each pair once, with how often it came up; nearest to the line first, as they were told. */
function once(told) {
  const seen = new Map();
  for (const pair of told) {
    const key = JSON.stringify([pair.asked, pair.stored, pair.verdict, pair.model]);
    const before = seen.get(key);
    if (before) before.times += 1;
    else seen.set(key, { ...pair, times: 1 });
  }
  return [...seen.values()];
}

const VERDICTS = { serve: "served", below_threshold: "not near enough", feedback: "kept apart by feedback" };

function pairRow(pair, around) {
  const then =
    pair.verdict === "serve"
      ? pair.similarity >= around
      : pair.verdict === "below_threshold" && pair.similarity >= around;
  const today = VERDICTS[pair.verdict] ?? pair.verdict.replace("guard:", "guard: ");
  const change = then === (pair.verdict === "serve") ? "" : then ? "would be served" : "would not be served";
  const undo =
    pair.verdict === "serve" && pair.entry
      ? el(
          "button",
          { type: "button", class: "small", on: { click: () => wrongHit(pair.entry, pair.asked) } },
          "Wrong answer",
        )
      : null;
  return el(
    "li",
    {},
    el("span", { class: "number similar" }, similarity(pair.similarity)),
    el(
      "span",
      { class: "asked" },
      pair.asked || "–",
      pair.times > 1 ? el("span", { class: "quiet" }, `\u00a0×\u00a0${count(pair.times)}`) : null,
    ),
    el("span", { class: "stored" }, pair.stored || "–"),
    el(
      "span",
      { class: "verdict" },
      el("span", { class: pair.verdict === "serve" ? "outcome semantic" : "quiet" }, today),
      change ? el("strong", {}, change) : null,
    ),
    undo ?? el("span", {}),
  );
}
