// The cases of a policy, one of which can be chosen. Which one it is follows from the
// connection that is shown, so a link needs no name of it.
import { h } from "./element.js";

// firstCase is what there is to see before anybody asks: a redirect or a block, since a
// permit shows little.
export function firstCase(cases) {
  return cases.find((c) => c.action === "redirect") ?? cases.find((c) => c.action === "block");
}

export function drawCases(select, cases, connection) {
  select.replaceChildren(h("option", { value: "-1" }, "none of the policy's"),
    ...cases.map((c, i) => h("option", { value: String(i) }, c.action ? `${c.name} (${c.action})` : c.name)));
  markCase(select, cases, connection);
}

// markCase leaves the chosen one of several with the same connection.
export function markCase(select, cases, connection) {
  const same = (c) => Object.keys(connection).every((f) => c.connection[f] === connection[f]);
  const chosen = cases[Number(select.value)];
  if (!chosen || !same(chosen)) {
    select.value = String(cases.findIndex(same));
  }
}
