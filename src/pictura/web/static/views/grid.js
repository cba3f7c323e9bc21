// Grid: one request, one or two of its parameters varied over all their values (an X/Y plot).

import { announce, toast, trouble } from "../announce.js";
import { get } from "../api.js";
import { axisNames, hint, label, MOST, requestsOf, valuesOf } from "../axes.js";
import { cellView, progress, shape, statusText } from "../cells.js";
import { button, fill, h, icon, said } from "../dom.js";
import { choice, field } from "../fields.js";
import * as jobs from "../jobs.js";
import * as models from "../models.js";
import { address, go } from "../router.js";
import * as settings from "../settings.js";
import { save } from "../sheet.js";

const START = { guidance_scale: "1, 2, 4", num_steps: "2, 4, 8, 12", seed: "1-4" };

/** The view. */
export function open(main, at) {
  const left = new AbortController();
  const form = h("form", { class: "panel wide", "aria-label": "What varies", novalidate: true });
  const result = h("section", { class: "grid-result", "aria-label": "The grid" });
  fill(
    main,
    h(
      "div",
      { class: "grid-view" },
      h("h1", {}, "Grid"),
      h(
        "p",
        { class: "lead" },
        "One prompt, one or two parameters over all their values: see what each of them does.",
      ),
      form,
      result,
    ),
  );
  let base = null;
  let stopJob = () => {};
  const axes = { x: read(at.query.x, "guidance_scale"), y: read(at.query.y, "seed") };

  async function begin() {
    await models.load(left.signal);
    const job = at.query.job ? await jobs.adopt(at.query.job, left.signal) : null;
    const from = at.query.from
      ? (await get(`/api/images/${encodeURIComponent(at.query.from)}`, left.signal)).request
      : null;
    const { num_images: _, ...now } = settings.request(model(settings.current().model));
    base = from ?? now;
    build();
    if (job) show(job, { x: parsed("x"), y: parsed("y") });
  }

  const model = (name = base?.model) => models.named(name) ?? models.known()[0];

  function build() {
    const about = base.prompt
      ? h("p", { class: "grid-prompt" }, said(base.prompt))
      : h(
          "p",
          { class: "error" },
          "There is no prompt yet. ",
          h("a", { href: "#/create" }, "Write one"),
          " or open a picture and press Vary.",
        );
    const sum = h("span", { class: "hint" });
    const send = h(
      "button",
      { type: "submit", class: "button primary" },
      icon("grid"),
      h("span", {}, "Draw the grid"),
    );
    const boxes = { x: axisField("x", "Across"), y: axisField("y", "Down") };
    function count() {
      try {
        const [across, down] = [parsed("x").values.length, parsed("y").values.length];
        const tooMany = across * down > MOST ? `; at most ${MOST}` : "";
        sum.textContent = `${across} × ${down} = ${across * down} pictures${tooMany}`;
        send.disabled = across * down > MOST || !base.prompt;
      } catch {
        sum.textContent = "";
        send.disabled = false;
      }
    }
    for (const box of Object.values(boxes)) box.addEventListener("input", count);
    fill(form, about, h("div", { class: "pair" }, boxes.x, boxes.y), h("div", { class: "row" }, send, sum));
    form.onsubmit = (event) => {
      event.preventDefault();
      draw(boxes);
    };
    count();
  }

  function axisField(which, name) {
    const axis = axes[which];
    const values = h("input", {
      type: "text",
      value: axis.text,
      spellcheck: "false",
      "aria-label": `${name}: values`,
      on: {
        input: () => {
          axis.text = values.value;
        },
      },
    });
    const told = field(`${name}: values`, values, axis.name ? hint(axis.name) : null);
    const pick = choice([["", "nothing"], ...axisNames(model())], axis.name, (value) => {
      axes[which] = {
        name: value,
        text:
          START[value] ??
          (value === "sampler"
            ? models.samplersOf(model()).slice(0, 4).join(", ")
            : value === "model"
              ? models
                  .known()
                  .slice(0, 2)
                  .map((item) => item.name)
                  .join(", ")
              : ""),
      };
      build();
      form.querySelector(`[data-axis=${which}] select`).focus();
    });
    const box = h(
      "fieldset",
      { class: "plain stack axis", data: { axis: which } },
      h("legend", { class: "unseen" }, name),
      field(name, pick),
      axis.name && told,
    );
    return Object.assign(box, { complain: (text) => told.complain(text) });
  }

  function parsed(which) {
    const { name, text } = axes[which];
    return name ? { name, values: valuesOf(name, text) } : { name: "", values: [null] };
  }

  function draw(boxes) {
    const both = {};
    for (const which of ["x", "y"]) {
      try {
        boxes[which].complain("");
        both[which] = parsed(which);
      } catch (error) {
        boxes[which].complain(error.message);
        return boxes[which].querySelector("input")?.focus();
      }
    }
    const seeded =
      base.seed === undefined ? { ...base, seed: crypto.getRandomValues(new Uint32Array(1))[0] } : base;
    let requests;
    try {
      requests = requestsOf(seeded, both.x, both.y);
    } catch (error) {
      return void boxes.x.complain(error.message);
    }
    const job = jobs.submit(
      requests,
      `Grid: ${[both.x, both.y]
        .filter((axis) => axis.name)
        .map((axis) => label(model(), axis.name).toLowerCase())
        .join(" by ")}`,
    );
    announce(`${requests.length} pictures sent.`);
    show(job, both);
  }

  function show(job, { x, y }) {
    stopJob();
    const state = h("span", { class: "state" });
    const bar = progress("Progress of the grid");
    const request = job.requests[0] ?? base;
    const ratio = shape(request.size ?? model().defaults.size);
    const cells = y.values.flatMap((down) =>
      x.values.map((across) =>
        cellView(`${request.prompt}${told(x, across)}${told(y, down)}`, { width: 256, ratio }),
      ),
    );
    const stop = button("close", "Cancel", () => jobs.cancel(job), { class: "button small" });
    const keep = button(
      "down",
      "Save as one picture",
      () =>
        save(job, x, y, (axis, value) => title(axis, value)).catch((error) => toast(error.message, "bad")),
      { class: "button small" },
    );
    const table = h(
      "table",
      { class: "xy" },
      h("caption", { class: "unseen" }, `Pictures of “${request.prompt}”`),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          y.name && h("td", {}),
          x.values.map((value) => h("th", { scope: "col" }, title(x, value))),
        ),
      ),
      h(
        "tbody",
        {},
        y.values.map((value, row) =>
          h(
            "tr",
            {},
            y.name && h("th", { scope: "row" }, title(y, value)),
            x.values.map((_, column) => h("td", {}, cells[row * x.values.length + column])),
          ),
        ),
      ),
    );
    const wrong = h("p", { class: "error", role: "alert", hidden: true });
    fill(
      result,
      h("div", { class: "row spread" }, state, h("div", { class: "row tight" }, stop, keep)),
      bar,
      wrong,
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Grid of pictures" }, table),
    );
    const current = () => {
      state.textContent = statusText(job);
      bar.show(job);
      bar.hidden = stop.hidden = jobs.isOver(job);
      keep.hidden = !jobs.isOver(job) || job.status === "refused";
      wrong.hidden = !job.error;
      wrong.textContent = job.error ?? "";
      job.cells.forEach((cell, place) => cells[place]?.show(cell));
    };
    current();
    stopJob = jobs.onJob((other, event) => {
      if (other !== job) return;
      current();
      if (event?.kind === "accepted")
        go(
          address("grid", {
            ...(at.query.from ? { from: at.query.from } : {}),
            job: job.id,
            x: written("x"),
            y: written("y"),
          }),
          true,
        );
    });
  }

  const title = (axis, value) => (axis.name ? `${label(model(), axis.name)} ${value}` : "");
  const told = (axis, value) => (axis.name ? `, ${title(axis, value)}` : "");
  const written = (which) => `${axes[which].name}=${axes[which].text}`;

  begin().catch((error) => error.name === "AbortError" || fill(result, trouble(error)));
  return {
    update(next) {
      if (next.query.job === at.query.job && next.query.from === at.query.from) return;
      stopJob();
      at = next;
      fill(result);
      begin().catch((error) => error.name === "AbortError" || fill(result, trouble(error)));
    },
    close() {
      left.abort();
      stopJob();
    },
  };
}

function read(text, otherwise) {
  if (text === undefined) return { name: otherwise, text: START[otherwise] };
  const [name, ...values] = text.split("=");
  return { name, text: values.join("=") };
}
