// What each sampler did to the candidates for the next token, as /v1/samplers/explain tells it.

import { element } from "./elements.js";

const SHOWN = 8;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const visible = (text) => text.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/ /g, "␣");
const candidates = (count) => `${count} candidate${count === 1 ? "" : "s"}`;

function bar(name, share) {
  const made = element("span", { class: `bar ${name}` });
  made.style.inlineSize = `${100 * share}%`;
  return made;
}

/** The shares before and after; bars are as long as they are beside `largest`. */
function tokenRow(token, before, after, largest) {
  const bars = before === undefined ? [] : [bar("before", before / largest)];
  const numbers = before === undefined ? percent(after) : `${percent(before)} → ${percent(after)}`;
  return element(
    "li",
    {},
    element("code", {}, visible(token.text)),
    element("span", { class: "bars", "aria-hidden": "true" }, ...bars, bar("after", after / largest)),
    element("span", { class: "number" }, numbers),
  );
}

function effect(sampler) {
  const { candidates: count, entropy } = sampler;
  const numbers =
    `${count.before} → ${candidates(count.after)}, ` +
    `${entropy.before.toFixed(2)} → ${entropy.after.toFixed(2)} bits`;
  const shown = sampler.tokens.slice(0, SHOWN);
  const largest = Math.max(...shown.flatMap((token) => [token.before, token.after]));
  const rows = shown.map((token) => tokenRow(token, token.before, token.after, largest));
  return element(
    "section",
    {},
    element("h3", {}, sampler.name, element("small", {}, numbers)),
    element("ul", {}, ...rows),
  );
}

export function showEffects(root, told) {
  const { final } = told;
  const shown = final.tokens.slice(0, SHOWN);
  const largest = Math.max(...shown.map((token) => token.probability));
  const rows = shown.map((token) => tokenRow(token, undefined, token.probability, largest));
  const how = told.greedy ? "the likeliest" : "drawn";
  const entropy = `${candidates(final.candidates)}, ${final.entropy.toFixed(2)} bits`;
  root.replaceChildren(
    element("p", { class: "docs" }, "Outlined: before the sampler. Filled: after it."),
    ...told.samplers.map(effect),
    element(
      "section",
      {},
      element("h3", {}, "At the end", element("small", {}, entropy)),
      element("ul", {}, ...rows),
      element("p", {}, "Token: ", element("code", {}, visible(told.token.text)), ` (${how})`),
    ),
  );
}
