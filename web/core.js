// The WebAssembly module, without workers: what `worker.js` runs, and what tests run in Node.

// A function that adds two vectors: engines without SIMD refuse it.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

export const hasSimd = () => WebAssembly.validate(SIMD);

/** An error of the library: `code` is one of ltn.h. */
export class LtnError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "LtnError";
    this.code = code;
  }
}

export const CODES = Object.freeze({
  ARGUMENT: 1, NOT_LTN: 2, TRUNCATED: 3, VERSION: 4, CHECKSUM: 5, LIMIT: 6, FORMAT: 7, CODER: 8, MODEL: 9,
  WRONG_WEIGHTS: 10, MEMORY: 11,
});

// What the module asks of its surroundings: no files, no arguments, a clock that stands still.
function surroundings(memory) {
  const ok = () => 0;
  const zeroes = (count, size) => {
    const view = new DataView(memory().buffer);
    view.setUint32(count, 0, true);
    view.setUint32(size, 0, true);
    return 0;
  };
  return {
    environ_sizes_get: zeroes,
    environ_get: ok,
    clock_time_get: (_id, _precision, time) => {
      new DataView(memory().buffer).setBigUint64(time, BigInt(Math.round(performance.now() * 1e6)), true);
      return 0;
    },
    fd_write: (_fd, _parts, _count, written) => {
      new DataView(memory().buffer).setUint32(written, 0, true);
      return 0;
    },
    fd_close: ok,
    fd_read: () => 8,
    fd_seek: () => 8,
    proc_exit: () => {
      throw new WebAssembly.RuntimeError("the module stopped");
    },
  };
}

// Structures of ltn.h where pointers and sizes have 32 bits: the place of each field.
const HEADER = {
  size: 160, width: 4, height: 8, channels: 12, bitDepth: 16, lossless: 20, near: 24, alpha: 28, quality: 32,
  tileSize: 36, tiles: 40, colour: 44, density: 48, densityUnit: 64, model: 68, entropyId: 136, weightsId: 148,
};
const LIMITS = { size: 24, maxPixels: 8, maxMemory: 16 };
const SOURCE = {
  size: 84, width: 4, height: 8, channels: 12, bitDepth: 16, pixels: 20, alpha: 28, icc: 36, exif: 40, xmp: 44,
  iccSize: 48, exifSize: 52, xmpSize: 56,
};
const ERROR = { size: 256, message: 4 };

export class Core {
  /** @param {WebAssembly.Module} module */
  constructor(module) {
    const imports = {};
    const given = surroundings(() => this.exports.memory);
    for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
      imports[from] ??= {};
      if (kind === "function") imports[from][name] = given[name] ?? (() => 0);
    }
    this.exports = new WebAssembly.Instance(module, imports).exports;
    this.exports._initialize?.();
    this.models = new Map();
  }

  // Memory may have grown, which leaves older views empty: they are made when they are used.
  get bytes() {
    return new Uint8Array(this.exports.memory.buffer);
  }
  get view() {
    return new DataView(this.exports.memory.buffer);
  }

  // Runs `work(alloc)` and frees what it allocated.
  scoped(work) {
    const held = [];
    const alloc = (size) => {
      const at = this.exports.malloc(Math.max(size, 1)) >>> 0;
      if (at === 0) throw new LtnError(CODES.MEMORY, "there is not enough memory");
      held.push(at);
      return at;
    };
    try {
      return work(alloc);
    } finally {
      for (const at of held) this.exports.free(at);
    }
  }

  put(alloc, data) {
    const at = alloc(data.byteLength);
    this.bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    return at;
  }

  zeroed(alloc, size) {
    const at = alloc(size);
    this.bytes.fill(0, at, at + size);
    return at;
  }

  text(at) {
    const { bytes } = this;
    let end = at;
    while (bytes[end] !== 0) ++end;
    return String.fromCharCode(...bytes.subarray(at, end));
  }

  check(code, error) {
    if (code !== 0) throw new LtnError(code, this.text(error + ERROR.message));
  }

  limits(alloc, { maxPixels = 2 ** 28, maxMemory = 2 ** 30 } = {}) {
    const at = this.zeroed(alloc, LIMITS.size);
    this.view.setUint32(at, LIMITS.size, true);
    this.view.setBigUint64(at + LIMITS.maxPixels, BigInt(Math.max(1, Math.floor(maxPixels))), true);
    this.view.setBigUint64(at + LIMITS.maxMemory, BigInt(Math.max(1, Math.floor(maxMemory))), true);
    return at;
  }

  newHeader(alloc) {
    const at = this.zeroed(alloc, HEADER.size);
    this.view.setUint32(at, HEADER.size, true);
    return at;
  }

  readHeader(at) {
    const { view } = this;
    const number = (name, index = 0) => view.getUint32(at + HEADER[name] + 4 * index, true);
    const flag = (name) => number(name) !== 0;
    const density = [0, 1, 2, 3].map((i) => number("density", i));
    return {
      width: number("width"), height: number("height"), channels: number("channels"), bitDepth: number("bitDepth"),
      lossless: flag("lossless"), near: number("near"), alpha: flag("alpha"), quality: number("quality"),
      tileSize: number("tileSize"), tiles: number("tiles"),
      colour: [0, 1, 2, 3].map((i) => view.getUint8(at + HEADER.colour + i)),
      density: density[0] ? { across: density.slice(0, 2), down: density.slice(2), unit: number("densityUnit") } : null,
      model: this.text(at + HEADER.model), entropyId: this.text(at + HEADER.entropyId),
      weightsId: this.text(at + HEADER.weightsId),
    };
  }

  info(file, limits) {
    return this.scoped((alloc) => {
      const data = this.put(alloc, file), header = this.newHeader(alloc), error = alloc(ERROR.size);
      this.check(this.exports.ltn_info(data, file.byteLength, this.limits(alloc, limits), header, error), error);
      return this.readHeader(header);
    });
  }

  /** Loads weights, safetensors or packed (parts one behind the other), under the id that files have. */
  load(weights) {
    return this.scoped((alloc) => {
      const data = this.put(alloc, weights), place = this.zeroed(alloc, 4), error = alloc(ERROR.size);
      this.check(this.exports.ltn_model_load(data, weights.byteLength, place, error), error);
      const model = this.view.getUint32(place, true);
      const id = this.text(this.exports.ltn_model_weights_id(model)).slice(0, 8);
      if (this.models.has(id)) this.exports.ltn_model_free(this.models.get(id));
      this.models.set(id, model);
      return { id, name: this.text(this.exports.ltn_model_name(model)) };
    });
  }

  decode(file, limits) {
    return this.scoped((alloc) => {
      const data = this.put(alloc, file), header = this.newHeader(alloc), error = alloc(ERROR.size);
      const place = this.zeroed(alloc, 4), given = this.limits(alloc, limits), size = file.byteLength;
      this.check(this.exports.ltn_info(data, size, given, header, error), error);
      const model = this.models.get(this.readHeader(header).weightsId) ?? 0;
      this.check(this.exports.ltn_decode(model, data, size, given, place, error), error);
      const image = this.view.getUint32(place, true);
      try {
        this.exports.ltn_image_header(image, header);
        const about = this.readHeader(header);
        const type = about.bitDepth > 8 ? Uint16Array : Uint8Array, count = about.width * about.height;
        const copy = (at, length) => new type(this.exports.memory.buffer, at >>> 0, length).slice();
        const metadata = [0, 1, 2].map((kind) => {
          const at = this.exports.ltn_image_metadata(image, kind, place) >>> 0;
          return at ? this.bytes.slice(at, at + this.view.getUint32(place, true)) : null;
        });
        return {
          ...about,
          pixels: copy(this.exports.ltn_image_pixels(image), count * about.channels),
          alphaPlane: about.alpha ? copy(this.exports.ltn_image_alpha(image), count) : null,
          icc: metadata[0], exif: metadata[1], xmp: metadata[2],
        };
      } finally {
        this.exports.ltn_image_free(image);
      }
    });
  }

  /** `image`: { width, height, channels, bitDepth, pixels, alphaPlane, icc, exif, xmp }; `id` of a model, or null. */
  encode(image, id, { quality = 70, near = 0, effort = 1 } = {}) {
    const { width, height, channels = 3, bitDepth = 8, pixels, alphaPlane = null } = image;
    const type = bitDepth > 8 ? Uint16Array : Uint8Array, count = width * height;
    const right = (plane, length) => plane instanceof type && plane.length === length;
    if (!right(pixels, count * channels) || (alphaPlane && !right(alphaPlane, count)))
      throw new LtnError(CODES.ARGUMENT, `pixels must be a ${type.name} of width x height x channels samples`);
    return this.scoped((alloc) => {
      const at = this.zeroed(alloc, SOURCE.size), error = alloc(ERROR.size), place = this.zeroed(alloc, 8);
      const fields = { width, height, channels, bitDepth, pixels: this.put(alloc, pixels) };
      if (alphaPlane) fields.alpha = this.put(alloc, alphaPlane);
      for (const name of ["icc", "exif", "xmp"]) {
        if (!image[name]?.length) continue;
        fields[name] = this.put(alloc, image[name]);
        fields[`${name}Size`] = image[name].length;
      }
      this.view.setUint32(at, SOURCE.size, true);
      for (const [name, value] of Object.entries(fields)) this.view.setUint32(at + SOURCE[name], value, true);
      const out = [place, place + 4, error];
      const code = id === null
        ? this.exports.ltn_encode_lossless(at, near, effort, ...out)
        : this.exports.ltn_encode(this.models.get(id) ?? 0, at, quality, ...out);
      this.check(code, error);
      const file = this.view.getUint32(place, true), size = this.view.getUint32(place + 4, true);
      const data = this.bytes.slice(file, file + size);
      this.exports.ltn_free(file);
      return data;
    });
  }
}
