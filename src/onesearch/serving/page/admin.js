// The rules' page: edit them as YAML, see what they would do to a query, save. All text goes through textContent only.

const $ = (id) => document.getElementById(id);
let base = 0; // the version that the text was made from

/** JSON from the service, with the admin token; throws an Error with its own words otherwise. */
async function call(method, path, body) {
  const headers = { authorization: `Bearer ${$("token").value.trim()}`, "content-type": "application/json" };
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The service does not answer.");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The service answered ${answer.status}.`);
  return content;
}

/** Run something while the page says that it is at work; what goes wrong is said. */
async function busily(action) {
  const main = document.querySelector("main");
  main.ariaBusy = "true";
  say("");
  try {
    await action();
  } catch (error) {
    say(error.message);
  } finally {
    main.ariaBusy = "false";
  }
}

function say(message) {
  $("notice").textContent = message;
  $("notice").hidden = !message;
}

function named(version) {
  return version.version ? `Version ${version.version} by ${version.who}, ${new Date(version.time).toLocaleString()}` : "Never changed";
}

/** What is named and not in the catalogue any more stands below the notice, until other rules are looked at. */
function warn(warnings, newest = 0, version = 0) {
  const lines = Object.values(warnings).map((warning) => `${warning} any more`);
  if (newest > version) {
    lines.unshift(`Version ${newest} is the newest, and this server cannot read it: what you save takes its place`);
  }
  $("warnings").textContent = lines.length ? `${lines.join(". ")}.` : "";
  $("warnings").hidden = !lines.length;
}

async function load() {
  const [rules, all] = await Promise.all([call("GET", "rules"), call("GET", "rules/versions?limit=50")]);
  base = rules.newest; // a version that cannot be read here is there nevertheless
  warn(rules.warnings, rules.newest, rules.version);
  $("rules").value = rules.rules;
  $("version").textContent = named(rules);
  $("versions").replaceChildren(...all.versions.map((version) => new Option(named(version), version.version)));
  for (const id of ["rules", "save-button", "preview-button"]) $(id).disabled = false;
}

/** An earlier version comes into the text; it is in force when it is saved. */
async function goBack() {
  const version = await call("GET", `rules/versions/${$("versions").value}`);
  $("rules").value = version.rules;
}

async function save() {
  await call("PUT", "rules", { rules: $("rules").value, who: $("who").value.trim(), base });
  await load();
  say("Saved, and in force on all servers of this store within a second.");
}

async function preview() {
  const groups = $("group").value.trim() ? [$("group").value.trim()] : [];
  const search = { query: $("query").value.trim(), groups, explain: true };
  const { before, after, warnings } = await call("POST", "rules/preview", { rules: $("rules").value, search });
  warn(warnings);
  const was = new Map(before.results.map((result, at) => [result.item_id, at]));
  show($("before"), before.results, null);
  show($("after"), after.results, was);
}

function show(list, results, was) {
  list.replaceChildren(...results.map((result, at) => {
    const line = document.createElement("li");
    const part = (name, text) => {
      const span = document.createElement("span");
      span.className = name;
      span.textContent = text;
      line.append(" ", span);
    };
    part("name", result.item.title);
    part("meta", result.item_id);
    if (was && !was.has(result.item_id)) part("moved new", "new");
    else if (was && was.get(result.item_id) !== at) {
      const up = was.get(result.item_id) - at;
      part(up > 0 ? "moved" : "moved down", up > 0 ? `▲ ${up}` : `▼ ${-up}`);
    }
    for (const rule of result.why.rules) part("tag accent", rule);
    return line;
  }));
}

for (const [id, action] of [["open", load], ["save", save], ["preview", preview]]) {
  $(id).addEventListener("submit", (event) => { event.preventDefault(); busily(action); });
}
$("versions").addEventListener("change", () => busily(goBack));
