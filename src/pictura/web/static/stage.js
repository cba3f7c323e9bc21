// Jobs of this page, newest first, each with its pictures as they form.

import { announce } from "./announce.js";
import { asked, get } from "./api.js";
import { cellView, progress, shape, statusText } from "./cells.js";
import { button, fill, h, icon, said, visible } from "./dom.js";
import { noteList } from "./facts.js";
import * as jobs from "./jobs.js";
import { named } from "./models.js";
import { restore } from "./settings.js";

/** A list of jobs that keeps itself current; `.close()` ends that. blank: what stands there without any. */
export function stage(blank) {
  const list = h("div", { class: "jobs" });
  const views = new Map();
  for (const job of jobs.all()) put(job);
  const stop = jobs.onJob((job, event) => {
    if (event?.kind === "dropped") {
      views.get(job.key)?.remove();
      views.delete(job.key);
    } else put(job, event);
    look();
  });
  function put(job, event = null) {
    if (job.adopted) return; // another view's, such as a grid's
    if (!views.has(job.key)) {
      const view = jobView(job);
      views.set(job.key, view);
      list.prepend(view);
    }
    views.get(job.key).show(event);
  }
  function look() {
    if (views.size && list.contains(blank)) blank.remove();
    else if (!views.size) fill(list, blank);
  }
  look();
  return Object.assign(list, { close: stop });
}

function jobView(job) {
  const request = job.requests[0];
  const ratio = shape(request.size ?? named(request.model ?? "")?.defaults.size);
  const cells = h("div", { class: "cells" });
  const bar = progress(`Progress of ${job.title || request.prompt}`);
  const state = h("span", { class: "state" });
  const stop = button("close", "Cancel", () => jobs.cancel(job), { class: "button small" });
  const use = button("sliders", "Use settings", () => restore(request, String(request.num_images ?? 1)), {
    class: "button small",
  });
  const away = button("close", "", () => jobs.drop(job), {
    class: "button bare small",
    hint: "Take it off this page; its pictures stay in the gallery",
  });
  const wrong = h("p", { class: "job-notes", hidden: true });
  const notes = h("div");
  const box = h(
    "article",
    { class: "job", "aria-label": visible(job.title || request.prompt) },
    h(
      "header",
      {},
      h("h2", { class: "job-title" }, job.title ? h("span", {}, job.title) : said(request.prompt)),
      h("div", { class: "row tight" }, state, stop, use, away),
    ),
    bar,
    cells,
    wrong,
    notes,
  );
  let quarter = 0;
  box.show = (event) => {
    while (cells.children.length > job.cells.length) cells.lastChild.remove();
    while (cells.children.length < job.cells.length) cells.append(cellView(request.prompt, { ratio }));
    if (event?.index !== undefined && event.kind !== "status")
      cells.children[event.index]?.show(job.cells[event.index]);
    else job.cells.forEach((cell, at) => cells.children[at].show(cell));
    cells.dataset.count = String(job.cells.length);
    bar.show(job);
    bar.hidden = jobs.isOver(job);
    stop.hidden = jobs.isOver(job) || Boolean(job.unwanted);
    away.hidden = !jobs.isOver(job);
    state.textContent = statusText(job);
    state.dataset.status = job.status;
    wrong.hidden = !job.error;
    fill(wrong, job.error && [icon("warn"), job.error]);
    if (job.status === "refused") cells.hidden = true;
    tellShare();
    if (!noted && jobs.isOver(job) && job.id) note();
  };
  let noted = false;
  async function note() {
    noted = true;
    try {
      const { items } = await get(`/api/images${asked({ job: job.id, limit: 100 })}`);
      fill(notes, noteList(items));
    } catch {
      // they stand beside each picture too
    }
  }
  function tellShare() {
    const now = Math.floor(Number(bar.getAttribute("aria-valuenow")) / 25);
    if (now > quarter && now < 4) announce(`${now * 25} percent drawn.`);
    quarter = Math.max(quarter, now);
  }
  return box;
}
