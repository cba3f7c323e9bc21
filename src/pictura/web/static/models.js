// What the server's models can do, as far as it knows; the same shape whatever it says of each.

import { get } from "./api.js";

let models = null;
let samplers = [];
let loras = [];

/**
 * {name, state, known, text, parameters, defaults, options, size, multiple, samplers} of each model.
 *
 * parameters: names of those it can use, null where nobody knows yet (then it may be any). options: its own,
 * {name, type, default, help, choices, attach}. size: the only one it has. multiple: of width and height.
 */
export async function load(signal, fresh = false) {
  if (models && !fresh) return models;
  const [said, some, files] = await Promise.all([
    get("/api/models", signal),
    get("/api/samplers", signal),
    get("/api/loras", signal),
  ]);
  models = list(said).map(normal);
  samplers = list(some).map(entry);
  loras = list(files).map(entry);
  return models;
}

export const known = () => models ?? [];
export const loraFiles = () => loras;
export const named = (name) => known().find((model) => model.name === name) ?? null;

/** Names of the samplers that a model may use. */
export const samplersOf = (model) => model?.samplers ?? samplers.map((entry) => entry.name);

const list = (said) => (Array.isArray(said) ? said : said.items);
const entry = (said) => (typeof said === "string" ? { name: said } : said);

function normal(said) {
  const more = said.details ?? null; // what its worker told when it was last loaded
  return {
    name: said.name,
    state: said.state,
    text: said.description ?? "",
    known: more !== null,
    parameters: more && new Set(more.parameters),
    defaults: more?.defaults ?? {},
    options: Object.entries(more?.options ?? {}).map(([name, option]) => ({ name, ...option })),
    size: more?.sizes?.fixed ?? null,
    multiple: more?.sizes?.multiple ?? null,
    samplers: more?.samplers ?? null,
  };
}

/** Whether a model can use a parameter; true where nobody knows. */
export function can(model, parameter) {
  if (!model?.parameters) return true;
  return model.parameters.has(parameter) || model.options.some((option) => option.name === parameter);
}

/** "128x128" of [128, 128] or of such a text. */
export const sizeText = (size) => (Array.isArray(size) ? size.join("x") : String(size ?? ""));

/** What stands in a field that is left empty: the model's own value, in words. */
export function usual(model, parameter) {
  const value = parameter === "size" ? sizeText(model?.defaults.size) : model?.defaults[parameter];
  return value === undefined || value === null || value === "" ? "" : String(value);
}
