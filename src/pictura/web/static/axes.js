// Axes of a grid: which parameter varies, over which values.

import { whole } from "./json.js";
import { can } from "./models.js";

export const MOST = 100; // pictures of a grid

const NAMES = [
  ["guidance_scale", "Guidance"],
  ["num_steps", "Steps"],
  ["seed", "Seed"],
  ["sampler", "Sampler"],
  ["schedule", "Schedule"],
  ["size", "Size"],
  ["model", "Model"],
  ["prompt", "Words of the prompt"],
];
const NUMBERS = new Set(["guidance_scale", "num_steps", "seed"]);

/** [name, label] of what can vary with a model: common parameters, and its own options that are numbers. */
export function axisNames(model) {
  const own = (model?.options ?? [])
    .filter((option) => ["int", "float"].includes(option.type))
    .map((option) => [`options.${option.name}`, option.name.replaceAll("_", " ")]);
  return [
    ...NAMES.filter(([name]) => ["seed", "model", "prompt"].includes(name) || can(model, name)),
    ...own,
  ];
}

export const label = (model, name) => axisNames(model).find(([known]) => known === name)?.[1] ?? name;

const isNumber = (name) => NUMBERS.has(name) || name.startsWith("options.");

/** What to write for an axis. */
export function hint(name) {
  if (name === "prompt")
    return "Words apart by commas; the first is in the prompt, and each takes its place in turn.";
  return isNumber(name)
    ? "Numbers apart by commas, or a range such as 1-5 or 2-10:2 (every 2)."
    : "Names apart by commas.";
}

/** The values that a text stands for. Error, for people, where it stands for none. */
export function valuesOf(name, text) {
  const parts = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  const values = parts.flatMap((part) => (isNumber(name) ? numbers(name, part) : [part]));
  if (!values.length) throw new Error("Give one value at least.");
  if (values.length > MOST) throw new Error(`Give at most ${MOST} values.`);
  return values;
}

function numbers(name, part) {
  const range = /^(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)(?:\s*:\s*(\d+(?:\.\d+)?))?$/.exec(part);
  if (!range) {
    const value = name === "seed" ? whole(part) : Number(part);
    if (value === null || Number.isNaN(value)) throw new Error(`“${part}” is no number.`);
    return [value];
  }
  const [from, to, by] = [Number(range[1]), Number(range[2]), Number(range[3] ?? 1)];
  const count = Math.floor((to - from) / by + 1e-9) + 1;
  if (!(by > 0) || !(count > 0) || count > MOST)
    throw new Error(`“${part}” is no range of 1 to ${MOST} values.`);
  return Array.from({ length: count }, (_, step) => Number((from + step * by).toFixed(6)));
}

/** `request` with one value of an axis. first: the first value, whose place in a prompt the others take. */
export function applied(request, name, value, first) {
  if (!name) return request;
  if (name === "prompt") return { ...request, prompt: request.prompt.replace(first, () => value) };
  if (!name.startsWith("options.")) return { ...request, [name]: value };
  return { ...request, options: { ...request.options, [name.slice(8)]: value } };
}

/** The requests of a grid, row by row. Error where words are not in the prompt. */
export function requestsOf(base, x, y) {
  for (const axis of [x, y]) {
    if (axis.name === "prompt" && !base.prompt.includes(axis.values[0]))
      throw new Error(`“${axis.values[0]}” is not in the prompt.`);
  }
  const across = (request) => x.values.map((value) => applied(request, x.name, value, x.values[0]));
  return y.values.flatMap((value) => across(applied(base, y.name, value, y.values[0])));
}
