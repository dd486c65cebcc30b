"""One call for one image: what most programs need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as PilImage

from latens import format as ltn
from latens.codec.image import ImageCodec, Samples
from latens.codec.lazy import OpenedImage
from latens.codec.lossless import Content, LosslessCodec, check_content
from latens.codec.target import Target
from latens.errors import FormatError, ImageError, LatensError, OutputError, ShapeError, TargetError, named
from latens.io import (
    Image,
    atomic_write,
    check_output,
    from_pil,
    printable,
    read_image,
    to_pil,
)
from latens.zoo.cards import DEFAULT_MODEL, tuned

__all__ = ["decode", "encode", "open", "save"]

Source = str | os.PathLike[str] | PilImage.Image | Image | Samples
Data = bytes | bytearray | memoryview


def encode(
    image: Source,
    quality: float | None = None,
    *,
    target_size: float | None = None,
    target_psnr: float | None = None,
    target_ssimulacra2: float | None = None,
    model: str | os.PathLike[str] | None = None,
    tune: str | None = None,
    effort: int = 1,
    lossless: bool = False,
    near_lossless: int = 0,
    content: Content | None = None,
    preview: bool | None = None,
) -> bytes:
    """Encode an image.

    Args:
        image: the path of an image file; a Pillow image; an array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` of uint8
            or of uint16 (0 to 65,535); or what :func:`latens.io.read_image` returns. Files are turned as their EXIF
            orientation says. Pillow images and arrays are coded as they are, for who opened the image may have
            turned it.
        quality: 0 (smallest) to 100 (best), 70 by default; any real number between. Not for a model of a single rate.
        target_size: bytes that the file may have, in place of a quality; it has at most 1 % less.
        target_psnr: dB over all samples, in place of a quality; met within 0.05.
        target_ssimulacra2: score of colours as seen, up to 100, in place of a quality; met within 0.3.
        model: a released model, or the path of a weights file; the default model if there is none.
        tune: in place of a model: the newest that is trained for ``"eye"`` or for ``"psnr"``.
        effort: 1 to 5; above 1, latents are improved by gradient steps for seconds to minutes, for smaller files
            of the same quality. Decoding is as fast as ever.
        lossless: keep every sample, without a model; see :class:`LosslessCodec`.
        near_lossless: the same, with an error of each sample of at most so much, 1 to 255; alpha has none.
        content: "photo" for a file that a model makes; "drawn" for a lossless one; "auto" for blocks of text, lines and
            flat areas that stay sharp in the file of a model, and one without a model where that is smaller, as of
            screenshots. By default "auto", or "photo" for who names a model. With ``lossless`` or
            ``near_lossless``, "photo" and "auto" are the same: each block is coded in the way that suits it.
        preview: whether the file of a model carries a small copy, an eighth of the sides, which decodes in no time and
            takes about 1 % of it; by default those of 8 to 1024 megapixels do.

    Returns:
        The bytes of a ``.ltn`` file.

    Raises:
        ImageError: the image or the quality cannot be used.
        LimitError: the image is too large.
        TargetError: no quality gives the target, or several were given.
        UnknownModelError, ModelError: the model cannot be used.
    """
    wishes = (target_size, target_psnr, target_ssimulacra2)
    if sum(wish is not None for wish in (quality, *wishes)) > 1:
        raise TargetError("give one of quality, target_size, target_psnr and target_ssimulacra2, not several")
    target = None
    if any(wish is not None for wish in wishes):
        target = Target(target_size, target_psnr, ssimulacra2=target_ssimulacra2)
    if model is not None and tune is not None:
        raise ImageError("give a model or a tune, not both")
    content = content or ("photo" if model is not None else "auto")
    check_content(content)
    exact = lossless or near_lossless != 0 or content == "drawn"
    if exact and any(wish is not None for wish in (quality, *wishes, model, tune)):
        raise TargetError("a lossless file has no quality, no target and no model; leave one of the two out")
    picture = _picture(image)
    if exact:
        kind: Content = "drawn" if content == "drawn" else "auto"
        return LosslessCodec().encode(picture, near=near_lossless, effort=effort, content=kind)
    codec = ImageCodec(tuned(tune) if tune is not None else model or DEFAULT_MODEL)
    if target is not None:
        return codec.encode_to(picture, target, effort=effort, content=content, preview=preview)
    return codec.encode(picture, quality, effort=effort, content=content, preview=preview)


def _picture(image: Source) -> Image:
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, np.ndarray):
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3):
            raise ShapeError(
                f"expected uint8 or uint16, (H, W) or (H, W, 1 or 3), got {image.dtype} {image.shape}"
            )
        return Image(image[:, :, None] if image.ndim == 2 else image)
    if isinstance(image, PilImage.Image):
        return from_pil(image)
    if not isinstance(image, Image):
        raise ImageError(
            f"expected a path, a Pillow image, an array or latens.io.Image, got {type(image).__name__}"
        )
    return image


def decode(
    data: Data,
    *,
    model: str | os.PathLike[str] | None = None,
    weights_dir: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    other_weights: bool = False,
) -> PilImage.Image:
    """Decode a ``.ltn`` file to a Pillow image (its ``info`` holds ICC, EXIF and XMP).

    Pillow has no colour of more than 8 bits: samples of 9 to 16 are rounded, but for grey without alpha, whose mode is
    then ``I;16``. :meth:`ImageCodec.decode` gives them in full.

    Args:
        data: the bytes of the file.
        model: path of a weights file, if the file's model is not a released one.
        weights_dir: folder with weights that are not in the package, in place of ``LATENS_WEIGHTS_DIR``.
        max_pixels: limit on width times height; 2^28 by default.
        other_weights: accept other weights for the pixels than the file was made with.

    Raises:
        ShapeError: something else than bytes.
        FormatError: the data are damaged or not a ``.ltn`` file.
        LimitError: the image is larger than the limit.
        WrongWeightsError, UnknownModelError, ModelError, DownloadError: the model that the file needs is not at hand.
    """
    if not isinstance(data, Data):
        raise ShapeError(
            f"expected the bytes of a .ltn file, got {type(data).__name__}; latens.open(name) reads a file"
        )
    container = ltn.read(data, _limits(max_pixels))
    if container.header.lossless:
        return to_pil(LosslessCodec().decode(container)[0])
    if model:
        codec = ImageCodec(model)
    else:
        codec = ImageCodec.for_file(container.header, weights_dir=weights_dir)
    return to_pil(codec.decode(container, other_weights=other_weights)[0])


def open(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    model: str | os.PathLike[str] | None = None,
    weights_dir: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    other_weights: bool = False,
) -> OpenedImage:
    """Open a ``.ltn`` file: a Pillow image that is decoded when its pixels are used; else as :func:`decode`.

    >>> image = latens.open("photo.ltn")  # doctest: +SKIP
    >>> image.size, image.crop((0, 0, 512, 512)), image.preview(1 / 8)  # doctest: +SKIP

    Args:
        path: of the file, or its address, ``https://...``: then no more is fetched than is used. Or a file that is open
            and can be sought, as fsspec gives of an object store; it stays open.

    Raises:
        FormatError: the file cannot be read or sought, is damaged, or no ``.ltn`` file. What is damaged of tiles is
            found when they are decoded.
    """

    def codec_for(header: ltn.Header) -> ImageCodec:
        return ImageCodec(model) if model else ImageCodec.for_file(header, weights_dir=weights_dir)

    if isinstance(path, str | os.PathLike):
        name = os.fspath(path)
    else:
        name = str(getattr(path, "name", None) or "file")
    try:
        try:
            source: ltn.Source
            if not isinstance(path, str | os.PathLike):
                source = ltn.FileSource(path)
            elif isinstance(path, str) and path.lower().startswith(("http://", "https://")):
                from latens.io import RangeFile  # takes time to load

                source = ltn.FileSource(RangeFile(path))
            else:
                source = ltn.PathSource(path)
            return OpenedImage(source, name, codec_for, _limits(max_pixels), other_weights=other_weights)
        except LatensError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise FormatError(f"cannot be read ({printable(reason)})") from error
    except LatensError as error:
        raise named(error, printable(name)) from error


def save(
    image: Source,
    path: str | os.PathLike[str],
    quality: float | None = None,
    *,
    target_size: float | None = None,
    target_psnr: float | None = None,
    target_ssimulacra2: float | None = None,
    model: str | os.PathLike[str] | None = None,
    tune: str | None = None,
    effort: int = 1,
    lossless: bool = False,
    near_lossless: int = 0,
    content: Content | None = None,
    preview: bool | None = None,
    force: bool = False,
) -> int:
    """Write an image to a ``.ltn`` file, whole or not at all; else as :func:`encode`.

    Args:
        path: ends in ``.ltn``.
        force: replace an existing file.

    Returns:
        The size of the file in bytes.

    Raises:
        OutputError: the file exists, has another suffix, or cannot be written.
    """
    if Path(path).suffix.lower() != ".ltn":
        raise OutputError(f"{printable(path)}: the name of a .ltn file ends in .ltn")
    inputs = [image] if isinstance(image, str | os.PathLike) else []
    check_output(path, force=force, inputs=inputs)
    data = encode(
        image,
        quality,
        target_size=target_size,
        target_psnr=target_psnr,
        target_ssimulacra2=target_ssimulacra2,
        model=model,
        tune=tune,
        effort=effort,
        lossless=lossless,
        near_lossless=near_lossless,
        content=content,
        preview=preview,
    )
    atomic_write(path, data, force=force, inputs=inputs)
    return len(data)


def _limits(max_pixels: int | None) -> ltn.Limits:
    return ltn.Limits() if max_pixels is None else ltn.Limits(max_pixels=max_pixels)
