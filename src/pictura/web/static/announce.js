// What somebody who does not see the page is told, and what everybody is told in passing.

import { button, h, icon } from "./dom.js";

let timer = 0;

/** Have a screen reader say `text` when it has said what it is saying. */
export function announce(text) {
  const region = document.getElementById("said");
  clearTimeout(timer);
  region.textContent = "";
  timer = setTimeout(() => {
    region.textContent = text;
  }, 60); // a region that is filled at once with the same text is not read again
}

/** A note at the page's edge. kind: "good" goes by itself, "bad" stays until it is closed. */
export function toast(text, kind = "good") {
  const note = h(
    "div",
    { class: `toast ${kind}`, role: kind === "bad" ? "alert" : null },
    icon(kind === "bad" ? "warn" : "check"),
    h("span", {}, text),
  );
  note.append(button("close", "", () => note.remove(), { class: "button bare", hint: "Close the note" }));
  const shelf = document.getElementById("toasts");
  while (shelf.children.length >= 4) shelf.firstChild.remove();
  shelf.append(note);
  if (kind === "good") {
    announce(text);
    setTimeout(() => note.remove(), 5000);
  }
  return note;
}

/** Where pictures were expected and there are none. */
export function empty(title, text, ...more) {
  const mark = h("div", { class: "empty-mark", "aria-hidden": "true" }, icon("images"));
  return h("div", { class: "empty" }, mark, h("h2", {}, title), h("p", {}, text), more);
}

/** What went wrong, in the server's own words, with a button to try again. */
export function trouble(error, again) {
  const box = h(
    "div",
    { class: "empty", role: "alert" },
    h("h2", {}, "That did not work"),
    h("p", {}, error.message),
  );
  if (again) box.append(button("again", "Try again", again));
  return box;
}
