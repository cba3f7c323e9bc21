// JSON whose whole numbers survive: seeds go up to 2^63 - 1, where JavaScript's own numbers end at 2^53.

/** The value of a JSON text; whole numbers beyond 2^53 become BigInt. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
      ? BigInt(context.source)
      : value,
  );
}

const MARK = "\u0001whole:";

/** The JSON text of a value; BigInt becomes a number. */
export function write(value, indent) {
  const text = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? MARK + item : item), indent);
  return text.replace(/"\\u0001whole:(-?\d+)"/g, "$1");
}

/** A whole number from its digits: a number where that is exact, else a BigInt; null for any other text. */
export function whole(text) {
  if (!/^-?\d{1,30}$/.test(text)) return null;
  const exact = BigInt(text);
  return exact <= BigInt(Number.MAX_SAFE_INTEGER) && exact >= BigInt(Number.MIN_SAFE_INTEGER)
    ? Number(exact)
    : exact;
}
