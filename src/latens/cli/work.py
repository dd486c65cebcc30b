"""What is done with one file: the same on a thread here, and in a process on another machine."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from latens import __version__
from latens import format as ltn
from latens.cli import batch, files, resume
from latens.cli.weights import announce
from latens.errors import CoderError, FormatError, ImageError

if TYPE_CHECKING:
    from latens.codec import ImageCodec, LosslessCodec
    from latens.codec.lossless import Content
    from latens.io import Strips

_M_ARENA_MAX = -8  # of malloc.h
LARGE = 1 << 23  # pixels, from which on images go from top to bottom, where they can
WHOLE = 1 << 26  # and up to which those with something drawn are read whole


def set_threads(threads: int | None) -> None:
    """So many for everything below; the libraries' own choice if it is None."""
    if threads is not None:
        from latens.runtime import set_threads

        set_threads(threads)
        # PyTorch reads it when it is imported, which only models of published architectures make it.
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _one_heap() -> None:
    """Threads share what they have freed. Each with its own, a picture of 400 megapixels takes 100 MB more."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # other libraries of C have no such thing
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class _Work:
    """What can go to other processes: all but what is made for the first file."""

    _made: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in self._made}
        # Looked at when the jobs were planned, and as large as all jobs together.
        return kept | {"inputs": files.Inputs(()), "lone": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.begin()

    def begin(self) -> None:
        """Forget what is made for the first file."""
        raise NotImplementedError


@dataclass
class Encode(_Work):
    """An image to a ``.ltn`` file.

    Attributes:
        quality, effort, content, near: as for the codecs.
        size, bpp, psnr, ssimulacra2: targets.
        model, tune: released model or weights file; what it is for.
        exact: lossless.
        preview: whether files carry a small copy; by their size if it is None.
        by_strips: whether large images are coded from top to bottom.
        frame: which picture of an animation.
        max_pixels: limit of an image.
        force: replace what is there.
        inputs: of all jobs.
        lone: whether somebody watches a bar for a single large image.
    """

    quality: float | None
    size: float | None
    bpp: float | None
    psnr: float | None
    ssimulacra2: float | None
    model: str | None
    tune: str | None
    effort: int
    exact: bool
    near: int
    content: str
    preview: bool | None
    by_strips: bool
    frame: int | None
    max_pixels: int
    force: bool
    inputs: files.Inputs
    lone: bool

    _made = ("_codec", "_lock")

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        # Made for the first image that can be read: a mistake is told without waiting for weights.
        self._codec: ImageCodec | None = None
        self._lock = threading.Lock()

    def options(self) -> dict[str, Any]:
        """What decides the results."""
        names = (
            "quality", "size", "bpp", "psnr", "ssimulacra2", "model", "tune", "effort", "exact", "near", "content",
            "preview", "by_strips", "frame",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def __call__(self, job: files.Job) -> batch.Done:
        from latens.codec import LosslessCodec, Target
        from latens.io import read_image

        before = files.size_of(job)
        with files.opened(job, self.max_pixels) as source:
            if (done := self._strips(job, source, before)) is not None:
                return done
            try:
                image = read_image(source, frame=self.frame, max_pixels=self.max_pixels)
            except ImageError as error:
                raise files.not_image(job, error) from error
        height, width = image.pixels.shape[:2]
        size, pixels = self.size, None
        if self.bpp is not None:
            size, pixels = self.bpp * width * height / 8, width * height
        coder = None if self.exact else self._coder()
        content = cast("Content", self.content)
        with files.named(job.source):
            if coder is None:
                data = LosslessCodec().encode(
                    image,
                    near=self.near,
                    effort=self.effort,
                    content="drawn" if content == "drawn" else "auto",
                )
            elif size is None and self.psnr is None and self.ssimulacra2 is None:
                data = coder.encode(
                    image, self.quality, effort=self.effort, content=content, preview=self.preview
                )
            else:
                target = Target(size, self.psnr, pixels, self.ssimulacra2)
                data = coder.encode_to(
                    image, target, effort=self.effort, content=content, preview=self.preview
                )
        files.write(job, data, self.force, self.inputs)
        bpp = 8 * len(data) / (width * height)
        text = f"{len(data):,} bytes, {bpp:.3f} bits per pixel"
        if before is not None:
            text = f"{before:,} -> {len(data):,} bytes ({batch.percent(len(data), before)}), {bpp:.3f} bits per pixel"
        return batch.Done(text, before, len(data), bpp, image.notes)

    def _coder(self) -> ImageCodec:
        from latens.codec import ImageCodec
        from latens.zoo.cards import DEFAULT_MODEL, tuned

        with self._lock:
            if self._codec is None:
                self._codec = ImageCodec(
                    tuned(self.tune) if self.tune is not None else self.model or DEFAULT_MODEL
                )
            return self._codec

    def _strips(self, job: files.Job, source: BinaryIO | str, before: int | None) -> batch.Done | None:
        """A large image from top to bottom; None for one that has to be read whole, or may be."""
        if files.STANDARD in (job.source, job.target) or not self.by_strips:
            return None
        from latens.codec.drawn import look_at_strips
        from latens.io import open_strips

        with files.named(job.source), files.sought(source) as file:
            strips = None if file is None else open_strips(file, self.max_pixels)
            if file is None or strips is None or strips.shape[0] * strips.shape[1] < LARGE:
                return None
            if self.content == "auto" and strips.shape[0] * strips.shape[1] <= WHOLE:
                if look_at_strips(strips):
                    return None
                strips = open_strips(file, self.max_pixels)
                assert strips is not None
            _one_heap()
            with batch.progress("Encoding", self.lone) as progress:
                if strips.shape[0] * strips.shape[1] < resume.HUGE:
                    with files.writing(job, self.force, self.inputs) as out:
                        size = self._coder().encode_strips(
                            strips, out, self.quality, progress=progress, preview=self.preview
                        )
                else:
                    size = self._huge(job, file, strips, progress)
        bpp = 8 * size / (strips.shape[0] * strips.shape[1])
        text = f"{before or 0:,} -> {size:,} bytes, {bpp:.3f} bits per pixel"
        return batch.Done(text, before, size, bpp, strips.about.notes)

    def _huge(
        self, job: files.Job, file: BinaryIO, strips: Strips, progress: Callable[[float], None] | None
    ) -> int:
        """A picture that takes long: what another run has done of it is not done again."""
        coder = self._coder()
        identity = resume.identity(
            file, options=self.options(), weights=coder.model.weights_id, latens=__version__
        )
        with (
            resume.beside(job, identity) as note,
            files.writing(job, self.force, self.inputs, begun=note is not None) as out,
        ):
            code = partial(
                coder.encode_strips, strips, out, self.quality, progress=progress, preview=self.preview
            )
            if note is None:
                return code()
            begun = note.read()
            if begun is not None:
                with suppress(FormatError, CoderError):  # nothing is taken of the strips before these
                    return code(begun=begun, save=note.write)
            out.seek(0)
            out.truncate()
            return code(save=note.write)


@dataclass
class Decode(_Work):
    """A ``.ltn`` file to an image.

    Attributes:
        format: of images, or None.
        part: left, top, right and bottom, or None.
        scale: of the sides.
        step: what it divides them by.
        model, weights_dir, other_weights: where weights come from.
        salvage: of damaged files, make what can be had.
        max_pixels, force, inputs, lone: as of :class:`Encode`.
        quiet: whether nothing is said of weights that are fetched.
    """

    format: str | None
    part: tuple[int, int, int, int] | None
    scale: str
    step: int
    model: str | None
    weights_dir: str | None
    other_weights: bool
    salvage: bool
    max_pixels: int
    force: bool
    quiet: bool
    inputs: files.Inputs = field(repr=False)
    lone: bool

    _made = ("_codecs",)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._codecs = Codecs(self.model, self.weights_dir, self.quiet)

    def options(self) -> dict[str, Any]:
        """What decides the results."""
        names = ("format", "part", "scale", "model", "other_weights", "salvage")
        return {name: getattr(self, name) for name in names}

    def kind_of(self, job: files.Job) -> str:
        """The format of a result. Raises OutputError for a suffix that is none."""
        from latens.io import write_format

        if self.format is not None or job.found or job.target == files.STANDARD or files.is_null(job.target):
            return self.format or "png"
        return write_format(job.target)

    def __call__(self, job: files.Job) -> batch.Done:
        from latens.io import write_image

        limits = ltn.Limits(max_pixels=self.max_pixels)
        wanted = self.part is not None or self.step > 1
        sought = job.remote or files.is_plain(job.source)
        if wanted and not sought:
            raise ImageError("--region and --scale need a file that can be sought; name one")
        buffer = io.BytesIO()
        on_error = cast(Any, "conceal" if self.salvage else "raise")
        with files.named(job.source):
            with files.opened_ltn(job, limits, in_parts=wanted) as file:
                if (
                    sought
                    and not self.salvage
                    and (done := self._parts(job, file, limits, wanted)) is not None
                ):
                    return done
                data = files.load(file, limits)
            container = ltn.read(data, limits, on_error=on_error)
            image, problems = self._codecs(container.header).decode(
                container, on_error=on_error, other_weights=self.other_weights
            )
            notes = write_image(image, buffer, self.kind_of(job))
        files.write(job, buffer.getvalue(), self.force, self.inputs)
        header = container.header
        return batch.Done(
            f"{header.width} x {header.height}",
            len(data),
            len(buffer.getvalue()),
            8 * len(data) / (header.width * header.height),
            (*notes, *problems),
            bool(problems),
        )

    def _parts(self, job: files.Job, file: BinaryIO, limits: ltn.Limits, wanted: bool) -> batch.Done | None:
        """A part, a small copy, or a large picture, from top to bottom; None for one that is decoded whole."""
        from latens.codec import Picture
        from latens.codec.picture import check_box
        from latens.io import STRIP_FORMATS, write_image, write_strips

        head = file.read(ltn.MAX_HEADER_SIZE)
        try:
            header = ltn.read_header(head, limits)
        except FormatError as error:
            raise files.not_ltn(head, error) from error
        if not wanted and header.width * header.height < LARGE:
            return None
        _one_heap()
        picture = Picture(
            ltn.FileSource(file), cast(Any, self._codecs), limits, other_weights=self.other_weights
        )
        box = check_box(self.part, picture.size)
        width, height = (-(-box[side + 2] // self.step) - box[side] // self.step for side in (0, 1))
        kind = self.kind_of(job)
        if kind in STRIP_FORMATS and job.target != files.STANDARD and width * height >= LARGE:
            with (
                batch.progress("Decoding", self.lone) as progress,
                files.writing(job, self.force, self.inputs) as out,
            ):
                rows = batch.counted(picture.rows(box, self.scale), height, progress)
                notes = write_strips(out, kind, (width, height), picture.about(self.step), rows)
                size = out.tell()
        elif wanted:
            buffer = io.BytesIO()
            notes = write_image(picture.image(box, self.scale), buffer, kind)
            size = len(buffer.getvalue())
            files.write(job, buffer.getvalue(), self.force, self.inputs)
        else:
            return None
        before = files.size_of(job) or 0
        bpp = 8 * before / (header.width * header.height)
        return batch.Done(f"{width} x {height}", before, size, bpp, notes)


class Codecs:
    """The codec for a file by its header, made once for each model.

    Args:
        model: weights file to decode with, instead of what a header names.
        weights_dir: folder with sets of weights.
        quiet: say nothing of weights that are fetched.
    """

    def __init__(self, model: str | None, weights_dir: str | None, quiet: bool) -> None:
        self._model, self._weights_dir, self._quiet = model, weights_dir, quiet
        self._codecs: dict[str, ImageCodec] = {}
        self._lock = threading.Lock()

    def __call__(self, header: ltn.Header) -> ImageCodec | LosslessCodec:
        from latens.codec import ImageCodec, LosslessCodec

        if header.lossless:
            return LosslessCodec()
        name = self._model or header.model
        with self._lock:
            if name not in self._codecs and self._model:
                self._codecs[name] = ImageCodec(self._model)
            elif name not in self._codecs:
                announce(name, self._weights_dir, self._quiet)
                self._codecs[name] = ImageCodec.for_file(header, weights_dir=self._weights_dir)
            return self._codecs[name]
