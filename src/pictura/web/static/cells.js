// The pictures of a job while they form: an empty place, a preview that gets clearer, the picture.

import { thumbnail } from "./api.js";
import { fill, h, icon, visible } from "./dom.js";
import { address } from "./router.js";

/** Sizes "WxH" as width / height; 1 where it says nothing. */
export function shape(size) {
  const [width, height] = Array.isArray(size) ? size : String(size ?? "").split("x");
  return Number(width) / Number(height) || 1;
}

/** An element for one picture of a job. `.show(cell)` makes it current. */
export function cellView(prompt, { width = 512, ratio = 1 } = {}) {
  const image = h("img", { alt: "", hidden: true, decoding: "async" });
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  const note = h("span", { class: "cell-note" });
  const box = h("div", { class: "cell waiting", vars: { "--ratio": String(ratio) } }, image, bar, note);
  let shown = null;
  box.show = (cell) => {
    box.className = `cell ${cell.state}`;
    if (cell.state === "done") {
      if (shown !== cell.image.id) done(cell);
      return;
    }
    if (cell.preview && cell.preview !== shown) {
      image.src = shown = cell.preview;
      image.hidden = false;
    }
    box.style.setProperty("--done", cell.steps ? `${(100 * cell.step) / cell.steps}%` : "0%");
    if (cell.state === "failed") fill(note, icon("warn"), h("span", {}, cell.error));
    else note.textContent = cell.state === "drawing" && cell.steps ? `${cell.step} / ${cell.steps}` : "";
  };
  function done(cell) {
    shown = cell.image.id;
    const link = h("a", { href: address("picture", {}, cell.image.id), class: "cell-link" }, image);
    image.addEventListener("error", () => {
      if (!image.src.endsWith(cell.image.url)) image.src = cell.image.url; // where no small one is to be had
    });
    const next = new Image(); // what is there stays until the whole picture is
    next.onload = next.onerror = () => {
      image.src = thumbnail(cell.image.id, width);
      image.hidden = false;
      image.alt = visible(prompt || `Picture of seed ${cell.image.seed}`);
    };
    next.src = thumbnail(cell.image.id, width);
    image.alt = visible(prompt || `Picture of seed ${cell.image.seed}`);
    fill(box, link, h("span", { class: "cell-seed" }, `seed ${cell.image.seed}`));
  }
  return box;
}

/** How far a whole job is, 0 to 1. */
export function share(job) {
  const parts = job.cells.map((cell) =>
    cell.state === "done" || cell.state === "failed" ? 1 : cell.steps ? cell.step / cell.steps : 0,
  );
  return parts.length ? parts.reduce((sum, part) => sum + part, 0) / parts.length : 0;
}

const WORDS = {
  sending: "Sending",
  queued: "Waiting",
  running: "Drawing",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  refused: "Refused",
};

/** How a job is, in a few words. */
export function statusText(job) {
  if (job.unwanted && !job.id) return "Cancelling when the server answers";
  const made = job.cells.filter((cell) => cell.state === "done").length;
  const of =
    job.cells.length > 1 && !["sending", "queued", "refused"].includes(job.status)
      ? ` · ${made} of ${job.cells.length}`
      : "";
  return `${WORDS[job.status] ?? job.status}${of}`;
}

/** A progress bar of a job. `.show(job)` makes it current. */
export function progress(label) {
  const bar = h(
    "div",
    { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": label },
    h("span"),
  );
  bar.show = (job) => {
    const percent = Math.round(100 * share(job));
    bar.setAttribute("aria-valuenow", String(percent));
    bar.style.setProperty("--done", `${percent}%`);
  };
  return bar;
}
