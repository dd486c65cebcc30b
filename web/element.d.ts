/** `<ltn-img src alt>`; events `load` (its detail is the picture) and `error` (an `LtnError`). */
export class LtnImage extends HTMLElement {
  src: string;
  readonly canvas: HTMLCanvasElement;
  load(source: string | ArrayBuffer | Uint8Array | Blob): Promise<void>;
}
