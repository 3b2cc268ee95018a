// Joins the parts of the page: one live line in, each panel out. Every figure shown comes from the operator's port.

import { hasToken, keepToken } from "./api.js";
import { happened, openAsks, refreshAsks } from "./asks.js";
import { askToken } from "./dialogs.js";
import { openExplorer, offerModels, refreshExplorer } from "./explorer.js";
import { showLine, showNow } from "./now.js";
import { follow } from "./stream.js";
import { showTables } from "./tables.js";
import { lineBegan, openTraffic, refreshTraffic, second, seen } from "./traffic.js";
import { offerForget, openForget } from "./undo.js";

const REFRESH_MS = 15_000;
const LEDGER_MS = 2_500; // after so long an ask that has ended is in the history

let stats = {};
let similarities = null;
let past = []; // what /stats told, once a minute, oldest first

/** What /stats told last; an event may leave parts out, which then stay as they were. */
function take(told) {
  const fleet = told.fleet ? { ...stats.fleet, ...told.fleet } : "fleet" in told ? null : stats.fleet;
  stats = { ...stats, ...told, fleet };
  document.body.classList.remove("waiting");
  remember();
  showNow(stats, similarities, past[0]);
  showTables(stats);
  seen(stats.fleet?.proxies);
  offerForget(stats.models_installed ?? []);
  offerModels(Object.keys(stats.fleet?.models ?? stats.models ?? {}).sort());
}

function remember() {
  const restarted = past.length > 0 && past[0].started !== stats.started;
  const now = performance.now();
  if (restarted) past = [];
  if (!past.length || now - past.at(-1).seen > 60_000)
    past = [...past, { started: stats.started, budgets: stats.budgets, seen: now }].slice(-5);
}

async function refresh() {
  await Promise.all([refreshTraffic(), refreshExplorer(), refreshAsks()]);
  setTimeout(refreshAsks, LEDGER_MS); // what ended just before the line came back is written by then
}

openTraffic();
openExplorer((found) => {
  similarities = found;
  showNow(stats, similarities, past[0]);
});
openAsks();
openForget(refresh);
setInterval(
  () => document.visibilityState === "visible" && Promise.all([refreshExplorer(), refreshAsks()]),
  REFRESH_MS,
);

follow({
  line: showLine,
  stats: take,
  second,
  ask: happened,
  joined: () => {
    lineBegan();
    return refresh();
  },
  locked: async () => keepToken(await askToken(hasToken())),
});
