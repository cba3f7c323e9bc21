// Fields of forms: a label, what is typed, what it means, and what is wrong with it.

import { button, fill, h, icon, uid } from "./dom.js";

/** A field around `input`; hint: a text or null. `.complain(text)` says what is wrong, "" takes it back. */
export function field(label, input, hint = null, { more = null, className = "" } = {}) {
  const id = input.id || (input.id = uid("field"));
  const wrong = h("p", { class: "error", id: `${id}w`, hidden: true });
  const told = hint && h("p", { class: "hint", id: `${id}h` }, hint);
  input.setAttribute("aria-describedby", `${told ? `${id}h ` : ""}${id}w`);
  const box = h(
    "div",
    { class: `field ${className}` },
    h("label", { for: id }, label),
    h("div", { class: "row tight" }, input, more),
    told,
    wrong,
  );
  return Object.assign(box, {
    input,
    complain(text) {
      wrong.textContent = text;
      wrong.hidden = !text;
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    },
  });
}

/** A choice among texts or [value, text] pairs. */
export function choice(options, value, change) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  if (value && !pairs.some(([known]) => known === value)) pairs.push([value, value]);
  const select = h(
    "select",
    { on: { change: () => change(select.value) } },
    pairs.map(([known, text]) => h("option", { value: known }, text)),
  );
  select.value = value;
  return select;
}

/** A number, typed or slid. usual: what an empty field means; end: where the slider ends, if before `max`. */
export function amount(label, { value, usual, min, max, end = max, step = 1, hint = null }, change) {
  const number = h("input", {
    type: "number",
    inputmode: "decimal",
    min,
    max,
    step: step === 1 ? 1 : "any",
    value,
    placeholder: usual || "auto",
    class: "short",
    on: {
      input: () => {
        show();
        change(number.value);
      },
    },
  });
  const slider = h("input", {
    type: "range",
    min,
    max: end,
    step,
    "aria-label": `${label}, slider`,
    on: {
      input: () => {
        number.value = slider.value;
        show();
        change(slider.value);
      },
    },
  });
  const box = field(label, number, hint, { more: slider, className: "amount" });
  function show() {
    slider.value = number.value === "" ? usual || min : number.value;
    const share = (Number(slider.value) - min) / (end - min || 1);
    slider.style.setProperty("--share", `${Math.round(100 * share)}%`);
  }
  show();
  return box;
}

/** A stepper for a small whole number. */
export function stepper(label, { value, min, max }, change) {
  const input = h("input", {
    type: "number",
    inputmode: "numeric",
    min,
    max,
    step: 1,
    value,
    class: "count-input",
    "aria-label": label,
    on: { input: () => change(input.value) },
  });
  const by = (delta) => () => {
    input.value = String(Math.min(max, Math.max(min, (Number(input.value) || min) + delta)));
    change(input.value);
  };
  return h(
    "div",
    { class: "stepper", role: "group", "aria-label": label },
    button(null, "−", by(-1), { class: "button bare", hint: `Fewer: ${label.toLowerCase()}` }),
    input,
    button(null, "+", by(1), { class: "button bare", hint: `More: ${label.toLowerCase()}` }),
  );
}

/** A part of a form that opens and closes. */
export function more(title, open, toggled, ...children) {
  const body = h("div", { class: "stack" }, children);
  const box = h(
    "details",
    { class: "more", open, on: { toggle: () => toggled?.(box.open) } },
    h("summary", {}, icon("sliders"), h("span", {}, title)),
    body,
  );
  return Object.assign(box, { refill: (...others) => fill(body, others) });
}
