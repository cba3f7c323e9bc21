// Jobs of this page: what is not sent yet, what is being made, what has been made. Kept over reloads.
//
// A job is put into the outbox before it is sent and leaves it when the server has answered; it is sent again
// with the same idempotency key, byte for byte, until then. Jobs under way are followed by their events.

import { call, get, patiently, picture } from "./api.js";
import { pause } from "./connection.js";
import { parse, write } from "./json.js";
import { events } from "./sse.js";
import { channel, keep, namesOf, recall } from "./store.js";

const STREAMS = 2; // a browser opens six connections to a host, over all its tabs
const POLL = 3000; // ms
const KEPT = 12; // jobs that a reload shows again
const OVER = new Set(["done", "failed", "cancelled", "refused"]);

const jobs = new Map(); // key -> job
const news = channel();
const streams = new Map(); // key -> AbortController

/** listener(job, event) whenever something is new; event: {kind, index?} or null. */
export const onJob = news.listen;
export const isOver = (job) => OVER.has(job.status);
export const all = () => [...jobs.values()];
export const byId = (id) => all().find((job) => job.id === id) ?? null;

function blank(key, requests, title) {
  const total = requests.reduce((sum, request) => sum + (request.num_images ?? 1), 0);
  return {
    key,
    id: null,
    status: "sending",
    requests,
    title,
    total,
    cells: cells(total),
    error: null,
    parameter: null,
    after: 0,
    at: Date.now(),
  };
}

const cells = (total) =>
  Array.from({ length: total }, () => ({
    state: "waiting",
    step: 0,
    steps: null,
    preview: null,
    image: null,
    error: null,
  }));

/** Send `requests` as one job; the job at once, its id when the server has it. */
export function submit(requests, title = "") {
  const key = crypto.randomUUID?.() ?? String(Date.now()) + Math.random();
  const job = blank(key, requests, title);
  job.body = write({ requests });
  jobs.set(key, job);
  remember(job);
  news.tell(job, null);
  deliver(job);
  return job;
}

async function deliver(job) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await call("POST", "/api/jobs", {
        json: job.body,
        extra: { "idempotency-key": job.key },
      });
      take(job, answer);
      remember(job);
      news.tell(job, { kind: "accepted" });
      return job.unwanted ? cancel(job) : follow();
    } catch (error) {
      if (!error.passing) {
        Object.assign(job, { status: "refused", error: error.message, parameter: error.parameter ?? null });
        remember(job);
        return news.tell(job, { kind: "refused" });
      }
      await pause(attempt, undefined, error.after);
    }
  }
}

/** Put what the server says of a job into ours. */
function take(job, answer) {
  Object.assign(job, { id: answer.id, status: answer.status, body: null });
  if (answer.total !== job.cells.length) job.cells = cells(answer.total);
  job.total = answer.total;
  for (const image of answer.images) finish(job, image);
  for (const failure of answer.failures)
    Object.assign(job.cells[failure.index], { state: "failed", error: failure.error, preview: null });
}

function finish(job, image) {
  Object.assign(job.cells[image.index], {
    state: "done",
    preview: null,
    image: { id: image.id, seed: image.seed, url: picture(image.id) },
  });
}

/** Let streams run for the newest jobs under way; others are asked for now and then. */
function follow() {
  if (document.hidden) return;
  const open = all().filter((job) => job.id && !isOver(job) && !streams.has(job.key));
  const room = Math.max(0, STREAMS - streams.size);
  for (const job of room ? open.slice(-room) : []) watch(job);
}

async function ask() {
  const left = all().filter((job) => job.id && !isOver(job) && !streams.has(job.key));
  for (const job of document.hidden ? [] : left) {
    try {
      take(job, await call("GET", `/api/jobs/${encodeURIComponent(job.id)}`));
      news.tell(job, { kind: isOver(job) ? "over" : "status" });
    } catch {
      // its turn comes again
    }
  }
  setTimeout(ask, POLL);
}

async function watch(job) {
  const control = new AbortController();
  streams.set(job.key, control);
  try {
    for (let attempt = 0; !isOver(job); attempt += 1) {
      try {
        const path = `/api/jobs/${encodeURIComponent(job.id)}/events`;
        for await (const event of events(path, { after: job.after, signal: control.signal })) {
          attempt = 0;
          if (event.id) job.after = event.id;
          apply(job, event.event, parse(event.data));
        }
        if (!isOver(job)) take(job, await get(`/api/jobs/${encodeURIComponent(job.id)}`, control.signal));
      } catch (error) {
        if (control.signal.aborted) return;
        if (error.status && !error.passing) {
          Object.assign(job, { status: "refused", error: error.message });
          break;
        }
      }
      if (!isOver(job)) await pause(attempt, control.signal);
    }
    news.tell(job, { kind: "over" });
  } catch (error) {
    if (!control.signal.aborted) throw error;
  } finally {
    streams.delete(job.key);
    remember(job);
    follow();
  }
}

function apply(job, kind, data) {
  const cell = job.cells[data.index];
  if (kind === "status") job.status = data.status;
  else if (!cell) return;
  else if (kind === "picture") finish(job, data);
  else if (kind === "failure") Object.assign(cell, { state: "failed", error: data.error, preview: null });
  else if (cell.state !== "done") {
    Object.assign(cell, { state: "drawing", step: data.step, steps: data.total });
    if (kind === "preview" && data.image) cell.preview = `data:image/png;base64,${data.image}`;
  }
  news.tell(job, { kind, index: data.index });
}

/** Stop a job; its finished pictures stay. */
export async function cancel(job) {
  if (!job.id) {
    job.unwanted = true; // the server may have it without our knowing: it is stopped when we hear of it
    remember(job);
    news.tell(job, { kind: "status" });
    return job;
  }
  take(job, await patiently("DELETE", `/api/jobs/${encodeURIComponent(job.id)}`));
  news.tell(job, { kind: streams.has(job.key) ? "status" : "over" }); // a stream tells the end itself
  return job;
}

/** Forget a job here; the server keeps what it has of it. */
export function drop(job) {
  streams.get(job.key)?.abort();
  jobs.delete(job.key);
  remember(job);
  news.tell(job, { kind: "dropped" });
}

/** A job of the server's that this page may not know; followed until it is over. */
export async function adopt(id, signal) {
  const known = byId(id);
  if (known) return known;
  const answer = await get(`/api/jobs/${encodeURIComponent(id)}`, signal);
  const job = { ...blank(id, answer.requests, ""), adopted: true };
  take(job, answer);
  jobs.set(job.key, job);
  follow();
  return job;
}

/** Keep a job over reloads, each under a name of its own: two tabs do not write over each other. */
function remember(job) {
  if (job.adopted) return;
  const { key, id, requests, title, at, body, unwanted } = job;
  const gone = job.status === "refused" || !jobs.has(key);
  keep(`job.${key}`, gone ? null : { key, id, requests, title, at, body: body ?? null, unwanted });
  const sent = kept().filter((record) => record.id); // what is not sent yet is never let go
  for (const record of sent.slice(0, -KEPT)) keep(`job.${record.key}`, null);
}

/** What is kept of jobs, the oldest first. */
function kept() {
  const records = namesOf("job.").map((name) => recall(name));
  return records.filter(Boolean).sort((one, other) => one.at - other.at);
}

/** Take up what the page was at when it was closed. */
export async function resume() {
  for (const record of kept()) {
    const { key, id, requests, title } = record;
    if (jobs.has(key)) continue;
    const job = Object.assign(blank(key, requests, title), record, { status: id ? "queued" : "sending" });
    jobs.set(key, job);
    if (id) load(job);
    else deliver(job);
  }
  ask();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) follow();
    else for (const control of streams.values()) control.abort(); // taken up again from where they were
  });
}

async function load(job) {
  try {
    take(job, await get(`/api/jobs/${encodeURIComponent(job.id)}`));
  } catch {
    jobs.delete(job.key); // the server knows nothing of it: another data folder
  }
  remember(job);
  news.tell(job, { kind: "loaded" });
  follow();
}
