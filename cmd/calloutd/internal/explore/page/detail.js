// What there is to know of one stop.
import { h } from "./element.js";
import { sublayers } from "./journey.js";
import { control, count, layer, states, weight } from "./words.js";

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
  const to = e.proxy ? `${e.to} (proxy ${e.proxy})` : e.to;
  const title = e.event === "accept" ? "It is accepted" : "It is let go";
  const text = e.event === "accept" ? `Accepted at ${to} from ${e.from}.` : `The connection goes to ${to}${e.original_destination ? ` instead of ${e.original_destination}` : ""}.`;
  return { title, text, action: e.original_destination ? "redirect" : "permit", body: [h("p", { class: "says" }, text), facts(e)] };
}

function drawNote(e) {
  const text = [e.callout && `callout ${e.callout}`, e.action, e.why].filter(Boolean).join(": ");
  return { title: "A note", text, body: [h("p", { class: "says" }, text)] };
}
