// Keys that work everywhere, and the list of all of them.

import { anyOpen, dialog } from "./dialog.js";
import { h } from "./dom.js";
import { go } from "./router.js";
import { keep, recall } from "./store.js";

const single = new Map(); // key -> action
const GO = { c: "create", g: "gallery", v: "compare", q: "queue" };

const LIST = [
  [
    "Everywhere",
    [
      ["c", "Create"],
      ["g", "Gallery"],
      ["v", "Compare models"],
      ["q", "Queue"],
      ["/", "Search the gallery"],
      ["?", "This list"],
    ],
  ],
  [
    "Create",
    [
      ["Ctrl ⏎", "Generate, from any field"],
      ["p", "To the prompt"],
    ],
  ],
  [
    "Gallery",
    [
      ["← → ↑ ↓", "From picture to picture"],
      ["Home End", "First and last picture"],
      ["Page ↑ ↓", "A screen up or down"],
      ["⏎", "Open the picture"],
      ["x", "Select it"],
    ],
  ],
  [
    "A picture",
    [
      ["← →", "The one before, the one after"],
      ["1 – 5", "Give it stars"],
      ["0", "Withdraw its stars"],
      ["Esc", "Close it"],
    ],
  ],
  [
    "Compare",
    [
      ["← or a", "The left one is better"],
      ["→ or b", "The right one is better"],
      ["s", "Neither"],
    ],
  ],
];

const on = () => recall("singleKeys", true);

/** Whether a key is meant for the page: not for a field, not with other keys held down. */
export function isPlain(event) {
  const field = event.target.closest?.(
    "input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]",
  );
  return on() && !field && !event.ctrlKey && !event.metaKey && !event.altKey && !event.defaultPrevented;
}

/** Let `key` do `action` everywhere but in fields and dialogs. */
export function bind(key, action) {
  single.set(key, action);
}

/** Listen. */
export function start() {
  for (const [key, name] of Object.entries(GO)) bind(key, () => go(`#/${name}`));
  bind("?", help);
  document.addEventListener("keydown", (event) => {
    const action = single.get(event.key);
    if (!action || !isPlain(event) || anyOpen()) return;
    event.preventDefault();
    action(event);
  });
}

/** The list of keys, in a dialog. */
export function help() {
  const box = h("input", {
    type: "checkbox",
    checked: on(),
    on: { change: () => keep("singleKeys", box.checked) },
  });
  dialog(
    "Keys",
    () => [
      h(
        "div",
        { class: "keys" },
        LIST.map(([place, keys]) =>
          h(
            "section",
            {},
            h("h3", {}, place),
            h(
              "dl",
              {},
              keys.map(([key, does]) =>
                h(
                  "div",
                  {},
                  h(
                    "dt",
                    {},
                    key
                      .split(" ")
                      .map((part) => (part === "or" || part === "–" ? ` ${part} ` : h("kbd", {}, part))),
                  ),
                  h("dd", {}, does),
                ),
              ),
            ),
          ),
        ),
      ),
      h("label", { class: "check" }, box, "Keys without Ctrl work outside of fields"),
    ],
    { wide: true },
  );
}
