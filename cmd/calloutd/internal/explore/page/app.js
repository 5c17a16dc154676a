// The page's state is in the address behind #: the policy, the connection and the
// step. Everything else follows from it and from what the server says.
import { drawCases, firstCase, markCase } from "./cases.js";
import { drawDetail } from "./detail.js";
import { h } from "./element.js";
import { journey } from "./journey.js";
import { drawMap, markMap } from "./map.js";
import { drawMistake, drawOutcome, drawProblems, drawStale } from "./said.js";
import { beginTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const fields = ["to", "from", "protocol", "program", "user", "pid", "groups", "host_name", "peer_name"];
const fresh = { to: "198.51.100.7:80", protocol: "tcp", program: "/usr/bin/curl", user: "1000", pid: "1000" };

let policies = []; // each with the cases that stand beside it
let shown = { legs: [], stops: [] };
let at = 0;
let version = null;
let looking = null;
let pause = 0;

// The state and the address.

function read() {
  const link = new URLSearchParams(location.hash.slice(1));
  const from = location.hash.length > 1 ? Object.fromEntries(link) : firstCase(policies[0]?.cases ?? [])?.connection ?? fresh;
  fill(from);
  const known = [...$("policy").options].map((o) => o.value);
  if (from.policy && !known.includes(from.policy)) {
    $("policy").append(h("option", { value: from.policy }, `${from.policy} (not explored here)`));
  }
  $("policy").value = from.policy ?? known[0] ?? "";
  at = Math.max(0, Number.parseInt(from.step ?? "1", 10) - 1) || 0;
  offer();
}

function fill(from) {
  for (const f of fields) {
    $(f).value = from[f] ?? "";
  }
  $("inbound").checked = String(from.inbound) === "true";
}

function write() {
  const link = new URLSearchParams({ policy: $("policy").value });
  for (const f of fields) {
    if ($(f).value !== "") {
      link.set(f, $(f).value);
    }
  }
  if ($("inbound").checked) {
    link.set("inbound", "true");
  }
  link.set("step", String(at + 1));
  history.replaceState(null, "", `#${link}`);
}

function connection() {
  const c = Object.fromEntries(fields.map((f) => [f, $(f).value]));
  return { ...c, inbound: $("inbound").checked };
}

// Cases.

const cases = () => policies.find((p) => p.name === $("policy").value)?.cases ?? [];

function offer() {
  drawCases($("case"), cases(), connection());
  $("cases").hidden = cases().length === 0;
}

function choose() {
  const c = cases()[Number($("case").value)];
  if (c) {
    fill(c.connection);
    at = 0;
  }
}

async function learn() {
  policies = await (await fetch("api/policies")).json();
}

// Looking.

async function look() {
  looking?.abort();
  const mine = (looking = new AbortController());
  try {
    const res = await fetch("api/look", { method: "POST", headers: { "Content-Type": "application/json" }, signal: mine.signal,
      body: JSON.stringify({ policy: $("policy").value, connection: connection() }) });
    const answer = JSON.parse(await res.text(), exact);
    if (mine === looking) {
      take(answer);
    }
  } catch (err) {
    if (err.name !== "AbortError") {
      alive("gone", "calloutd does not answer");
      say(`calloutd does not answer: ${err.message}`);
    }
  }
}

// exact keeps the 64 bits of weights, which a number of JavaScript does not.
function exact(key, value, context) {
  return key === "weight" && Number.isInteger(value) ? BigInt(context?.source ?? value) : value;
}

function take(answer) {
  const mistakes = answer.mistakes ?? [];
  for (const f of fields) {
    const m = mistakes.find((x) => x.field === f);
    $(f).setAttribute("aria-invalid", String(Boolean(m)));
    drawMistake($(`${f}-error`), $(f).value, m);
  }
  const problems = answer.problems ?? mistakes.filter((m) => !fields.includes(m.field)).map((m) => ({ message: `${m.field}: ${m.message}` }));
  if (answer.error) {
    problems.push({ message: answer.error });
  }
  drawProblems($("problems"), problems);
  document.body.dataset.stale = String(!answer.events);
  document.body.dataset.empty = String(!answer.events && shown.stops.length === 0);
  if (!answer.events) {
    const n = mistakes.length + (answer.problems?.length ?? 0);
    drawStale($("outcome"), n, shown.stops.length > 0);
    say($("outcome").textContent);
  }
  if (answer.events) {
    shown = journey(answer.events);
    const text = drawOutcome($("outcome"), shown);
    document.title = `${text} calloutd explore`;
    drawMap($("map"), shown, (i) => go(i, true));
    $("slider").max = String(shown.stops.length);
    go(at, false, `${text} `);
  }
}

// Stepping.

function go(i, focus, before = "") {
  if (shown.stops.length === 0) {
    return;
  }
  at = Math.min(Math.max(0, i), shown.stops.length - 1);
  const text = drawDetail($("detail"), shown.stops[at]);
  markMap($("map"), at, focus);
  const count = `Step ${at + 1} of ${shown.stops.length}`;
  $("count").textContent = count;
  $("slider").value = String(at + 1);
  $("slider").setAttribute("aria-valuetext", `${count}: ${text}`);
  for (const [id, off] of [["first", at === 0], ["back", at === 0], ["next", at === shown.stops.length - 1], ["last", at === shown.stops.length - 1]]) {
    $(id).setAttribute("aria-disabled", String(off));
  }
  say(`${before}${count}: ${text}`);
  write();
}

function say(text) {
  $("said").textContent = text;
}

function edited() {
  markCase($("case"), cases(), connection());
  write();
  clearTimeout(pause);
  pause = setTimeout(look, 120);
}

function onKey(e) {
  if (e.altKey || e.ctrlKey || e.metaKey || e.target.closest("input, select, textarea, pre")) {
    return;
  }
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: shown.stops.length - 1 }[e.key];
  if (to === undefined) {
    return;
  }
  e.preventDefault();
  go(to, Boolean(e.target.closest(".station")));
}

async function share() {
  write();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
    $("share").textContent = "Copied";
  } catch {
    say("The link is the address of this page.");
    $("share").textContent = "It is the address above";
  }
  setTimeout(() => ($("share").textContent = "Copy link"), 2500);
}

// Following the policy's file.

function follow() {
  const changes = new EventSource("api/changes");
  changes.onmessage = async (m) => {
    alive("live", "follows the file");
    const changed = version !== null && version !== m.data;
    version = m.data;
    if (changed) {
      alive("live", "the file changed");
      look();
      await learn().catch(() => {}); // Then it has ended, which is said.
      offer();
    }
  };
  changes.onerror = () => alive("gone", "calloutd has ended");
}

function alive(state, text) {
  $("live").dataset.state = state;
  $("live-text").textContent = text;
}

async function begin() {
  beginTheme($("theme"));
  await learn();
  $("policy").replaceChildren(...policies.map((p) => h("option", { value: p.name }, p.name)));
  read();
  $("case").addEventListener("input", choose); // Before the form hears of it.
  $("connection").addEventListener("input", edited);
  $("connection").addEventListener("submit", (e) => {
    e.preventDefault();
    look();
  });
  $("policy").addEventListener("change", () => {
    offer();
    edited();
  });
  $("first").addEventListener("click", () => go(0));
  $("back").addEventListener("click", () => go(at - 1));
  $("next").addEventListener("click", () => go(at + 1));
  $("last").addEventListener("click", () => go(shown.stops.length - 1));
  $("slider").addEventListener("input", () => go(Number($("slider").value) - 1));
  $("share").addEventListener("click", share);
  $("skip").addEventListener("click", (e) => {
    e.preventDefault(); // The address behind # is the state.
    $("journey").focus({ preventScroll: true }); // Which would show its middle.
    $("journey").scrollIntoView();
  });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    read();
    look();
  });
  follow();
  await look();
}

begin();
