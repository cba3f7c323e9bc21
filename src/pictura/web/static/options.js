// Fields for what only some models know: built from what each model declares of its options.

import { call } from "./api.js";
import { toast } from "./announce.js";
import { button, fill, h } from "./dom.js";
import { choice, field } from "./fields.js";
import { parse, write } from "./json.js";
import { loraFiles } from "./models.js";

const title = (name) => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

/** Fields for all options of a model but LoRA. values: {name: value}; change(values) hears of each change. */
export function optionFields(model, values, change) {
  const put = (name, value) => {
    const { [name]: _, ...others } = values;
    values = value === undefined ? others : { ...others, [name]: value };
    change(values);
  };
  return model.options
    .filter((option) => option.name !== "lora")
    .map((option) => one(option, values[option.name], (value) => put(option.name, value)));
}

function one(option, value, put) {
  const usual = option.default === null || option.default === undefined ? "none" : String(option.default);
  const type = String(option.type ?? "str");
  if (option.attach === "picture") return pictureField(option, value, put);
  if (type === "bool") {
    const input = choice(
      [
        ["", usual],
        ["true", "yes"],
        ["false", "no"],
      ],
      value === undefined ? "" : String(value),
      (text) => put(text === "" ? undefined : text === "true"),
    );
    return field(title(option.name), input, option.help);
  }
  if (option.choices?.length) {
    const input = choice([["", usual], ...option.choices.map((name) => [name, name])], value ?? "", (text) =>
      put(text || undefined),
    );
    return field(title(option.name), input, option.help);
  }
  if (type === "int" || type === "float") {
    const input = h("input", {
      type: "number",
      step: type === "int" ? 1 : "any",
      value: value ?? "",
      placeholder: usual,
      on: { input: () => put(input.value === "" ? undefined : Number(input.value)) },
    });
    return field(title(option.name), input, option.help);
  }
  if (type === "str") {
    const input = h("input", {
      type: "text",
      value: value ?? "",
      placeholder: usual,
      on: { input: () => put(input.value || undefined) },
    });
    return field(title(option.name), input, option.help);
  }
  return jsonField(option, value, put);
}

function jsonField(option, value, put) {
  const input = h("input", {
    type: "text",
    class: "code",
    spellcheck: "false",
    value: value === undefined ? "" : write(value),
    placeholder: "JSON",
  });
  const box = field(title(option.name), input, option.help);
  input.addEventListener("input", () => {
    try {
      put(input.value === "" ? undefined : parse(input.value));
      box.complain("");
    } catch {
      box.complain("This is no JSON; give a list or an object.");
    }
  });
  return box;
}

function pictureField(option, value, put) {
  const input = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp" });
  const state = h("span", { class: "hint" }, value ? "A picture is attached." : "");
  const remove = button(
    "close",
    "",
    () => {
      put(undefined);
      input.value = "";
      state.textContent = "";
      remove.hidden = true;
    },
    { class: "button bare", hint: `Take away the ${option.name.replaceAll("_", " ")}`, hidden: !value },
  );
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (!file) return;
    state.textContent = "Sending…";
    try {
      const { sha256 } = await call("POST", "/api/attachments", {
        body: file,
        type: file.type || "application/octet-stream",
      });
      put({ sha256 });
      state.textContent = `${file.name} is attached.`;
      remove.hidden = false;
    } catch (error) {
      state.textContent = "";
      toast(error.message, "bad");
    }
  });
  return field(title(option.name), input, option.help, { more: [state, remove] });
}

/** LoRA files and their weights. */
export function loraFields(values, change) {
  const box = h("fieldset", { class: "stack plain" });
  const files = loraFiles();
  const called = (entry) => entry.name ?? entry.path ?? entry.sha256;
  function show() {
    const rows = values.map((entry, at) => {
      const weight = h("input", {
        type: "number",
        step: "any",
        value: entry.weight,
        class: "short",
        "aria-label": `Weight of ${called(entry)}`,
        on: { input: () => put(at, { ...entry, weight: weight.value }) },
      });
      return h(
        "div",
        { class: "row tight lora" },
        h("span", { class: "grow" }, called(entry)),
        weight,
        button("close", "", () => put(at, null), {
          class: "button bare",
          hint: `Take away ${called(entry)}`,
        }),
      );
    });
    const add = choice(
      [
        ["", files.length ? "Add a LoRA…" : "The server has no LoRA files"],
        ...files.map((file) => [called(file), called(file)]),
      ],
      "",
      (name) => {
        const { description: _, ...file } = files.find((known) => called(known) === name) ?? {};
        if (name) put(values.length, { name: called(file), weight: "1" });
      },
    );
    add.setAttribute("aria-label", "Add a LoRA");
    add.disabled = !files.length;
    fill(box, h("legend", {}, "LoRA"), rows, add);
  }
  function put(at, entry) {
    values =
      entry === null
        ? values.filter((_, place) => place !== at)
        : Object.assign([...values], { [at]: entry });
    change(values);
    if (entry === null || values.length !== box.querySelectorAll(".lora").length) show();
  }
  show();
  return box;
}
