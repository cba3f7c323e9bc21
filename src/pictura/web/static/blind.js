// Two pictures side by side whose makers are not told, and what came of choosing.

import { toast } from "./announce.js";
import { call, picture } from "./api.js";
import { button, fill, h, icon, said, visible } from "./dom.js";
import { address } from "./router.js";

/** true when the server has the choice. */
export async function sent(winner, loser) {
  try {
    await call("POST", "/api/choices", { json: { winner, loser } });
    return true;
  } catch (error) {
    toast(`This choice was not kept: ${error.message}. Choose again.`, "bad");
    return false;
  }
}

/** Put two pictures side by side; picked(0 | 1 | null) once for each press. Gives the function that picks. */
export function blindPair(box, prompt, images, title, picked) {
  let busy = false;
  const choose = async (side) => {
    if (busy) return;
    busy = true;
    await picked(side);
    busy = false;
  };
  const sides = ["Left", "Right"].map((name, side) =>
    h(
      "figure",
      { class: "blind-side" },
      h("img", { src: picture(images[side].id), alt: `${name}: ${visible(prompt) || "a picture"}` }),
      h(
        "figcaption",
        {},
        button("check", `${name} is better`, () => choose(side), { class: "button primary" }),
      ),
    ),
  );
  const had = box.contains(document.activeElement);
  fill(
    box,
    h(
      "div",
      { class: "blind-head" },
      h("span", { class: "hint" }, title),
      prompt && h("p", { class: "detail-prompt" }, said(prompt)),
    ),
    h("div", { class: "blind-pair" }, sides),
    h(
      "div",
      { class: "row center" },
      button(null, "Neither", () => choose(null)),
    ),
  );
  if (had) box.querySelector("button").focus();
  return choose;
}

/** The places of two pictures that are not there yet. */
export function waiting() {
  return h(
    "div",
    { class: "blind-pair", role: "status", "aria-label": "The pictures are being drawn" },
    h("div", { class: "blind-side skeleton" }),
    h("div", { class: "blind-side skeleton" }),
  );
}

/** Every pair with its makers, for when all have been chosen. */
export function pairList(job, known, names) {
  return h(
    "details",
    { class: "more" },
    h("summary", {}, icon("images"), h("span", {}, "All pairs")),
    h(
      "div",
      { class: "stack" },
      known.votes.map((vote, pair) =>
        h(
          "div",
          { class: "told-pair" },
          [0, 1].map((which) => {
            const { image } = job.cells[2 * pair + which];
            const prompt = visible((job.requests[2 * pair] ?? {}).prompt ?? "");
            return (
              image &&
              h(
                "figure",
                { class: vote === which ? "won" : "" },
                h(
                  "a",
                  { href: address("picture", {}, image.id) },
                  h("img", { src: image.url, alt: prompt || names[which] }),
                ),
                h("figcaption", {}, names[which], vote === which && " ✓"),
              )
            );
          }),
        ),
      ),
    ),
  );
}

/** How often each model was chosen. won: [[name, count], ...]; none: how often neither. */
export function resultTable(won, none) {
  const all = Math.max(
    1,
    won.reduce((sum, [, count]) => sum + count, none),
  );
  const percent = (count) => `${Math.round((100 * count) / all)} %`;
  const bar = (count) =>
    h("span", { class: "share", vars: { "--done": `${(100 * count) / all}%` } }, percent(count));
  const head = ["Model", "Chosen", "Share"].map((text) => h("th", { scope: "col" }, text));
  const row = (name, count, share) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, String(count)), h("td", {}, share));
  const rows = [
    ...won.map(([name, count]) => row(name, count, bar(count))),
    row("Neither", none, percent(none)),
  ];
  return h("table", { class: "plain-table" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
}
