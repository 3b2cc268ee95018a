// Questions to the reader: is that really meant, and what is the token. And the short notes on what came of it.

import { el, find, say } from "./dom.js";

/** Ask before something that cannot be undone; true when it is meant. Escape and clicking "Keep" mean no. */
export function confirmed({ title, text, act }) {
  const dialog = find("confirm");
  say(dialog.querySelector("h2"), title);
  say(dialog.querySelector("p"), text);
  say(dialog.querySelector(".act"), act);
  return new Promise((done) => {
    const [keep, go] = [dialog.querySelector(".keep"), dialog.querySelector(".act")];
    const end = (meant) => () => {
      keep.onclick = go.onclick = dialog.onclose = null;
      dialog.close();
      done(meant);
    };
    keep.onclick = end(false);
    go.onclick = end(true);
    dialog.onclose = end(false);
    dialog.showModal();
    keep.focus();
  });
}

/** The token that the reader types. `refused`: one was tried and is wrong. */
export function askToken(refused) {
  const dialog = find("token");
  const [form, input] = [dialog.querySelector("form"), dialog.querySelector("input")];
  say(
    dialog.querySelector(".wrong"),
    refused ? "That token was refused. Look up admin.token in the configuration of this proxy." : "",
  );
  return new Promise((done) => {
    dialog.oncancel = (event) => event.preventDefault(); // without a token there is nothing to see behind it
    form.onsubmit = (event) => {
      event.preventDefault();
      if (!input.value) return;
      const token = input.value.trim();
      input.value = "";
      dialog.close();
      done(token);
    };
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
}

/** A short note at the bottom of the page, read out too, that goes by itself. */
export function note(text, tone = "ok") {
  const made = el("p", { class: `note ${tone}` }, text);
  find("notes").append(made);
  setTimeout(() => made.remove(), 8000);
}
