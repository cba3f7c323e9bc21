// A picture, opened: what it shows, everything that made it, and what can be done with it.

import { announce, trouble } from "../announce.js";
import { call, get, hasKey, picture } from "../api.js";
import { collectField } from "../collections.js";
import { command, curl, program } from "../commands.js";
import { copyTabs } from "../copying.js";
import { dialog } from "../dialog.js";
import { button, fill, h, icon, said, visible } from "../dom.js";
import { factList, noteList } from "../facts.js";
import * as jobs from "../jobs.js";
import { isPlain } from "../keyboard.js";
import { noteField, starField } from "../ratings.js";
import { address, back, go } from "../router.js";
import { restore } from "../settings.js";

let opened = null; // the dialog that is there, with `leave` saying where its end leads

/**
 * Show picture `id` in a dialog. around(id) -> {at, count, item(at)}: where it is in what is looked through,
 * or null; under: the address that is behind it.
 */
export async function open(id, { around = null, under = null } = {}) {
  const stop = new AbortController();
  if (!opened) {
    const made = dialog("Picture", () => h("div"), { wide: true, name: "picture" });
    const mine = { ...made, goes: true, stop, keys: null, around, under };
    opened = mine;
    made.closed.then(() => {
      mine.stop.abort();
      opened = null;
      if (mine.goes) back(mine.under ?? "#/gallery");
    });
    made.box.addEventListener("keydown", (event) => mine.keys?.(event));
  }
  const here = opened;
  if (here.stop !== stop) here.stop.abort();
  here.stop = stop;
  here.body.classList.add("detail");
  if (!here.body.querySelector(".detail-wall"))
    fill(
      here.body,
      h("div", { class: "detail-wall skeleton" }),
      h(
        "div",
        { class: "stack" },
        h("div", { class: "skeleton line" }),
        h("div", { class: "skeleton line" }),
      ),
    );
  try {
    const image = await get(`/api/images/${encodeURIComponent(id)}`, stop.signal);
    if (opened === here && here.stop === stop) show(here, image);
  } catch (error) {
    if (!stop.signal.aborted) fill(here.body, trouble(error));
  }
}

/** Take the dialog away, without going anywhere. */
export function close() {
  if (!opened) return;
  opened.goes = false;
  opened.close();
}

/** To the picture `by` places further on, if it is there. */
async function move(here, id, by) {
  const near = here.around?.(id);
  const at = (near?.at ?? 0) + by;
  if (!near || at < 0 || at >= near.count) return;
  for (let tries = 0; tries < 40; tries += 1) {
    const item = near.item(at);
    if (opened !== here) return;
    if (item) {
      go(address("picture", {}, item.id), true);
      return void open(item.id);
    }
    await new Promise((resolve) => setTimeout(resolve, 100)); // its page is being fetched
  }
}

function show(here, image) {
  const { request } = image;
  const near = here.around?.(image.id);
  const stars = starField(image);
  const full = h("img", {
    src: picture(image.id),
    alt: visible(request.prompt || `Picture of seed ${request.seed}`),
    width: image.size[0],
    height: image.size[1],
    vars: { "--ratio": String(image.size[0] / image.size[1]) },
  });
  const small = Math.max(...image.size) < 400 ? "small" : "";
  const arrows =
    near &&
    h(
      "div",
      { class: "detail-arrows" },
      button("left", "", () => move(here, image.id, -1), {
        class: "button bare",
        hint: "The picture before",
        disabled: near.at === 0,
      }),
      button("right", "", () => move(here, image.id, 1), {
        class: "button bare",
        hint: "The picture after",
        disabled: near.at + 1 >= near.count,
      }),
    );
  here.keys = (event) => keys(event, stars, (by) => move(here, image.id, by));
  const wall = h("div", { class: `detail-wall ${small}` }, full, arrows);
  const label = h(
    "div",
    { class: "detail-label stack" },
    h("p", { class: "detail-prompt" }, said(request.prompt)),
    request.negative_prompt &&
      h(
        "p",
        { class: "detail-negative" },
        h("span", { class: "hint" }, "without "),
        said(request.negative_prompt),
      ),
    noteList([image]),
    stars,
    actions(image),
    noteField(image),
    collectField(image),
    h("h3", {}, "What made it"),
    factList(image),
    h("h3", {}, "Make it elsewhere"),
    copyTabs("Make it elsewhere", [
      ["Command", command(request)],
      ["Python", program(request)],
      ["curl", curl(request, location.origin, hasKey())],
    ]),
  );
  const had =
    here.body.contains(document.activeElement) ||
    document.activeElement === here.heading ||
    document.activeElement === document.body;
  fill(here.body, wall, label);
  here.body.scrollTop = 0;
  if (had) here.heading.focus({ preventScroll: true });
  announce(visible(request.prompt));
}

function keys(event, stars, turn) {
  if (!isPlain(event)) return;
  const own = event.target.closest("[role=tablist], input[type=radio]"); // has arrows of its own
  const does =
    (own ? null : { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1) }[event.key]) ??
    (/^[0-5]$/.test(event.key) ? () => stars.give(Number(event.key)) : null);
  if (!does) return;
  event.preventDefault();
  does();
}

function actions(image) {
  const { seed, ...rest } = image.request;
  const result = h("p", { class: "hint", role: "status" });
  const check = button(
    "check",
    "Make again",
    async () => {
      check.disabled = true;
      result.textContent = "Drawing it again to compare every pixel…";
      try {
        const { identical, differences } = await call(
          "POST",
          `/api/images/${encodeURIComponent(image.id)}/replay`,
        );
        result.textContent = identical
          ? "Made again: identical, pixel for pixel."
          : `Made again: it differs. ${told(differences)}`;
      } catch (error) {
        result.textContent = error.message;
      }
      check.disabled = false;
    },
    { title: "Draw it again and compare" },
  );
  return h(
    "div",
    { class: "stack" },
    h(
      "div",
      { class: "row wrap" },
      button(
        "sliders",
        "Use settings",
        () => {
          restore(image.request);
          close();
          go("#/create");
        },
        { class: "button primary" },
      ),
      button("dice", "Another seed", () => {
        jobs.submit([rest]);
        close();
        go("#/create");
      }),
      h(
        "a",
        { class: "button", href: address("grid", { from: image.id }) },
        icon("grid"),
        h("span", {}, "Vary"),
      ),
      check,
      h(
        "a",
        { class: "button", href: picture(image.id), download: `${image.id}.png` },
        icon("down"),
        h("span", {}, "Download"),
      ),
    ),
    result,
  );
}

const told = (differences) =>
  Object.entries(differences ?? {})
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join("; ");
