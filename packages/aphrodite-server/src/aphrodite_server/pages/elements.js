// Elements of a page are made by one function; texts are never read as HTML.

/** `element("p", { class: "note" }, "text", child)`; properties that begin with "on" listen. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(name, value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Documentation without the line breaks of its source; paragraphs stay. */
export const flowing = (docs) => docs.replace(/([^\n])\n(?!\n)/g, "$1 ");

export const find = (id) => document.getElementById(id);

/** Make room for errors, and for a key when the server wants one; `retry` is called with a new one. */
export function watchKey(api, retry) {
  const field = element("input", {
    id: "key", type: "password", autocomplete: "off", value: api.key.get(),
  });
  const form = element(
    "form",
    {
      id: "key-form",
      hidden: true,
      onsubmit: (event) => {
        event.preventDefault();
        api.key.set(field.value.trim());
        form.hidden = true;
        retry();
      },
    },
    element("label", { for: "key" }, "API key"),
    field,
    element("button", {}, "Use"),
  );
  document.querySelector("main").before(form, element("p", { id: "error", role: "alert", hidden: true }));
}

/** Tell of an error; an error of the key opens its form. */
export function showError(error) {
  find("error").textContent = error.message;
  find("error").hidden = false;
  if (error.status === 401) {
    find("key-form").hidden = false;
    find("key").focus();
  }
}

export function clearError() {
  find("error").hidden = true;
}
