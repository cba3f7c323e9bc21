// Stars and notes: fields for them, and word of what was given to whoever shows the picture as well.

import { patiently } from "./api.js";
import { announce, toast } from "./announce.js";
import { button, h, uid } from "./dom.js";
import { channel } from "./store.js";

const rated = channel();
/** listener(image) when a picture was given stars or a note. */
export const onRated = rated.listen;

/** Give stars or a note; the picture as it is then, null where the server would not. */
export async function rate(id, values) {
  try {
    const image = await patiently("PATCH", `/api/images/${encodeURIComponent(id)}`, { json: values });
    rated.tell(image);
    return image;
  } catch (error) {
    toast(error.message, "bad");
    return null;
  }
}

/** One to five stars; the same ones again withdraw them. `.give(number)` gives them, 0 takes them back. */
export function starField(image) {
  const name = uid("stars");
  let kept = image.stars;
  let set = kept; // what is shown, while the server is told
  const inputs = [1, 2, 3, 4, 5].map((stars) =>
    h("input", {
      type: "radio",
      name,
      value: stars,
      class: "unseen",
      checked: image.stars === stars,
      "aria-label": `${stars} ${stars === 1 ? "star" : "stars"}`,
      // A radio button that is set tells of a click only, one that was not of a change after it.
      on: { change: (event) => event.target.checked && give(stars), click: () => set === stars && give(0) },
    }),
  );
  const marks = inputs.map((input) =>
    h("label", { class: "star" }, input, h("span", { "aria-hidden": "true" }, "★")),
  );
  const withdraw = button("close", "", () => give(0), {
    class: "button bare stars-none",
    hint: "Withdraw the stars",
  });
  const box = h(
    "fieldset",
    { class: "stars plain" },
    h("legend", { class: "unseen" }, "Stars"),
    marks,
    withdraw,
  );
  function show(stars) {
    set = stars;
    if (document.activeElement === withdraw && !stars) inputs[0].focus(); // it goes, the focus stays near
    withdraw.hidden = !stars;
    inputs.forEach((input, at) => {
      input.checked = at + 1 === stars;
      marks[at].classList.toggle("on", at < (stars ?? 0));
    });
  }
  async function give(stars) {
    if (!stars && !set) return void announce("There are no stars.");
    show(stars || null);
    const now = await rate(image.id, { stars });
    if (now) {
      announce(stars ? `${stars} ${stars === 1 ? "star" : "stars"}.` : "Stars withdrawn.");
      kept = now.stars;
    }
    show(kept);
  }
  show(kept);
  return Object.assign(box, { give });
}

/** A note that is kept when the field is left. */
export function noteField(image) {
  const id = uid("note");
  let kept = image.note ?? "";
  const state = h("span", { class: "hint", "aria-live": "polite" });
  const input = h("textarea", {
    id,
    rows: 2,
    dir: "auto",
    maxlength: 10000,
    placeholder: "What you think of it",
    value: kept,
    on: { change: save },
  });
  async function save() {
    if (input.value === kept) return;
    state.textContent = "Saving…";
    const now = await rate(image.id, { note: input.value });
    kept = now?.note ?? kept;
    state.textContent = now ? "Saved." : "Not saved.";
  }
  return h(
    "div",
    { class: "field" },
    h("div", { class: "row spread" }, h("label", { for: id }, "Note"), state),
    input,
  );
}
