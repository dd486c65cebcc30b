// .ltn pictures in the browser: everything runs in a worker, pages never wait.
import { CODES, LtnError } from "./core.js";

export { CODES, LtnError };

/** Weights that `encode` uses unless told otherwise; `make web` writes what it packed. */
export { DEFAULT_MODEL, MODELS } from "./models.js";
import { DEFAULT_MODEL } from "./models.js";

const FILE_MAX = 2 ** 28; // bytes
const WEIGHTS = new URL("./weights/", import.meta.url).href;

/** A worker with a module of its own. Most pages need one, and take the functions below. */
export class Ltn {
  #worker = null;
  #waiting = new Map();
  #next = 0;

  /** @param {{weights?: string, limits?: {maxPixels?: number, maxMemory?: number}, timeout?: number}} options */
  constructor({ weights = WEIGHTS, limits = {}, timeout = 0 } = {}) {
    this.weights = new URL(weights, globalThis.location?.href ?? import.meta.url).href;
    this.limits = limits;
    this.timeout = timeout;
  }

  /** Stops the worker; what it was doing fails. The next call begins a new one. */
  close(error = new LtnError(0, "closed")) {
    this.#worker?.terminate();
    this.#worker = null;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }

  #ask(kind, given, transfer = []) {
    if (this.#worker === null) {
      const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
      worker.onmessage = ({ data: { id, result, error, broken } }) => {
        const waiting = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error) waiting?.reject(new LtnError(error.code, error.message));
        else waiting?.resolve(result);
        if (broken && this.#worker === worker) this.close(new LtnError(CODES.MEMORY, "the module had to be restarted"));
      };
      worker.onerror = (event) => {
        event.preventDefault();
        if (this.#worker === worker) this.close(new LtnError(0, `the worker failed: ${event.message ?? ""}`));
      };
      this.#worker = worker;
    }
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      let timer = 0;
      const settled = (then) => (value) => {
        clearTimeout(timer);
        then(value);
      };
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
      if (this.timeout > 0)
        timer = setTimeout(() => this.close(new LtnError(CODES.LIMIT, "it took too long")), this.timeout);
      this.#worker.postMessage({ id, kind, weights: this.weights, limits: this.limits, ...given }, transfer);
    });
  }

  /** What a file says about itself. @param {ArrayBuffer|Uint8Array|Blob} file */
  async info(file) {
    return this.#ask("info", { file: await bytesOf(file) });
  }

  /** A file's picture, its samples as they are. @param {ArrayBuffer|Uint8Array|Blob} file */
  async decode(file) {
    return this.#ask("decode", { file: await bytesOf(file) });
  }

  /** A file of samples, or of an `ImageData`. */
  async encode(image, { lossless = false, model = DEFAULT_MODEL, ...options } = {}) {
    const given = image instanceof Object && "data" in image ? fromImageData(image) : image;
    return this.#ask("encode", { image: given, model: lossless ? null : model, options });
  }

  /** Bytes of memory that the module holds. */
  memory() {
    return this.#ask("memory", {});
  }
}

async function bytesOf(file) {
  const size = file.byteLength ?? file.size;
  if (!(size <= FILE_MAX)) throw new LtnError(CODES.LIMIT, "the file is larger than 256 MiB, or not one");
  return file instanceof Uint8Array ? file : new Uint8Array(await (file.arrayBuffer?.() ?? file));
}

/** RGBA of 8 bits, as canvases take it. */
export function toImageData({ width, height, channels, bitDepth, pixels, alphaPlane }) {
  const data = new Uint8ClampedArray(4 * width * height);
  const byte = bitDepth > 8 ? (v) => Math.floor((v * 255 + 32767) / 65535) : (v) => v;
  for (let i = 0, from = 0; i < data.length; i += 4, from += channels) {
    for (let c = 0; c < 3; ++c) data[i + c] = byte(pixels[from + (channels === 3 ? c : 0)]);
    data[i + 3] = alphaPlane ? byte(alphaPlane[i / 4]) : 255;
  }
  return new ImageData(data, width, height);
}

/** What `encode` takes, of RGBA: grey and opaque pictures are noticed. */
export function fromImageData({ width, height, data }) {
  const count = width * height;
  let grey = true, opaque = true;
  for (let i = 0; i < data.length; i += 4) {
    grey &&= data[i] === data[i + 1] && data[i] === data[i + 2];
    opaque &&= data[i + 3] === 255;
  }
  const channels = grey ? 1 : 3;
  const pixels = new Uint8Array(count * channels), alphaPlane = opaque ? null : new Uint8Array(count);
  for (let i = 0; i < count; ++i) {
    for (let c = 0; c < channels; ++c) pixels[channels * i + c] = data[4 * i + c];
    if (alphaPlane) alphaPlane[i] = data[4 * i + 3];
  }
  return { width, height, channels, bitDepth: 8, pixels, alphaPlane };
}

let shared = null;
const common = () => (shared ??= new Ltn());

export const info = (file) => common().info(file);
export const decode = (file) => common().decode(file);
export const encode = (image, options) => common().encode(image, options);
