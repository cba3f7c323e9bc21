// Server-sent events by fetch, as EventSource can carry no key. (WHATWG HTML, section 9.2)

import { refusal, send } from "./api.js";

/** {event, data, id} of each event of `path`, from after event `after`; ends when the server ends it. */
export async function* events(path, { after = null, signal } = {}) {
  const extra = {
    accept: "text/event-stream",
    ...(after === null ? {} : { "last-event-id": String(after) }),
  };
  const response = await send("GET", path, { extra, signal });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = blank();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line !== "") read(line, event);
        else {
          if (event.data.length) yield { event: event.event, data: event.data.join("\n"), id: event.id };
          event = blank();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have ended, or been taken from us, already
  }
}

const blank = () => ({ event: "message", data: [], id: null });

function read(line, event) {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment, to keep the line open
  const field = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "data") event.data.push(value);
  else if (field === "event") event.event = value;
  else if (field === "id") event.id = value;
}
