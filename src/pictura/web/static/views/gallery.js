// Gallery: every picture there is, found by its words and by what made it.

import { announce, empty, toast, trouble } from "../announce.js";
import { asked, download, hasKey, picture, thumbnail } from "../api.js";
import { button, fill, h, icon, visible } from "../dom.js";
import { filterBar, fromQuery } from "../filters.js";
import * as jobs from "../jobs.js";
import { isPlain } from "../keyboard.js";
import { pages } from "../pages.js";
import { onRated } from "../ratings.js";
import { address, go } from "../router.js";
import { selection } from "../selection.js";
import { virtual } from "../virtual.js";

/** The view. */
export function open(main, at) {
  const left = new AbortController();
  const start = at.query;
  let found = null;
  let fresh = 0;
  const bar = filterBar(start, (query) => go(address("gallery", query), true) ?? look(query));
  const note = h("p", { class: "gallery-count" });
  const news = button("up", "", () => look(here()), { class: "button chip", hidden: true });
  const chosen = selection(() => grid.refresh());
  const exported = h(
    "a",
    { class: "button", download: "pictures.zip", on: { click: keyed } },
    icon("down"),
    h("span", {}, "Download all found"),
  );
  const place = h("div");
  const grid = virtual({ size, render: tile, update });
  let current = start;
  fill(
    main,
    h(
      "div",
      { class: "gallery" },
      h("h1", {}, "Gallery"),
      bar,
      h("div", { class: "row spread" }, h("div", { class: "row" }, note, news), exported),
      place,
    ),
    chosen.bar,
  );
  const here = () => current;

  function look(query) {
    current = query;
    found?.close();
    fresh = 0;
    news.hidden = true;
    grid.clear();
    found = pages(fromQuery(query), show);
    exported.href = `/api/export${asked(fromQuery(query))}`;
    show();
    window.scrollTo(0, 0);
  }

  /** A link carries no key: where there is one, the page fetches the file itself. */
  function keyed(event) {
    if (!hasKey()) return;
    event.preventDefault();
    download(exported.getAttribute("href"), "pictures.zip").catch((error) => toast(error.message, "bad"));
  }

  let told = "";
  function show() {
    if (found.error)
      return void fill(
        place,
        trouble(found.error, () => look(current)),
      );
    if (found.loading)
      return void fill(
        place,
        h(
          "div",
          { class: "tiles waiting", "aria-hidden": "true" },
          Array.from({ length: 18 }, () => h("div", { class: "skeleton tile" })),
        ),
      );
    const { count, complete } = found;
    const narrowed = Object.keys(current).length > 0;
    const number = `${count.toLocaleString("en")}${complete ? "" : "+"}`;
    const text = `${number} ${count === 1 ? "picture" : "pictures"}`;
    note.textContent = text;
    exported.hidden = count === 0;
    if (complete && told !== text) announce(`${text} found.`);
    if (complete) told = text;
    if (count === 0) {
      fill(
        place,
        narrowed
          ? empty("Nothing found", "No picture has all of this. Fewer words or filters find more.")
          : empty(
              "No pictures yet",
              "What you draw is kept here for good.",
              h(
                "a",
                { class: "button primary", href: "#/create" },
                icon("brush"),
                h("span", {}, "Draw the first one"),
              ),
            ),
      );
    } else if (!place.contains(grid.box)) fill(place, grid.box);
    grid.count = count;
    grid.refresh();
  }

  function size(width) {
    const gap = width < 600 ? 6 : 12;
    const columns = Math.max(
      2,
      Math.floor((width + gap) / ((width < 600 ? 120 : width < 1800 ? 176 : 220) + gap)),
    );
    return { columns, gap, side: Math.floor((width - gap * (columns - 1)) / columns) };
  }

  function tile(at) {
    const image = h("img", { alt: "", loading: "lazy", decoding: "async" });
    const link = h("a", {}, image, h("span", { class: "tile-words", "aria-hidden": "true" }));
    const box = h("input", {
      type: "checkbox",
      tabindex: "-1",
      "aria-label": "Select",
      on: { change: () => chosen.toggle(found.item(at)) },
    });
    return h(
      "li",
      { class: "tile" },
      link,
      h("span", { class: "tile-stars" }),
      h("span", { class: "tile-check" }, box),
    );
  }

  function update(tile, at) {
    const item = found.item(at);
    tile.classList.toggle("skeleton", item === null);
    const box = tile.querySelector("input");
    box.checked = item !== null && chosen.has(item.id);
    tile.classList.toggle("selected", box.checked);
    const state = item && `${item.id} ${item.stars}`;
    if (tile.dataset.state === state) return;
    const [link, stars] = tile.children;
    const image = link.firstChild;
    tile.dataset.state = state ?? "";
    tile.dataset.id = item?.id ?? "";
    if (item === null) return;
    const prompt = visible(item.request.prompt || `Picture of seed ${item.request.seed}`);
    link.href = address("picture", {}, item.id);
    image.alt = prompt;
    image.onerror = () => {
      image.onerror = null;
      image.src = picture(item.id);
    };
    image.src = thumbnail(item.id, 256);
    link.lastChild.textContent = prompt;
    box.setAttribute("aria-label", `Select ${prompt}`);
    stars.textContent = item.stars ? "★".repeat(item.stars) : "";
    stars.setAttribute("aria-hidden", "true");
  }

  const keys = (event) => {
    const tile = event.target.closest?.(".tile");
    if (event.key !== "x" || !tile || !isPlain(event)) return;
    const at = Number(tile.getAttribute("aria-posinset")) - 1;
    const item = found.item(at);
    if (!item) return;
    event.preventDefault();
    chosen.toggle(item);
    announce(chosen.has(item.id) ? "Selected." : "No longer selected.");
  };
  document.addEventListener("keydown", keys);
  const stopRated = onRated((item) => found.change(item));
  const stopJobs = jobs.onJob((_, event) => {
    if (event?.kind !== "picture") return;
    fresh += 1;
    news.querySelector("span").textContent = `${fresh} new ${fresh === 1 ? "picture" : "pictures"}`;
    news.hidden = false;
  });

  news.append(h("span"));
  look(start);
  bar.load(left.signal).catch((error) => error.name === "AbortError" || toast(error.message, "bad"));

  return {
    search: () => bar.search(),
    update(next) {
      bar.set(next.query);
      if (JSON.stringify(next.query) !== JSON.stringify(current)) look(next.query);
    },
    /** Where a picture is among those found. */
    around(id) {
      const at = found.indexOf(id);
      return at < 0 ? null : { at, count: found.count, item: (other) => found.item(other) };
    },
    close() {
      left.abort();
      found.close();
      grid.close();
      stopRated();
      stopJobs();
      document.removeEventListener("keydown", keys);
    },
  };
}
