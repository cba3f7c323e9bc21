// What a browser keeps for this page: settings and unfinished work for long, a key for its session.

import { parse, write } from "./json.js";

const PREFIX = "pictura.";

/** The value kept under `name`; `otherwise` where there is none or storage is closed to us. */
export function recall(name, otherwise = null, storage = "localStorage") {
  try {
    const text = window[storage].getItem(PREFIX + name);
    return text === null ? otherwise : parse(text);
  } catch {
    return otherwise;
  }
}

/** Keep `value` under `name`; null forgets it. Full or closed storage is no reason to stop. */
export function keep(name, value, storage = "localStorage") {
  try {
    if (value === null) window[storage].removeItem(PREFIX + name);
    else window[storage].setItem(PREFIX + name, write(value));
    return true;
  } catch {
    return false;
  }
}

/** The names that begin with `start`, of all that is kept. */
export function namesOf(start) {
  try {
    const names = Object.keys(window.localStorage).filter((name) => name.startsWith(PREFIX + start));
    return names.map((name) => name.slice(PREFIX.length));
  } catch {
    return [];
  }
}

/** Something others may listen to: `tell` calls every listener, `listen` gives the function that ends it. */
export function channel() {
  const listeners = new Set();
  return {
    tell(...news) {
      for (const listener of [...listeners]) listener(...news);
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
