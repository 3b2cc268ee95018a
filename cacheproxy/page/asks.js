// Recent asks, newest first: what happened to each, step by step, and the ways to take an answer back.

import { get } from "./api.js";
import { el, find, outcomeSign, say } from "./dom.js";
import { forgetEntry, wrongHit } from "./undo.js";
import { clock, count, duration, similarity, threshold } from "./words.js";

const SHOWN_MAX = 60;

let rows = []; // {key, ask, node}, newest first
let held = false; // the reader looks at the list: it stands still
let waiting = [];
let only = "";

/** Build the panel. */
export function openAsks() {
  find("ask-filter").addEventListener("change", (event) => {
    only = event.target.value;
    for (const { ask, node } of rows) node.hidden = only !== "" && ask.outcome !== only;
    empty();
  });
  const pause = find("ask-pause");
  pause.addEventListener("click", () => {
    held = !held;
    pause.setAttribute("aria-pressed", String(held));
    say(pause, held ? "Go on" : "Hold");
    if (!held) {
      waiting.forEach(add);
      waiting = [];
      tell(0);
    }
  });
}

/** Read the newest asks of all proxies, and put those among the shown ones that are not there yet. */
export async function refreshAsks() {
  try {
    const found = await get("asks", { limit: 50 });
    found.asks
      .slice()
      .sort((one, other) => one.at - other.at)
      .forEach(happened);
    say(
      find("ask-note"),
      found.left_out ? `${count(found.left_out)} asks were too many to be listed; they are counted.` : "",
    );
  } catch {
    say(find("ask-note"), "Earlier asks lie in Redis, which is away; new ones of this proxy show up here.");
  }
  empty();
}

/** One ask has ended. */
export function happened(ask) {
  if (ask.outcome === undefined) return; // only says how many were left out
  if (held) {
    waiting = [...waiting, ask].slice(-SHOWN_MAX);
    tell(waiting.length);
  } else {
    add(ask);
  }
}

const keyOf = (ask) => `${ask.at}|${ask.outcome}|${ask.entry}|${ask.seconds}|${ask.trail}`;
const tell = (number) => say(find("ask-waiting"), number ? `${count(number)} new` : "");

function add(ask) {
  const key = keyOf(ask);
  if (rows.some((row) => row.key === key)) return;
  const place = rows.findIndex((row) => row.ask.at <= ask.at);
  const made = { key, ask, node: line(ask) };
  made.node.hidden = only !== "" && ask.outcome !== only;
  if (place < 0) {
    rows.push(made);
    find("ask-list").append(made.node);
  } else {
    rows[place].node.before(made.node);
    rows.splice(place, 0, made);
  }
  for (const gone of rows.splice(SHOWN_MAX)) gone.node.remove();
  empty();
}

function empty() {
  find("ask-nothing").hidden = rows.some((row) => !row.node.hidden);
}

function line(ask) {
  const detail = el("div", { class: "detail", hidden: true });
  const head = el(
    "button",
    { type: "button", class: "ask", "aria-expanded": "false" },
    el("span", { class: "when number" }, clock(ask.at)),
    outcomeSign(ask.outcome),
    el("span", { class: "model" }, ask.model || "unknown model"),
    el("span", { class: "why quiet" }, ask.count > 1 ? `${count(ask.count)} × ` : "", why(ask)),
    el("span", { class: "took number" }, duration(ask.seconds)),
  );
  head.addEventListener("click", () => {
    const open = head.getAttribute("aria-expanded") === "true";
    head.setAttribute("aria-expanded", String(!open));
    detail.hidden = open;
    if (!open && !detail.hasChildNodes()) detail.append(...details(ask));
  });
  return el("li", { class: ask.outcome }, head, detail);
}

function why(ask) {
  if (ask.asked) return ask.asked;
  if (ask.reason) return ask.reason;
  if (ask.similarity === null || ask.similarity === undefined) return ask.tier === "none" ? "" : `from ${ask.tier}`;
  return `similarity ${similarity(ask.similarity)}${ask.outcome === "miss" ? `, ${verdict(ask)}` : ""}`;
}

function verdict(ask) {
  if (ask.verdict === "below_threshold") return "not near enough";
  if (ask.verdict === "feedback") return "kept apart by feedback";
  return (ask.verdict ?? "").startsWith("guard:") ? `guard ${ask.verdict.slice(6)} objected` : ask.verdict;
}

function details(ask) {
  const facts = [
    ["Asked", ask.asked],
    ["Answered with that of", ask.asked && ask.outcome === "semantic" ? ask.stored : ""],
    ["Nearest stored", ask.outcome === "semantic" ? "" : ask.stored],
    [
      "Similarity",
      ask.similarity
        ? `${similarity(ask.similarity)}, needs ${threshold(ask.threshold)}${ask.verdict === "serve" ? "" : `: ${verdict(ask)}`}`
        : "",
    ],
    ["Way in", ask.dialect],
    ["Why around the cache", ask.reason],
    ["Found in", ask.tier === "none" ? "" : ask.tier],
    ["Answer", ask.entry],
  ].filter(([, value]) => value);
  const steps = (ask.trail || "")
    .split(" ")
    .filter(Boolean)
    .map((step) => {
      const [name, ...result] = step.split(":");
      return el("li", {}, el("span", { class: "quiet" }, name), result.length ? ` ${result.join(":")}` : "");
    });
  return [
    steps.length ? el("ol", { class: "trail", "aria-label": "Steps" }, ...steps) : "",
    el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    ...actions(ask),
  ];
}

function actions(ask) {
  if (!ask.entry || ask.outcome === "bypass") return [];
  const wrong =
    ask.outcome === "semantic"
      ? el(
          "button",
          { type: "button", on: { click: () => wrongHit(ask.entry, ask.asked) } },
          "Wrong answer: take it back",
        )
      : "";
  return [
    el(
      "p",
      { class: "actions" },
      wrong,
      el("button", { type: "button", on: { click: () => forgetEntry(ask.entry) } }, "Forget this answer"),
    ),
  ];
}
