// The tables: models, speed, steps against their budgets, what went around the cache, what went wrong, what is loaded.

import { modelRates, span as spanOf } from "./answers.js";
import { el, fill, find, outcomeSign, row, say, table } from "./dom.js";
import { bytes, clock, count, duration, OUTCOMES, percent, STEPS } from "./words.js";

const NUMBER = "number";
const SPARE = "number spare"; // left out on phones
const MODELS_MAX = 20;
const ROWS_MAX = 12;

const FAULTS = {
  redis_unavailable: "no answer from Redis in time",
  breaker_opened: "Redis was left alone for a while",
  entry_corrupt: "an entry could not be read",
  check_mismatch: "an entry did not answer its key",
  store_failed: "an answer could not be written",
  store_dropped: "too many answers waited to be written",
  embedder: "no vector for a question",
  guard: "a guard raised",
  upstream_unreachable: "no connection to Ollama",
  upstream_broken: "an answer of Ollama’s broke off",
  upstream_error: "Ollama said 500 or more",
  queue_full: "too many misses waited; callers saw 503",
  tags_unavailable: "the list of models could not be read",
  ledger: "counts could not be written; they wait",
  ledger_dropped: "counts waited too long and were lost",
  traces: "traces could not be sent",
  internal: "a mistake in cacheproxy",
};

/** Everything /stats tells in tables. */
export function showTables(stats) {
  models(stats);
  speed(stats.latency?.outcomes ?? {});
  steps(stats.latency?.steps ?? {}, stats.budgets ?? {});
  around(stats.bypass ?? {}, stats.not_kept ?? {});
  faults(stats.faults ?? {});
  loaded(stats);
}

const nothing = (text) => el("p", { class: "quiet empty" }, text);

function models(stats) {
  const found = modelRates(stats).slice(0, MODELS_MAX);
  say(find("models-title"), `Models${spanOf(stats)}`);
  fill(find("model-table"), found, () => {
    if (!found.length)
      return nothing("No model was asked yet. Point an app at the proxy’s port, and it shows up here.");
    const columns = [
      "Model",
      ["Asks", NUMBER],
      ["Hit rate", NUMBER],
      ["", "meter-column"],
      ["Semantic share of hits", SPARE],
      ["Saved", NUMBER],
    ];
    return table(
      "Models",
      columns,
      found.map((model) =>
        row(
          model.name,
          [count(model.asks), NUMBER],
          [
            el(
              "span",
              { class: model.poor ? "poor" : "" },
              percent(model.rate),
              model.poor ? el("small", {}, " poor") : "",
            ),
            NUMBER,
          ],
          [meter(model.rate, model.poor), "meter-column"],
          [percent(model.semantic), SPARE],
          [model.saved_s === null ? "–" : duration(model.saved_s), NUMBER],
        ),
      ),
    );
  });
}

function meter(share, poor) {
  const bar = el("span", { class: `meter ${poor ? "warn" : ""}`, "aria-hidden": "true" }, el("i"));
  bar.firstChild.style.width = `${(share ?? 0) * 100}%`;
  return bar;
}

const SPEED_ENDS = [0.0001, 100]; // seconds: from a hit in memory to a long answer

/** Where a time stands on a logarithmic line, in percent. */
function position(seconds) {
  const [low, high] = SPEED_ENDS.map(Math.log);
  return Math.min(100, Math.max(0, ((Math.log(Math.max(seconds, 1e-9)) - low) / (high - low)) * 100));
}

function speed(outcomes) {
  const found = OUTCOMES.flatMap((outcome) =>
    Object.entries(outcomes[outcome] ?? {}).map(([tier, times]) => ({ outcome, tier, ...times })),
  ).filter((one) => one.count);
  const key = found.map((one) => [one.outcome, one.tier, one.count, one.p50_s, one.p95_s, one.p99_s]);
  fill(find("speed-table"), key, () => {
    if (!found.length) return nothing("Nothing was answered yet.");
    const columns = [
      "Answered",
      ["p50", NUMBER],
      ["p95", NUMBER],
      ["p99", NUMBER],
      ["", "span-column"],
      ["Asks", NUMBER],
    ];
    return table(
      "Time to answer",
      columns,
      found.map((one) =>
        row(
          el(
            "span",
            { class: "whole" },
            outcomeSign(one.outcome),
            one.tier === "none" ? "" : el("span", { class: "quiet" }, `\u00a0· ${one.tier}`),
          ),
          [duration(one.p50_s), NUMBER],
          [duration(one.p95_s), NUMBER],
          [duration(one.p99_s), NUMBER],
          [span(one), "span-column"],
          [count(one.count), NUMBER],
        ),
      ),
    );
  });
}

/** A line from p50 to p99 with a dot at p95, on the logarithmic scale all rows share. */
function span({ outcome, p50_s: p50, p95_s: p95, p99_s: p99 }) {
  const made = el("span", { class: `span ${outcome}`, "aria-hidden": "true" }, el("i"), el("b"));
  const [start, dot, end] = [p50, p95, p99].map(position);
  made.firstChild.style.left = `${start}%`;
  made.firstChild.style.width = `${Math.max(end - start, 1)}%`;
  made.lastChild.style.left = `${dot}%`;
  return made;
}

function steps(times, budgets) {
  const found = Object.keys(STEPS).filter((step) => times[step] || budgets[step]?.asks);
  fill(
    find("step-table"),
    found.map((step) => [step, times[step], budgets[step]]),
    () => {
      if (!found.length) return nothing("No step was timed yet.");
      const columns = ["Step", ["p50", NUMBER], ["p95", NUMBER], ["Budget", NUMBER], ["Over it", NUMBER]];
      return table(
        "Steps against their budgets",
        columns,
        found.map((step) => {
          const [taken, budget] = [times[step] ?? {}, budgets[step]];
          const over = budget?.asks ? budget.breaches / budget.asks : null;
          return row(
            el("span", { title: STEPS[step] }, STEPS[step]),
            [duration(taken.p50_s), NUMBER],
            [duration(taken.p95_s), NUMBER],
            [budget ? duration(budget.limit_s) : "–", NUMBER],
            [
              over === null
                ? "–"
                : el("span", { class: over > 0.05 ? "poor" : "" }, budget.breaches ? `${percent(over)}` : "never"),
              NUMBER,
            ],
          );
        }),
      );
    },
  );
}

const sorted = (counts) =>
  Object.entries(counts)
    .filter(([, number]) => number > 0)
    .sort((one, other) => other[1] - one[1])
    .slice(0, ROWS_MAX);

function around(bypass, kept) {
  const [went, left] = [sorted(bypass), sorted(kept)];
  fill(find("bypass-table"), [went, left], () => [
    went.length
      ? table(
          "Asks around the cache",
          ["Around the cache because of", ["Asks", NUMBER]],
          went.map(([reason, number]) => row(reason, [count(number), NUMBER])),
        )
      : nothing("Every ask went through the cache."),
    left.length
      ? table(
          "Answers not kept",
          ["Answer not kept because of", ["Answers", NUMBER]],
          left.map(([reason, number]) => row(reason, [count(number), NUMBER])),
        )
      : "",
  ]);
}

function faults(counts) {
  const found = sorted(counts);
  fill(find("fault-table"), found, () =>
    found.length
      ? table(
          "Faults",
          ["What went wrong and was survived", ["Times", NUMBER]],
          found.map(([kind, number]) =>
            row(el("span", { title: kind }, FAULTS[kind] ?? kind), [count(number), NUMBER]),
          ),
        )
      : nothing("Nothing has gone wrong since the start."),
  );
}

function loaded(stats) {
  const found = stats.models_loaded ?? [];
  const gauges = stats.gauges ?? {};
  const key = [
    found,
    stats.model_loading,
    gauges.upstream_in_flight,
    gauges.queue_length,
    gauges.asks_in_flight,
    stats.memory,
    stats.ollama_version,
    stats.upstreams,
    stats.kept,
  ];
  fill(find("loaded-table"), key, () => [
    found.length
      ? table(
          "Models in memory",
          ["In Ollama’s memory", ["Size", NUMBER], ["On the GPU", NUMBER], ["Until", NUMBER]],
          found.map((model) =>
            row(
              model.name,
              [bytes(model.size_bytes), NUMBER],
              [model.size_bytes ? percent(model.vram_bytes / model.size_bytes) : "–", NUMBER],
              [until(model.expires), NUMBER],
            ),
          ),
        )
      : nothing("Ollama has no model in memory."),
    several(stats.upstreams ?? []),
    stats.model_loading ? el("p", { class: "quiet" }, `Loading ${stats.model_loading}.`) : "",
    el(
      "dl",
      { class: "facts" },
      ...fact("Asks being answered", count(gauges.asks_in_flight)),
      ...fact("At Ollama", count(gauges.upstream_in_flight)),
      ...fact("Waiting for a place", count(gauges.queue_length)),
      ...fact("Kept in this process", `${count(stats.memory?.entries)}, ${bytes(stats.memory?.bytes)}`),
      ...fact("Written to Redis", `${count(stats.kept?.entries)}, ${bytes(stats.kept?.bytes)}`),
      ...fact("Ollama", stats.ollama_version || "unknown"),
    ),
  ]);
}

/** The Ollamas, where there is more than one. */
function several(upstreams) {
  if (upstreams.length < 2) return "";
  const columns = ["Ollama", ["At it", NUMBER], ["Waiting", NUMBER], ""];
  const rows = upstreams.map(({ name, up, reason, in_flight: running, waiting }) =>
    row(
      name,
      [count(running), NUMBER],
      [count(waiting), NUMBER],
      up ? "works" : el("span", { class: "poor" }, reason || "away"),
    ),
  );
  return table("Ollamas", columns, rows);
}

const until = (at) => (at > 0 && at < 4e9 ? clock(at, { seconds: false }) : "always");
const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
