// The pictures of a search, any of 100,000 of them at once: pages of the history by their cursors, the last
// few dozen kept. What is drawn meanwhile does not move those that are shown.

import { asked, get } from "./api.js";

const PAGE = 60;
const KEPT = 40; // pages

/** Pages of what `filters` find. changed() is called when there is more to show. */
export function pages(filters, changed) {
  const stop = new AbortController();
  const held = new Map(); // page -> items, the one used last at the end
  const coming = new Set();
  let cursors = [null]; // of each page; null is the beginning
  let total = null;
  let more = true; // whether anything may follow the last known page
  let failed = null;

  async function index() {
    const answer = await get(`/api/pages${asked({ ...filters, every: PAGE })}`, stop.signal);
    total = answer.total;
    cursors = answer.cursors;
    more = false;
    changed();
  }

  async function fetchPage(page) {
    coming.add(page);
    try {
      const answer = await get(
        `/api/images${asked({ ...filters, limit: PAGE, cursor: cursors[page] })}`,
        stop.signal,
      );
      held.set(page, answer.items);
      while (held.size > KEPT) held.delete(held.keys().next().value);
      if (total === null) {
        more = answer.next !== null;
        if (answer.next !== null && cursors.length === page + 1) cursors.push(answer.next);
      }
      changed();
      if (page === 0 && total === null && more) await index().catch(() => {}); // else they come in turn
    } catch (error) {
      if (stop.signal.aborted) return;
      failed = error;
      changed();
    } finally {
      coming.delete(page);
    }
  }

  function known() {
    if (total !== null) return total;
    let count = 0;
    for (const [page, items] of held) count = Math.max(count, page * PAGE + items.length);
    return count;
  }

  fetchPage(0);

  return {
    /** How many there are, as far as it is known. */
    get count() {
      return known();
    },
    get complete() {
      return total !== null || !more;
    },
    get loading() {
      return held.size === 0 && !failed;
    },
    get error() {
      return failed;
    },
    /** Number `at`; null while it is being fetched. */
    item(at) {
      const page = Math.floor(at / PAGE);
      const items = held.get(page);
      if (items) {
        held.delete(page);
        held.set(page, items);
        return items[at % PAGE] ?? null;
      }
      if (page < cursors.length && !coming.has(page) && !failed) fetchPage(page);
      return null;
    },
    /** Put what has become of a picture in the place of what it was. */
    change(item) {
      for (const items of held.values()) {
        const at = items.findIndex((other) => other.id === item.id);
        if (at >= 0) items[at] = item;
      }
      changed();
    },
    /** Which number a picture has; -1 where its page is not here. */
    indexOf(id) {
      for (const [page, items] of held) {
        const at = items.findIndex((item) => item.id === id);
        if (at >= 0) return page * PAGE + at;
      }
      return -1;
    },
    close: () => stop.abort(),
  };
}
