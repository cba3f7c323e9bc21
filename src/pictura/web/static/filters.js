// What is looked for in the gallery: words, and what narrows them down.

import { get } from "./api.js";
import { button, fill, h, icon } from "./dom.js";
import { choice, field } from "./fields.js";
import * as models from "./models.js";

const EXTRA = ["model", "min_stars", "collection", "seed", "sampler", "since", "until"];

/** The filters of an address as the server takes them; days become the times when they begin and end here. */
export function fromQuery(query) {
  const day = (text, days) => {
    const date = new Date(`${text}T00:00:00`);
    if (!text || Number.isNaN(date.getTime())) return "";
    date.setDate(date.getDate() + days);
    return date.toISOString();
  };
  const { query: words, since, until } = query;
  const same = Object.fromEntries(
    ["model", "min_stars", "collection", "seed", "sampler"].map((name) => [name, query[name] ?? ""]),
  );
  return { query: words ?? "", ...same, since: day(since, 0), until: day(until, 1) };
}

/** A form over `query`; changed(query) when it is another. `.search()` puts the cursor into the words. */
export function filterBar(query, changed) {
  let values = { ...query };
  let timer = 0;
  const words = h("input", {
    type: "search",
    class: "grow",
    placeholder: "Words of the prompt",
    "aria-label": "Search the gallery",
    value: values.query ?? "",
    on: {
      input: () => {
        clearTimeout(timer);
        timer = setTimeout(() => put("query", words.value), 250);
      },
    },
  });
  const parts = h("div", { class: "filters" });
  const toggle = button(
    "sliders",
    "Filters",
    () => {
      parts.hidden = !parts.hidden;
      toggle.setAttribute("aria-expanded", String(!parts.hidden));
    },
    { "aria-expanded": "false" },
  );
  const none = button("close", "Clear", () => {
    values = {};
    words.value = "";
    build();
    changed(values);
    words.focus();
  });
  const form = h(
    "form",
    {
      class: "search",
      role: "search",
      on: {
        submit: (event) => {
          event.preventDefault();
          clearTimeout(timer);
          put("query", words.value);
        },
      },
    },
    h("div", { class: "row" }, h("div", { class: "search-words grow" }, icon("search"), words), toggle, none),
    parts,
  );
  let collections = [];

  function put(name, value) {
    const { [name]: _, ...others } = values;
    values = value ? { ...others, [name]: value } : others;
    tell();
    changed(values);
  }

  function tell() {
    const set = EXTRA.filter((name) => values[name]).length;
    toggle.querySelector("span").textContent = set ? `Filters (${set})` : "Filters";
    none.hidden = Object.keys(values).length === 0;
  }

  function build() {
    const input = (type, name, more = {}) => {
      const made = h("input", {
        type,
        value: values[name] ?? "",
        ...more,
        on: { change: () => put(name, made.value.trim()) },
      });
      return made;
    };
    const pick = (name, any, options) =>
      choice([["", any], ...options], values[name] ?? "", (value) => put(name, value));
    fill(
      parts,
      field(
        "Model",
        pick(
          "model",
          "any",
          models.known().map((model) => model.name),
        ),
      ),
      field(
        "Stars",
        pick(
          "min_stars",
          "any",
          [1, 2, 3, 4, 5].map((stars) => [String(stars), stars === 5 ? "5" : `${stars} or more`]),
        ),
      ),
      field(
        "Collection",
        pick(
          "collection",
          "any",
          collections.map((item) => [item.name, `${item.name} (${item.count})`]),
        ),
      ),
      field("Sampler", pick("sampler", "any", models.samplersOf(null))),
      field("Seed", input("text", "seed", { inputmode: "numeric", pattern: "[0-9]*" })),
      field("From", input("date", "since")),
      field("To", input("date", "until")),
    );
    tell();
  }

  parts.hidden = !EXTRA.some((name) => values[name]);
  toggle.setAttribute("aria-expanded", String(!parts.hidden));
  build();
  return Object.assign(form, {
    search: () => words.focus(),
    /** Fill the lists of models and collections. */
    async load(signal) {
      [, collections] = await Promise.all([models.load(signal), loadCollections(signal)]);
      build();
    },
    set(query) {
      if (JSON.stringify(query) === JSON.stringify(values)) return;
      values = { ...query };
      words.value = values.query ?? "";
      build();
    },
  });
}

/** [{name, count}] of all collections. */
export async function loadCollections(signal) {
  const said = await get("/api/collections", signal);
  return said.items;
}
