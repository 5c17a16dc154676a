// What is drawn of a journey. All text is set as text: nothing that a policy or a
// callout says becomes markup.
import { outcome, sublayers } from "./journey.js";
import { control, count, layer, states, weight } from "./words.js";

// h makes an element: attributes, then children; text becomes a text node.
export function h(tag, attrs = {}, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (v === true) {
      el.setAttribute(k, "");
    } else if (v !== false && v !== null && v !== undefined) {
      el.setAttribute(k, v);
    }
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return el;
}

const base = (path) => (path ?? "").split(/[\\/]/).at(-1) || "a program";

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

// drawDetail draws one stop and returns it in a sentence, for who does not see it.
export function drawDetail(el, stop) {
  const e = stop.station.event;
  const draw = { classify: drawClassify, query: drawControl, set: drawControl, blocked: drawBlocked, loop: drawBlocked, connect: drawEnd, accept: drawEnd }[e.event] ?? drawNote;
  const { title, text, body, action } = draw(e, stop);
  el.dataset.action = action ?? "none";
  el.replaceChildren(h("header", {}, h("h2", { id: "detail-title" }, title), e.layer || e.query ? h("code", { class: "formal" }, e.layer ?? e.query) : ""), ...body);
  return text;
}

function drawClassify(e, stop) {
  const w = layer(e.layer);
  const s = stop.step;
  const body = [h("p", { class: "says" }, w.says), facts(e)];
  const groups = sublayers(e);
  if (groups.length > 0) {
    body.push(h("div", { class: "sublayers" }, groups.map((g) => drawSublayer(g, s))));
  } else {
    body.push(h("p", { class: "nobody" }, "The policy has no filter at this layer."));
  }
  if (e.passed_more) {
    body.push(h("p", { class: "nobody" }, `And ${count(e.passed_more, "more filter was", "more filters were")} not asked.`));
  }
  body.push(...stop.station.after.map(drawRedirect));
  body.push(h("p", { class: "verdict", "data-action": e.action }, "The layer’s decision: ", h("strong", {}, e.action), (e.steps?.length ?? 0) === 0 ? ". No filter matches, and what nobody blocks is permitted (ARB-09)." : "."));
  const text = s ? `${e.layer}, filter ${s.filter} ${s.filter_name}${s.callout ? `, callout ${s.callout}` : ""}: ${s.action}${s.to ? ` to ${s.to}` : ""}. ${s.why ?? ""}` : `${e.layer}: ${e.action}, no filter matches.`;
  return { title: w.question, text, body, action: s?.action ?? e.action };
}

function facts(e) {
  const rows = [["program", e.program && `${e.program}${e.pid ? ` [${e.pid}]` : ""}`], ["from", e.from], ["to", e.to && (e.proxy ? `${e.to} (proxy ${e.proxy})` : e.to)],
    ["wanted", e.original_destination], ["peer name", e.peer_name], ["protocol", e.protocol], ["flags", e.flags?.join(" ")]].filter(([, v]) => v);
  return h("dl", { class: "facts" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
}

function drawSublayer(g, current) {
  return h("section", { class: "sublayer", "aria-label": `Sublayer ${g.id}` },
    h("h3", {}, "Sublayer ", h("b", {}, g.id), h("span", { class: "weight" }, `weight 0x${g.weight.toString(16)}`)),
    h("ol", { class: "filters" }, g.filters.map((f) => drawFilter(f, f.step && f.step === current))));
}

function drawFilter(f, now) {
  const asked = f.asked > 0;
  return h("li", { class: "filter", "data-asked": String(asked), "data-now": String(Boolean(now)), "data-action": asked ? f.action : "none", "aria-current": now ? "step" : null },
    h("div", { class: "filter-head" },
      h("span", { class: "tag", "data-action": asked ? f.action : "none" }, asked ? f.action + (f.hard ? ", hard" : "") + (f.veto ? ", a veto" : "") : "not asked"),
      h("b", {}, f.filter_name), h("span", { class: "weight" }, [`filter ${f.filter}`, f.provider === "this policy" ? "" : `provider ${f.provider}`, weight(f.weight)].filter(Boolean).join(" · ")), f.filter_place ? h("code", { class: "place" }, f.filter_place) : ""),
    conditions(f, asked),
    asked && f.callout ? drawCallout(f) : "",
    asked && f.verdict ? h("p", { class: "why" }, `In the end: ${f.verdict}.`) : "",
    asked && !f.callout && f.why ? h("p", { class: "why" }, f.why) : "");
}

function conditions(f, asked) {
  if (!asked && f.unless) {
    return h("ul", { class: "conditions" }, f.unless.map((c) => h("li", { "data-holds": "false" }, h("span", { "aria-hidden": "true" }, "✗ "), h("span", { class: "unseen" }, "does not hold: "), c)));
  }
  if (!asked) {
    return h("p", { class: "why" }, `It matches, but filter ${f.by} decided the sublayer before it (ARB-01).`);
  }
  if (!f.because) {
    return h("p", { class: "why" }, "It has no conditions: it matches everything.");
  }
  return h("ul", { class: "conditions" }, f.because.map((c) => h("li", { "data-holds": "true" }, h("span", { "aria-hidden": "true" }, "✓ "), h("span", { class: "unseen" }, "holds: "), c)));
}

// label is what a line is about, and a space for who reads the line aloud.
function label(text) {
  return [h("span", { class: "label" }, text), " "];
}

function drawCallout(f) {
  const answer = f.to ? `${f.action} to ${f.to}` : f.action;
  const told = f.redirect_state ? h("p", {}, ...label("is told"), h("code", {}, f.redirect_state), ` ${states[f.redirect_state] ?? ""}`) : "";
  return h("div", { class: "callout" },
    h("h4", {}, "Callout ", h("b", {}, f.callout)),
    told,
    h("p", {}, ...label("answers"), h("strong", { "data-action": f.action }, answer), f.why ? ` “${f.why}”` : "", f.rule && f.rule !== "ARB-01" ? h("code", { class: "rule" }, f.rule) : ""),
    f.fuel_limit ? fuel(f) : "",
    f.target_pid ? h("p", {}, ...label("for process"), String(f.target_pid)) : "",
    blob("leaves the record", f.record), blob("leaves the context", f.context));
}

function fuel(f) {
  const share = (100 * f.fuel) / f.fuel_limit;
  return h("p", { class: "fuel" }, ...label("takes"),
    h("meter", { min: "0", max: "100", high: "80", value: String(share), "aria-label": "fuel" }),
    ` ${f.fuel.toLocaleString("en")} of ${f.fuel_limit.toLocaleString("en")} units of fuel (${share < 0.1 ? "under 0.1" : share.toFixed(1)} %)`);
}

// blob shows bytes as what they are, and as they are.
function blob(what, b) {
  if (!b) {
    return "";
  }
  const means = b.text ?? b.sockaddr?.filter((a) => !/^(0\.0\.0\.0|\[::\]):0$/.test(a)).join(", ");
  return h("details", { class: "blob" },
    h("summary", {}, ...label(what), means ? h("code", {}, means) : "", ` ${count(b.size, "byte", "bytes")}`),
    h("pre", { tabindex: "0", "aria-label": `${what}, in hexadecimal` }, dump(b.hex)));
}

function dump(hex) {
  const bytes = hex.match(/../g) ?? [];
  const lines = [];
  for (let i = 0; i < bytes.length; i += 16) {
    const row = bytes.slice(i, i + 16);
    const text = row.map((x) => parseInt(x, 16)).map((n) => (n >= 32 && n < 127 ? String.fromCharCode(n) : "·")).join("");
    lines.push(`${i.toString(16).padStart(4, "0")}  ${row.join(" ").padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

function drawRedirect(e) {
  if (e.event === "redirect-refused") {
    return h("p", { class: "carried", "data-action": "block" }, h("b", {}, "The redirect is refused: "), `${e.why} `, h("code", { class: "rule" }, e.rule));
  }
  return h("p", { class: "carried", "data-action": "redirect" }, h("b", {}, "The redirect is carried out: "), `${e.original_destination} → ${e.to}${e.proxy ? ` (proxy ${e.proxy})` : ""}. The record is kept before the connection is let go.`);
}

function drawControl(e) {
  const w = control(e.query);
  const body = [h("p", { class: "says" }, w.says),
    h("p", { class: "status" }, ...label("status"), h("code", {}, e.status), e.data ? ` ${count(e.data.size, "byte", "bytes")}` : "")];
  if (e.event === "query" && e.query.endsWith("CONTEXT")) {
    body.push(e.data ? blob("the context", e.data) : h("p", { class: "nobody" }, "The callout left no context."));
  } else if (e.event === "query" && e.data) {
    body.push(blob("the sealed records", e.data));
  }
  if (e.records?.length) {
    body.push(h("ol", { class: "records" }, e.records.map(drawRecord)));
  }
  return { title: w.question, text: `${e.query}: ${e.status}`, body, action: "ask" };
}

function drawRecord(r) {
  const rows = [["callout", r.callout], ["filter", r.filter_name && `${r.filter} “${r.filter_name}”`], ["program", r.program && `${r.program} [${r.pid}]`], ["wanted", r.original_destination],
    ["went to", r.to], ["for process", r.target_pid]].filter(([, v]) => v);
  return h("li", { class: "record" }, h("h3", {}, "A redirect"), h("dl", { class: "facts" }, rows.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, String(v))))), blob("record", r.record), blob("context", r.context));
}

function drawBlocked(e) {
  const by = e.filter ? [h("p", {}, ...label("by filter"), h("b", {}, `${e.filter} “${e.filter_name}”`), e.filter_place ? h("code", { class: "place" }, e.filter_place) : "")] : [];
  const callout = e.callout ? [h("p", {}, ...label("callout"), h("b", {}, e.callout))] : [];
  const loop = e.event === "loop";
  return { title: loop ? "The connection goes round without end" : "The connection is blocked", text: `${loop ? "A loop" : "Blocked"}: ${e.why}`, action: "block",
    body: [h("p", { class: "carried", "data-action": "block" }, e.why, e.rule && e.rule !== "ARB-01" ? h("code", { class: "rule" }, e.rule) : ""), ...by, ...callout, facts(e)] };
}

function drawEnd(e) {
  const to = e.proxy ? `${e.to}, proxy ${e.proxy}` : e.to;
  const title = e.event === "accept" ? "It is accepted" : "It is let go";
  const text = e.event === "accept" ? `Accepted at ${to} from ${e.from}.` : `The connection goes to ${to}${e.original_destination ? ` instead of ${e.original_destination}` : ""}.`;
  return { title, text, action: e.original_destination ? "redirect" : "permit", body: [h("p", { class: "says" }, text), facts(e)] };
}

function drawNote(e) {
  const text = [e.callout && `callout ${e.callout}`, e.action, e.why].filter(Boolean).join(": ");
  return { title: "A note", text, body: [h("p", { class: "says" }, text)] };
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
