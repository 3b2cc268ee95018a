// What the figures say, in words: the line at the top and the tiles. Pure functions of what /stats tells.

import { count, counted, duration, percent, points, rate, STEPS, threshold } from "./words.js";

const POOR_ASKS_MIN = 20; // with fewer asks a rate says nothing about a model
const OVER_BUDGET_SHARE = 0.05;
const WRONG_RATIO = 0.01; // as the metric says: reported wrong, of the day's semantic hits

/**
 * {tone: ok|warn|bad, text, detail}: is anything broken? The worst comes first, the rest as detail. `before`: what was
 * told some minutes ago, so that a slow hour of last week is not called slow today.
 */
export function condition(stats, before) {
  const found = [
    ...broken(stats.parts ?? {}),
    ...faulty(stats.faults ?? {}),
    ...slow(stats.budgets ?? {}, before?.budgets ?? stats.budgets ?? {}),
  ];
  if (!found.length) return { tone: "ok", text: "All parts work", detail: upSince(stats) };
  const [worst, ...others] = found;
  return {
    tone: worst.tone,
    text: worst.text,
    detail: [worst.detail, ...others.map((other) => `${other.brief ?? other.text}.`)].join(" "),
  };
}

function broken(parts) {
  const found = [];
  const add = (tone, text, detail) => found.push({ tone, text, detail });
  const { redis = {}, upstream = {}, models = {}, embedder = {}, workers = {} } = parts;
  const away = (part) => part.state === "down" || part.state === "degraded";
  if (upstream.state === "degraded") {
    add("warn", `One Ollama of several is away: ${upstream.reason}`, "Its asks go to the others.");
  }
  if (upstream.state === "down") {
    const means = "What is stored is still answered; everything else fails.";
    add("bad", `Ollama is away: ${upstream.reason || upstream.state}`, means);
  }
  if (away(redis)) {
    const means = "Asks go to Ollama, and nothing is kept, until it answers again.";
    add("bad", `Redis is away: ${redis.reason || redis.state}`, means);
  }
  if (away(workers)) add("warn", `A worker is away: ${workers.reason || workers.state}`, "The others do its work.");
  if (away(models) && !away(upstream)) add("warn", `Models are uncertain: ${models.reason || models.state}`, "");
  if (away(embedder) && !away(redis)) {
    const means = "Questions in other words go to Ollama meanwhile.";
    add("warn", `Exact answers only: ${embedder.reason || embedder.state}`, means);
  }
  return found;
}

function faulty({ internal, check_mismatch: mismatched }) {
  const found = [];
  const add = (text) => found.push({ tone: "warn", text: `${text} since the start`, detail: "See the log." });
  if (internal) add(`${counted(internal, "mistake")} of cacheproxy’s own`);
  if (mismatched) add(`${counted(mismatched, "answer")} lay under the key of another ask`);
  return found;
}

function slow(budgets, before) {
  const found = [];
  for (const [step, budget] of Object.entries(budgets)) {
    const asks = budget.asks - (before[step]?.asks ?? 0);
    const share = (budget.breaches - (before[step]?.breaches ?? 0)) / asks;
    if (asks >= POOR_ASKS_MIN && share > OVER_BUDGET_SHARE) {
      found.push(`Over ${duration(budget.limit_s)} in ${percent(share)} of asks: ${STEPS[step] ?? step}.`);
    }
  }
  if (!found.length) return [];
  return [{ tone: "warn", text: "All parts work, some slowly", brief: "Some steps are slow", detail: found.join(" ") }];
}

function upSince(stats) {
  const proxies = stats.fleet?.proxies;
  const fleet = proxies > 1 ? `; ${proxies} proxies share this Redis` : "";
  return `Up for ${duration(stats.uptime_s)}${fleet}.`;
}

/** The time that figures "of the day" are of: without the history in Redis, the time since the start. */
export const span = (stats) => (stats.fleet ? ", 24 h" : " since the start");

/** The tiles, in order: {key, label, value, note, tone}. `whatIf` is {at, change, rate} or null. */
export function tiles(stats, whatIf) {
  return [
    rateNow(stats),
    rateWeek(stats),
    saved(stats),
    semantic(stats),
    poorest(stats),
    wouldGive(whatIf),
    speed(stats),
    load(stats),
  ];
}

function rateNow(stats) {
  const hour = stats.fleet?.windows?.["1h"];
  if (!hour)
    return { key: "rate-now", label: "Hit rate", value: percent(stats.hit_rate), note: "this proxy since its start" };
  return {
    key: "rate-now",
    label: "Hit rate, last hour",
    value: percent(hour.hit_rate),
    note: hour.asks ? counted(hour.asks, "ask") : "no asks in this hour",
  };
}

function rateWeek(stats) {
  const windows = stats.fleet?.windows;
  if (!windows)
    return { key: "rate-week", label: "Hit rate, 7 days", value: percent(null), note: "needs the history in Redis" };
  return {
    key: "rate-week",
    label: "Hit rate, 7 days",
    value: percent(windows["7d"].hit_rate),
    note: `24 h: ${percent(windows["24h"].hit_rate)}, 14 days: ${percent(windows["14d"].hit_rate)}`,
  };
}

function saved(stats) {
  const week = stats.fleet?.windows?.["7d"];
  const seconds = week ? week.saved_seconds : stats.saved?.seconds;
  const tokens = week ? week.saved_tokens : stats.saved?.tokens;
  return {
    key: "saved",
    label: week ? "GPU time saved, 7 days" : "GPU time saved",
    value: duration(seconds),
    note: `${counted(tokens, "token")} not generated again`,
  };
}

function semantic(stats) {
  const day = stats.fleet?.windows?.["24h"] ?? stats;
  const looked = day.asks - (day.outcomes?.bypass ?? 0);
  const hits = day.outcomes?.semantic ?? 0;
  const wrong = stats.feedback?.bad ?? 0;
  const told = wrong ? `${count(wrong)} reported wrong` : "none reported wrong";
  const served = stats.fleet // hits are of all proxies then, and what was reported is not
    ? `${count(hits)} served; ${told} to this proxy since its start`
    : `${count(hits)} served, ${told}`;
  return {
    key: "semantic",
    label: `Semantic hits${span(stats)}`,
    value: looked ? percent(hits / looked) : percent(null),
    note: stats.parts?.embedder?.state === "off" ? "switched off" : served,
    tone: (stats.wrong_hit_ratio ?? 0) > WRONG_RATIO ? "warn" : "",
  };
}

/** The model with the poorest rate in 24 h: {name, rate, asks}; null while none has asks enough. */
export function poorestModel(stats) {
  const rates = modelRates(stats).filter((model) => model.asks >= POOR_ASKS_MIN && model.rate !== null);
  return rates.length ? rates.reduce((worst, model) => (model.rate < worst.rate ? model : worst)) : null;
}

/** Every model with asks, most asked first: {name, asks, rate, semantic (share of hits), saved_s, poor}. */
export function modelRates(stats) {
  const models = stats.fleet?.models ?? stats.models ?? {};
  const overall = (stats.fleet?.windows?.["24h"] ?? stats).hit_rate;
  return Object.entries(models)
    .map(([name, of]) => {
      const outcomes = of.outcomes ?? {};
      const hits = ["exact", "semantic", "joined", "stale"].reduce((sum, outcome) => sum + (outcomes[outcome] ?? 0), 0);
      const poor = of.asks >= POOR_ASKS_MIN && of.hit_rate !== null && overall > 0 && of.hit_rate < overall / 2;
      return {
        name,
        asks: of.asks,
        rate: of.hit_rate,
        semantic: hits ? (outcomes.semantic ?? 0) / hits : null,
        saved_s: of.saved_seconds ?? of.saved?.seconds ?? null,
        tokens: of.saved_tokens ?? of.saved?.tokens ?? null,
        poor,
      };
    })
    .sort((one, other) => other.asks - one.asks);
}

function poorest(stats) {
  const model = poorestModel(stats);
  if (!model)
    return {
      key: "poorest",
      label: `Poorest model${span(stats)}`,
      value: "–",
      note: `none has ${POOR_ASKS_MIN} asks yet`,
    };
  const poor = modelRates(stats).find((one) => one.name === model.name).poor;
  return {
    key: "poorest",
    label: `Poorest model${span(stats)}`,
    value: percent(model.rate),
    note: `${model.name}, ${counted(model.asks, "ask")}`,
    tone: poor ? "warn" : "",
  };
}

function wouldGive(whatIf) {
  if (!whatIf) return { key: "what-if", label: "Another threshold", value: "–", note: "no look-ups by meaning yet" };
  return {
    key: "what-if",
    label: `Threshold ${threshold(whatIf.at)} would give`,
    value: percent(whatIf.rate),
    note: `estimate, ${points(whatIf.change)} on 24 h`,
  };
}

function speed(stats) {
  const outcomes = stats.latency?.outcomes ?? {};
  const p95 = (outcome) => {
    const tiers = Object.values(outcomes[outcome] ?? {});
    return tiers.length ? tiers.reduce((most, tier) => (tier.count > most.count ? tier : most)).p95_s : null;
  };
  return {
    key: "speed",
    label: "95 % answered within",
    value: `${duration(p95("exact"))} / ${duration(p95("miss"))}`,
    note: p95("semantic") === null ? "exact / miss" : `exact / miss; semantic ${duration(p95("semantic"))}`,
  };
}

function load(stats) {
  const waiting = stats.gauges?.queue_length ?? 0;
  const running = stats.gauges?.upstream_in_flight ?? 0;
  return {
    key: "load",
    label: "Asks, last minute",
    value: rate(stats.windows?.["1m"]?.asks_per_s),
    note: `${count(running)} at Ollama, ${count(waiting)} waiting`,
  };
}
