// Stacked columns over time or similarity, drawn by the vendored uPlot (the global `uPlot`). Knows colours and sizes;
// what the figures mean is for the panels.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const plain = (number) => String(number);

/**
 * A chart in `place`. `layers`: [{name, colour}] from the bottom up. `options`: `height`, `time` (x is Unix seconds),
 * `top` (fixed upper end), `written` (number to text on the y axis), `hovered(index or null)`, `marks()` giving
 * [{x, text, dashed, left (of the line), row (of the text, from the top)}] for lines across, `ranged` [from, to] of x.
 */
export class Columns {
  constructor(place, layers, options) {
    this.place = place;
    this.layers = layers;
    this.options = { height: 190, time: true, written: plain, ...options };
    this.xs = [];
    this.values = layers.map(() => []);
    this.plot = null;
    new ResizeObserver(() => this.#resized()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redo());
  }

  /** Show these: `values[layer][i]` stands above `xs[i]`; null leaves a gap. `ranged`: the x axis from, to. */
  set(xs, values, ranged = this.options.ranged) {
    this.xs = xs;
    this.values = values;
    this.options.ranged = ranged;
    if (this.plot) {
      this.plot.setData(this.#stacked());
    } else {
      this.#redo();
    }
  }

  /** Draw again with the same figures (a mark moved). */
  redraw() {
    this.plot?.redraw(false);
  }

  #stacked() {
    const sums = this.xs.map(() => 0);
    const stacked = this.values.map((layer) => layer.map((value, at) => (value === null ? null : (sums[at] += value))));
    return [this.xs, ...stacked.reverse()];
  }

  #resized() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
    else if (!this.plot && width && this.xs.length) this.#redo();
  }

  #redo() {
    const width = this.place.clientWidth;
    this.plot?.destroy();
    this.plot = null;
    if (!width) return;
    this.plot = new uPlot(this.#settings(width), this.#stacked(), this.place);
  }

  #settings(width) {
    const { height, time, top, written, hovered } = this.options;
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colour("muted"), font, ticks: { show: false }, grid: { stroke: colour("grid"), width: 1 } };
    // Each layer reaches down to the ground and hides what is above it, so the sums are drawn from the top down.
    const paths = uPlot.paths.bars({ size: [time ? 1 : 0.86, Infinity], align: 1, gap: 0 });
    const layers = [...this.layers].reverse().map((layer) => ({
      label: layer.name,
      fill: () => colour(layer.colour),
      width: 0,
      stroke: () => colour(layer.colour),
      paths,
      points: { show: false },
    }));
    return {
      width,
      height,
      pxAlign: 1,
      padding: [8, 6, 0, 0],
      legend: { show: false },
      cursor: { x: true, y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
      scales: {
        x: { time, range: (_, low, high) => this.options.ranged ?? [low, high] },
        y: { range: (_, __, high) => [0, top ?? Math.max(high * 1.08, this.options.least ?? 1)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 26,
          gap: 6,
          space: 64,
          ...(time ? { values: timeWords } : { values: (_, ticks) => ticks.map((tick) => tick.toFixed(2)), space: 44 }),
        },
        { ...axis, size: 46, gap: 6, space: 38, values: (_, ticks) => ticks.map(written) },
      ],
      series: [{}, ...layers],
      hooks: {
        setCursor: [(plot) => hovered?.(plot.cursor.idx ?? null)],
        draw: [(plot) => this.#marks(plot)],
      },
    };
  }

  #marks(plot) {
    for (const mark of this.options.marks?.() ?? []) line(plot, mark);
  }
}

/** Whole hours and days as people write them: 14:05, and the date where the day changes. */
function timeWords(plot, ticks) {
  let day = "";
  const long = ticks.length > 1 && ticks[1] - ticks[0] >= 86400;
  return ticks.map((tick) => {
    const when = new Date(tick * 1000);
    const date = when.toLocaleDateString("en", { day: "numeric", month: "short" });
    const time = when.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false, hourCycle: "h23" });
    const fresh = day !== "" && day !== date;
    day = date;
    return long || fresh ? date : time;
  });
}

function line(plot, { x, text, dashed, left, row = 0 }) {
  const { ctx, bbox } = plot;
  const at = Math.round(plot.valToPos(x, "x", true)) + 0.5;
  const ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = colour("text");
  ctx.lineWidth = ratio;
  if (dashed) ctx.setLineDash([4 * ratio, 3 * ratio]);
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.font = `${11 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.fillStyle = colour("text");
  const width = ctx.measureText(text).width;
  const gap = 5 * ratio;
  const fits = left ? at - gap - width > bbox.left : at + gap + width > bbox.left + bbox.width;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  ctx.fillText(text, fits ? at - gap - width : at + gap, bbox.top + (2 + 14 * row) * ratio);
  ctx.restore();
}
