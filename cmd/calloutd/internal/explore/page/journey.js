// A journey is what the events of a simulation come to: legs, each with stations, each
// with the stops that somebody steps through. It is made of the events alone.
import { control, layer } from "./words.js";

// journey reads the events of sim --json --verbose.
export function journey(events) {
  const legs = [];
  const stops = [];
  let leg = null;
  let over = true; // The next event begins a leg.
  for (const e of events) {
    if (over) {
      leg = begin(e, legs);
      legs.push(leg);
      over = false;
    }
    switch (e.event) {
      case "redirect":
      case "redirect-refused":
        leg.stations.at(-1).after.push(e);
        continue;
      case "connect":
        leg.end = e;
        over = true;
        break;
      case "accept":
        leg.end = e;
        break;
      case "blocked":
      case "loop":
        leg.blocked = e;
        break;
      case "set":
        over = true;
        break;
    }
    const station = stationOf(e, leg);
    leg.stations.push(station);
    for (let k = 0; k < station.stops; k++) {
      stops.push({ leg, station, step: e.steps?.[k] ?? null, last: k === station.stops - 1 });
    }
  }
  stops.forEach((s, i) => (s.station.first ??= i));
  return { legs, stops };
}

function begin(e, legs) {
  const accepts = e.layer?.startsWith("ALE_AUTH_RECV_ACCEPT") ?? false;
  const before = legs.at(-1);
  let title = accepts ? "The program accepts" : "The program connects";
  if (before) {
    title = accepts ? "The proxy accepts, and asks whom it was for" : "The proxy connects, with the records";
  }
  return { title, number: legs.length + 1, accepts, proxy: e.proxy || before?.proxy || "", program: e.program ?? "", pid: e.pid, stations: [], end: null, blocked: null };
}

function stationOf(e, leg) {
  const s = { event: e, after: [], stops: Math.max(1, e.steps?.length ?? 0), short: e.event, action: actionOf(e), leg };
  if (e.event === "classify") {
    s.short = layer(e.layer).short;
  } else if (e.query) {
    s.short = control(e.query).short;
  }
  const ends = { connect: "connected", accept: "accepted", blocked: "blocked", loop: "loop" };
  s.short = ends[e.event] ?? s.short;
  return s;
}

// actionOf is what an event means for the connection.
function actionOf(e) {
  if (e.event === "blocked" || e.event === "loop" || e.action === "block") {
    return "block";
  }
  if (e.steps?.some((s) => s.action === "redirect")) {
    return "redirect";
  }
  if (e.query) {
    return e.status === "STATUS_SUCCESS" ? "ask" : "none";
  }
  return e.event === "classify" || e.event === "connect" || e.event === "accept" ? "permit" : "none";
}

// outcome is the journey in a sentence.
export function outcome({ legs }) {
  if (legs.length === 0) {
    return { action: "none", text: "Nothing happened." };
  }
  const first = legs[0];
  const last = legs.at(-1);
  if (last.blocked) {
    const b = last.blocked;
    if (b.event === "loop") {
      return { action: "block", text: `It goes round without end: ${b.why}.` };
    }
    const by = b.filter ? ` by filter ${b.filter} “${b.filter_name}”` : "";
    const who = legs.length > 1 ? "The proxy’s side is blocked" : "Blocked";
    return { action: "block", text: `${who} at ${b.layer ?? "the proxy"}${by}.` };
  }
  const end = first.end;
  if (first.accepts) {
    return { action: "permit", text: `Accepted at ${end?.to} from ${end?.from}.` };
  }
  if (end?.original_destination) {
    return { action: "redirect", text: `Redirected to ${goes(legs)}.` };
  }
  return { action: "permit", text: `Permitted: it goes to ${end?.to ?? "where it wanted"}.` };
}

// goes is where each connection of a chain went, the last one to where it stays.
function goes(legs) {
  const ends = legs.filter((l) => !l.accepts && l.end).map((l) => l.end);
  return ends.map((e, i) => {
    const where = e.proxy ? `proxy ${e.proxy} (${e.to})` : e.to;
    if (i === 0) {
      return where;
    }
    return e.original_destination ? `, whose own connection is redirected to ${where}` : `, which carries it on to ${where}`;
  }).join("");
}

// sublayers are the filters of a classification by sublayer, the heaviest first: those
// that were asked in their order, and those that were passed by in theirs.
export function sublayers(e) {
  const by = new Map();
  const at = (x) => {
    if (!by.has(x.sublayer)) {
      by.set(x.sublayer, { id: x.sublayer, weight: x.sublayer_weight ?? 0, filters: [] });
    }
    return by.get(x.sublayer).filters;
  };
  e.steps?.forEach((s, i) => at(s).push({ ...s, asked: i + 1, step: s }));
  e.passed?.forEach((p) => at(p).push({ ...p, asked: 0 }));
  const out = [...by.values()].sort((a, b) => b.weight - a.weight);
  for (const s of out) {
    s.filters.sort((a, b) => {
      const x = a.weight ?? 0n;
      const y = b.weight ?? 0n;
      return x === y ? a.filter - b.filter : x < y ? 1 : -1;
    });
  }
  return out;
}
