// The page: a photo beside what JPEG makes of it in as many bytes, or a .ltn file.
import { Ltn, toImageData } from "./ltn.js";

const LARGEST = 4096; // pixels of a side; larger photos are reduced
const at = (id) => document.getElementById(id);
const ltn = new Ltn({ limits: { maxPixels: 2 ** 26, maxMemory: 2 ** 30 }, timeout: 120_000 });
let source = null; // of the photo: name, ImageData
let turn = 0;
let link = "";

const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function facts(pairs) {
  at("facts").replaceChildren(
    ...Object.entries(pairs).flatMap(([name, value]) =>
      [["dt", name], ["dd", value]].map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })),
    ),
  );
}

function paint(id, image) {
  const canvas = at(id);
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function offer(data, name) {
  URL.revokeObjectURL(link);
  link = URL.createObjectURL(new Blob([data], { type: "image/x-ltn" }));
  Object.assign(at("save"), { href: link, download: `${name.replace(/\.[^.]*$/, "")}.ltn`, hidden: false });
}

// The best JPEG of at most so many bytes, or the smallest that there is.
async function jpegOf(image, bytes) {
  const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG has no alpha
  context.putImageData(image, 0, 0);
  context.globalCompositeOperation = "destination-over";
  context.fillRect(0, 0, image.width, image.height);
  const make = (step) => canvas.convertToBlob({ type: "image/jpeg", quality: step / 100 });
  let low = 0, high = 100, best = await make(0);
  while (low < high) {
    const middle = Math.ceil((low + high) / 2), blob = await make(middle);
    if (blob.size <= bytes) [low, best] = [middle, blob];
    else high = middle - 1;
  }
  return best;
}

function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; ++i) if (i % 4 !== 3) sum += (a.data[i] - b.data[i]) ** 2;
  return sum === 0 ? "identical" : `${(10 * Math.log10((255 ** 2 * 3 * a.width * a.height) / sum)).toFixed(2)} dB`;
}

async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function compare() {
  const own = ++turn, { image, name } = source, lossless = at("lossless").checked;
  say("Encoding; the first time, the weights are fetched …");
  const begun = performance.now();
  const data = await ltn.encode(image, { quality: Number(at("quality").value), lossless });
  const middle = performance.now();
  if (own !== turn) return;
  const decoded = toImageData(await ltn.decode(data.slice()));
  const end = performance.now();
  const jpeg = await jpegOf(image, data.length), other = await pixelsOf(jpeg);
  if (own !== turn) return;
  paint("ours", decoded);
  paint("theirs", other);
  at("stage").classList.remove("alone");
  at("stage").hidden = false;
  at("left").textContent = `Latens, ${kilobytes(data.length)}`;
  at("right").textContent = `JPEG, ${kilobytes(jpeg.size)}${jpeg.size > data.length ? " at least" : ""}`;
  offer(data, name);
  say("");
  facts({
    Size: `${image.width} × ${image.height}, ${((8 * data.length) / image.width / image.height).toFixed(3)} bits per pixel`,
    "PSNR, Latens": psnr(image, decoded),
    "PSNR, JPEG": psnr(image, other),
    Time: `${Math.round(middle - begun)} ms to encode, ${Math.round(end - middle)} ms to decode`,
  });
}

async function show(file) {
  const own = ++turn, begun = performance.now();
  say("Decoding …");
  const image = await ltn.decode(file);
  if (own !== turn) return;
  paint("ours", toImageData(image));
  at("stage").classList.add("alone");
  at("stage").hidden = false;
  say("");
  facts({
    File: `${file.name ?? "file"}, ${kilobytes(file.size)}`,
    Size: `${image.width} × ${image.height}, ${image.bitDepth} bits${image.alpha ? ", alpha" : ""}`,
    Model: image.lossless ? "lossless" : `${image.model} (${image.weightsId})`,
    Time: `${Math.round(performance.now() - begun)} ms`,
  });
}

async function open(file) {
  try {
    const head = new Uint8Array(await file.slice(0, 3).arrayBuffer());
    const ours = String.fromCharCode(...head) === "LTN";
    at("controls").hidden = ours;
    at("save").hidden = true;
    at("stage").hidden = true;
    facts({});
    if (ours) return await show(file);
    source = { name: file.name ?? "picture", image: await pixelsOf(file) };
    await compare();
  } catch (error) {
    at("stage").hidden = true;
    say(error.name === "LtnError" ? error.message : "This is no picture that this browser can read.", true);
  }
}

const again = () => source && compare().catch((error) => say(error.message, true));

at("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0]));
at("quality").addEventListener("input", ({ target }) => (at("level").textContent = target.value));
at("quality").addEventListener("change", again);
at("lossless").addEventListener("change", again);
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("split").addEventListener("input", ({ target }) =>
  at("stage").style.setProperty("--at", `${Number(target.value) / 10}%`),
);
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });

// Tests and links: ?src=address opens a file of this site.
const asked = new URLSearchParams(location.search).get("src");
if (asked)
  fetch(asked)
    .then((response) => response.blob())
    .then((blob) => open(new File([blob], asked.split("/").pop())));
