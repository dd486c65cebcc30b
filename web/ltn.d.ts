/** What a file says about itself. */
export interface Header {
  width: number;
  height: number;
  /** 1 (grey) or 3. */
  channels: number;
  /** 8 to 16; samples above 8 bits are on the scale 0 to 65,535. */
  bitDepth: number;
  lossless: boolean;
  /** Of a lossless file: the largest error of a sample. */
  near: number;
  alpha: boolean;
  /** Level of the model, 0 to 65,535. */
  quality: number;
  tileSize: number;
  tiles: number;
  /** Code points of ITU-T H.273: primaries, transfer, matrix, full range. */
  colour: number[];
  density: { across: number[]; down: number[]; unit: number } | null;
  model: string;
  entropyId: string;
  weightsId: string;
}

/** Samples: `height * width * channels`, and `height * width` of straight alpha. */
export interface Samples {
  width: number;
  height: number;
  channels?: number;
  bitDepth?: number;
  pixels: Uint8Array | Uint16Array;
  alphaPlane?: Uint8Array | Uint16Array | null;
  icc?: Uint8Array | null;
  exif?: Uint8Array | null;
  xmp?: Uint8Array | null;
}

export type Picture = Header & Required<Samples>;
export type File = ArrayBuffer | Uint8Array | Blob;

export interface EncodeOptions {
  /** 0 (smallest) to 100 (best); 70 by default. */
  quality?: number;
  lossless?: boolean;
  /** Of lossless files: the largest error of a sample, 0 to 255. */
  near?: number;
  /** Of lossless files: 1 or 2. */
  effort?: number;
  /** Name of the weights, one of `MODELS`. */
  model?: string;
}

export interface Limits {
  maxPixels?: number;
  /** Bytes that decoding may take, about; 2^30 by default. */
  maxMemory?: number;
}

/** `code` is one of `CODES`, or 0 for what is no error of a file. */
export class LtnError extends Error {
  code: number;
  constructor(code: number, message: string);
}

export const CODES: Readonly<Record<string, number>>;
export const MODELS: readonly string[];
export const DEFAULT_MODEL: string;

/** A worker with a module of its own. */
export class Ltn {
  constructor(options?: { weights?: string; limits?: Limits; timeout?: number });
  info(file: File): Promise<Header>;
  decode(file: File): Promise<Picture>;
  encode(image: Samples | ImageData, options?: EncodeOptions): Promise<Uint8Array>;
  memory(): Promise<number>;
  close(): void;
}

export function info(file: File): Promise<Header>;
export function decode(file: File): Promise<Picture>;
export function encode(image: Samples | ImageData, options?: EncodeOptions): Promise<Uint8Array>;
export function toImageData(picture: Samples & { channels: number; bitDepth: number }): ImageData;
export function fromImageData(image: ImageData): Samples;
