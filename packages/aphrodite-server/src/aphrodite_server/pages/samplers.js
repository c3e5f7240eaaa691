// The panel of samplers, drawn from what /v1/samplers tells: no sampler is named here.

import { element, flowing } from "./elements.js";

const STORE = "aphrodite.samplers";

const unescape = (text) =>
  text.replace(/\\(.)/g, (_, letter) => ({ n: "\n", t: "\t" })[letter] ?? letter);
const escape = (text) => text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
const words = (text) => text.split(/[\s,]+/).filter(Boolean);

function number(text) {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new Error(`${text} is not a number`);
  return value;
}

const strings = {
  hint: "one per line; \\n is a line's end",
  read: (text) => text.split("\n").filter(Boolean).map(unescape),
  write: (value) => value.map(escape).join("\n"),
};
const json = { hint: "JSON", read: JSON.parse, write: (value) => JSON.stringify(value) };

// How a field's value is written in its input, by the type that the server states.
const KINDS = {
  "number": { read: number, write: String },
  "integer": { read: number, write: String },
  "boolean": {},
  "list of strings": strings,
  "list of token ids": {
    hint: "ids between commas",
    read: (text) => words(text).map(number),
    write: (value) => value.join(", "),
  },
  "list of strings or integers": {
    hint: "one per line",
    read: (text) => words(text).map((word) => (/^\d+$/.test(word) ? Number(word) : word)),
    write: (value) => value.join("\n"),
  },
  "map from token id to number": { ...json, hint: 'JSON, such as {"42": -5}' },
  "list of [list of token ids, integer, integer]": {
    ...json,
    hint: "JSON, such as [[[42], 0, 10]]",
  },
};

export class SamplerPanel {
  /** `described`: the answer of /v1/samplers; `changed` is called after each change. */
  constructor(root, described, changed) {
    this.changed = changed;
    this.rows = new Map();
    this.values = {};
    const order = { name: "order", docs: "Which sampler acts before which.", fields: described.order };
    this.groups = [...described.samplers, order].map((sampler) => this.group(sampler, described));
    root.replaceChildren(...this.groups.map((group) => group.box));
    this.restore();
  }

  group(sampler, described) {
    const fields = sampler.fields.map((field) => this.field(field, described.model_defaults[field.name]));
    const state = element("span", { class: "state" });
    const box = element(
      "details",
      { class: "sampler" },
      element("summary", {}, element("span", { class: "name" }, sampler.name), state),
      element("p", { class: "docs" }, flowing(sampler.docs)),
      ...fields.map((field) => field.box),
    );
    const text = [sampler.name, ...sampler.fields.flatMap((f) => [f.name, ...(f.aliases ?? [])])];
    return { box, state, names: sampler.fields.map((field) => field.name), text: text.join(" ") };
  }

  field(field, modelDefault) {
    const kind = KINDS[field.type] ?? json;
    const usual = modelDefault ?? field.default;
    const id = `field-${field.name}`;
    const note = element("span", { class: "problem", id: `${id}-problem`, role: "status" });
    const inputs = this.inputs(field, kind, id, note);
    const reset = element(
      "button",
      { type: "button", class: "quiet", title: `Leave ${field.name} out`, onclick: () => this.set(field.name, undefined) },
      "×",
    );
    const box = element(
      "div",
      { class: "field" },
      element("label", { for: id, title: flowing(field.docs) }, field.name),
      element("span", { class: "inputs" }, ...inputs, reset),
      note,
    );
    const show = (value) => {
      box.classList.toggle("set", value !== undefined);
      reset.disabled = value === undefined;
      note.textContent = "";
      for (const input of inputs) {
        if (input.type === "checkbox") input.checked = value ?? usual;
        else input.value = kind.write(value ?? usual);
        input.removeAttribute("aria-invalid");
      }
    };
    this.rows.set(field.name, { show });
    show(undefined);
    return { box };
  }

  inputs(field, kind, id, note) {
    const take = (input) => {
      try {
        this.set(field.name, input.type === "checkbox" ? input.checked : kind.read(input.value));
      } catch (error) {
        input.setAttribute("aria-invalid", "true");
        note.textContent = error.message;
      }
    };
    const make = (tag, properties) =>
      element(tag, { "aria-describedby": `${id}-problem`, onchange: (event) => take(event.target), ...properties });
    if (field.type === "boolean") return [make("input", { type: "checkbox", id })];
    if (field.type !== "number" && field.type !== "integer") {
      return [make("textarea", { id, rows: 2, placeholder: kind.hint, title: kind.hint })];
    }
    const bounds = { min: field.minimum, max: field.maximum, step: field.step };
    const exact = make("input", { ...bounds, type: "number", step: field.type === "integer" ? 1 : "any", id });
    if (field.minimum === undefined || field.maximum === undefined || field.maximum - field.minimum > 100) return [exact];
    const slider = make("input", {
      ...bounds,
      type: "range",
      "aria-label": field.name,
      oninput: (event) => { exact.value = event.target.value; },
    });
    return [slider, exact];
  }

  /** Set a field, or with `undefined` leave it out of requests. */
  set(name, value) {
    if (value === undefined) delete this.values[name];
    else this.values[name] = value;
    this.rows.get(name).show(value);
    this.tell();
  }

  reset() {
    for (const name of Object.keys(this.values)) this.set(name, undefined);
  }

  /** Show the groups whose names, or whose fields' names, hold the text. */
  filter(text) {
    for (const group of this.groups) group.box.hidden = !group.text.includes(text.trim().toLowerCase());
  }

  restore() {
    const kept = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    for (const [name, value] of Object.entries(kept)) {
      if (!this.rows.has(name)) continue;
      this.values[name] = value;
      this.rows.get(name).show(value);
    }
    for (const group of this.groups) group.box.open = this.setOf(group).length > 0;
    this.tell();
  }

  setOf(group) {
    return group.names.filter((name) => name in this.values);
  }

  tell() {
    for (const group of this.groups) {
      const set = this.setOf(group);
      const only = set.length === 1 ? String(this.values[set[0]]) : "";
      group.state.textContent = only.length > 0 && only.length < 12 ? only : set.length ? `${set.length} set` : "";
    }
    localStorage.setItem(STORE, JSON.stringify(this.values));
    this.changed();
  }
}
