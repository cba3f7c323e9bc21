// A request as what one would type: the command, the Python, the curl. Each gives the same picture.

import { write } from "./json.js";
import { sizeText } from "./models.js";

const FLAGS = [
  ["model", "--model"],
  ["seed", "--seed"],
  ["num_steps", "--steps"],
  ["guidance_scale", "--guidance"],
  ["sampler", "--sampler"],
];
const TURNING = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/;

/** A text as one word of a shell; characters that would hide or turn others are spelt out. */
export function shell(text) {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text;
  if (!TURNING.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  const spelt = [...text].map((c) => {
    if (c === "'" || c === "\\") return `\\${c}`;
    const code = c.codePointAt(0);
    if (!TURNING.test(c)) return c;
    return code < 0x80
      ? `\\x${code.toString(16).padStart(2, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
  return `$'${spelt.join("")}'`;
}

/** A JSON value as Python writes it. */
export function python(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object")
    return `{${Object.entries(value)
      .map(([key, item]) => `${python(key)}: ${python(item)}`)
      .join(", ")}}`;
  if (typeof value !== "string") return String(value);
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `pictura generate ...` */
export function command(request) {
  const words = ["pictura", "generate"];
  for (const [name, flag] of FLAGS) if (set(request[name])) words.push(flag, shell(String(request[name])));
  if (set(request.size)) words.push("--size", sizeText(request.size));
  if (request.negative_prompt) words.push("--negative", shell(request.negative_prompt));
  if (set(request.schedule)) words.push("--option", shell(`schedule=${request.schedule}`));
  for (const [name, value] of Object.entries(request.options ?? {}))
    words.push("--option", shell(`${name}=${write(value)}`));
  words.push("--out", "picture.png", "--", shell(request.prompt));
  return words.join(" ");
}

/** Lines of Python. */
export function program(request) {
  const given = ["seed", "num_steps", "guidance_scale", "sampler", "schedule"]
    .filter((name) => set(request[name]))
    .map((name) => `${name}=${python(request[name])}`);
  if (set(request.size)) given.push(`size=${python(sizeText(request.size))}`);
  if (request.negative_prompt) given.push(`negative_prompts=${python(request.negative_prompt)}`);
  for (const [name, value] of Object.entries(request.options ?? {})) given.push(`${name}=${python(value)}`);
  return [
    "import pictura",
    "",
    `model = pictura.TextToImage.from_preset(${python(request.model ?? "scenes")})`,
    "picture = model.generate(",
    `    ${python(request.prompt)},`,
    ...given.map((item) => `    ${item},`),
    ")",
    'picture.save("picture.png")',
  ].join("\n");
}

/** A call with curl. */
export function curl(request, host, withKey) {
  const body = { requests: [request] };
  return [
    "curl",
    `${host}/api/jobs`,
    ...(withKey ? ["-H", '"authorization: Bearer $PICTURA_API_KEY"'] : []),
    "-H",
    "'content-type: application/json'",
    "-d",
    shell(escaped(write(body))),
  ].join(" ");
}

/** JSON in which what hides or turns text is spelt out. */
const escaped = (json) =>
  json.replace(
    /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

const set = (value) => value !== null && value !== undefined && value !== "";
