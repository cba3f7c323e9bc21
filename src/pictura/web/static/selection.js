// Pictures selected in the gallery, and what can be done with several.

import { patiently, picture } from "./api.js";
import { toast } from "./announce.js";
import { collectDialog } from "./collections.js";
import { button, fill, h } from "./dom.js";
import { address, go } from "./router.js";

/** A set of pictures and its bar. changed() is called when another is in it. */
export function selection(changed) {
  const items = new Map();
  const bar = h("section", { class: "selected-bar", "aria-label": "Selected pictures", hidden: true });

  function show() {
    bar.hidden = items.size === 0;
    const [first, second] = items.keys();
    fill(
      bar,
      h("span", { class: "grow" }, `${items.size} selected`),
      items.size === 2 &&
        button("compare", "Compare blind", () => go(address("compare", { pair: `${first},${second}` }))),
      button("folder", "Collect", async () => {
        const name = await collectDialog();
        if (!name) return;
        try {
          for (const id of items.keys())
            await patiently(
              "PUT",
              `/api/collections/${encodeURIComponent(name)}/images/${encodeURIComponent(id)}`,
            );
          toast(`${items.size} in “${name}”.`);
        } catch (error) {
          toast(error.message, "bad");
        }
      }),
      button("down", "Download", () => {
        for (const id of items.keys()) h("a", { href: picture(id), download: `${id}.png` }).click();
      }),
      button("close", "", clear, { class: "button bare", hint: "Select none" }),
    );
    changed();
  }

  function clear() {
    items.clear();
    show();
  }

  return {
    bar,
    has: (id) => items.has(id),
    toggle(item) {
      if (!item) return;
      if (!items.delete(item.id)) items.set(item.id, item);
      show();
    },
  };
}
