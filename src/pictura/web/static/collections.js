// Collections: pictures put together under a name.

import { patiently } from "./api.js";
import { toast } from "./announce.js";
import { dialog } from "./dialog.js";
import { button, fill, h, uid, visible } from "./dom.js";
import { loadCollections } from "./filters.js";

/** The name of a collection, one there is or a new one; null where none was chosen. */
export async function collectDialog() {
  const id = uid("collection");
  const names = h("datalist", { id: `${id}l` });
  const input = h("input", {
    id,
    type: "text",
    list: `${id}l`,
    maxlength: 200,
    required: true,
    autofocus: true,
    autocomplete: "off",
  });
  const chips = h("div", { class: "row wrap" });
  const asked = dialog("Put into a collection", (close) =>
    h(
      "form",
      {
        class: "stack",
        on: {
          submit: (event) => {
            event.preventDefault();
            if (input.value.trim()) close(input.value.trim());
          },
        },
      },
      h("div", { class: "field" }, h("label", { for: id }, "Name"), input, names),
      chips,
      h("div", { class: "row end" }, h("button", { class: "button primary", type: "submit" }, "Put in")),
    ),
  );
  loadCollections()
    .then((known) => {
      fill(
        names,
        known.map(({ name }) => h("option", { value: name })),
      );
      fill(
        chips,
        known
          .slice(0, 12)
          .map(({ name, count }) =>
            button(null, `${name} (${count})`, () => asked.close(name), { class: "button chip" }),
          ),
      );
    })
    .catch(() => {}); // a new name can be given all the same
  return asked.closed;
}

/** The collections that a picture is in, with a way out of each and into others. */
export function collectField(image) {
  const chips = new Map(); // by name
  const list = h("ul", { class: "row wrap", "aria-label": "In collections" });
  const more = button("folder", "Collect", put);
  const path = (name) =>
    `/api/collections/${encodeURIComponent(name)}/images/${encodeURIComponent(image.id)}`;
  function show(name) {
    if (chips.has(name)) return;
    const out = button("close", visible(name), () => take(name), {
      class: "button chip",
      hint: `Take it out of ${visible(name)}`,
    });
    chips.set(name, h("li", {}, out));
    list.append(chips.get(name));
    list.hidden = false;
  }
  async function put() {
    const name = await collectDialog();
    if (!name) return;
    try {
      await patiently("PUT", path(name));
    } catch (error) {
      return void toast(error.message, "bad");
    }
    toast(`Put into “${visible(name)}”.`);
    show(name);
  }
  async function take(name) {
    try {
      await patiently("DELETE", path(name));
    } catch (error) {
      return void toast(error.message, "bad");
    }
    const had = chips.get(name)?.contains(document.activeElement);
    chips.get(name)?.remove();
    chips.delete(name);
    list.hidden = chips.size === 0;
    if (had) more.focus();
    toast(`Taken out of “${visible(name)}”.`);
  }
  list.hidden = true;
  image.collections.forEach(show);
  return h("div", { class: "row wrap" }, list, more);
}
