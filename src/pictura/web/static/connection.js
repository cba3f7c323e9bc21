// Whether the server answers, and when to try again. Whoever waits here waits until it is worth a try.

import { announce } from "./announce.js";
import { button, fill, h, icon } from "./dom.js";
import { channel } from "./store.js";

const state = { lost: false, until: 0 };
const turned = channel();
let wake = channel();

/** The server answered. */
export function found() {
  if (!state.lost) return;
  state.lost = false;
  const banner = document.getElementById("banner");
  banner.hidden = true;
  fill(banner);
  announce("Connected again.");
  turned.tell(true);
}

/** The server did not answer. */
export function lost() {
  if (state.lost) return;
  state.lost = true;
  const retry = button("again", "Try now", () => wake.tell());
  const text =
    "The server does not answer. Nothing is lost: what you sent is kept, and this page goes on by itself.";
  fill(document.getElementById("banner"), icon("warn"), h("span", {}, text), retry).hidden = false;
  turned.tell(false);
}

export const isLost = () => state.lost;

/** listener(found) each time the connection is lost or found. */
export const onTurn = turned.listen;

/**
 * Wait before try number `attempt` (0, 1, ...): longer each time, at most 8 seconds, never in step with other
 * pages; shorter when the browser is online again or somebody presses "Try now".
 */
export function pause(attempt, signal, least = 0) {
  const ms = Math.max(least * 1000, Math.min(8000, 400 * 2 ** attempt) * (0.75 + Math.random() / 2));
  return new Promise((resolve, reject) => {
    const stop = wake.listen(done);
    const timer = setTimeout(done, ms);
    window.addEventListener("online", done);
    signal?.addEventListener("abort", given);
    function tidy() {
      stop();
      clearTimeout(timer);
      window.removeEventListener("online", done);
      signal?.removeEventListener("abort", given);
    }
    function done() {
      tidy();
      resolve();
    }
    function given() {
      tidy();
      reject(signal.reason);
    }
    if (signal?.aborted) given();
  });
}
