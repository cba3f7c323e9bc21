// Queue: what is being drawn, what waits, what has been drawn lately; anything unfinished can be cancelled.

import { empty, toast, trouble } from "../announce.js";
import { asked, patiently, thumbnail } from "../api.js";
import { progress, statusText } from "../cells.js";
import { button, fill, h, icon, said, visible } from "../dom.js";
import { choice } from "../fields.js";
import * as jobs from "../jobs.js";
import { address } from "../router.js";

const EVERY = 2000; // ms
const STATES = [
  ["", "All"],
  ["running", "Drawing"],
  ["queued", "Waiting"],
  ["done", "Done"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
];

/** The view. */
export function open(main, at) {
  const left = new AbortController();
  let status = at.query.status ?? "";
  const pick = choice(STATES, status, (value) => {
    status = value;
    load();
  });
  pick.setAttribute("aria-label", "Which jobs");
  const list = h(
    "div",
    { class: "queue", "aria-live": "off" },
    Array.from({ length: 4 }, () => h("div", { class: "skeleton line" })),
  );
  fill(
    main,
    h("div", { class: "queue-view" }, h("div", { class: "row spread" }, h("h1", {}, "Queue"), pick), list),
  );
  const rows = new Map();
  let timer = 0;

  async function load() {
    clearTimeout(timer);
    try {
      const answer = await patiently("GET", `/api/jobs${asked({ status, limit: 50 })}`, {
        signal: left.signal,
      });
      show(answer.items);
    } catch (error) {
      if (!left.signal.aborted) fill(list, trouble(error, load));
      return;
    }
    timer = setTimeout(load, document.hidden ? 5 * EVERY : EVERY);
  }

  function show(items) {
    const unsent = status ? [] : jobs.all().filter((job) => !job.id);
    const all = [...unsent.map((job) => [job.key, job]), ...items.map((item) => [item.id, seen(item)])];
    if (!all.length) {
      rows.clear();
      return void fill(
        list,
        empty(
          "Nothing here",
          "Jobs appear here from the moment they are sent.",
          h(
            "a",
            { class: "button primary", href: "#/create" },
            icon("brush"),
            h("span", {}, "Draw something"),
          ),
        ),
      );
    }
    const wanted = all.map(([key, job]) => {
      if (!rows.has(key)) rows.set(key, row(job));
      rows.get(key).show(job);
      return rows.get(key);
    });
    const there = [...list.children];
    if (wanted.length !== there.length || wanted.some((item, place) => item !== there[place])) {
      const had = document.activeElement;
      fill(list, wanted);
      if (had?.isConnected) had.focus({ preventScroll: true });
    }
  }

  /** A job of the server's in the shape of one of ours, with the steps that this page has seen of it. */
  function seen(item) {
    const mine = jobs.byId(item.id);
    const cells = mine ? mine.cells : Array.from({ length: item.total }, () => ({ state: "waiting" }));
    if (!mine) {
      for (const image of item.images) cells[image.index] = { state: "done", image };
      for (const failure of item.failures) cells[failure.index] = { state: "failed", error: failure.error };
    }
    return { ...item, cells, title: mine?.title ?? "" };
  }

  function row(first) {
    let job = first;
    const state = h("span", { class: "state" });
    const name = h("div", { class: "queue-words grow" });
    const bar = progress("Progress");
    const images = h("div", { class: "queue-images" });
    const errors = h("div");
    const stop = button(
      "close",
      "Cancel",
      async () => {
        stop.disabled = true;
        try {
          const mine = job.id ? jobs.byId(job.id) : jobs.all().find((other) => other.key === job.key);
          if (mine) await jobs.cancel(mine);
          else await patiently("DELETE", `/api/jobs/${encodeURIComponent(job.id)}`);
          load();
        } catch (error) {
          toast(error.message, "bad");
        }
        stop.disabled = false;
      },
      { class: "button small" },
    );
    const box = h(
      "article",
      { class: "queue-row" },
      h("div", { class: "row spread" }, name, state, stop),
      bar,
      images,
      errors,
    );
    box.show = (now) => {
      job = now;
      const words = now.title || (now.prompt ?? now.requests[0].prompt);
      if (name.dataset.words !== words) {
        name.dataset.words = words;
        const when = new Date(now.at ?? now.made_at / 1000); // the server counts microseconds
        fill(
          name,
          h("strong", {}, said(words)),
          h("time", { class: "hint", datetime: when.toISOString() }, when.toLocaleString()),
        );
        bar.setAttribute("aria-label", `Progress of ${visible(words)}`);
        stop.setAttribute("aria-label", `Cancel ${visible(words)}`);
      }
      state.textContent = statusText(now);
      state.dataset.status = now.status;
      stop.hidden = bar.hidden = jobs.isOver(now);
      bar.show(now);
      const made = now.cells.filter((cell) => cell.image).slice(0, 8);
      if (Number(images.dataset.made ?? 0) !== made.length) {
        images.dataset.made = String(made.length);
        fill(
          images,
          made.map(({ image }) =>
            h(
              "a",
              { href: address("picture", {}, image.id) },
              h("img", {
                src: thumbnail(image.id, 128),
                alt: visible(words) || `Picture of seed ${image.seed}`,
                width: 64,
                height: 64,
              }),
            ),
          ),
        );
      }
      const failed = [
        ...new Set(now.cells.filter((cell) => cell.error).map((cell) => cell.error)),
        now.error,
      ].filter(Boolean);
      fill(
        errors,
        failed.map((text) => h("p", { class: "error" }, text)),
      );
    };
    return box;
  }

  load();
  return {
    update() {},
    close() {
      left.abort();
      clearTimeout(timer);
    },
  };
}
