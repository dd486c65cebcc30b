// One worker: a module, and the models that files asked for.
import { CODES, Core, LtnError, hasSimd } from "./core.js";

const STORE = "latens-weights-1";
let core = null;
const loading = new Map();

async function start() {
  const name = hasSimd() ? "ltn-simd.wasm" : "ltn-plain.wasm";
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} cannot be fetched (${response.status})`);
  return new Core(await WebAssembly.compile(await response.arrayBuffer()));
}

// Names of weights hold their hash: what is in the cache is right for ever, once a model could be made of it.
async function fetchWeights(url) {
  const cache = globalThis.caches ? await caches.open(STORE).catch(() => null) : null;
  const known = await cache?.match(url);
  if (known) return { data: new Uint8Array(await known.arrayBuffer()), keep: () => {} };
  // Kept once, here.
  const response = await fetch(url, { cache: cache ? "no-store" : "default" });
  if (!response.ok)
    throw new LtnError(CODES.WRONG_WEIGHTS, `the weights ${url} cannot be fetched (${response.status})`);
  const data = new Uint8Array(await response.arrayBuffer());
  return { data, keep: () => cache?.put(url, new Response(data)).catch(() => {}) };
}

// The model of these weights; for encoding they have a second part.
async function need(base, name, encoding) {
  const key = `${name}${encoding ? "+" : ""}`;
  if (loading.has(`${name}+`)) return loading.get(`${name}+`);
  if (!loading.has(key)) {
    const parts = [`${name}.ltnw`, ...(encoding ? [`${name}-encoding.ltnw`] : [])];
    const made = Promise.all(parts.map((part) => fetchWeights(new URL(part, base).href))).then(async (found) => {
      const all = new Uint8Array(found.reduce((sum, { data }) => sum + data.length, 0));
      let at = 0;
      for (const { data } of found) {
        all.set(data, at);
        at += data.length;
      }
      const loaded = core.load(all);
      await Promise.all(found.map(({ keep }) => keep()));
      return loaded;
    });
    loading.set(key, made);
    made.catch(() => loading.delete(key));
  }
  return loading.get(key);
}

const work = {
  info: ({ file, limits }) => core.info(file, limits),
  async decode({ file, limits, weights }) {
    const header = core.info(file, limits);
    if (!header.lossless) await need(weights, `${header.model}-${header.weightsId}`, false);
    return core.decode(file, limits);
  },
  async encode({ image, model, options, weights }) {
    const id = model === null ? null : (await need(weights, model, true)).id;
    return core.encode(image, id, options);
  },
  memory: () => core.exports.memory.buffer.byteLength,
};

function buffersOf(result) {
  const all = result instanceof Uint8Array ? [result] : [result?.pixels, result?.alphaPlane].filter(Boolean);
  return all.map((array) => array.buffer);
}

let queue = Promise.resolve();
onmessage = ({ data: { id, kind, ...given } }) => {
  queue = queue.then(async () => {
    try {
      core ??= await start();
      const result = await work[kind](given);
      postMessage({ id, result }, buffersOf(result));
    } catch (error) {
      // A module that ran out of memory stops where it is: nothing of it can be used any more.
      const broken = error instanceof WebAssembly.RuntimeError;
      const code = broken ? CODES.MEMORY : (error.code ?? 0);
      const message = broken ? "the module ran out of memory, or stopped" : String(error.message ?? error);
      postMessage({ id, error: { code, message }, broken });
    }
  });
};
