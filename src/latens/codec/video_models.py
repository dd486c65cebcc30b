"""What the video codec needs of a model: from a picture to coder streams, and back."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from latens import format as ltn
from latens.codec.models import (
    LEVELS,
    CodedLatent,
    Predict,
    Second,
    by_position,
    encode_in_two_steps,
    finish_in_two_steps,
)
from latens.codec.models import finite as _finite
from latens.errors import FormatError, ModelError
from latens.models.video import LatensVideo, ScaleSpaceFlow
from latens.models.video.conditional import Context
from latens.models.video.motion import BLOCK, search
from latens.runtime import Decoded
from latens.runtime.video import PARTS, ConditionalEntropy, ExactLatents
from latens.zoo.video_weights import LoadedVideoModel

__all__ = ["CodedPicture", "PictureCoder", "picture_coder"]

_INT16 = 32767.0
_SCALE_SPACE_HYPER = 128  # pixels per position of z
_HYPER = 64


class CodedPicture(NamedTuple):
    """Coder streams of a frame, the checksum over its symbols, and the picture as the decoder will have it."""

    streams: tuple[ltn.Stream, ...]
    checksum: int
    picture: Tensor


class PictureCoder(Protocol):
    """One model, one frame at a time. Pictures are ``(1, 3, H, W)`` in 0..1, H and W multiples of ``grid``."""

    grid: int
    skip: int
    """Table indexes below are not coded."""
    qualities: bool
    """Whether it has all qualities; otherwise the header's is 0."""
    longest: int | None
    """The most frames of a group of pictures; None: any number."""

    def encode(self, picture: Tensor, before: Tensor | None, level: int) -> CodedPicture:
        """Code a frame, alone or under the condition of the one before as the decoder has it.

        Raises:
            ModelError: the weights give values that are not finite.
        """

    def decode(
        self, frame: ltn.Frame, before: Tensor | None, shape: tuple[int, int], header: ltn.VideoHeader
    ) -> tuple[int, Tensor]:
        """Checksum over the symbols of a frame of padded ``shape``, and its picture, not clamped.

        Raises:
            CoderError, FormatError: the frame is damaged.
            ModelError: the weights give values that are not finite.
        """


def picture_coder(model: LoadedVideoModel, fast: bool) -> PictureCoder:
    """The coder of a loaded model.

    Args:
        model: network and integer entropy model.
        fast: run the transforms in bfloat16.
    """
    network, entropy = model.network, model.entropy
    if isinstance(network, LatensVideo) and isinstance(entropy, ConditionalEntropy):
        return _Conditional(network, entropy, fast)
    if isinstance(network, ScaleSpaceFlow) and isinstance(entropy, ExactLatents):
        return _ScaleSpace(network, entropy, fast)
    raise ModelError(f"{model.id}: {type(network).__name__} does not fit {type(entropy).__name__}")


def _expect(frame: ltn.Frame, fits: bool, expected: str) -> None:
    if not fits:
        raise FormatError(f"expected {expected} streams, found {len(frame.streams)}")


class _ScaleSpace:
    """Scale-space flow: a latent of each picture, or one of its motion and one of what that leaves."""

    grid = 128
    # Published weights were trained without leaving out symbols.
    skip = 0
    qualities = False
    longest: int | None = None

    def __init__(self, network: ScaleSpaceFlow, entropy: ExactLatents, fast: bool) -> None:
        self._network, self._entropy, self._fast = network, entropy, fast

    def encode(self, picture: Tensor, before: Tensor | None, level: int) -> CodedPicture:
        network = self._network
        network.fast = self._fast
        run = network._transform
        if before is None:
            stream, decoded = self._code("img", run(network.img_encoder, picture))
            return _coded([stream], [decoded], network._picture(_latent(decoded)))
        stream, motion = self._code("motion", network._motion(picture, before))
        predicted = network._predict(before, _latent(motion))
        other, residual = self._code("res", run(network.res_encoder, picture - predicted))
        found = network._add(predicted, _latent(residual), _latent(motion))
        return _coded([stream, other], [motion, residual], found)

    def _code(self, name: str, y: Tensor) -> tuple[ltn.Stream, Decoded]:
        prior = self._entropy.parts[name]
        hyperprior = getattr(self._network, f"{name}_hyperprior")
        z = prior.quantise_z(_finite(hyperprior.hyper_encoder(_finite(y))).numpy(), 0)
        quantise = prior.quantiser(y.numpy(), 0, self.skip)
        stream, lanes, decoded = prior.encode(z, quantise, 0, self.skip)
        return ltn.Stream(lanes, stream), decoded

    def decode(
        self, frame: ltn.Frame, before: Tensor | None, shape: tuple[int, int], header: ltn.VideoHeader
    ) -> tuple[int, Tensor]:
        names = PARTS[:1] if before is None else PARTS[1:]
        _expect(frame, len(frame.streams) == len(names), str(len(names)))
        z_shape = shape[0] // _SCALE_SPACE_HYPER, shape[1] // _SCALE_SPACE_HYPER
        found = [
            self._entropy.parts[name].decode(stream.data, z_shape, 0, header.skip, stream.lanes)
            for name, stream in zip(names, frame.streams, strict=True)
        ]
        network = self._network
        network.fast = self._fast
        if before is None:
            decoded = network._picture(_latent(found[0]))
        else:
            motion, residual = map(_latent, found)
            decoded = network._add(network._predict(before, motion), residual, motion)
        return _checksum(found), _finite(decoded)


class _Conditional:
    """The default video model: vectors of blocks, and a latent under the condition of the picture before."""

    grid = _HYPER
    skip = 4
    qualities = True
    # What two machines differ in grows by some per cent from frame to frame: to two levels in so many.
    longest: int | None = 32

    def __init__(self, network: LatensVideo, entropy: ConditionalEntropy, fast: bool) -> None:
        self._network, self._entropy = network, entropy
        self._precision = torch.autocast("cpu", torch.bfloat16, enabled=fast)

    def encode(self, picture: Tensor, before: Tensor | None, level: int) -> CodedPicture:
        network, image, q = self._network, self._network.image, _quality(level)
        knot = self._entropy.image.knot_at(level)
        with self._precision:
            y = _finite(image.features(by_position(picture))) * image.gain(q)
        if before is None:
            with self._precision:
                z = _rounded(image.hyper_analyse(y, q))
            code = encode_in_two_steps(self._entropy.image, y, z, self._image_means(q), knot, self.skip, None)
            with self._precision:
                found = image.synthesise(code.y_hat, q)
            return _coded([_stream(code)], [code.decoded], found)
        vectors = search(picture, before, network.price(q))
        with self._precision:
            context = network.condition(before, vectors, q)
            z = _rounded(network.hyper_analyse(y, context, q))
        predict = self._means(context, q)
        code = encode_in_two_steps(self._entropy.inter, y, z, predict, knot, self.skip, None)
        with self._precision:
            found = network.synthesise(code.y_hat, context, q)
        streams = [_stream(code)]
        if vectors.any():
            motion, lanes = self._entropy.motion.encode(vectors[0].numpy())
            streams.append(ltn.Stream(lanes, motion))
        return _coded(streams, [code.decoded], found, vectors)

    def decode(
        self, frame: ltn.Frame, before: Tensor | None, shape: tuple[int, int], header: ltn.VideoHeader
    ) -> tuple[int, Tensor]:
        network, image, q = self._network, self._network.image, _quality(header.quality)
        knot = self._entropy.image.knot_at(header.quality)
        z_shape = shape[0] // _HYPER, shape[1] // _HYPER
        stream, lanes = frame.streams[0].data, frame.streams[0].lanes
        if before is None:
            _expect(frame, len(frame.streams) == 1, "1")
            decoded = self._entropy.image.decode(stream, z_shape, knot, header.skip, lanes)
            y_hat = finish_in_two_steps(decoded, self._image_means(q))
            with self._precision:
                return _checksum([decoded]), _finite(image.synthesise(y_hat, q))
        _expect(frame, len(frame.streams) <= 2, "1 or 2")
        blocks = shape[0] // BLOCK, shape[1] // BLOCK
        vectors = torch.zeros((1, 2, *blocks), dtype=torch.int16)
        if len(frame.streams) == 2:
            motion = frame.streams[1]
            vectors[0] = torch.from_numpy(self._entropy.motion.decode(motion.data, motion.lanes, blocks))
        decoded = self._entropy.inter.decode(stream, z_shape, knot, header.skip, lanes)
        with self._precision:
            context = network.condition(before, vectors, q)
        y_hat = finish_in_two_steps(decoded, self._means(context, q))
        with self._precision:
            found = network.synthesise(y_hat, context, q)
        return _checksum([decoded], vectors), _finite(found)

    def _image_means(self, q: Tensor) -> Predict:
        image = self._network.image

        def predict(z: Tensor) -> tuple[Tensor, Second]:
            means = image.means(z)
            return image.first_mean(means, q), lambda y: image.second_mean(means, y, q)

        return predict

    def _means(self, context: Context, q: Tensor) -> Predict:
        network = self._network

        def predict(z: Tensor) -> tuple[Tensor, Second]:
            means = network.means(z, context)
            return network.first_mean(means, context, q), lambda y: network.second_mean(means, y, context, q)

        return predict


def _quality(level: int) -> Tensor:
    return torch.tensor([level / LEVELS], dtype=torch.float32, device="cpu")


def _rounded(z: Tensor) -> Tensor:
    return _finite(z).round_().clamp_(-_INT16, _INT16)


def _latent(decoded: Decoded) -> Tensor:
    return torch.from_numpy(decoded.latent)


def _stream(code: CodedLatent) -> ltn.Stream:
    return ltn.Stream(code.lanes, code.stream)


def _checksum(found: list[Decoded], vectors: Tensor | None = None) -> int:
    """Over vectors, if there are any, and the symbols of each z and y."""
    arrays = [] if vectors is None else [vectors.numpy()]
    arrays += [array for decoded in found for array in (decoded.z, decoded.y)]
    return ltn.symbol_checksum(*(array.data for array in arrays))


def _coded(
    streams: list[ltn.Stream], found: list[Decoded], picture: Tensor, vectors: Tensor | None = None
) -> CodedPicture:
    return CodedPicture(tuple(streams), _checksum(found, vectors), _finite(picture))
