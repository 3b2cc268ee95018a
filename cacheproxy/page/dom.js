// Elements out of text. Whatever a caller once asked is shown through here, as text and never as markup: no other
// module may write HTML, and the page's policy (CSP) forbids inline scripts and styles besides.

export const find = (id) => document.getElementById(id);

/** An element. `props`: `class`, `on` ({event: handler}), anything else is an attribute; null and false leave it out. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const drawn = new WeakMap();

/** Fill `place` with what `build()` gives, if `key` differs from the last time: an unchanged table stays selectable. */
export function fill(place, key, build) {
  const text = JSON.stringify(key);
  if (drawn.get(place) === text) return;
  drawn.set(place, text);
  place.replaceChildren(...[build()].flat().filter((child) => child !== null && child !== ""));
}

/** Set the text of an element, touching the document only where it changes. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** A table row of cells; a cell is text, a node, or [text, class]. */
export function row(...cells) {
  return el(
    "tr",
    {},
    ...cells.map((cell, at) => {
      const [content, kind] = Array.isArray(cell) ? cell : [cell, null];
      return at === 0 ? el("th", { scope: "row", class: kind }, content) : el("td", { class: kind }, content);
    }),
  );
}

/** A table with a head; `columns` are texts or [text, class]. `name` is for those who hear the page. */
export function table(name, columns, rows) {
  const heads = columns.map((column) => {
    const [text, kind] = Array.isArray(column) ? column : [column, null];
    return el("th", { scope: "col", class: kind }, text);
  });
  const made = el("table", { "aria-label": name }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, made);
}

/** The sign of an outcome: its colour and its word. */
export const outcomeSign = (outcome) => el("span", { class: `outcome ${outcome}` }, outcome);
