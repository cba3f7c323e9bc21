// What the form holds, as texts by name; "" leaves a value to the model. Kept over reloads.

import { whole } from "./json.js";
import { can, sizeText } from "./models.js";
import { channel, keep, recall } from "./store.js";

const BLANK = {
  prompt: "",
  negative_prompt: "",
  model: "",
  size: "",
  num_steps: "",
  guidance_scale: "",
  sampler: "",
  schedule: "",
  seed: "",
  num_images: "1",
  loras: [],
  options: {},
};
const COMMON = ["negative_prompt", "size", "num_steps", "guidance_scale", "sampler", "schedule", "seed"];
const NUMBERS = new Set(["num_steps", "guidance_scale"]);

const changed = channel();
let values = { ...BLANK, ...recall("form", {}) };

export const current = () => values;
/** listener() when another place than the form has put values into it. */
export const onRestored = changed.listen;

/** Change some values. */
export function set(some) {
  values = { ...values, ...some };
  keep("form", values);
}

/** Put every value of a request into the form; what it does not say is left to the model. */
export function restore(request, count = "1") {
  const { lora, ...options } = request.options ?? {};
  const texts = Object.fromEntries(
    COMMON.map((name) => [name, name === "size" ? sizeText(request.size) : String(request[name] ?? "")]),
  );
  const loras = (lora ?? []).map((entry) => ({ ...entry, weight: String(entry.weight ?? 1) }));
  set({
    ...BLANK,
    ...texts,
    prompt: request.prompt,
    model: request.model ?? values.model,
    num_images: count,
    loras,
    options,
  });
  changed.tell();
}

/** The request that the form stands for, of what `model` can use. */
export function request(model, from = values) {
  const made = { prompt: from.prompt };
  if (from.model) made.model = from.model;
  for (const name of COMMON) {
    const text = from[name].trim();
    if (text === "" || !(name === "seed" || can(model, name))) continue;
    made[name] =
      name === "seed"
        ? (whole(text) ?? text)
        : NUMBERS.has(name) && Number.isFinite(Number(text))
          ? Number(text)
          : text;
  }
  const options = {};
  for (const option of model?.options ?? []) {
    const value = from.options[option.name];
    if (value !== undefined && value !== "" && value !== null) options[option.name] = value;
  }
  if (!model?.known) Object.assign(options, from.options);
  const loras = from.loras.map(({ weight, ...file }) => ({
    ...file,
    weight: weight === "" ? 1 : Number(weight),
  }));
  if (loras.length && can(model, "lora")) options.lora = loras;
  if (Object.keys(options).length) made.options = options;
  const count = Number(from.num_images);
  if (count > 1) made.num_images = count;
  return made;
}

/** Names of what is set and `model` cannot use. */
export function unusable(model, from = values) {
  const said = COMMON.filter((name) => name !== "seed" && from[name].trim() !== "" && !can(model, name));
  return from.loras.length && !can(model, "lora") ? [...said, "lora"] : said;
}
