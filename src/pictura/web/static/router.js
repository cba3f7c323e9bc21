// Where one is: "#/gallery?query=cat" is the view "gallery" with {query: "cat"}. The address says all of it.

import { channel } from "./store.js";

const moved = channel();
let before = null;

/** {name, id, query} of an address; "create" where it says nothing. */
export function route(hash = location.hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, id = null] = path.split("/").map(decodeURIComponent);
  return { name: name || "create", id, query: Object.fromEntries(new URLSearchParams(search)) };
}

/** The address of a view. */
export function address(name, query = {}, id = null) {
  const set = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const search = set.length ? `?${new URLSearchParams(set)}` : "";
  return `#/${name}${id === null ? "" : `/${encodeURIComponent(id)}`}${search}`;
}

/** Go there; `quietly` puts it in the place of where one is, for what is typed. */
export function go(hash, quietly = false) {
  if (hash === location.hash) return;
  if (quietly) {
    history.replaceState(history.state, "", hash);
    before = location.hash;
  } else location.hash = hash;
}

/** Go back to where one came from inside this page, else to `otherwise`. */
export function back(otherwise) {
  if (history.state?.within) history.back();
  else go(otherwise, false);
}

/** listener(route) now and whenever one has gone elsewhere. */
export function start(listener) {
  moved.listen(listener);
  window.addEventListener("hashchange", () => {
    if (before !== null && before !== location.hash) history.replaceState({ within: true }, "");
    before = location.hash;
    moved.tell(route());
  });
  before = location.hash;
  moved.tell(route());
}
