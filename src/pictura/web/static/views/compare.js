// Compare: two models draw the same prompts from the same seeds; one chooses without knowing whose is whose.

import { announce, empty, trouble } from "../announce.js";
import { get } from "../api.js";
import { blindPair, pairList, resultTable, sent, waiting } from "../blind.js";
import { progress, statusText } from "../cells.js";
import { button, fill, h, icon } from "../dom.js";
import { choice, field, stepper } from "../fields.js";
import * as jobs from "../jobs.js";
import { isPlain } from "../keyboard.js";
import * as models from "../models.js";
import { record, requestsOf, store, tally } from "../pairs.js";
import { address, go } from "../router.js";
import * as settings from "../settings.js";

/** The view. */
export function open(main, at) {
  const left = new AbortController();
  const place = h("div");
  fill(
    main,
    h(
      "div",
      { class: "compare" },
      h("h1", {}, "Compare"),
      h(
        "p",
        { class: "lead" },
        "Two models draw the same prompts. You choose without knowing which is which.",
      ),
      place,
    ),
  );
  let stopJob = () => {};
  let choose = null;

  async function begin() {
    stopJob();
    choose = null;
    await models.load(left.signal);
    if (at.query.pair) return existing(at.query.pair.split(",").slice(0, 2));
    if (!at.query.job) return form();
    const job = await jobs.adopt(at.query.job, left.signal);
    run(job, (at.query.models ?? "").split("\n"));
  }

  function form() {
    const names = models.known().map((model) => model.name);
    if (names.length < 2)
      return void fill(
        place,
        empty(
          "One model is not enough",
          "This server offers one model only. Select two pictures in the gallery to compare them blind.",
          h("a", { class: "button", href: "#/gallery" }, icon("images"), h("span", {}, "To the gallery")),
        ),
      );
    let [first, second, rounds] = [names[0], names[1], "2"];
    if (names.includes("scenes") && names.includes("gan-cls")) [first, second] = ["scenes", "gan-cls"];
    const prompts = h("textarea", {
      rows: 4,
      dir: "auto",
      value: settings.current().prompt || "a cat left of a pizza\nthree stars",
    });
    const text = field("Prompts", prompts, "One a line.");
    const count = h("span", { class: "hint" });
    const lines = () =>
      prompts.value
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    const tell = () => {
      count.textContent = `${lines().length * Number(rounds)} pairs`;
    };
    prompts.addEventListener("input", tell);
    tell();
    const one = field(
      "First model",
      choice(names, first, (name) => {
        first = name;
      }),
    );
    const other = field(
      "Second model",
      choice(names, second, (name) => {
        second = name;
      }),
    );
    fill(
      place,
      h(
        "form",
        {
          class: "panel wide",
          "aria-label": "What to compare",
          on: {
            submit: (event) => {
              event.preventDefault();
              text.complain(lines().length ? "" : "Write one prompt at least.");
              other.complain(first === second ? "Choose two different models." : "");
              if (!lines().length || first === second) return;
              const job = jobs.submit(
                requestsOf(lines(), [first, second], Number(rounds)),
                `Comparison: ${lines().length === 1 ? lines()[0] : `${lines().length} prompts`}`,
              );
              run(job, [first, second]);
            },
          },
        },
        h("div", { class: "pair" }, one, other),
        text,
        h(
          "div",
          { class: "row wrap" },
          h("span", {}, "Pairs of each prompt"),
          stepper("Pairs of each prompt", { value: rounds, min: 1, max: 20 }, (value) => {
            rounds = value;
            tell();
          }),
          count,
        ),
        h(
          "div",
          { class: "row" },
          h("button", { type: "submit", class: "button primary" }, icon("compare"), h("span", {}, "Begin")),
        ),
      ),
    );
  }

  function run(job, names) {
    const total = job.cells.length / 2;
    let known = job.id ? record(job.id, total) : null;
    let reported = null;
    const state = h("span", { class: "state" });
    const bar = progress("Progress of the pictures to compare");
    const stop = button("close", "Cancel", () => jobs.cancel(job), { class: "button small" });
    const table = h("div", { class: "blind" });
    fill(place, h("div", { class: "row spread" }, state, stop), bar, table);

    const ready = (pair) => job.cells[2 * pair].state === "done" && job.cells[2 * pair + 1].state === "done";
    const open = () => known.votes.findIndex((vote, pair) => vote === null && ready(pair));
    const settled = (pair) => known.votes[pair] !== null || (jobs.isOver(job) && !ready(pair));

    function current() {
      state.textContent = statusText(job);
      bar.show(job);
      bar.hidden = stop.hidden = jobs.isOver(job);
      if (job.status === "refused") return void fill(table, trouble(new Error(job.error), form));
      if (!known) return void fill(table, waiting());
      const next = open();
      if (next === reported && next >= 0) return;
      reported = next;
      if (next >= 0) show(next);
      else if (known.votes.every((_, pair) => settled(pair))) finish();
      else fill(table, waiting());
    }

    function show(pair) {
      const images = [job.cells[2 * pair].image, job.cells[2 * pair + 1].image];
      const prompt = (job.requests[2 * pair] ?? {}).prompt ?? "";
      const order = known.sides[pair] ? [1, 0] : [0, 1];
      const done = known.votes.filter((vote) => vote !== null).length;
      choose = blindPair(
        table,
        prompt,
        order.map((which) => images[which]),
        `Pair ${done + 1} of ${total}`,
        async (side) => {
          const vote = side === null ? "none" : order[side];
          if (vote !== "none" && !(await sent(images[vote].id, images[1 - vote].id))) return;
          known.votes[pair] = vote;
          store(job.id, known);
          announce("Kept.");
          current();
        },
      );
    }

    function finish() {
      choose = null;
      const { won, none } = tally(names, known.votes);
      fill(
        table,
        h("h2", { tabindex: "-1" }, "The result"),
        resultTable(won, none),
        pairList(job, known, names),
        h(
          "div",
          { class: "row" },
          button(
            "again",
            "Compare more",
            () => {
              at = { ...at, query: {} };
              go("#/compare", true);
              begin();
            },
            { class: "button primary" },
          ),
        ),
      );
      table.querySelector("h2").focus({ preventScroll: true });
      announce(`${won.map(([name, count]) => `${name} ${count}`).join(", ")}, neither ${none}.`);
    }

    current();
    stopJob = jobs.onJob((other, event) => {
      if (other !== job) return;
      if (job.id && !known) known = record(job.id, total);
      if (event?.kind === "accepted") {
        at = { ...at, query: { job: job.id, models: names.join("\n") } };
        go(address("compare", at.query), true);
      }
      current();
    });
  }

  async function existing(ids) {
    const images = await Promise.all(
      ids.map((id) => get(`/api/images/${encodeURIComponent(id)}`, left.signal)),
    );
    const order = crypto.getRandomValues(new Uint8Array(1))[0] & 1 ? [1, 0] : [0, 1];
    const same = images[0].request.prompt === images[1].request.prompt;
    const prompt = same ? images[0].request.prompt : "";
    choose = blindPair(
      place,
      prompt,
      order.map((which) => images[which]),
      "Two pictures of the gallery",
      async (side) => {
        if (side !== null && !(await sent(images[order[side]].id, images[order[1 - side]].id))) return;
        choose = null;
        const names = order.map((which) => images[which].request.model);
        fill(
          place,
          empty(
            side === null ? "Neither" : `The ${side ? "right" : "left"} one`,
            `Left was drawn by ${names[0]}, right by ${names[1]}.`,
            h(
              "a",
              { class: "button primary", href: "#/gallery" },
              icon("images"),
              h("span", {}, "Back to the gallery"),
            ),
          ),
        );
      },
    );
  }

  const keys = (event) => {
    const side = { ArrowLeft: 0, a: 0, ArrowRight: 1, b: 1, s: null }[event.key];
    if (!choose || side === undefined || !isPlain(event) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    choose(side);
  };
  document.addEventListener("keydown", keys);
  const started = () => begin().catch((error) => error.name === "AbortError" || fill(place, trouble(error)));
  started();
  return {
    update(next) {
      if (JSON.stringify(next.query) === JSON.stringify(at.query)) return;
      at = next;
      started();
    },
    close() {
      left.abort();
      stopJob();
      document.removeEventListener("keydown", keys);
    },
  };
}
