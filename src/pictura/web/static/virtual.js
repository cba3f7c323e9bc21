// A grid of any number of tiles of which only those in sight are in the document.
//
// The page scrolls over a box as tall as all rows together; browsers end at some ten million pixels, so a
// taller one is compressed: its scroll position stands for a place that many times further down.

import { h } from "./dom.js";

const TALLEST = 8_000_000; // px
const OVER = 2; // rows more than are in sight, on each side

/**
 * size(width) -> {columns, side, gap}; render(at) -> element, tile of number `at`; update(element, at) makes
 * it current. `count` is set from outside, then `refresh()`.
 */
export function virtual({ size, render, update }) {
  const box = h("ul", { class: "tiles", "aria-label": "Pictures" });
  const tiles = new Map();
  let count = 0;
  let focused = 0; // the tile that Tab comes to; always in the document, so that focus is never lost
  let grid = { columns: 1, side: 100, gap: 0 };
  let waiting = false;

  const rows = () => Math.ceil(count / grid.columns);
  const row = () => grid.side + grid.gap;
  const tall = () => Math.max(0, rows() * row() - grid.gap);
  const shownHeight = () => Math.min(tall(), TALLEST);

  /** Where the top of the window is, measured in the full height. */
  function top() {
    const here = -box.getBoundingClientRect().top;
    const room = shownHeight() - window.innerHeight;
    if (tall() <= TALLEST || here <= 0) return here;
    return here < room ? (here * (tall() - window.innerHeight)) / room : here + tall() - shownHeight();
  }

  function refresh() {
    waiting = false;
    if (!box.isConnected) return;
    grid = size(box.clientWidth);
    box.style.height = `${shownHeight()}px`;
    const from = top();
    const first = Math.max(0, Math.floor(from / row()) - OVER) * grid.columns;
    const last = Math.min(count, (Math.ceil((from + window.innerHeight) / row()) + OVER) * grid.columns);
    const offset = from + box.getBoundingClientRect().top; // 0 where nothing is compressed
    const wanted = new Set();
    for (let at = first; at < last; at += 1) wanted.add(at);
    if (focused < count) wanted.add(focused);
    for (const [at, tile] of tiles) {
      if (!wanted.has(at)) {
        tile.remove();
        tiles.delete(at);
      }
    }
    for (const at of [...wanted].sort((a, b) => a - b)) place(at, offset);
  }

  function place(at, offset) {
    let tile = tiles.get(at);
    if (!tile) {
      tile = render(at);
      tiles.set(at, tile);
      const after = [...tiles.keys()].filter((other) => other > at).sort((a, b) => a - b)[0];
      box.insertBefore(tile, tiles.get(after) ?? null); // in their order, for whoever reads the document
    }
    update(tile, at);
    tile.setAttribute("aria-posinset", String(at + 1));
    tile.setAttribute("aria-setsize", String(count));
    const link = tile.querySelector("a");
    if (link) link.tabIndex = at === focused ? 0 : -1;
    const x = (at % grid.columns) * (grid.side + grid.gap);
    const y = Math.floor(at / grid.columns) * row() - offset;
    tile.style.width = tile.style.height = `${grid.side}px`;
    tile.style.transform = `translate(${x}px, ${y}px)`;
  }

  function soon() {
    if (!waiting) requestAnimationFrame(refresh);
    waiting = true;
  }

  /** Bring number `at` into sight. */
  function reveal(at) {
    const y = Math.floor(at / grid.columns) * row();
    const from = top();
    const head = 140; // what lies above the pictures while one scrolls
    const low = window.innerHeight - grid.side - 24;
    if (y - from < head || y - from > low) {
      const to = y - from < head ? y - head : y - low;
      const scale =
        tall() > TALLEST ? (shownHeight() - window.innerHeight) / (tall() - window.innerHeight) : 1;
      window.scrollTo(0, box.getBoundingClientRect().top + window.scrollY + to * scale);
    }
  }

  function focus(at) {
    focused = Math.max(0, Math.min(count - 1, at));
    reveal(focused);
    refresh();
    tiles.get(focused)?.querySelector("a")?.focus({ preventScroll: true });
  }

  function key(event) {
    const screen = Math.max(1, Math.floor(window.innerHeight / row())) * grid.columns;
    const by = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: grid.columns,
      ArrowUp: -grid.columns,
      PageDown: screen,
      PageUp: -screen,
    };
    const to =
      event.key === "Home" ? 0 : event.key === "End" ? count - 1 : by[event.key] && focused + by[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey || !event.target.matches("a"))
      return;
    event.preventDefault();
    focus(to);
  }

  box.addEventListener("keydown", key);
  box.addEventListener("focusin", (event) => {
    const found = [...tiles].find(([, tile]) => tile.contains(event.target));
    if (found) focused = found[0];
  });
  window.addEventListener("scroll", soon, { passive: true });
  window.addEventListener("resize", soon);
  return {
    box,
    refresh: soon,
    focus,
    set count(number) {
      count = number;
      focused = Math.min(focused, Math.max(0, number - 1));
      soon();
    },
    /** Show them anew from the first. */
    clear() {
      for (const tile of tiles.values()) tile.remove();
      tiles.clear();
      focused = 0;
    },
    close() {
      window.removeEventListener("scroll", soon);
      window.removeEventListener("resize", soon);
    },
  };
}
