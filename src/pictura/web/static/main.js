// The page's start: the bar above, the view that the address names, and what goes on whatever one looks at.

import { get } from "./api.js";
import { announce } from "./announce.js";
import { button, fill, h, icon } from "./dom.js";
import * as drop from "./drop.js";
import * as jobs from "./jobs.js";
import * as key from "./key.js";
import * as keyboard from "./keyboard.js";
import { address, go, start } from "./router.js";
import { themeButton } from "./theme.js";
import * as compare from "./views/compare.js";
import * as create from "./views/create.js";
import * as detail from "./views/detail.js";
import * as gallery from "./views/gallery.js";
import * as grid from "./views/grid.js";
import * as queue from "./views/queue.js";

const VIEWS = { create, gallery, compare, grid, queue };
const TABS = [
  ["create", "Create", "brush"],
  ["gallery", "Gallery", "images"],
  ["grid", "Grid", "grid"],
  ["compare", "Compare", "compare"],
  ["queue", "Queue", "queue"],
];

let shown = { name: null, view: null, at: null };
let next = null; // what is to be done with the view that comes

/** Show what the address names; a picture opens above the view that is there. */
function show(at) {
  if (at.name === "picture" && at.id) {
    if (!shown.view) open({ name: "gallery", id: null, query: {} });
    return detail.open(at.id, { around: shown.view.around?.bind(shown.view), under: shown.at });
  }
  detail.close();
  if (at.name === shown.name && shown.view.update) {
    shown.at = address(at.name, at.query, at.id);
    return shown.view.update(at);
  }
  return open(at.name in VIEWS ? at : { name: "create", id: null, query: {} }, shown.name !== null);
}

function open(at, moves = false) {
  const main = document.getElementById("main");
  shown.view?.close?.();
  fill(main).dataset.view = at.name;
  window.scrollTo(0, 0);
  shown = { name: at.name, view: VIEWS[at.name].open(main, at), at: address(at.name, at.query, at.id) };
  document.title = `${TABS.find(([name]) => name === at.name)[1]} · Pictura`;
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.dataset.name === at.name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (moves) main.focus({ preventScroll: true });
  const then = next;
  next = null;
  then?.(shown.view);
}

/** Do something with a view, going there first. */
function reach(name, then) {
  if (shown.name === name) return then(shown.view);
  next = then;
  go(address(name));
}

/** How many jobs are under way, on the tab of the queue; and each end said aloud. */
function tally(job, event) {
  const open = jobs.all().filter((item) => !jobs.isOver(item)).length;
  const mark = document.querySelector("#tabs [data-name=queue] .count");
  mark.hidden = open === 0;
  mark.textContent = String(open);
  if (event?.kind !== "over" && event?.kind !== "refused") return;
  const made = job.cells.filter((cell) => cell.state === "done").length;
  const failed = job.cells.filter((cell) => cell.state === "failed").length;
  const parts = [
    `${made} ${made === 1 ? "picture" : "pictures"} ready`,
    failed && `${failed} failed`,
    job.status === "cancelled" && "cancelled",
  ];
  announce(job.status === "refused" ? job.error : `${parts.filter(Boolean).join(", ")}.`);
}

async function begin() {
  fill(
    document.getElementById("tabs"),
    TABS.map(([name, text, mark]) =>
      h(
        "a",
        { href: address(name), data: { name } },
        icon(mark),
        h("span", {}, text),
        name === "queue" && h("span", { class: "count", hidden: true }),
      ),
    ),
  );
  const keyButton = button("key", "", () => key.ask(), {
    class: "button bare",
    hint: "API key",
    hidden: true,
  });
  fill(
    document.getElementById("tools"),
    keyButton,
    themeButton(),
    button("help", "", keyboard.help, { class: "button bare", hint: "Keys" }),
  );
  key.start();
  keyboard.start();
  keyboard.bind("/", () => reach("gallery", (view) => view.search()));
  keyboard.bind("p", () => reach("create", (view) => view.prompt()));
  drop.start();
  jobs.onJob(tally);
  jobs.resume();
  start(show);
  const info = await get("/api/info");
  keyButton.hidden = !info.key_needed;
}

window.addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault(); // a view was left while it was loading
});
begin();
