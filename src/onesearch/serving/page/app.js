// The demo page. Everything that comes from the catalogue is untrusted text: it goes through textContent only,
// and addresses of pictures through pictures.js.

import { picturesOn, showPicture } from "./pictures.js";
import { completeIn } from "./suggest.js";

const $ = (id) => document.getElementById(id);
const NOTHING_FITS = 0.02; // confidence below which the page says so: two of a hundred good searches see it, too
const NEW_SHOPPER = "\u0000new"; // no shopper's id: ids have no control characters

const FACETS = { category: "All categories", brand: "All brands", kind: "All kinds" };
const KINDS = ["product", "video", "live", "article"];
const CONTROLS = ["sort", ...Object.keys(FACETS), "price-low", "price-high", "in-stock"]; // what a link says beside the query

const state = { busy: 0, search: 0, running: null, shown: new Map(), last: "", freshest: new Set(), asked: null, ranks: new Map(), literal: null, currency: null, imageHosts: [] };

// ---------------------------------------------------------------- small helpers

/** A new element with text and children; `options` are properties, `class` included. */
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") element.className = value;
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** JSON from the service; throws an Error with its own words otherwise. */
async function call(path, body, signal) {
  const options = body === undefined ? { signal } : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The service answered ${answer.status}.`);
  return content;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The same text always gets the same hue. */
function hueOf(text) {
  let hash = 7;
  for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 0x9e3779b1) >>> 0;
  return Math.round((hash / 2 ** 32) * 360);
}

function money(price) {
  if (price === null) return "";
  const plain = { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return new Intl.NumberFormat(undefined, state.currency ? { style: "currency", currency: state.currency } : plain).format(price);
}

/** Run something while the page says that it is at work. */
async function busily(action) {
  state.busy += 1;
  document.querySelector("main").ariaBusy = "true";
  try {
    return await action();
  } finally {
    state.busy -= 1;
    if (!state.busy) document.querySelector("main").ariaBusy = "false";
  }
}

function valueOf(control) {
  return control.type === "checkbox" ? (control.checked ? "yes" : "") : control.value;
}

function setValue(control, value) {
  if (control.type === "checkbox") control.checked = value === "yes";
  else {
    const known = control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value);
    if (!known && control.id in FACETS) control.append(make("option", { value, textContent: value }));
    if (known || control.id in FACETS) control.value = value;
  }
}

function say(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* private windows may refuse; nothing depends on it */ }
}

// ---------------------------------------------------------------- what is asked for

function shopper() {
  return $("shopper").value || null;
}

function filters() {
  const chosen = {};
  if ($("category").value) chosen.category = $("category").value;
  if ($("brand").value) chosen.brand = $("brand").value;
  if ($("kind").value) chosen.kind = $("kind").value;
  const bound = (id) => ($(id).value === "" ? null : Number($(id).value));
  const [low, high] = [bound("price-low"), bound("price-high")];
  if (low !== null || high !== null) chosen.price = [low, high];
  if ($("in-stock").checked) chosen.in_stock = true;
  const set = Object.keys(chosen).length;
  $("filters-set").textContent = set ? `${set} set` : "";
  $("reset").hidden = !set && !$("sort").value;
  return chosen;
}

// ---------------------------------------------------------------- search

/** Search with both methods. `again`: the same search after an event, so that ranks can be compared. */
function search(again = false) {
  return busily(() => searchNow(again));
}

async function searchNow(again) {
  const number = ++state.search;
  state.running?.abort();
  state.running = new AbortController();
  const query = $("query").value.trim();
  const body = { query, k: 10, filters: filters() };
  const sort = $("sort").value || null;
  const asked = JSON.stringify([query, body.filters, sort]);
  const before = asked === state.last ? state.shown : null;
  state.last = asked;
  const link = new URL(location.href);
  const said = { q: query, user: shopper() ?? "", ...Object.fromEntries(CONTROLS.map((id) => [id, valueOf($(id))])) };
  link.search = new URLSearchParams(Object.entries(said).filter(([, value]) => value));
  history.replaceState(null, "", link);
  document.title = query ? `${query} – OneSearch` : "OneSearch";
  document.querySelectorAll(".results").forEach((list) => list.classList.add("waiting"));
  const signal = state.running.signal;
  state.asked = { ...body, sort, user: shopper(), count: true, highlight: true, correct: query !== state.literal };
  const [ours, theirs] = await Promise.allSettled([
    call("search", { ...state.asked, facets: Object.keys(FACETS).filter((key) => !(key in body.filters)), record: !again }, signal),
    call("search", { ...body, method: "bm25" }, signal),
  ]);
  if (number !== state.search) return; // a newer search is on its way
  const failed = [ours, theirs].find((result) => result.status === "rejected");
  const parts = ours.value?.degraded ?? [];
  say(failed ? failed.reason.message
    : parts.includes("history") ? "The shopper’s history cannot be read just now: these are the results of an anonymous search."
    : parts.includes("log") ? "This search could not be recorded."
    : (ours.value.confidence ?? 1) < NOTHING_FITS ? "Nothing fits this search well. These items come nearest." : "");
  showCorrection(ours.value, query);
  showColumn("onesearch", ours.value, theirs.value, before, query);
  showColumn("bm25", theirs.value, ours.value, null, query);
  state.ranks = new Map((theirs.value?.results ?? []).map((result, at) => [result.item_id, at]));
  offerMore(ours.value?.total ?? 0);
  if (ours.value) await showFacets(ours.value.facets, signal).catch(() => {}); // the choices stay as they were
  if (number !== state.search) return;
  state.shown = new Map((ours.value?.results ?? []).map((result, at) => [result.item_id, at]));
  if (ours.value) $("version").textContent = `Index ${ours.value.version}`;
  await showHistory();
}

/** What was searched for in place of a mistyped query, or what it may mean; the other one is a click away. */
function showCorrection(answer, query) {
  const instead = (words, text) => {
    const button = make("button", { class: "link", type: "button", textContent: words });
    button.addEventListener("click", () => { state.literal = text === query ? query : null; searchFor(text); });
    return button;
  };
  const { corrected_query: corrected, did_you_mean: meant } = answer ?? {};
  $("correction").hidden = !corrected && !meant;
  if (corrected) {
    $("correction").replaceChildren("Showing results for ", make("b", { textContent: corrected }), ". ", instead(`Search instead for ${query}`, query));
  } else if (meant) $("correction").replaceChildren("Did you mean ", instead(meant, meant), "?");
}

function searchFor(text) {
  $("query").value = text;
  return search();
}

/** The next results of the same search, below those that are shown. */
async function showMore() {
  const number = state.search;
  const list = $("onesearch").querySelector('[data-part="results"]');
  let answer;
  try {
    answer = await call("search", { ...state.asked, offset: list.querySelectorAll(".card").length });
  } catch (error) {
    say(error.message);
    return;
  }
  if (number !== state.search) return; // another search has begun meanwhile
  const first = list.querySelectorAll(".card").length;
  answer.results.forEach((result, at) => list.append(card(result, first + at, "onesearch", state.ranks, null, answer)));
  offerMore(answer.results.length ? answer.total : 0);
}

/** The values of category, brand and kind among all results, with their numbers. */
async function showFacets(counted, signal) {
  // Of a filter that is set: what its other values would give.
  const rest = Object.keys(FACETS).filter((key) => !(key in counted));
  const others = await Promise.all(rest.map((key) => {
    const { [key]: _, ...filters } = state.asked.filters;
    return call("search", { ...state.asked, filters, k: 1, highlight: false, facets: [key], record: false }, signal);
  }));
  const found = Object.assign({}, counted, ...others.map((answer) => answer.facets));
  for (const [key, everything] of Object.entries(FACETS)) {
    const chosen = $(key).value;
    const choices = found[key].map((one) => ({ value: one.value, items: one.count }));
    if (chosen && !choices.some((one) => one.value === chosen)) choices.push({ value: chosen, items: 0 });
    fill($(key), everything, choices);
    $(key).value = chosen;
    // A shop of products alone has no kinds to choose from.
    if (key === "kind") $(key).parentElement.hidden = !chosen && choices.length < 2;
  }
}

function offerMore(total) {
  const shown = $("onesearch").querySelectorAll(".card").length;
  $("more").hidden = total <= shown;
  $("more").textContent = `More results (${shown.toLocaleString()} of ${total.toLocaleString()})`;
}

function showColumn(name, answer, other, before, query) {
  const column = $(name);
  const part = (which) => column.querySelector(`[data-part="${which}"]`);
  const list = part("results");
  list.classList.remove("waiting");
  list.replaceChildren();
  const facts = part("facts");
  facts.replaceChildren();
  if (!answer) {
    list.append(make("li", { class: "empty", textContent: "No answer." }));
    return;
  }
  facts.append(make("b", { textContent: `${Math.round(answer.took_ms)} ms` }), ` · ${(answer.total ?? answer.results.length).toLocaleString()} results`);
  facts.title = `${answer.engine_ms} ms inside the engine, ${answer.batch} answered together`;
  const personal = part("personal");
  if (personal) personal.hidden = !answer.personalised;
  const ranks = new Map((other?.results ?? []).map((result, at) => [result.item_id, at]));
  answer.results.forEach((result, at) => list.append(card(result, at, name, ranks, before, answer)));
  if (!answer.results.length) {
    const hint = name === "bm25" && !query ? "Without words BM25 has nothing to match." : "Nothing found. Try fewer filters.";
    list.append(make("li", { class: "empty", textContent: hint }));
  }
}

function card(result, at, name, ranks, before, answer) {
  const item = result.item;
  const title = make("button", { class: "title", type: "button", title: item.title }, ...marked(item.title, result.highlights.title ?? []));
  title.addEventListener("click", () => {
    openDetail(result, answer, name === "onesearch" && !state.asked.sort ? { ...state.asked, k: Math.min(100, Math.max(10, at + 1)) } : null);
    happened("click", result, answer);
  });
  const box = tile(item, picturesOn(state.imageHosts, item)[0], item.title);
  box.append(make("span", { textContent: at + 1, ariaHidden: "true" })); // the list's own numbers say it
  const element = make("li", { class: "card" }, box, title, side(result, name, answer), about(item, at, result, before), path(result));
  element.dataset.item = result.item_id;
  element.dataset.sid = result.sid_tokens.join(" ");
  if (name === "onesearch") {
    const there = ranks.get(result.item_id);
    const where = there === undefined ? "not in BM25’s ten" : `BM25 #${there + 1}`;
    element.querySelector(".path").append(make("span", { class: "where", textContent: where }));
  }
  return element;
}

/** A text with the ranges [start, end) of its characters as marks; characters are not JavaScript's halves of them. */
function marked(text, spans) {
  const letters = [...text];
  const parts = [];
  let at = 0;
  for (const [start, end] of spans) {
    parts.push(letters.slice(at, start).join(""), make("mark", { textContent: letters.slice(start, end).join("") }));
    at = end;
  }
  return [...parts, letters.slice(at).join("")];
}

/** A box with an item's picture, or with a letter where there is none; of the same size either way. */
function tile(item, picture, words) {
  const name = item.brand || item.category.at(-1) || item.title;
  const box = make("div", { class: "tile" }, make("b", { textContent: [...name][0].toUpperCase(), ariaHidden: "true" }));
  box.style.setProperty("--hue", hueOf(item.category.join("/") || name));
  if (picture) showPicture(box, picture, words);
  return box;
}

function side(result, name, answer) {
  const score = make("span", { class: "score", textContent: result.score.toFixed(2) });
  score.title = name === "onesearch" ? "score: weighted sum of log-probability, item score, clicks, BM25 and more" : "BM25 score";
  return make("div", { class: "side" }, make("span", { class: "price", textContent: money(result.item.price) }), score, buyButton(result, answer));
}

function buyButton(result, answer) {
  const buy = make("button", { class: "buy", type: "button", textContent: "Buy", disabled: result.item.in_stock === false });
  buy.addEventListener("click", async () => {
    if (await happened("order", result, answer)) $("detail").close();
  });
  return buy;
}

function about(item, at, result, before) {
  const line = make("div", { class: "meta" });
  if (item.kind && item.kind !== "product") line.append(make("span", { class: "kind", textContent: item.kind }), item.host ? ` ${item.host} · ` : " ");
  if (item.brand) line.append(make("b", { textContent: item.brand }), item.category.length ? " · " : "");
  line.append(item.category.join(" › "));
  if (item.in_stock === false) line.append(" · ", make("span", { class: "out", textContent: "out of stock" }));
  if (before) {
    const was = before.get(result.item_id);
    if (was === undefined) line.append(" ", make("span", { class: "moved new", textContent: "new" }));
    else if (was > at) line.append(" ", make("span", { class: "moved", textContent: `▲ ${was - at}` }));
    else if (was < at) line.append(" ", make("span", { class: "moved down", textContent: `▼ ${at - was}` }));
  }
  return line;
}

/** The tokens that led to an item; pointing at one lights up every result that shares the path so far. */
function path(result) {
  const line = make("div", { class: "path" });
  result.sid_tokens.forEach((token, level) => {
    if (level) line.append("›");
    const chip = make("span", { class: "chip", textContent: token, tabIndex: -1 });
    const prefix = result.sid_tokens.slice(0, level + 1).join(" ");
    if (token.startsWith("d_")) chip.classList.add("plain"); // these tell items apart; few share them
    else chip.style.setProperty("--hue", hueOf(prefix)); // the same colour is the same path
    chip.addEventListener("mouseenter", () => lightUp(prefix, level));
    chip.addEventListener("mouseleave", () => lightUp(null, 0));
    line.append(chip);
  });
  return line;
}

function lightUp(prefix, level) {
  document.querySelectorAll(".card").forEach((element) => {
    const shares = prefix !== null && `${element.dataset.sid} `.startsWith(`${prefix} `);
    element.classList.toggle("shared", shares);
    element.querySelectorAll(".chip").forEach((chip, at) => chip.classList.toggle("lit", shares && at <= level));
  });
}

// ---------------------------------------------------------------- events and history

/** Tell the service, then search again: the next search knows it already. */
function happened(kind, result, answer) {
  return busily(() => tell(kind, result, answer));
}

async function tell(kind, result, answer) {
  try {
    await call("events", { event_id: newId(), user: shopper(), item_id: result.item_id, kind, query: answer.corrected_query ?? answer.query, search_id: answer.search_id });
  } catch (error) {
    say(`Not recorded: ${error.message}`);
    return false;
  }
  state.freshest = new Set([`${kind} ${result.item_id}`]);
  if (shopper()) await search(true);
  else say("An anonymous shopper’s clicks are counted but belong to nobody. Choose a shopper to see the results change.");
  return true;
}

async function showHistory() {
  const user = shopper();
  const box = $("history");
  if (!user) {
    $("profile").textContent = "";
    box.replaceChildren(make("p", { textContent: "Anonymous: nothing is known, results depend on the query alone." }));
    return;
  }
  let past;
  try {
    past = await call(`shoppers/${encodeURIComponent(user)}/history`);
  } catch (error) {
    say(error.message);
    return;
  }
  if (user !== shopper()) return;
  $("profile").textContent = past.profile;
  box.replaceChildren();
  if (past.degraded.length) box.append(make("p", { textContent: "The history cannot be read just now." }));
  if (past.recent_queries.length) {
    box.append(make("h3", { textContent: "Recent queries" }), make("div", { class: "queries" }, ...past.recent_queries.map(queryPill)));
  }
  listEntries(box, "Bought", past.ordered, "order");
  listEntries(box, "Clicked", past.clicked, "click");
  if (!box.childElementCount) box.append(make("p", { textContent: "Nothing yet. Click a result and see the ranking change." }));
  state.freshest = new Set();
}

function listEntries(box, heading, entries, kind) {
  if (!entries.length) return;
  const shown = entries.slice(0, 12).map((entry) => {
    const fresh = state.freshest.has(`${kind} ${entry.item_id}`);
    const names = `${entry.live ? "live" : ""} ${fresh ? "fresh" : ""}`.trim();
    const line = make("li", { class: names, textContent: entry.title ?? `${entry.item_id} (no longer sold)` });
    if (entry.query) line.append(make("small", { textContent: `for “${entry.query}”` }));
    if (entry.live) line.title = "in this session";
    state.freshest.delete(`${kind} ${entry.item_id}`);
    return line;
  });
  box.append(make("h3", { textContent: `${heading} (${entries.length})` }), make("ul", { className: kind }, ...shown));
}

function queryPill(query) {
  const pill = make("button", { class: "pill", type: "button", textContent: query, title: query });
  pill.addEventListener("click", () => searchFor(query));
  return pill;
}

// ---------------------------------------------------------------- one item

/** Why a result stands where it does: a search that explains itself, made when it is asked for. */
function whyPanel(result, asked) {
  const panel = make("details", { class: "why" }, make("summary", { textContent: "Why is it here?" }));
  panel.addEventListener("toggle", () => busily(async () => {
    if (!panel.open || panel.childElementCount > 1) return;
    const body = make("div");
    panel.append(body);
    try {
      const answer = await call("search", { ...asked, count: false, highlight: false, explain: true, record: false });
      const hit = answer.results.find((one) => one.item_id === result.item_id);
      if (hit) showWhy(body, hit);
      else body.append("What you did since has moved it from this page.");
    } catch (error) {
      body.append(error.message);
    }
  }));
  return panel;
}

function showWhy(body, hit) {
  const { parts, found_by: by, path: steps, rules, intent } = hit.why;
  const number = (value) => value.toLocaleString(undefined, { maximumFractionDigits: 3 });
  const row = (...cells) => make("tr", {}, ...cells.map((text) => make("td", { textContent: text })));
  body.append(make("p", { textContent: by.length ? `Found by ${by.join(", ")}.` : "Behind the candidates: in the order of the item score." }));
  if (intent) body.append(make("p", { textContent: `It comes first, since the query asks for ${intent === "live" ? "live rooms" : intent}.` }));
  if (rules.length) body.append(make("p", { textContent: `Rules that touched it: ${rules.join(", ")}.` }));
  if (steps.length) {
    const lines = steps.map((step) => row(step.token, step.probability === null ? "" : `${(100 * step.probability).toFixed(1)} %`, `${step.items.toLocaleString()} items, mostly ${step.category || "of no category"}`));
    body.append(make("h3", { textContent: "The way to its semantic ID" }), make("table", {}, ...lines));
  }
  if (parts.length) {
    const lines = parts.map((part) => row(part.feature, `${number(part.value)} × ${number(part.weight)}`, number(part.value * part.weight)));
    body.append(make("h3", { textContent: `Its score, ${number(hit.score)}, is the sum of` }), make("table", {}, ...lines));
  }
}

function openDetail(result, answer, asked) {
  const item = result.item;
  $("detail-title").textContent = item.title;
  const facts = make("dl");
  const fact = (name, value) => { if (value) facts.append(make("dt", { textContent: name }), make("dd", { textContent: value })); };
  fact("Price", money(item.price));
  fact("Brand", item.brand);
  fact("Category", item.category.join(" › "));
  fact("Seller", item.seller);
  fact("Host", item.host);
  if (item.start) fact("From", new Date(item.start).toLocaleString());
  if (item.end) fact("Until", new Date(item.end).toLocaleString());
  for (const [name, values] of Object.entries(item.attributes)) fact(name, values.join(", "));
  if (item.listed_at) fact("Listed", new Date(item.listed_at).toLocaleDateString());
  fact("Available", item.in_stock === null ? "unknown" : item.in_stock ? "in stock" : "out of stock");
  fact("Item", item.item_id);
  const pictures = picturesOn(state.imageHosts, item);
  const gallery = pictures.map((picture, at) => tile(item, picture, `${item.title}, picture ${at + 1} of ${pictures.length}`));
  $("detail-body").replaceChildren(make("div", { class: "gallery" }, ...gallery), path(result), facts, buyButton(result, answer), ...(asked ? [whyPanel(result, asked)] : []));
  if (!$("detail").open) $("detail").showModal();
}

// ---------------------------------------------------------------- start

function fill(select, everything, choices) {
  select.replaceChildren(make("option", { value: "", textContent: everything }));
  for (const choice of choices) {
    select.append(make("option", { value: choice.value, textContent: `${choice.value} (${choice.items.toLocaleString()})` }));
  }
}

function addShopper(id, chosen = false) {
  const known = [...$("shopper").options].find((option) => option.value === id);
  const option = known ?? make("option", { value: id, textContent: id });
  if (!known) $("shopper").append(option);
  if (chosen) option.selected = true;
}

async function start() {
  const asked = new URLSearchParams(location.search);
  $("query").value = (asked.get("q") ?? "").slice(0, 200);
  $("shopper").append(make("option", { value: "", textContent: "Anonymous" }), make("option", { value: NEW_SHOPPER, textContent: "New shopper" }));
  try {
    const [people, choices] = await Promise.all([call("shoppers?limit=50"), call("filters")]);
    state.currency = choices.currency;
    state.imageHosts = choices.image_hosts;
    $("price-legend").textContent = choices.currency ? `Price in ${choices.currency}` : "Price";
    people.shoppers.forEach((id) => addShopper(id));
    fill($("category"), "All categories", choices.categories);
    fill($("brand"), "All brands", choices.brands);
    fill($("kind"), FACETS.kind, KINDS.map((value) => ({ value, items: 0 })));
    if (choices.price) {
      $("price-low").placeholder = String(Math.floor(choices.price[0]));
      $("price-high").placeholder = String(Math.ceil(choices.price[1]));
    }
    $("examples").replaceChildren(...choices.examples.map(queryPill));
    for (const id of CONTROLS) setValue($(id), asked.get(id) ?? "");
    if (asked.get("user")) addShopper(asked.get("user"), true);
    else if (!asked.has("q") && people.shoppers.length) addShopper(people.shoppers[0], true);
  } catch (error) {
    say(error.message);
  }
  await search();
}

$("search").addEventListener("submit", (event) => { event.preventDefault(); $("query").blur(); search(); });
completeIn($("query"), $("suggestions"), async (text, signal) => {
  const answer = await call(`suggest?${new URLSearchParams({ q: text, k: 8 })}`, undefined, signal);
  return answer.suggestions;
}, (text) => searchFor(text));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", () => search());
$("more").addEventListener("click", () => busily(showMore));
$("reset").addEventListener("click", () => { $("filters").reset(); search(); });
$("shopper").addEventListener("change", () => {
  if (shopper() === NEW_SHOPPER) addShopper(`guest-${newId().slice(0, 6)}`, true);
  state.last = "";
  search();
});
// On a phone the panels stand above the results, folded.
const phone = matchMedia("(max-width: 760px)");
const fold = () => document.querySelectorAll("aside details").forEach((panel) => { panel.open = !phone.matches; });
phone.addEventListener("change", fold);
fold();
$("detail-close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  remember("theme", document.documentElement.dataset.theme);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName) && !$("detail").open) {
    event.preventDefault();
    $("query").select();
  }
});
try {
  const theme = localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* as in remember */ }
busily(start);
