// What is said above the map: what became of the connection, and every mistake.
import { h } from "./element.js";
import { outcome } from "./journey.js";

// drawOutcome says what became of the connection.
export function drawOutcome(el, j) {
  const o = outcome(j);
  el.dataset.action = o.action;
  el.querySelector("p").textContent = o.text;
  return o.text;
}

// drawStale says that what is shown is not what is asked for.
export function drawStale(el, mistakes, shown) {
  el.dataset.action = "none";
  el.querySelector("p").textContent = `${mistakes === 1 ? "There is a mistake" : `There are ${mistakes} mistakes`}. ${shown ? "Below is the connection before." : ""}`;
}

// drawProblems shows what is wrong with a policy, each with its place.
export function drawProblems(el, problems) {
  el.hidden = problems.length === 0;
  el.replaceChildren(h("h2", {}, "This policy cannot be asked"), h("ul", {}, problems.map((p) => h("li", {}, p.file ? h("code", {}, `${p.file}:${p.line}:${p.column}`) : "", ` ${p.message}`, p.did_you_mean ? ` (did you mean “${p.did_you_mean}”?)` : ""))), h("p", {}, "The page looks again when the file changes."));
}

// drawMistake shows which part of a field is wrong.
export function drawMistake(el, text, m) {
  if (!m) {
    el.replaceChildren();
    return;
  }
  const chars = Array.from(text);
  const bad = chars.slice(m.at, m.at + m.length).join("");
  const shown = text ? h("code", {}, chars.slice(0, m.at).join(""), h("mark", {}, bad || "▯"), chars.slice(m.at + m.length).join("")) : "";
  el.replaceChildren(shown, h("span", {}, m.message));
}
