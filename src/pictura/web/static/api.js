// Calls on the server: JSON in and out, its errors as values of ours, reading tried again until it answers.

import { found, lost, pause } from "./connection.js";
import { parse, write } from "./json.js";
import { keep, recall } from "./store.js";

/** The server said no. status, message and parameter are its own; after: seconds it asks to wait, or 0. */
export class Refused extends Error {
  constructor(status, message, parameter, after) {
    super(message);
    Object.assign(this, { status, parameter, after });
  }

  get passing() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/** Nobody answered. */
export class Unreachable extends Error {
  constructor() {
    super("the server does not answer");
    this.passing = true;
    this.after = 0;
  }
}

let askForKey = null;
/** asker(message) is called when the server wants a key; its promise gives one, or null. */
export function onKeyWanted(asker) {
  askForKey = asker;
}

export const hasKey = () => recall("key", null, "sessionStorage") !== null;
export const setKey = (key) => keep("key", key || null, "sessionStorage");

function headers(more = {}) {
  const key = recall("key", null, "sessionStorage");
  return { ...(key ? { authorization: `Bearer ${key}` } : {}), ...more };
}

/** The response, whatever its status; Unreachable. */
export async function send(method, path, { body, type, extra, signal } = {}) {
  const options = {
    method,
    headers: headers({ ...(type ? { "content-type": type } : {}), ...extra }),
    body,
    signal,
  };
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw signal.reason ?? error;
    lost();
    throw new Unreachable();
  }
  if (response.status === 502 || response.status === 504)
    lost(); // a proxy stands where the server was
  else found();
  return response;
}

/** The answer's value. Asks for a key where one is needed. Refused, Unreachable. */
export async function call(method, path, given = {}) {
  const { json, ...rest } = given;
  const sent =
    json === undefined
      ? rest
      : { ...rest, body: typeof json === "string" ? json : write(json), type: "application/json" };
  let response = await send(method, path, sent);
  while (response.status === 401 && askForKey && (await askForKey(hasKey())))
    response = await send(method, path, sent);
  if (!response.ok) throw await refusal(response);
  const text = await response.text();
  return text ? parse(text) : null;
}

/** What `call` gives, however long the server is away; for calls that may be made twice. Refused. */
export async function patiently(method, path, given = {}) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await call(method, path, given);
    } catch (error) {
      if (!error.passing) throw error;
      await pause(attempt, given.signal, error.after);
    }
  }
}

export const get = (path, signal) => patiently("GET", path, { signal });

/** The error that a response is. */
export async function refusal(response) {
  let message = `the server answered ${response.status}`;
  let parameter = null;
  try {
    const { error } = parse(await response.text());
    message = typeof error === "string" ? error : (error?.message ?? message);
    parameter = error?.parameter ?? error?.param ?? null;
  } catch {
    // no JSON: a proxy's page, say; its status has to do
  }
  return new Refused(response.status, message, parameter, Number(response.headers.get("retry-after")) || 0);
}

/** "?a=1&b=2" of what is set in `values`. */
export function asked(values) {
  const set = Object.entries(values).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  return set.length ? `?${new URLSearchParams(set.map(([name, value]) => [name, String(value)]))}` : "";
}

export const thumbnail = (id, width) => `/images/${encodeURIComponent(id)}/thumbnail?width=${width}`;
export const picture = (id) => `/images/${encodeURIComponent(id)}.png`;

/** Have the browser save what `path` gives, also where only a key opens it. Refused, Unreachable. */
export async function download(path, name) {
  const response = await send("GET", path);
  if (!response.ok) throw await refusal(response);
  const url = URL.createObjectURL(await response.blob());
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
