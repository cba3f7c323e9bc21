// Dark, light, or as the system has it.

import { button, icon } from "./dom.js";
import { keep, recall } from "./store.js";

const THEMES = { auto: ["half", "as the system has it"], light: ["sun", "light"], dark: ["moon", "dark"] };

/** The button that goes through the themes. */
export function themeButton() {
  const control = button("half", "", next, { class: "button bare", hint: "Theme" });
  function show(theme) {
    document.documentElement.dataset.theme = theme;
    const [mark, text] = THEMES[theme];
    control.replaceChildren(icon(mark));
    control.title = `Theme: ${text}`;
    control.setAttribute("aria-label", `Theme: ${text}. Change it`);
  }
  function next() {
    const names = Object.keys(THEMES);
    const theme = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    keep("theme", theme);
    show(theme);
  }
  const kept = recall("theme", "auto");
  show(kept in THEMES ? kept : "auto");
  return control;
}
