// Everything that made a picture, as a list of terms.

import { button, h, icon, said, visible } from "./dom.js";
import { announce } from "./announce.js";
import { copy } from "./copying.js";
import { write } from "./json.js";
import { sizeText } from "./models.js";
import { address } from "./router.js";

const seconds = (value) => `${Number(value).toFixed(value < 10 ? 2 : 1)} s`;

/** A <dl> of an image's request, model, times and file. */
export function factList(image) {
  const { request } = image;
  const rows = [
    ["Model", request.model && h("a", { href: address("gallery", { model: request.model }) }, request.model)],
    [
      "Seed",
      request.seed !== undefined &&
        h(
          "span",
          { class: "row tight" },
          String(request.seed),
          button("copy", "", async () => (await copy(String(request.seed))) && announce("Copied."), {
            class: "button bare small",
            hint: "Copy the seed",
          }),
        ),
    ],
    ["Size", sizeText(image.size)],
    ["Steps", request.num_steps],
    ["Guidance", request.guidance_scale],
    ["Sampler", request.sampler],
    ["Schedule", request.schedule],
    ...Object.entries(request.options ?? {}).map(([name, value]) => [
      visible(name),
      typeof value === "string" ? said(value) : visible(write(value)),
    ]),
    ["Made", h("time", { datetime: image.made_at }, new Date(image.made_at).toLocaleString())],
    ...Object.entries(image.timings ?? {})
      .filter(([, value]) => typeof value === "number")
      .map(([name, value]) => [`Time: ${name.replaceAll("_", " ")}`, seconds(value)]),
    ["Pictura", image.version],
    [
      "Weights",
      image.model_digest && h("code", { title: image.model_digest }, `${image.model_digest.slice(0, 16)}…`),
    ],
    ["File", image.sha256 && h("code", { title: image.sha256 }, `${image.sha256.slice(0, 16)}…`)],
  ];
  return h(
    "dl",
    { class: "facts" },
    rows
      .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
      .map(([name, value]) =>
        h(
          "div",
          {},
          h("dt", {}, name),
          h("dd", {}, typeof value === "number" || typeof value === "bigint" ? String(value) : value),
        ),
      ),
  );
}

/** What the model says of some images, such as words it does not know, each once; null for nothing. */
export function noteList(images) {
  const ignored = (image) => image.ignored.map((name) => `${name} was given and could not be used.`);
  const all = [...new Set(images.flatMap((image) => [...image.notes, ...ignored(image)]))];
  const items = all.map((note) => h("li", {}, icon("warn"), said(note)));
  return items.length ? h("ul", { class: "notes" }, items) : null;
}
