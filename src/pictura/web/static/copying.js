// Texts to copy, one at a time under tabs.

import { announce, toast } from "./announce.js";
import { button, fill, h, uid } from "./dom.js";

/** Put a text on the clipboard; true when it is there. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    return copyOld(text); // pages without TLS have no clipboard
  }
  return true;
}

function copyOld(text) {
  const area = h("textarea", { class: "unseen", value: text, "aria-hidden": "true", tabindex: "-1" });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const came = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  came?.focus({ preventScroll: true });
  return done;
}

/** Tabs of [name, text]. */
export function copyTabs(label, parts) {
  const id = uid("copy");
  const code = h("pre", { class: "code", tabindex: "0", role: "group" }, h("code"));
  const panel = h(
    "div",
    { role: "tabpanel", id, class: "copy-panel" },
    code,
    button(
      "copy",
      "Copy",
      async () => {
        if (await copy(code.textContent)) announce("Copied.");
        else toast("The browser does not let this page copy; select the text instead.", "bad");
      },
      { class: "button small" },
    ),
  );
  const tabs = parts.map(([name], at) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `${id}t${at}`,
        "aria-controls": id,
        class: "tab",
        on: { click: () => show(at) },
      },
      name,
    ),
  );
  const list = h(
    "div",
    {
      role: "tablist",
      "aria-label": label,
      class: "tablist",
      on: {
        keydown: (event) => {
          const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (!by) return;
          event.preventDefault();
          const at = (tabs.indexOf(event.target) + by + tabs.length) % tabs.length;
          show(at);
          tabs[at].focus();
        },
      },
    },
    tabs,
  );
  function show(at) {
    tabs.forEach((tab, other) => {
      tab.setAttribute("aria-selected", String(other === at));
      tab.tabIndex = other === at ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `${id}t${at}`);
    fill(code.firstChild, parts[at][1]);
    code.setAttribute("aria-label", parts[at][0]);
  }
  show(0);
  return h("div", { class: "copy" }, list, panel);
}
