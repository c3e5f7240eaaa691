// The playground: a conversation, or a text that is continued, with every sampler beside it.

import * as api from "./api.js";
import { showEffects } from "./effects.js";
import { clearError, element, find, showError, watchKey } from "./elements.js";
import { SamplerPanel } from "./samplers.js";

const messages = []; // of the conversation: { role, content }
let mode = "chat";
let panel = null;
let running = null; // the AbortController of the answer that comes in

function settings() {
  const body = { max_tokens: Number(find("max-tokens").value) || 256 };
  if (find("seed").value !== "") body.seed = Number(find("seed").value);
  const stops = find("stops").value.split("\n").filter(Boolean);
  if (stops.length) body.stop = stops;
  if (find("preset").value) body.preset = find("preset").value;
  return { ...body, ...panel?.values };
}

function prompt(turns) {
  if (mode === "text") return { prompt: find("text").value };
  const system = find("system").value.trim();
  return { messages: [...(system ? [{ role: "system", content: system }] : []), ...turns] };
}

/** The conversation with what is being written, if anything. */
function turnsToBe() {
  const said = find("say").value.trim();
  return said ? [...messages, { role: "user", content: said }] : messages;
}

const path = () => (mode === "chat" ? "v1/chat/completions" : "v1/completions");

function showRequest() {
  const turns = messages.length || find("say").value ? turnsToBe() : [{ role: "user", content: "Hello!" }];
  const body = JSON.stringify({ ...prompt(turns), ...settings() }, null, 2).replaceAll("'", "'\\''");
  const key = api.key.get() ? " \\\n  -H 'Authorization: Bearer KEY'" : "";
  const url = new URL(path(), document.baseURI);
  find("curl").textContent = `curl ${url} -H 'Content-Type: application/json'${key} -d '${body}'`;
}

function bubble(role, content) {
  const text = element("p", {}, content);
  find("messages").append(element("article", { class: role }, element("h3", {}, role), text));
  find("messages").scrollTop = find("messages").scrollHeight;
  return text;
}

function drawMessages() {
  find("messages").replaceChildren();
  for (const { role, content } of messages) bubble(role, content);
}

/** Stream an answer to the conversation or behind the text; `show` is given all of it so far. */
async function generate(body, show) {
  running?.abort();
  const mine = (running = new AbortController());
  const began = performance.now();
  let text = "";
  let first = null;
  let usage = null;
  let ending = "";
  busy(true);
  try {
    for await (const event of api.stream(path(), body, mine.signal, tellIgnored)) {
      const choice = event.choices[0];
      usage = event.usage ?? usage;
      ending = choice?.finish_reason ?? ending;
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      if (!piece) continue;
      first ??= performance.now();
      text += piece;
      show(text);
    }
    tellSpeed(usage, first - began, performance.now() - first, ending);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
    else find("status").textContent = "Stopped.";
  } finally {
    if (running === mine) busy(false);
  }
  return text;
}

function tellIgnored(names) {
  showError(new Error(`The server ignores these fields: ${names}`));
}

function tellSpeed(usage, wait, rest, ending) {
  const count = usage.completion_tokens;
  const rate = count > 1 && rest > 0 ? `, ${((1000 * (count - 1)) / rest).toFixed(1)} tokens/s` : "";
  const cached = usage.prompt_tokens_details.cached_tokens;
  const prompt = `${usage.prompt_tokens} tokens read${cached ? ` (${cached} were cached)` : ""}`;
  const cut = ending === "length" ? "; stopped at max_tokens" : "";
  const begun = count ? `, first after ${Math.round(wait)} ms` : "";
  find("status").textContent = `${prompt}, ${count} written${begun}${rate}${cut}`;
}

function busy(is) {
  find("stop").disabled = !is;
  document.body.classList.toggle("busy", is);
  if (is) {
    clearError();
    find("status").textContent = "…";
  } else running = null;
}

async function answer() {
  const shown = bubble("assistant", "");
  const text = await generate({ ...prompt(messages), ...settings() }, (so_far) => {
    const log = find("messages");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    shown.textContent = so_far;
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  if (text) messages.push({ role: "assistant", content: text });
  else shown.parentElement.remove();
  showRequest();
}

async function continueText() {
  const before = find("text").value;
  await generate({ ...prompt(), ...settings() }, (text) => {
    find("text").value = before + text;
    find("text").scrollTop = find("text").scrollHeight;
  });
  showRequest();
}

async function send() {
  if (running) return;
  if (mode === "text") return continueText();
  const content = find("say").value.trim();
  if (!content) return;
  find("say").value = "";
  messages.push({ role: "user", content });
  bubble("user", content);
  await answer();
}

async function again() {
  if (running || mode === "text" || !messages.length) return;
  if (messages.at(-1).role === "assistant") messages.pop();
  drawMessages();
  if (messages.length) await answer();
}

async function explain() {
  clearError();
  try {
    const { max_tokens, stop, ...fields } = settings();
    showEffects(find("effects"), await api.post("v1/samplers/explain", { ...prompt(turnsToBe()), ...fields }));
    find("effects").scrollIntoView({ block: "nearest" });
  } catch (error) {
    showError(error);
  }
}

function choose(chosen) {
  mode = chosen;
  find("mode-chat").setAttribute("aria-pressed", String(chosen === "chat"));
  find("mode-text").setAttribute("aria-pressed", String(chosen === "text"));
  for (const id of ["messages", "say", "again"]) find(id).hidden = chosen === "text";
  find("text").hidden = chosen === "chat";
  find("send").textContent = chosen === "chat" ? "Send" : "Continue";
  find("effects").replaceChildren();
  find("status").textContent = "";
  find(chosen === "chat" ? "say" : "text").focus();
  showRequest();
}

function clear() {
  running?.abort();
  if (mode === "chat") messages.length = 0;
  else find("text").value = "";
  drawMessages();
  find("effects").replaceChildren();
  find("status").textContent = "";
  showRequest();
}

async function load() {
  clearError();
  try {
    const [models, samplers] = await Promise.all([api.get("v1/models"), api.get("v1/samplers")]);
    find("model").textContent = models.data[0].id;
    document.title = `${models.data[0].id} · Aphrodite`;
    panel = new SamplerPanel(find("samplers"), samplers, showRequest);
    const presets = Object.keys(samplers.presets);
    find("preset-row").hidden = !presets.length;
    find("preset").replaceChildren(
      element("option", { value: "" }, "none"),
      ...presets.map((name) => element("option", { value: name }, name)),
    );
    showRequest();
  } catch (error) {
    showError(error);
  }
}

function listen() {
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  for (const id of ["say", "text"]) {
    find(id).addEventListener("keydown", (event) => {
      const asked = id === "say" ? !event.shiftKey : event.ctrlKey || event.metaKey;
      if (event.key !== "Enter" || !asked || event.isComposing) return;
      event.preventDefault();
      send();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  document.addEventListener("input", showRequest);
  find("stop").addEventListener("click", () => running?.abort());
  find("again").addEventListener("click", again);
  find("clear").addEventListener("click", clear);
  find("explain").addEventListener("click", explain);
  find("mode-chat").addEventListener("click", () => choose("chat"));
  find("mode-text").addEventListener("click", () => choose("text"));
  find("filter").addEventListener("input", (event) => panel?.filter(event.target.value));
  find("reset").addEventListener("click", () => panel?.reset());
  find("settings").open = matchMedia("(min-width: 50rem)").matches;
  watchKey(api, load);
}

listen();
load();
