// The key of a server that wants one: asked for in a dialog, kept as long as the tab is open.

import { hasKey, onKeyWanted, setKey } from "./api.js";
import { dialog } from "./dialog.js";
import { button, h, uid } from "./dom.js";

let asking = null;

/** Ask whenever the server wants a key; everything that waits for one waits for the same answer. */
export function start() {
  onKeyWanted((wrong) => {
    asking ??= ask(wrong).finally(() => {
      asking = null;
    });
    return asking;
  });
}

/** true when a key was given. */
export async function ask(wrong = false) {
  const id = uid("key");
  const input = h("input", {
    id,
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
    "aria-describedby": `${id}h`,
  });
  const asked = dialog(
    "API key",
    (close) =>
      h(
        "form",
        {
          on: {
            submit: (event) => {
              event.preventDefault();
              close(input.value.trim());
            },
          },
        },
        wrong && h("p", { class: "error", role: "alert" }, "The server does not know this key."),
        h(
          "div",
          { class: "field" },
          h("label", { for: id }, "Key"),
          input,
          h(
            "p",
            { class: "hint", id: `${id}h` },
            "Whoever runs this server has it. It stays in this tab and is forgotten with it.",
          ),
        ),
        h(
          "div",
          { class: "row end" },
          hasKey() && button(null, "Forget the key", () => close("")),
          h("button", { class: "button primary", type: "submit" }, "Use it"),
        ),
      ),
    { name: "key" },
  );
  const key = await asked.closed;
  if (key !== null) setKey(key);
  return Boolean(key);
}
