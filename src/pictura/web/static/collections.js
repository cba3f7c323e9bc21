// Collections: pictures put together under a name.

import { patiently } from "./api.js";
import { toast } from "./announce.js";
import { dialog } from "./dialog.js";
import { button, fill, h, uid } from "./dom.js";
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

/** What collections a picture was put into from here, with a way out again. */
export function collectField(image) {
  const box = h("div", { class: "row wrap" });
  async function put() {
    const name = await collectDialog();
    if (!name) return;
    const path = `/api/collections/${encodeURIComponent(name)}/images/${encodeURIComponent(image.id)}`;
    try {
      await patiently("PUT", path);
    } catch (error) {
      return void toast(error.message, "bad");
    }
    toast(`Put into “${name}”.`);
    const chip = button(
      "close",
      name,
      async () => {
        await patiently("DELETE", path);
        chip.remove();
        toast(`Taken out of “${name}”.`);
      },
      { class: "button chip", hint: `Take it out of ${name}` },
    );
    box.prepend(chip);
  }
  box.append(button("folder", "Collect", put));
  return box;
}
