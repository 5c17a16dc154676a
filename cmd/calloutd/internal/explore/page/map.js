// The map: legs, each with the stations of the connection on its way.
import { h } from "./element.js";

// drawMap draws the legs. go is called with the number of a stop.
export function drawMap(el, j, go) {
  el.replaceChildren(...j.legs.map((leg) => drawLeg(leg, go)), h("ul", { class: "legend", "aria-label": "What the marks mean" },
    [["permit", "permitted"], ["redirect", "redirected"], ["ask", "Winsock Kernel is asked"], ["block", "blocked"]].map(([action, word]) => h("li", { "data-action": action }, mark(action), word))));
}

const marks = { block: "✕", redirect: "↳", ask: "?" };

function mark(action) {
  return h("span", { class: "mark", "aria-hidden": "true" }, marks[action] ?? "");
}

function drawLeg(leg, go) {
  const id = `leg-${leg.number}`;
  return h("section", { class: "leg", "aria-labelledby": id },
    leg.number > 1 ? h("div", { class: "turn", "aria-hidden": "true" }) : "",
    h("h2", { id }, h("span", { class: "number", "aria-hidden": "true" }, String(leg.number)), leg.title),
    h("div", { class: "track" },
      h("div", { class: "end" }, h("strong", {}, source(leg)), h("span", {}, sourceNote(leg))),
      h("ol", { class: "stations" }, leg.stations.map((s) => drawStation(s, go))),
      target(leg)));
}

const base = (path) => (path ?? "").split(/[\\/]/).at(-1) || "a program";

// source is who has the turn: the program, the proxy, or who comes in.
function source(leg) {
  if (leg.accepts && leg.number === 1) {
    return leg.stations[0].event.from ?? "somebody";
  }
  return leg.number > 1 && leg.proxy ? leg.proxy : base(leg.program);
}

function sourceNote(leg) {
  if (leg.accepts) {
    return leg.number === 1 ? "comes in" : `proxy, at ${leg.stations[0].event.to}`;
  }
  return leg.number > 1 && leg.proxy ? "proxy" : leg.pid ? `process ${leg.pid}` : "";
}

function target(leg) {
  const e = leg.blocked ?? leg.end;
  const asked = leg.stations.map((s) => s.event).find((x) => x.event === "query" && x.original_destination);
  if (asked && !leg.blocked) {
    return h("div", { class: "end", "data-action": "ask" }, h("span", {}, "learns: it was for"), h("strong", {}, asked.original_destination));
  }
  if (!e) {
    return h("div", { class: "end" }, h("strong", {}, "…"));
  }
  if (leg.blocked) {
    return h("div", { class: "end", "data-action": "block" }, h("strong", {}, e.event === "loop" ? "✕ loop" : "✕ blocked"), h("span", {}, e.to || e.from || ""));
  }
  const moved = e.original_destination ? [h("del", { title: "where it wanted to go" }, e.original_destination)] : [];
  return h("div", { class: "end", "data-action": moved.length ? "redirect" : "permit" }, h("strong", {}, e.to), e.proxy ? h("span", {}, `proxy ${e.proxy}`) : "", ...moved);
}

function drawStation(s, go) {
  const ticks = s.stops > 1 ? h("span", { class: "ticks", "aria-hidden": "true" }, "•".repeat(Math.min(s.stops, 9))) : "";
  const button = h("button", { type: "button", class: "station", "data-action": s.action, "data-first": s.first, "data-stops": s.stops, tabindex: "-1",
    "aria-label": `${s.short}: ${said(s.action)}${s.stops > 1 ? `, ${s.stops} steps` : ""}` },
  mark(s.action),
  h("span", { class: "name" }, s.short), ticks);
  button.addEventListener("click", () => go(s.first));
  return h("li", {}, button);
}

function said(action) {
  return { permit: "permitted", block: "blocked", redirect: "redirected", ask: "answered", none: "" }[action];
}

// markMap shows where in the map a stop is.
export function markMap(el, at, focus) {
  for (const b of el.querySelectorAll(".station")) {
    const first = Number(b.dataset.first);
    const here = at >= first && at < first + Number(b.dataset.stops);
    b.dataset.when = here ? "now" : at < first ? "later" : "before";
    b.tabIndex = here ? 0 : -1;
    if (here) {
      b.setAttribute("aria-current", "step");
      if (focus) {
        b.focus();
      }
    } else {
      b.removeAttribute("aria-current");
    }
  }
}
