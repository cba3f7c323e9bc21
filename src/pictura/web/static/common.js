// The fields of parameters that most models have, with each model's own values and limits.

import { button, h, uid } from "./dom.js";
import { amount, choice, field } from "./fields.js";
import * as models from "./models.js";
import * as settings from "./settings.js";

const MOST_STEPS = 1000;
const SCHEDULES = ["own", "karras", "exponential", "sgm_uniform"];
const SHAPES = [
  [1, 1],
  [4, 3],
  [3, 2],
  [16, 9],
  [3, 4],
  [2, 3],
  [9, 16],
];

/** The fields that most models have; null for what this one cannot use. */
export function common(model, values) {
  const put = (name) => (text) => settings.set({ [name]: text });
  const usual = (name) => models.usual(model, name);
  const own = (name) => usual(name) || "auto";
  const pick = (name, names) =>
    choice(
      [["", own(name)], ...names.filter((item) => item !== usual(name))],
      values[name] === usual(name) ? "" : values[name],
      put(name),
    );
  const can = (name) => models.can(model, name);
  const negative = h("textarea", {
    rows: 2,
    dir: "auto",
    value: values.negative_prompt,
    on: { input: () => put("negative_prompt")(negative.value) },
  });
  return {
    size: can("size") ? sizeField(model, values.size, put("size")) : null,
    sampler: can("sampler") ? field("Sampler", pick("sampler", models.samplersOf(model))) : null,
    num_steps: can("num_steps")
      ? amount(
          "Steps",
          {
            value: values.num_steps,
            usual: usual("num_steps"),
            min: 1,
            max: MOST_STEPS,
            end: slideEnd(usual("num_steps")),
          },
          put("num_steps"),
        )
      : null,
    guidance_scale: can("guidance_scale")
      ? amount(
          "Guidance",
          {
            value: values.guidance_scale,
            usual: usual("guidance_scale"),
            min: 0,
            max: 100,
            end: Math.max(10, 2 * Number(usual("guidance_scale"))),
            step: 0.1,
          },
          put("guidance_scale"),
        )
      : null,
    seed: seedField(values.seed, put("seed")),
    negative_prompt: can("negative_prompt")
      ? field("Leave out", negative, "What the pictures should not show: a negative prompt.")
      : null,
    schedule: can("schedule") ? field("Schedule", pick("schedule", SCHEDULES)) : null,
  };
}

/** Where the slider of the steps ends: far enough beyond what is usual, and no further than is of use. */
const slideEnd = (usual) => Math.max(50, 3 * (Number(usual) || 0));

/** A choice where the model has one size only; else any, with those of the usual number of pixels. */
function sizeField(model, value, put) {
  if (model?.size)
    return field(
      "Size",
      choice([["", models.sizeText(model.size)]], value === models.sizeText(model.size) ? "" : value, put),
    );
  const id = uid("sizes");
  const input = h("input", {
    type: "text",
    list: id,
    pattern: "\\s*[0-9]{1,4}\\s*[xX×]\\s*[0-9]{1,4}\\s*",
    title: "width x height, such as 768x512",
    placeholder: models.usual(model, "size") || "WIDTHxHEIGHT",
    value,
    on: { input: () => put(input.value.trim()) },
  });
  const [width, height] = model?.defaults.size ?? [512, 512];
  const step = model?.multiple ?? 8;
  const round = (side) => Math.max(step, Math.round(side / step) * step);
  const sizes = SHAPES.map(([across, down]) => Math.sqrt((width * height) / (across * down))).map(
    (unit, at) => SHAPES[at].map((side) => round(side * unit)).join("x"),
  );
  return field("Size", input, model?.multiple ? `Multiples of ${model.multiple}.` : null, {
    more: h(
      "datalist",
      { id },
      sizes.map((size) => h("option", { value: size })),
    ),
  });
}

function seedField(value, put) {
  const input = h("input", {
    type: "text",
    inputmode: "numeric",
    pattern: "[0-9]{0,19}",
    title: "a whole number, 0 or more",
    placeholder: "random",
    value,
    autocomplete: "off",
    on: { input: () => put(input.value.trim()) },
  });
  const dice = button(
    "dice",
    "",
    () => {
      input.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      put(input.value);
    },
    { class: "button bare", hint: "Draw a seed and keep it" },
  );
  const clear = button(
    "close",
    "",
    () => {
      input.value = "";
      put("");
    },
    { class: "button bare", hint: "Another seed each time" },
  );
  return field(
    "Seed",
    input,
    "The same seed gives the same picture. Several pictures take the seeds after it.",
    { more: [dice, clear] },
  );
}
