// A grid as one picture with its values written beside it.

import { h } from "./dom.js";

const HEAD = 40; // px for what is written above and on the left
const SIDE = 140;
const MOST = 512; // px of a picture on the sheet

/** Have the browser save a grid's job as a PNG. title(axis, value) is what is written. */
export async function save(job, x, y, title) {
  const images = await Promise.all(job.cells.map((cell) => (cell.image ? loaded(cell.image.url) : null)));
  const one = images.find(Boolean);
  if (!one) throw new Error("There is no picture in the grid.");
  const scale = Math.min(1, MOST / Math.max(one.naturalWidth, one.naturalHeight));
  const [width, height] = [one.naturalWidth * scale, one.naturalHeight * scale];
  const side = y.name ? SIDE : 0;
  const canvas = h("canvas", {
    width: side + x.values.length * (width + 4),
    height: HEAD + y.values.length * (height + 4),
  });
  const draw = canvas.getContext("2d");
  draw.fillStyle = "#fff";
  draw.fillRect(0, 0, canvas.width, canvas.height);
  draw.fillStyle = "#111";
  draw.font = "15px sans-serif";
  draw.textBaseline = "middle";
  x.values.forEach((value, at) =>
    draw.fillText(title(x, value), side + at * (width + 4) + 4, HEAD / 2, width - 8),
  );
  y.values.forEach((value, at) =>
    draw.fillText(title(y, value), 6, HEAD + at * (height + 4) + height / 2, side - 12),
  );
  images.forEach((image, at) => {
    const [row, column] = [Math.floor(at / x.values.length), at % x.values.length];
    if (image) draw.drawImage(image, side + column * (width + 4), HEAD + row * (height + 4), width, height);
  });
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: "grid.png" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function loaded(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("A picture of the grid could not be fetched."));
    image.src = url;
  });
}
