// Dialogs on the browser's own <dialog>: the rest of the page is inert, Escape closes, focus goes back.

import { button, fill, h, uid } from "./dom.js";

/**
 * A dialog with a heading, open. build(close) gives its content. `closed` resolves, with what was given to
 * `close` or null, when it is gone.
 */
export function dialog(title, build, { wide = false, name = null } = {}) {
  const came = document.activeElement;
  const id = uid("dialog");
  const box = h("dialog", {
    class: wide ? "dialog wide" : "dialog",
    "aria-labelledby": id,
    data: name ? { name } : {},
  });
  let answer = null;
  const close = (value = null) => {
    answer = value;
    if (box.open) box.close();
  };
  const heading = h("h2", { id, tabindex: "-1" }, title);
  const head = h(
    "div",
    { class: "dialog-head" },
    heading,
    button("close", "", () => close(), { class: "button bare", hint: "Close" }),
  );
  const body = h("div", { class: "dialog-body" });
  const closed = new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      if (came?.isConnected) came.focus({ preventScroll: true });
      resolve(answer);
    });
  });
  box.addEventListener("pointerdown", (event) => {
    if (event.target === box) close(); // outside of its content
  });
  fill(body, build(close));
  box.append(head, body);
  document.body.append(box);
  box.showModal();
  (box.querySelector("[autofocus]") ?? heading).focus({ preventScroll: true });
  return { box, body, heading, close, closed };
}

/** Whether some dialog is open. */
export const anyOpen = () => document.querySelector("dialog[open]") !== null;

/** true when the user agrees. */
export async function confirmed(title, text, yes) {
  const asked = dialog(title, (close) => [
    h("p", {}, text),
    h(
      "div",
      { class: "row end" },
      button(null, "Keep it", () => close(false)),
      button(null, yes, () => close(true), { class: "button primary", autofocus: true }),
    ),
  ]);
  return (await asked.closed) === true;
}
