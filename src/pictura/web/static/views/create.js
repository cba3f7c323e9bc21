// Create: what to draw and how on one side, the pictures as they form on the other.

import { announce, empty, toast, trouble } from "../announce.js";
import { call } from "../api.js";
import { common } from "../common.js";
import { button, fill, h, icon, uid } from "../dom.js";
import { openButton } from "../drop.js";
import { choice, field, more, stepper } from "../fields.js";
import * as jobs from "../jobs.js";
import * as models from "../models.js";
import { loraFields, optionFields } from "../options.js";
import { keep, recall } from "../store.js";
import * as settings from "../settings.js";
import { stage } from "../stage.js";

const IDEAS = [
  "a cat left of a pizza on a blue background",
  "three stars",
  "an owl above a pine tree",
  "a rocket on a yellow background",
];
const MOST_IMAGES = 100; // of a job
const WORDS = {
  negative_prompt: "Leave out",
  size: "Size",
  num_steps: "Steps",
  guidance_scale: "Guidance",
  sampler: "Sampler",
  schedule: "Schedule",
  lora: "LoRA",
};

/** The view. */
export function open(main) {
  const left = new AbortController();
  const prompt = promptField();
  const rest = h("div", { class: "stack" }, skeletons());
  const warning = h("p", { class: "error", role: "alert", hidden: true });
  const go = h(
    "button",
    { type: "submit", class: "button primary big" },
    icon("brush"),
    h("span", {}, "Generate"),
  );
  const count = h("div");
  const form = h(
    "form",
    { class: "panel", "aria-label": "What to draw", novalidate: true, on: { submit } },
    prompt,
    h("div", { class: "row go" }, count, go),
    warning,
    rest,
    openButton(),
  );
  const ideas = h(
    "div",
    { class: "row ideas" },
    IDEAS.map((idea) =>
      button(
        null,
        idea,
        () => {
          settings.set({ prompt: idea });
          prompt.input.value = idea;
          prompt.input.focus();
        },
        { class: "button chip" },
      ),
    ),
  );
  const scene = stage(
    empty(
      "Nothing drawn yet",
      "Write what you would like to see and press Generate, or begin with one of these:",
      ideas,
    ),
  );
  fill(
    main,
    h("h1", { class: "unseen" }, "Create"),
    h(
      "div",
      { class: "create" },
      form,
      h("section", { class: "stage", "aria-label": "Pictures being made" }, scene),
    ),
  );

  let fields = {};
  const model = () => models.named(settings.current().model) ?? models.known()[0] ?? null;

  function build() {
    const values = settings.current();
    prompt.input.value = values.prompt;
    fill(
      count,
      stepper("Pictures", { value: values.num_images, min: 1, max: MOST_IMAGES }, (text) =>
        settings.set({ num_images: text }),
      ),
    );
    const of = model();
    fields = common(of, values);
    const open = recall("more", false);
    const seldom = [
      fields.negative_prompt,
      fields.schedule,
      models.can(of, "lora") && loraFields(values.loras, (loras) => settings.set({ loras })),
      ...optionFields(of ?? { options: [] }, values.options, (options) => settings.set({ options })),
    ].filter(Boolean);
    fill(
      rest,
      modelField(of, values),
      h("div", { class: "pair" }, fields.size, fields.sampler),
      fields.num_steps,
      fields.guidance_scale,
      fields.seed,
      seldom.length > 0 && more("More settings", open, (now) => keep("more", now), ...seldom),
      unused(of),
    );
  }

  function modelField(of, values) {
    const names = models
      .known()
      .map((item) => [item.name, item.known ? item.name : `${item.name} (not loaded yet)`]);
    const input = choice(names, values.model || of?.name || "", (name) => {
      settings.set({ model: name });
      build();
      rest.querySelector("select").focus();
    });
    const lazy =
      of &&
      !of.known &&
      button("down", "Load it to see what it can do", () => look(of.name), { class: "button small" });
    const state = { ready: "Ready.", loading: "Being loaded.", failed: "It could not be loaded." }[of?.state];
    return h(
      "div",
      { class: "stack" },
      field("Model", input, [of?.text && `${of.text}.`, state].filter(Boolean).join(" ") || null),
      lazy,
    );
  }

  async function look(name) {
    try {
      await call("POST", `/api/models/${encodeURIComponent(name)}/load`);
      announce("Loading the model.");
      do {
        await new Promise((resolve) => setTimeout(resolve, 1500));
        await models.load(left.signal, true);
      } while (!models.named(name)?.known && models.named(name)?.state === "loading");
      build();
    } catch (error) {
      if (!left.signal.aborted) toast(error.message, "bad");
    }
  }

  /** Build the form when the server answers; of a new model it knows more after the first job. */
  async function ask(fresh) {
    try {
      await models.load(left.signal, fresh);
      if (!fresh || !form.contains(document.activeElement)) build();
    } catch (error) {
      if (!left.signal.aborted)
        fill(
          rest,
          trouble(error, () => ask(fresh)),
        );
    }
  }

  function unused(of) {
    const names = settings.unusable(of).map((name) => WORDS[name]);
    return (
      names.length > 0 &&
      h(
        "p",
        { class: "hint" },
        icon("warn"),
        ` ${of.name} cannot use what is kept for: ${names.join(", ")}. It is left out.`,
      )
    );
  }

  function submit(event) {
    event?.preventDefault();
    const said = settings.current();
    const wrong = Object.values(fields).find((item) => item && !item.input.checkValidity());
    for (const item of [prompt, ...Object.values(fields)]) item?.complain("");
    warning.hidden = true;
    if (!said.prompt.trim()) return complain(prompt, "Write what you would like to see.");
    if (wrong) return complain(wrong, wrong.input.validationMessage);
    jobs.submit([settings.request(model())]);
    announce("Sent. The pictures appear as they are drawn.");
    if (window.innerWidth < 800) scene.scrollIntoView({ block: "start" });
  }

  function complain(item, text) {
    item.complain(text);
    item.input.focus();
  }

  const stopJobs = jobs.onJob((job, event) => {
    if (event?.kind === "over" && model() && !model().known) ask(true);
    if (event?.kind !== "refused" || job.title) return;
    const item = job.parameter === "prompt" ? prompt : fields[job.parameter];
    if (item) complain(item, job.error);
    else {
      warning.textContent = job.error;
      warning.hidden = false;
    }
  });
  const stopSettings = settings.onRestored(build);
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]"))
      submit(event);
  };
  document.addEventListener("keydown", keys);
  ask(false);
  if (window.innerWidth >= 800 && document.activeElement === document.body) prompt.input.focus();

  return {
    prompt: () => prompt.input.focus(),
    /** Where a picture is among those of its job. */
    around(id) {
      const images = jobs
        .all()
        .map((job) => job.cells.map((cell) => cell.image).filter(Boolean))
        .find((some) => some.some((image) => image.id === id));
      return images
        ? { at: images.findIndex((image) => image.id === id), count: images.length, item: (at) => images[at] }
        : null;
    },
    update() {},
    close() {
      left.abort();
      stopJobs();
      stopSettings();
      scene.close();
      document.removeEventListener("keydown", keys);
    },
  };
}

function promptField() {
  const input = h("textarea", {
    rows: 3,
    id: uid("prompt"),
    dir: "auto",
    maxlength: 10000,
    placeholder: "a cat left of a pizza on a blue background",
    value: settings.current().prompt,
    on: { input: () => settings.set({ prompt: input.value }) },
  });
  return field("Prompt", input, null, { className: "prompt" });
}

function skeletons() {
  return Array.from({ length: 5 }, () => h("div", { class: "skeleton line", "aria-hidden": "true" }));
}
