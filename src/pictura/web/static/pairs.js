// Pairs of pictures whose makers are not told, and what was chosen of them. Kept per job, so that a reload
// neither asks again nor shows the same pair the other way round.

import { keep, recall } from "./store.js";

/** [model of picture 0, model of picture 1] for each request pair of a job drawn by `requestsOf`. */
export function requestsOf(prompts, models, rounds) {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  const each = prompts.flatMap((prompt, at) =>
    Array.from({ length: rounds }, (_, round) => ({ prompt, seed: seed + at * rounds + round })),
  );
  return each.flatMap((request) => models.map((model) => ({ ...request, model })));
}

/** What is known of the pairs of a job: {sides, votes}; sides[n] is 1 where picture 0 is on the right. */
export function record(id, count) {
  const kept = recall(`compare.${id}`, null);
  if (kept?.sides?.length === count) return kept;
  const sides = Array.from(crypto.getRandomValues(new Uint8Array(count)), (byte) => byte & 1);
  return store(id, { sides, votes: Array(count).fill(null) });
}

/** Keep a record; that record. */
export function store(id, made) {
  keep(`compare.${id}`, made);
  return made;
}

/** [[model, won], ...] and how many pairs had no better one. votes: 0, 1 (of a pair), "none" or null. */
export function tally(models, votes) {
  const won = models.map((name, which) => [name, votes.filter((vote) => vote === which).length]);
  return { won, none: votes.filter((vote) => vote === "none").length };
}
