// Renders openapi.json without any library: routes, their fields with limits, an example call, and the answers.

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) element[name] = value;
  element.append(...children.filter((child) => child !== null));
  return element;
}

const spec = await (await fetch("openapi.json")).json();

function resolve(schema) {
  return schema?.$ref ? spec.components.schemas[schema.$ref.split("/").at(-1)] : schema ?? {};
}

/** "string ≤ 200 characters or null", as short as possible. */
function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}${schema.maxItems ? `, at most ${schema.maxItems}` : ""}`;
  if (schema.type === "object" && schema.additionalProperties) return `by name: ${typeOf(schema.additionalProperties)}`;
  const limits = [];
  if (schema.maxLength) limits.push(`≤ ${schema.maxLength} characters`);
  if (schema.minimum !== undefined) limits.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`≤ ${schema.maximum}`);
  return [schema.format === "date-time" ? "time" : schema.type ?? "anything", ...limits].join(" ");
}

function fields(schema) {
  const table = make("table");
  const required = new Set(schema.required ?? []);
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const fallback = field.default === undefined ? "" : `; default ${JSON.stringify(field.default)}`;
    table.append(make("tr", {},
      make("td", { textContent: name + (required.has(name) ? " *" : "") }),
      make("td", { textContent: typeOf(field) + fallback }),
      make("td", { textContent: field.description ?? "" })));
  }
  return table;
}

function example(verb, path, schema, keyed) {
  const lines = [`curl ${["patch", "put"].includes(verb) ? `-X ${verb.toUpperCase()} ` : ""}${location.origin}${path}`];
  if (verb !== "get") {
    if (keyed) lines.push(`  -H "Authorization: Bearer $ONESEARCH_ADMIN_TOKEN"`);
    const value = (schema.examples ?? [{}])[0];
    lines.push("  -H 'Content-Type: application/json'", `  -d '${JSON.stringify(value)}'`);
  }
  return make("pre", { textContent: lines.join(" \\\n") });
}

function route(path, verb, operation) {
  const body = resolve(operation.requestBody?.content?.["application/json"]?.schema);
  const answer = resolve(operation.responses?.["200"]?.content?.["application/json"]?.schema);
  const details = make("details", { open: verb === "post" });
  details.append(make("summary", {},
    make("span", { className: "verb", textContent: verb.toUpperCase() }),
    make("code", { textContent: path }),
    make("span", { textContent: operation.description ?? "" })));
  details.append(example(verb, path, body, Boolean(operation.security)));
  if (body.properties) details.append(make("p", { textContent: "Request" }), fields(body));
  if (answer.properties) details.append(make("p", { textContent: "Answer" }), fields(answer));
  const others = Object.entries(operation.responses).filter(([status]) => status !== "200");
  if (others.length) {
    details.append(make("p", { textContent: "Otherwise" }), make("table", {}, ...others.map(([status, response]) =>
      make("tr", {}, make("td", { textContent: status }), make("td", { textContent: response.description })))));
  }
  return make("section", { className: "panel" }, details);
}

const page = document.getElementById("docs");
page.append(make("div", {}, make("h1", { textContent: `${spec.info.title} ${spec.info.version}` }), make("p", { textContent: spec.info.description })));
const groups = new Map();
for (const [path, verbs] of Object.entries(spec.paths)) {
  for (const [verb, operation] of Object.entries(verbs)) {
    const tag = operation.tags?.[0] ?? "other";
    groups.set(tag, [...(groups.get(tag) ?? []), route(path, verb, operation)]);
  }
}
for (const [tag, routes] of groups) page.append(make("h2", { textContent: tag }), ...routes);
const named = Object.entries(spec.components.schemas).filter(([name]) => ["Filters", "ItemBody", "ResultBody", "Problem"].includes(name));
page.append(make("h2", { textContent: "Parts" }), ...named.map(([name, schema]) => make("section", { className: "panel" }, make("code", { textContent: name }), fields(schema))));
