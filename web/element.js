// <ltn-img src="picture.ltn" alt="..."> shows a .ltn picture.
import { LtnError, decode, toImageData } from "./ltn.js";

export class LtnImage extends HTMLElement {
  static observedAttributes = ["src", "alt"];
  #turn = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML =
      "<style>:host{display:inline-block;line-height:0}canvas{max-width:100%;height:auto}" +
      "span{line-height:1.4;font:0.9em sans-serif}[hidden]{display:none}</style>" +
      '<canvas width="0" height="0" role="img"></canvas><span hidden></span>';
    this.canvas = root.querySelector("canvas");
  }

  get src() {
    return this.getAttribute("src") ?? "";
  }
  set src(value) {
    this.setAttribute("src", value);
  }

  attributeChangedCallback(name, before, now) {
    if (name === "alt") this.canvas.setAttribute("aria-label", now ?? "");
    else if (before !== now && now) this.load(now);
  }

  /** Shows a file: its address, or what `decode` takes. Events: load, error. */
  async load(source) {
    const turn = ++this.#turn;
    const text = this.shadowRoot.querySelector("span");
    try {
      const file = typeof source === "string" ? await (await fetched(source)).arrayBuffer() : source;
      const image = await decode(file);
      if (turn !== this.#turn) return; // another came meanwhile
      this.canvas.width = image.width;
      this.canvas.height = image.height;
      this.canvas.getContext("2d").putImageData(toImageData(image), 0, 0);
      this.canvas.hidden = false;
      text.hidden = true;
      this.dispatchEvent(new CustomEvent("load", { detail: image }));
    } catch (error) {
      if (turn !== this.#turn) return;
      this.canvas.hidden = true;
      text.hidden = false;
      text.textContent = this.getAttribute("alt") || error.message;
      this.dispatchEvent(new CustomEvent("error", { detail: error }));
    }
  }
}

async function fetched(source) {
  const response = await fetch(source);
  if (!response.ok) throw new LtnError(0, `${source} cannot be fetched (${response.status})`);
  return response;
}

customElements.define("ltn-img", LtnImage);
