// The API's reference, drawn from /openapi.json: every path, and every field with its bounds.

import * as api from "./api.js";
import { clearError, element, find, flowing, showError, watchKey } from "./elements.js";

const lastPart = (reference) => reference.split("/").at(-1);

/** A schema in words: `number from 0 to 1`, `string or list of string`. */
function worded(schema) {
  if (schema.$ref) return lastPart(schema.$ref);
  if (schema.anyOf) return schema.anyOf.filter((one) => one.type !== "null").map(worded).join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${worded(schema.items ?? {})}`;
  const bounds = [
    ["minimum", "from"],
    ["exclusiveMinimum", "above"],
    ["maximum", "to"],
    ["exclusiveMaximum", "below"],
  ];
  const said = bounds.filter(([name]) => name in schema).map(([name, word]) => `${word} ${schema[name]}`);
  return [schema.type ?? "anything", ...said].join(" ");
}

function fieldRow(name, schema, required) {
  const type = worded(schema) + (required ? ", required" : "");
  return element(
    "div",
    { class: "parameter" },
    element("dt", {}, element("code", {}, name), element("small", {}, type)),
    element("dd", {}, flowing(schema.description ?? "")),
  );
}

function fields(schema) {
  const required = schema.required ?? [];
  const rows = Object.entries(schema.properties ?? {});
  return element("dl", {}, ...rows.map(([name, one]) => fieldRow(name, one, required.includes(name))));
}

/** The schemas that a body names, itself first, each once. */
function named(schema, schemas, seen = new Set()) {
  for (const found of JSON.stringify(schema).matchAll(/"\$ref":"([^"]+)"/g)) {
    const name = lastPart(found[1]);
    if (seen.has(name)) continue;
    seen.add(name);
    named(schemas[name], schemas, seen);
  }
  return [...seen];
}

function operation(method, path, told, schemas) {
  const body = told.requestBody?.content["application/json"]?.schema;
  const names = body ? named(body, schemas) : [];
  const parameters = (told.parameters ?? []).map((one) =>
    fieldRow(one.name, { ...one.schema, description: one.description }, one.required),
  );
  return element(
    "details",
    {},
    element("summary", {}, element("b", { class: method }, method.toUpperCase()), element("code", {}, path)),
    element("p", { class: "docs" }, flowing(told.description ?? "")),
    element("dl", {}, ...parameters),
    ...names.map((name, place) =>
      element("section", {}, ...(place ? [element("h3", {}, name)] : []), fields(schemas[name])),
    ),
  );
}

function filter(text) {
  const wanted = text.trim().toLowerCase();
  for (const box of find("paths").children) {
    const path = box.querySelector("summary").textContent.toLowerCase();
    let shown = 0;
    for (const row of box.querySelectorAll(".parameter")) {
      const matches = row.querySelector("dt").textContent.toLowerCase().includes(wanted);
      row.hidden = !(matches || path.includes(wanted));
      shown += matches;
    }
    for (const section of box.querySelectorAll("section")) {
      section.hidden = !section.querySelector(".parameter:not([hidden])");
    }
    box.hidden = !(shown || path.includes(wanted));
    box.open = wanted !== "" && shown > 0;
  }
}

async function load() {
  clearError();
  try {
    const { paths, components } = await api.get("openapi.json");
    const operations = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, told]) => operation(method, path, told, components.schemas)),
    );
    find("paths").replaceChildren(...operations);
    filter(find("filter").value);
  } catch (error) {
    showError(error);
  }
}

find("filter").addEventListener("input", (event) => filter(event.target.value));
watchKey(api, load);
load();
