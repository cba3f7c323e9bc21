// Elements built by hand. Text is only ever text: nothing here, and nothing in this folder, parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. props: `class`, `on` {event: listener}, `data` {name: value}, `vars` {css property: value},
 * `hidden`, `disabled`, `checked`, `value` and the like as properties, everything else as attributes; what is
 * null, undefined or false is left out. children: nodes, texts, lists of them, or nothing.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) put(element, name, value);
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

const PROPERTIES = new Set([
  "value",
  "checked",
  "disabled",
  "hidden",
  "selected",
  "readOnly",
  "textContent",
  "indeterminate",
]);

function put(element, name, value) {
  if (value === null || value === undefined) return;
  if (name === "class") element.className = value;
  else if (name === "on")
    for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
  else if (name === "data") for (const [key, item] of Object.entries(value)) element.dataset[key] = item;
  else if (name === "vars")
    for (const [key, item] of Object.entries(value)) element.style.setProperty(key, item);
  else if (PROPERTIES.has(name)) element[name] = value;
  else if (value === true) element.setAttribute(name, "");
  else if (value !== false) element.setAttribute(name, String(value));
}

/** Put `children` where others were. */
export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

// Characters that turn or hide the text around them, as in "Trojan source"; shown as what they are.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** `text` for people: what would be unseen, or would turn other text around, is spelt out. */
export function visible(text) {
  return String(text).replace(
    HIDDEN,
    (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
}

/** What somebody wrote, kept apart from the direction of the text around it. */
export function said(text, props = {}) {
  return h("bdi", { dir: "auto", ...props }, visible(text));
}

const PATHS = {
  brush: "M14 4l6 6-9 9H5v-6zM12 6l6 6",
  images: "M4 5h12v12H4zM8 20h12V9M4 14l4-4 3 3 2-2 3 3",
  compare: "M12 4v16M4 7h5v10H4zM15 7h5v10h-5z",
  queue: "M5 7h14M5 12h14M5 17h9",
  grid: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1 1M18 18l1 1M19 5l-1 1M6 18l-1 1",
  moon: "M20 14.5A8.5 8.5 0 019.5 4a8 8 0 1010.500 10.500z",
  half: "M12 3a9 9 0 100 18 9 9 0 000-18zM12 3v18M12 7h7M12 11h9M12 15h8",
  help: "M9.500 9a2.500 2.500 0 113.500 2.300c-.7.3-1 .9-1 1.700M12 17h.01M12 3a9 9 0 100 18 9 9 0 000-18z",
  key: "M14 10a4 4 0 10-3.500 4L12 15.500l1.500-1L15 16l2-1 1 1.500 2-2-6.500-4.500z",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  close: "M6 6l12 12M18 6L6 18",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M12 4v12M7 11l5 5 5-5M5 20h14",
  up: "M12 20V8M7 12l5-5 5 5M5 4h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  again: "M20 11a8 8 0 10-2.300 6.300M20 5v6h-6",
  check: "M5 12.500l4.500 4.500L19 7.500",
  search: "M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l4.500 4.500",
  plus: "M12 5v14M5 12h14",
  warn: "M12 4l9 16H3zM12 10v4M12 17h.01",
  folder: "M4 6h6l2 2h8v11H4z",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
};

/** A line drawing beside a text; readers of screens do not hear of it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button. what: its icon's name or null; told: its text; hint: its accessible name where that differs. */
export function button(what, told, click, props = {}) {
  const { hint, ...rest } = props;
  const named = hint ? { "aria-label": hint, title: hint } : {};
  return h(
    "button",
    { type: "button", class: "button", ...named, ...rest, on: { click } },
    what && icon(what),
    told && h("span", {}, told),
  );
}

let last = 0;
/** An id that no other element has. */
export function uid(prefix = "e") {
  last += 1;
  return `${prefix}${last}`;
}
