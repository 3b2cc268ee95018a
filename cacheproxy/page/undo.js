// Taking answers back: one that was wrong, one entry, a model's, or all. Each asks first and says what came of it.

import { send } from "./api.js";
import { confirmed, note } from "./dialogs.js";
import { el, fill, find } from "./dom.js";
import { counted } from "./words.js";

/** A semantic hit was wrong: its entry goes, and the two questions are kept apart. `asked` is "" where unknown. */
export async function wrongHit(entry, asked) {
  const which = asked ? `“${cut(asked)}”` : "the question it answered last";
  const meant = await confirmed({
    title: "Take this answer back?",
    text: `The stored answer goes, and ${which} is kept apart from it for 400 days, on all proxies of this Redis.`,
    act: "Take it back",
  });
  if (!meant) return false;
  return done(async () => {
    const { deleted, kept_apart: apart } = await send("POST", "feedback", {
      entry,
      good: false,
      ...(asked ? { question: asked } : {}),
    });
    return `${counted(deleted ?? 0, "answer")} taken back, ${counted(apart ?? 0, "pair")} kept apart.`;
  });
}

/** Forget one entry; the next such ask goes to Ollama. */
export async function forgetEntry(entry) {
  const meant = await confirmed({
    title: "Forget this answer?",
    text: "The next ask like it goes to Ollama.",
    act: "Forget it",
  });
  return meant && done(() => purge({ id: entry }));
}

/** Build the panel that forgets a model's answers, or all. `changed()` is called after either. */
export function openForget(changed) {
  find("forget-model").addEventListener("click", async () => {
    const model = find("forget-choice").value;
    if (!model) return;
    const meant = await confirmed({
      title: `Forget all answers of ${model}?`,
      text: "They cannot be brought back; each question goes to Ollama once more.",
      act: "Forget them",
    });
    if (meant && (await done(() => purge({ model })))) changed();
  });
  find("forget-all").addEventListener("click", async () => {
    const meant = await confirmed({
      title: "Forget every answer?",
      text: "The whole cache is emptied, for all proxies of this Redis. It cannot be brought back. Pairs that were reported wrong stay apart.",
      act: "Forget everything",
    });
    if (meant && (await done(() => purge({ all: "true" })))) changed();
  });
}

/** The models whose answers one may forget. */
export function offerForget(names) {
  const choice = find("forget-choice");
  fill(choice, names, () => {
    const chosen = choice.value;
    return names.map((name) => el("option", { value: name, selected: name === chosen }, name));
  });
  find("forget-model").disabled = names.length === 0;
}

async function purge(selection) {
  const { deleted } = await send("DELETE", `entries?${new URLSearchParams(selection)}`);
  return `${counted(deleted, "answer")} forgotten.`;
}

async function done(act) {
  try {
    note(await act());
    return true;
  } catch (error) {
    note(
      error.status === 404 ? "Nothing is known of that answer any more." : `That did not work: ${error.message}`,
      "bad",
    );
    return false;
  }
}

const cut = (text) => (text.length > 120 ? `${text.slice(0, 120)}…` : text);
