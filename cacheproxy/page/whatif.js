// What another threshold would have given, read off the similarities that were measured. Pure functions of /similarity.
//
// An estimate, and it errs one way: the threshold also decides what gets stored. With a lower one more is served, less
// is stored, and so less is near; measured on recorded traffic, it promised 1.4 points too much from 0.92 to 0.88 and
// took 2.8 too many from 0.92 to 0.96.

const mils = (number) => Math.round(number * 1000);

/** Rows as they would be at threshold `at`: {at, kept, gained, lost, guarded, below}. A guard's no stays a no. */
export function split(found, at) {
  const [now, then] = [mils(found.threshold), mils(at)];
  const width = mils(found.bin);
  return found.rows.map((row) => {
    const low = mils(row.at);
    const gains = then < now && low >= then && low < now;
    // The row the threshold itself lies in holds served ones only from the threshold on.
    const loses = then > now && low < then && low + width > now;
    return {
      at: row.at,
      kept: loses ? 0 : row.served,
      lost: loses ? row.served : 0,
      gained: gains ? row.below : 0,
      below: gains ? 0 : row.below,
      guarded: row.guarded,
    };
  });
}

/** {hits, rate, change, gained, lost} at threshold `at`; the rate is null while nothing was looked up. */
export function estimate(found, at) {
  const rows = split(found, at);
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  const [gained, lost] = [sum("gained"), sum("lost")];
  // In shadow mode nothing is served, so the hits do not hold those that would have been.
  const base =
    found.mode === "shadow" ? found.hits + found.rows.reduce((total, row) => total + row.served, 0) : found.hits;
  const hits = base + gained - lost;
  const ratio = (number) => (found.asks ? number / found.asks : null);
  return { hits, rate: ratio(hits), change: found.asks ? (hits - base) / found.asks : null, gained, lost };
}

/** Served, guarded and below in all, for a sentence. */
export function totals(found) {
  const sum = (name) => found.rows.reduce((total, row) => total + row[name], 0);
  return { served: sum("served"), guarded: sum("guarded"), below: sum("below") };
}

/** The lines for config.toml. */
export function toml(at, model, written) {
  return model
    ? `[models."${model.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"]\nthreshold = ${written}`
    : `[semantic]\nthreshold = ${written}`;
}
