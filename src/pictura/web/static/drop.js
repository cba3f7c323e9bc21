// A picture dropped, pasted or opened: its settings go into the form.

import { toast } from "./announce.js";
import { call } from "./api.js";
import { anyOpen } from "./dialog.js";
import { button, h } from "./dom.js";
import * as models from "./models.js";
import { go } from "./router.js";
import { restore } from "./settings.js";

/** Read what made the picture in `file` into the form. */
export async function take(file) {
  let found;
  try {
    found = await call("POST", "/api/inspect", { body: file, type: file.type || "application/octet-stream" });
  } catch (error) {
    return void toast(error.message, "bad");
  }
  if (!found?.request) return void toast("This picture does not say how it was made.", "bad");
  restore(found.request);
  go("#/create");
  const known = models.known().map((model) => model.name);
  const lacks = found.request.model && known.length && !known.includes(found.request.model);
  toast(
    lacks
      ? `The settings are in the form. This server has no model “${found.request.model}”; choose another.`
      : "The settings of the picture are in the form.",
    lacks ? "bad" : "good",
  );
}

/** A button that opens a file, for whoever cannot drop one. */
export function openButton() {
  const input = h("input", {
    type: "file",
    accept: "image/png,image/jpeg,image/webp",
    class: "unseen",
    tabindex: "-1",
    "aria-hidden": "true",
    on: {
      change: () => {
        if (input.files[0]) take(input.files[0]);
        input.value = "";
      },
    },
  });
  return h(
    "span",
    {},
    button("up", "Settings from a picture", () => input.click(), { class: "button small" }),
    input,
  );
}

/** Listen for pictures that are dropped anywhere, or pasted. */
export function start() {
  const veil = document.getElementById("dropped");
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const show = (by) => {
    depth = by === 0 ? 0 : Math.max(0, depth + by);
    veil.hidden = depth === 0;
  };
  document.addEventListener("dragenter", (event) => files(event) && show(1));
  document.addEventListener("dragleave", (event) => files(event) && show(-1));
  document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    show(0);
    if (event.dataTransfer.files[0] && !anyOpen()) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
    if (file && !anyOpen()) take(file);
  });
}
