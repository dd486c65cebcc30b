"""The lossless coder in plain Python: docs/lossless.md line by line, slow, for tests.

One piece of code for both directions: what codes a bit takes its value when encoding and returns it.
Everything that an encoder may choose is an argument: nothing is searched here.

>>> pixels = [[(7, 7, 7)] * 5] * 4
>>> decode(encode(pixels, 8), 5, 4, 3, 8) == pixels
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from latens.errors import CoderError

_M = 0xFFFFFFFF
_LOWER = 1 << 24
_KNOTS = [
    1, 2, 3, 5, 8, 13, 22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
    65523, 65528, 65531, 65533, 65534, 65535,
]  # fmt: skip
_PLACES = [
    (0, -1, 0), (0, -2, 0), (0, -1, -1), (0, 1, -1), (0, 0, -2), (0, 1, -2), (0, -2, -1), (0, 2, -1), (0, -1, -2),
    (1, 0, 0), (1, -1, 0), (1, 1, 0), (1, 0, 1), (1, -1, -1), (1, 1, -1), (2, 0, 0), (2, -1, 0), (2, 1, 0), (2, 0, 1),
]  # fmt: skip
_PLACE_COUNTS = (9, 15, 19)
_SIZE_PLACES = [
    (0, -1, 0), (0, -2, 0), (0, 0, -1), (0, -1, -1), (0, 1, -1), (0, 0, -2),
    (1, 0, 0), (1, -1, 0), (1, 0, -1), (1, 1, 0), (1, 0, 1), (2, 0, 0),
]  # fmt: skip
_SIZE_COUNTS = (6, 11, 12)

Pixel = tuple[int, ...]


def _size(v: int) -> int:
    return v.bit_length()


def _clamp(v: int, low: int, high: int) -> int:
    return min(max(v, low), high)


def _line(x: int) -> int:
    k, rest = divmod(x + 2816, 128)
    return _KNOTS[k] + (_KNOTS[k + 1] - _KNOTS[k]) * rest // 128


def _stretches() -> list[int]:
    lines = [(x, _line(x)) for x in range(-2815, 2816)]
    return [next((x for x, line in lines if line >= 16 * c + 8), 2815) for c in range(4096)]


_STRETCH = _stretches()


class _Model:
    __slots__ = ("count", "p")

    def __init__(self) -> None:
        self.p, self.count = 1 << 21, 0

    def learn(self, bit: int, limit: int) -> None:
        self.p += ((4194303 if bit else 0) - self.p) * (655360 // (10 * self.count + 16)) >> 16
        self.count += self.count < limit


class _Models(dict[int, _Model]):
    """Any number of models, made when they are used."""

    def __missing__(self, key: int) -> _Model:
        self[key] = _Model()
        return self[key]


def _push(x: int, words: list[int], start: int, freq: int, bits: int) -> int:
    if x >= freq << (40 - bits):
        words.append(x & 0xFFFF)
        x >>= 16
    return (x // freq << bits) + start + x % freq


def _finish(x: int, words: list[int]) -> bytes:
    return x.to_bytes(5, "little") + b"".join(word.to_bytes(2, "little") for word in reversed(words))


class _Words:
    """A state and the words that it takes."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 5 or len(data) % 2 == 0:
            raise CoderError("impossible size")
        self.x = int.from_bytes(data[:5], "little")
        self._data, self._at = data, 5
        if self.x < _LOWER:
            raise CoderError("impossible state")

    def take(self, start: int, freq: int, bits: int) -> None:
        self.x = freq * (self.x >> bits) + self.x % (1 << bits) - start
        if self.x < _LOWER:
            if self._at == len(self._data):
                raise CoderError("the stream ends early")
            self.x = self.x << 16 | int.from_bytes(self._data[self._at : self._at + 2], "little")
            self._at += 2

    def finish(self) -> None:
        if self.x != _LOWER or self._at != len(self._data):
            raise CoderError("decoding did not end where encoding began")


class _Coder:
    """Bits in one direction or the other."""

    def __init__(self, data: bytes | None = None) -> None:
        self._words = None if data is None else _Words(data)
        self._events: list[tuple[int, int]] = []

    @property
    def encodes(self) -> bool:
        return self._words is None

    def code(self, p: int, bit: int) -> int:
        if self._words is None:
            self._events.append((p, bit))
            return bit
        bit = int(self._words.x % 65536 < p)
        self._words.take(0 if bit else p, p if bit else 65536 - p, 16)
        return bit

    def finish(self) -> bytes:
        if self._words is not None:
            self._words.finish()
            return b""
        x, words = _LOWER, list[int]()
        for p, bit in reversed(self._events):
            x = _push(x, words, 0 if bit else p, p if bit else 65536 - p, 16)
        return _finish(x, words)

    def bit(self, model: _Model, bit: int) -> int:
        bit = self.code(_clamp(model.p >> 6, 16, 65520), bit)
        model.learn(bit, 255)
        return bit

    def mixed(self, weights: list[int], models: Sequence[_Model], bit: int, limit: int = 255) -> int:
        x = [_STRETCH[model.p >> 10] for model in models]
        total = sum(a * w for a, w in zip(x, weights, strict=True)) >> 16
        p = _clamp(_line(_clamp(total, -2815, 2815)), 16, 65520)
        bit = self.code(p, bit)
        e = (65536 * bit - p) >> 4
        for i, model in enumerate(models):
            weights[i] = _clamp(weights[i] + (x[i] * e + 512 >> 10), -(1 << 20), 1 << 20)
            model.learn(bit, limit)
        return bit

    def uniform(self, value: int, bits: int) -> int:
        result = 0
        for i in reversed(range(bits)):
            result = 2 * result + self.code(32768, value >> i & 1)
        return result

    def number(self, models: _Models, value: int) -> int:
        wanted, n = _size(value + 1) - 1, 0
        while n < 23 and self.bit(models[n], int(n < wanted)):
            n += 1
        if n == 0:
            return 0
        high = self.bit(models[24 + n], (value + 1) >> (n - 1) & 1)
        low = self.uniform((value + 1) % (1 << (n - 1)), n - 1)
        return (1 << n) + (high << (n - 1)) + low - 1

    def integer(self, models: _Models, value: int) -> int:
        coded = self.number(models, 2 * value if value >= 0 else -2 * value - 1)
        return coded // 2 if coded % 2 == 0 else -(coded + 1) // 2

    def tree(self, models: _Models, value: int, bits: int) -> int:
        node = 1
        for i in reversed(range(bits)):
            node = 2 * node + self.bit(models[node], value >> i & 1)
        return node - (1 << bits)


@dataclass
class PlaneChoice:
    """What an encoder may choose of a smooth plane; see docs/lossless.md, section 4."""

    classes: int = 1
    map: list[int] = field(default_factory=list)  # of each 8x8 block; empty: all 0
    coefficients: list[list[int]] = field(default_factory=lambda: [[0] * 19])
    size_weights: list[int] = field(default_factory=lambda: [64] * 12)
    offsets: list[int] = field(default_factory=lambda: [0])
    contexts: list[int] = field(default_factory=lambda: [0] * 80)


@dataclass
class Choice:
    """What an encoder may choose of a tile.

    drawn: of each 32x32 block, row by row, 0 smooth, 1 drawn; None: all are drawn. part: of each 64x64 block, whether
    it is coded; None: all are, in a tile of kind 1. mask: of each pixel, row by row, in place of part.
    """

    bits: int = 0  # 0: as many as the depth
    scale: int = 1
    near: int = 0
    drawn: list[int] | None = None
    part: list[int] | None = None
    mask: list[list[int]] | None = None
    planes: list[PlaneChoice] = field(default_factory=list)


def _order(channels: int) -> list[int]:
    return [1, 0, 2, 3][:channels] if channels >= 3 else list(range(channels))


def _frequencies(weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    result = [max(w * 65536 // whole, 1) if w else 0 for w in weights]
    result[weights.index(max(weights))] += 65536 - sum(result)
    return result


def _token(u: int) -> tuple[int, int, int]:
    """Token, number of extra bits, extra bits."""
    if u < 32:
        return u, 0, 0
    extra = _size(u) - 3
    return 32 + 4 * (extra - 3) + (u >> extra) % 4, extra, u % (1 << extra)


class _Smooth:
    """The smooth planes of a tile."""

    def __init__(
        self, coder: _Coder, width: int, height: int, bits: int, near: int, channels: int, drawn: list[int]
    ) -> None:
        self.coder, self.width, self.height, self.bits = coder, width, height, bits
        self.near, self.channels, self.drawn = near, channels, drawn
        self.top = (1 << bits) - 1
        self.columns = -(-width // 32)
        self.samples: list[list[list[int]]] = []
        self.sizes: list[list[list[int]]] = []

    def is_drawn(self, x: int, y: int) -> int:
        return self.drawn[y // 32 * self.columns + x // 32]

    @staticmethod
    def at(plane: list[list[int]], x: int, y: int) -> int:
        width = len(plane[0])
        if y >= len(plane):
            y = len(plane) - 1
        while x < 0 <= y:
            x, y = (0, y - 1)
        return 0 if y < 0 else plane[y][min(x, width - 1)]

    def code_header(self, p: int, choice: PlaneChoice) -> None:
        coder, kind = self.coder, min(p, 2)
        choice.classes = coder.uniform(choice.classes - 1, 5) + 1
        columns, rows = -(-self.width // 8), -(-self.height // 8)
        given, choice.map = choice.map, [0] * (columns * rows)
        if choice.classes > 1:
            as_left, as_above, tree = _Models(), _Model(), _Models()
            for i in range(columns * rows):
                y, x = divmod(i, columns)
                above = choice.map[i - columns] if y else 0
                left = choice.map[i - 1] if x else above
                wanted = given[i] if given else 0
                if self.is_drawn(8 * x, 8 * y) or coder.bit(as_left[int(left == above)], int(wanted == left)):
                    choice.map[i] = left
                elif left != above and coder.bit(as_above, int(wanted == above)):
                    choice.map[i] = above
                else:
                    choice.map[i] = coder.tree(tree, wanted, 5)
                    if choice.map[i] >= choice.classes:
                        raise CoderError("no such class")
        models = [_Models() for _ in _PLACES]
        given_c, choice.coefficients = choice.coefficients, []
        for k in range(choice.classes):
            row = [
                coder.integer(models[i], given_c[k][i] if coder.encodes else 0)
                for i in range(_PLACE_COUNTS[kind])
            ]
            if any(abs(c) > 8191 for c in row):
                raise CoderError("a coefficient is out of range")
            choice.coefficients.append(row)
        choice.size_weights = [coder.uniform(choice.size_weights[i], 9) for i in range(_SIZE_COUNTS[kind])]
        offset = _Models()
        choice.offsets = [
            coder.integer(offset, choice.offsets[k] if coder.encodes else 0) for k in range(choice.classes)
        ]
        if any(abs(b) > 1 << 20 for b in choice.offsets):
            raise CoderError("an offset is out of range")
        following, contexts = _Model(), [0]
        for level in range(1, 80):
            step = choice.contexts[level] - contexts[-1]
            contexts.append(contexts[-1] + coder.bit(following, step))
        choice.contexts = contexts

    def code_weights(self, contexts: int, given: list[list[int]] | None) -> list[list[int]]:
        coder = self.coder
        tokens = 2 << self.bits if self.bits < 5 else 16 + 4 * self.bits
        models = [_Models() for _ in range(16)]
        result: list[list[int]] = []
        before = [0] * tokens
        for context in range(contexts):
            row = []
            for t in range(tokens):
                wanted = given[context][t] if given else 0
                n = coder.tree(models[_size(before[t])], _size(wanted), 4)
                if n > 13:
                    raise CoderError("a weight is out of range")
                kept = min(n - 1, 3) if n else 0
                low = coder.uniform(wanted >> max(n - 1 - kept, 0), kept) if n else 0
                row.append(((1 << kept) + low % (1 << kept)) << (n - 1 - kept) if n else 0)
            if not any(row):
                raise CoderError("a table without frequencies")
            result.append(row)
            before = row
        return result

    def predict(self, p: int, x: int, y: int, choice: PlaneChoice) -> tuple[int, int]:
        """The prediction and the level."""
        k = choice.map[y // 8 * -(-self.width // 8) + x // 8]
        above = [self.at(self.samples[p - back], x, y - 1) for back in range(min(p, 2) + 1)]
        total = 1024
        for c, (back, dx, dy) in zip(choice.coefficients[k], _PLACES, strict=False):
            total += c * (self.at(self.samples[p - back], x + dx, y + dy) - above[back])
        expected = 16 * choice.offsets[k]
        for w, (back, dx, dy) in zip(choice.size_weights, _SIZE_PLACES, strict=False):
            expected += w * self.at(self.sizes[p - back], x + dx, y + dy)
        q = max(expected, 0) >> 6
        level = q if q < 4 else min(4 * (_size(q) - 2) + (q >> (_size(q) - 3)) % 4, 79)
        return _clamp(above[0] + (total >> 11), 0, self.top), level

    def step(self, p: int) -> int:
        return 1 if self.channels % 2 == 0 and p == self.channels - 1 else 2 * self.near + 1

    def start(self) -> None:
        self.samples.append([[0] * self.width for _ in range(self.height)])
        self.sizes.append([[0] * self.width for _ in range(self.height)])

    def encode(self, p: int, wanted: list[list[int]], choice: PlaneChoice) -> bytes:
        self.start()
        self.code_header(p, choice)
        tokens = 2 << self.bits if self.bits < 5 else 16 + 4 * self.bits
        contexts = choice.contexts[-1] + 1
        counts = [[0] * tokens for _ in range(contexts)]
        coded: list[tuple[int, int]] = []
        for y in range(self.height):
            for x in range(self.width):
                if self.is_drawn(x, y):
                    self.samples[p][y][x] = self.at(self.samples[p], x, y - 1)
                    continue
                predicted, level = self.predict(p, x, y, choice)
                off, step = wanted[y][x] - predicted, self.step(p)
                residual = (abs(off) + step // 2) // step * (-1 if off < 0 else 1)
                self.sizes[p][y][x] = abs(residual)
                self.samples[p][y][x] = _clamp(predicted + residual * step, 0, self.top)
                u = 2 * residual - 1 if residual > 0 else -2 * residual
                coded.append((choice.contexts[level], u))
                counts[choice.contexts[level]][_token(u)[0]] += 1
        weights = []
        for row in counts:
            most = max([1, *row])
            scaled = [max(n * 4000 // most, 1) if n else 0 for n in row]
            weights.append([w >> max(_size(w) - 4, 0) << max(_size(w) - 4, 0) for w in scaled])
            if not any(row):
                weights[-1][0] = 1
        weights = self.code_weights(contexts, weights)
        frequencies = [_frequencies(row) for row in weights]
        x, words = _LOWER, list[int]()
        for context, u in reversed(coded):
            token, extra, rest = _token(u)
            if extra:
                x = _push(x, words, rest, 1, extra)
            x = _push(x, words, sum(frequencies[context][:token]), frequencies[context][token], 16)
        return _finish(x, words)

    def decode(self, p: int, choice: PlaneChoice, weights: list[list[int]], data: bytes) -> None:
        self.start()
        stream = _Words(data)
        frequencies = [_frequencies(row) for row in weights]
        for y in range(self.height):
            for x in range(self.width):
                if self.is_drawn(x, y):
                    self.samples[p][y][x] = self.at(self.samples[p], x, y - 1)
                    continue
                predicted, level = self.predict(p, x, y, choice)
                row = frequencies[choice.contexts[level]]
                slot, start, token = stream.x % 65536, 0, 0
                while start + row[token] <= slot:
                    start += row[token]
                    token += 1
                stream.take(start, row[token], 16)
                u = token
                if token >= 32:
                    extra = (token - 32) // 4 + 3
                    rest = stream.x % (1 << extra)
                    stream.take(rest, 1, extra)
                    u = ((4 + token % 4) << extra) + rest
                residual = (u + 1) // 2 if u % 2 else -(u // 2)
                self.sizes[p][y][x] = abs(residual)
                self.samples[p][y][x] = _clamp(predicted + residual * self.step(p), 0, self.top)
        stream.finish()


def _hash(a: int, b: int) -> int:
    h = (a * 0x9E3779B1 + b * 0x85EBCA6B) & _M
    h = ((h ^ h >> 15) * 0x2C1B3C6D) & _M
    return h ^ h >> 16


class _Slot:
    def __init__(self) -> None:
        self.value = self.check = self.count = 0


class _Drawn:
    """The drawn pixels of a tile."""

    def __init__(
        self,
        coder: _Coder,
        width: int,
        height: int,
        bits: int,
        channels: int,
        deep: bool,
        drawn: list[int],
        mask: list[list[int]] | None = None,
    ) -> None:
        self.coder, self.width, self.height, self.bits = coder, width, height, bits
        self.channels, self.deep, self.drawn, self.mask = channels, deep, drawn, mask
        self.stride = width + 8
        self.pixels = [0] * (self.stride * (height + 2))
        self.order = _order(channels)
        self.h_bits = _clamp(_size(width * height), 12, 18)
        self.s_bits = _clamp(_size(width * height) - 2, 8, 16)
        self.tables: dict[str, dict[int, _Slot]] = {name: {} for name in ("far", "wide", "close", "first")}
        self.models: dict[str, _Models] = {}
        self.mixers: dict[tuple[str, int], list[int]] = {}

    def place(self, x: int, y: int) -> int:
        return (y + 2) * self.stride + 4 + x

    def key(self, c: int) -> int:
        return ((c & _M) + (c >> 32) * 0x9E3779B1) & _M if self.deep else c

    def model(self, name: str, number: int) -> _Model:
        return self.models.setdefault(name, _Models())[number]

    def mixer(self, name: str, number: int, n: int) -> list[int]:
        return self.mixers.setdefault((name, number), [81920 // n] * n)

    def find(self, table: str, h: int) -> tuple[_Slot, int, bool]:
        h = ((h ^ h >> 15) * 0x2C1B3C6D) & _M
        h ^= h >> 13
        number = (h * 0x9E3779B1 & _M) >> (32 - self.s_bits)
        slot = self.tables[table].setdefault(number, _Slot())
        return slot, h & 0xFFFF, slot.count > 0 and slot.check == h & 0xFFFF

    @staticmethod
    def learn(found: tuple[_Slot, int, bool], colour: int) -> None:
        slot, check, known = found
        if not known or (slot.value != colour and slot.count < 4):
            slot.value, slot.check, slot.count = colour, check, 1
        elif slot.value != colour:
            slot.count //= 4
        else:
            slot.count = min(slot.count + 1, 255)

    @staticmethod
    def cmp(found: tuple[_Slot, int, bool], colour: int) -> int:
        return 0 if not found[2] else 1 if found[0].value == colour else 2

    def sample(self, colour: int, channel: int) -> int:
        return colour >> (self.bits * channel) & ((1 << self.bits) - 1)

    def run(self) -> None:
        """Codes all rows; `pixels` holds what is wanted, or, decoding, is filled."""
        self.history, self.whole = 0, 1
        repeated = 0
        columns = -(-self.width // 32)
        for y in range(self.height):
            at = self.place(0, y)
            row, above = self.pixels, at - self.stride
            blocks = self.drawn[y // 32 * columns : (y // 32 + 1) * columns]
            kinds = [blocks[x // 32] for x in range(self.width)]
            if self.mask is not None:
                kinds = [kind if there else 2 for kind, there in zip(kinds, self.mask[y], strict=True)]
            for x in range(self.width):
                if kinds[x] == 2:
                    row[at + x] = row[above + x]
            row[at - 4 : at] = [row[above]] * 4
            inside = [x for x in range(self.width) if kinds[x] == 1]
            starts = [x for x in inside if x == 0 or kinds[x - 1] != 1]
            parts = [
                (x, next((e for e in range(x, self.width) if kinds[e] != 1), self.width)) for x in starts
            ]
            if parts:
                same = int(all(row[at + x] == row[above + x] for x in inside))
                same = self.coder.bit(self.model("row", repeated), same)
                repeated = (2 * repeated + same) % 8
                if same:
                    for x in inside:
                        row[at + x] = row[above + x]
                else:
                    for part in parts:
                        self.code_part(y, *part)
            row[at + self.width : at + self.width + 4] = [row[at + self.width - 1]] * 4

    def code_part(self, y: int, begin: int, end: int) -> None:
        pixels, coder, k = self.pixels, self.coder, self.key
        self.length, distance = 0, 0
        x = begin
        while x < end:
            here = self.place(x, y)
            up = here - self.stride
            tried: list[int] = []
            w = pixels[here - 1]
            if w == pixels[up] == pixels[up - 1] == pixels[up + 1]:
                run = self.code_run(here, end - x)
                x += run
                if run:
                    self.length = 0
                if self.whole:
                    continue
                here += run
                up += run
                tried.append(w)
            w, ww, www = (pixels[here - i] for i in (1, 2, 3))
            nww, nw, n, ne, nee = pixels[up - 2 : up + 3]
            nnw, nn, nne = pixels[up - self.stride - 1 : up - self.stride + 2]
            near = k(w) * 0x9E3779B1 + k(n) * 0x85EBCA6B + k(ne) * 0xC2B2AE35 + k(nw) * 0x27D4EB2F
            middle = near + k(ww) * 0x165667B1 + k(nn) * 0xD3A2646D + k(nee) * 0xFD7046C5
            wide_area = k(nww) * 0xB55A4F09 + k(nne) * 0x7FEB352D + k(nnw) * 0x846CA68B + k(www) * 0x31848BAB
            far = self.find("far", (middle + wide_area) & _M)
            wide, close = self.find("wide", middle & _M), self.find("close", near & _M)
            pairs = ((w, nw), (nw, n), (n, ne), (w, ww), (n, nn), (w, n))
            equal = sum((a == b) << i for i, (a, b) in enumerate(pairs))
            wanted, missed, hit, h = pixels[here], 0, 0, self.history

            def as_(c: int, w: int = w, n: int = n) -> int:
                return (c == w) + 2 * (c == n)

            found = wanted
            if self.length == 0 and far[2]:
                distance = here - far[0].value
            if self.length > 0 or far[2]:
                c = pixels[here - distance]
                if c not in tried:
                    b = self.length if self.length < 4 else min(_size(self.length) + 1, 7)
                    s = min(_size(far[0].count), 5) if far[2] else 0
                    around = (self.cmp(wide, c) * 3 + self.cmp(close, c)) * 64 + equal
                    models = [
                        self.model("match", ((b * 4 + as_(c)) * 4 + h) * 6 + s),
                        self.model("around", around * 8 + b),
                    ]
                    hit = coder.mixed(self.mixer("match", b, 2), models, int(c == wanted), 1023)
                    tried.append(c)
                    missed = 1
                    found = c
                self.length = min(self.length + 1, 1000) if hit else 0
            if not hit and wide[2] and wide[0].value not in tried:
                found = c = wide[0].value
                context = (min(wide[0].count, 15) * 3 + self.cmp(close, c)) * 4 + as_(c)
                hit = coder.bit(self.model("wide", (context * 2 + missed) * 4 + h), int(c == wanted))
                tried.append(c)
                missed |= 2
            if not hit and close[2] and close[0].value not in tried:
                found = c = close[0].value
                context = min(close[0].count, 15) * 4 + as_(c)
                hit = coder.bit(self.model("close", (context * 4 + missed) * 4 + h), int(c == wanted))
                tried.append(c)
                missed |= 4
            for i, c in enumerate((w, n, ne, nw)):
                if hit or c in tried:
                    continue
                models = [
                    self.model("near", ((i * 64 + equal) * 4 + h) * 8 + missed),
                    self.model("colour", _hash(k(c), 16 * i + len(tried)) >> (32 - self.h_bits)),
                ]
                found = c
                hit = coder.mixed(self.mixer("near", i, 2), models, int(c == wanted))
                tried.append(c)
            pixels[here] = found if hit else self.literal(wanted, w, n, nw, ne)
            self.history = (2 * h + hit) % 4
            slot = far[0]
            if not far[2]:
                slot.count = 1
            elif pixels[slot.value] != pixels[here]:
                slot.count = max(slot.count // 4, 1)
            else:
                slot.count = min(slot.count + 1, 255)
            slot.check, slot.value = far[1], here
            self.learn(wide, pixels[here])
            self.learn(close, pixels[here])
            x += 1

    def code_run(self, here: int, left: int) -> int:
        pixels, coder = self.pixels, self.coder
        up = here - self.stride
        w = pixels[here - 1]
        most = 1
        while most < left and pixels[up + most + 1] == w:
            most += 1
        run = 0
        if coder.encodes:
            while run < most and pixels[here + run] == w:
                run += 1
        up2 = up - self.stride
        calm = int(pixels[up2] == pixels[up2 + 1] == pixels[here - 2] == w)
        model = self.model("whole", (_size(most) * 2 + calm) * 2 + self.whole)
        self.whole = coder.bit(model, int(run == most))
        if self.whole:
            run = most
        else:
            m, wanted, n = _size(most - 1), _size(run), 0
            while n < m and not coder.bit(self.model("run", 17 * m + n), int(n == wanted)):
                n += 1
            value = n
            if n >= 2:
                value = 1
                for i in reversed(range(n - 1)):
                    bit, nth = run >> i & 1, n - 2 - i
                    coded = (
                        coder.bit(self.model("bits", 2 * n + nth), bit) if nth < 2 else coder.code(32768, bit)
                    )
                    value = 2 * value + coded
            run = min(value, most - 1)
        pixels[here : here + run] = [w] * run
        return run

    def literal(self, wanted: int, w: int, n: int, nw: int, ne: int) -> int:
        k, bits = self.key, self.bits
        top, shift = (1 << bits) - 1, max(bits - 6, 0)
        firsts = [self.sample(c, self.order[0]) for c in (w, n, nw, ne)]
        v0 = e0 = e1 = before = result = 0
        asked: list[tuple[_Slot, int, bool]] = []
        for i, channel in enumerate(self.order):
            if i == 1:
                asked = [
                    self.find("first", _hash(before + 0x12345 & _M, k(w))),
                    self.find("first", _hash(before + 0x777 & _M, 0xABCDEF)),
                ]
                found = self.by_first(asked, v0, wanted)
                if found is not None:
                    result = found
                    break
            mine = [self.sample(c, channel) for c in (w, n, nw, ne)]
            rough = abs(mine[0] - mine[2]) + abs(mine[1] - mine[2]) + abs(mine[1] - mine[3])
            rough = min(_size(rough), 15)
            flat = sorted((mine[0], mine[1], mine[0] + mine[1] - mine[2]))[1]
            value = self.sample(wanted, channel)
            if i == 0:
                bases = [rough, 64 + (flat >> shift), _hash(k(w), k(n)), _hash(k(w), 1), _hash(k(n), k(ne))]
                value = v0 = self.code_sample(0, value, bases)
                e0 = value - flat
            else:
                high, low = firsts.index(max(firsts)), firsts.index(min(firsts))
                d = firsts[high] - firsts[low]
                guess = flat + e0
                if d >= max(1 << bits >> 5, 1):
                    rise = (v0 - firsts[low]) * (mine[high] - mine[low])
                    guess = mine[low] + (abs(rise) // d) * (-1 if rise < 0 else 1)
                guess = _clamp(guess, 0, top)
                half = 1 << (bits - 1)
                e = abs(e0) + (abs(e1) if i > 1 else 0)
                bases = [
                    rough,
                    64 + (min(e, top) >> shift),
                    _hash(before, k(w)),
                    _hash(guess, v0),
                    _hash(k(w), 2),
                ]
                x = self.code_sample(i, (value - guess + half) & top, bases)
                value = (guess + x - half) & top
                if i == 1:
                    e1 = value - guess
            result |= value << (bits * channel)
            before = _hash(before, value)
        for found_slot in asked:
            self.learn(found_slot, result)
        return result

    def by_first(self, asked: list[tuple[_Slot, int, bool]], v0: int, wanted: int) -> int | None:
        first, second = (
            (slot, check, known and self.sample(slot.value, self.order[0]) == v0)
            for slot, check, known in asked
        )
        if first[2]:
            colour = first[0].value
            model = self.model("left", 3 * min(first[0].count, 15) + self.cmp(second, colour))
            if self.coder.bit(model, int(wanted == colour)):
                return colour
        if second[2] and not (first[2] and first[0].value == second[0].value):
            colour = second[0].value
            model = self.model("alone", 2 * min(second[0].count, 15) + first[2])
            if self.coder.bit(model, int(wanted == colour)):
                return colour
        return None

    def code_sample(self, i: int, value: int, bases: list[int]) -> int:
        prefix, node, lines = 1, 0, [0] * 5
        for bit in reversed(range(self.bits)):
            if bit % 4 == 3 or not node:
                lines = [16 * (_hash(b, 4 * prefix + i) >> (36 - self.h_bits)) for b in bases]
                node = 1
            models = [self.model(f"sample{j}", line + node) for j, line in enumerate(lines)]
            mixer = self.mixer("sample", 16 * i + bit, 5)
            coded = self.coder.mixed(mixer, models, value >> bit & 1)
            node, prefix = 2 * node + coded, 2 * prefix + coded
        return prefix - (1 << self.bits)


def _code_plan(coder: _Coder, choice: Choice, depth: int, smooth: int, drawn: int) -> tuple[int, int]:
    choice.bits = coder.uniform(choice.bits - 1, 4) + 1
    choice.scale = coder.uniform(choice.scale - 1, 4) + 1
    smooth, drawn = coder.uniform(smooth, 1), coder.uniform(drawn, 1)
    choice.near = coder.uniform(choice.near, 8)
    if choice.bits > depth or not (smooth or drawn):
        raise CoderError("an impossible tile")
    return smooth, drawn


def _code_blocks(coder: _Coder, columns: int, given: list[int], coded: list[int]) -> list[int]:
    """A bit for each block that is coded, 0 or 1; others are as given."""
    models, result = _Models(), list(given)
    for i in range(len(given)):
        if coded[i]:
            left = int(i % columns > 0 and result[i - 1] == 1)
            above = int(i >= columns and result[i - columns] == 1)
            result[i] = coder.bit(models[2 * left + above], given[i])
    return result


def _code_part(coder: _Coder, width: int, height: int, given: list[int] | None) -> list[int]:
    """Of each 32x32 block, whether it is coded."""
    columns, rows = -(-width // 64), -(-height // 64)
    part = _code_blocks(coder, columns, given or [0] * (columns * rows), [1] * (columns * rows))
    if 1 not in part:
        raise CoderError("a tile without blocks")
    return [part[y // 2 * columns + x // 2] for y in range(-(-height // 32)) for x in range(-(-width // 32))]


def _code_mask(coder: _Coder, width: int, height: int, given: list[list[int]] | None) -> list[list[int]]:
    """Of each pixel, whether it is coded."""
    mask = [[0] * width for _ in range(height)]
    there, whole, as_above, pixels = _Models(), _Models(), _Models(), _Models()
    kinds: dict[tuple[int, int], tuple[int, int]] = {}
    same = 1

    def at(y: int, x: int) -> int:
        return mask[y][x] if x >= 0 and y >= 0 else 0

    for top in range(0, height, 64):
        for left in range(0, width, 64):
            across = range(left, min(left + 64, width))
            down = range(top, min(top + 64, height))
            wanted = [given[y][x] for y in down for x in across] if given else []
            beside, above = kinds.get((top, left - 64), (0, 0)), kinds.get((top - 64, left), (0, 0))
            some = coder.bit(there[2 * beside[0] + above[0]], int(any(wanted)))
            all_ = coder.bit(whole[2 * beside[1] + above[1]], int(all(wanted))) if some else 0
            kinds[top, left] = some, all_
            for y in down:
                if some == all_:
                    mask[y][left : left + 64] = [some] * len(across)
                    continue
                repeats = given is not None and all(given[y][x] == at(y - 1, x) for x in across)
                same = coder.bit(as_above[same], int(repeats))
                for x in across:
                    if same:
                        mask[y][x] = at(y - 1, x)
                        continue
                    around = 8 * at(y, x - 1) + 4 * at(y - 1, x) + 2 * at(y - 1, x - 1) + at(y, x - 2)
                    mask[y][x] = coder.bit(pixels[around], given[y][x] if given else 0)
    if not any(map(any, mask)):
        raise CoderError("a tile without pixels")
    return mask


def _whole_blocks(mask: list[list[int]]) -> list[int | None]:
    """Of each 32x32 block: None if it is whole, else its kind: 2, left out, or 1, which one that is cut is."""
    height, width = len(mask), len(mask[0])
    corners = [(x, y) for y in range(0, height, 32) for x in range(0, width, 32)]
    found = ({v for row in mask[y : y + 32] for v in row[x : x + 32]} for x, y in corners)
    return [None if kinds == {1} else 2 if kinds == {0} else 1 for kinds in found]


def _wide(v: int, bits: int, depth: int) -> int:
    top = (1 << bits) - 1
    return (v * ((1 << depth) - 1) + top // 2) // top


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def encode(pixels: Sequence[Sequence[Pixel]], depth: int, choice: Choice | None = None) -> bytes:
    """A tile of kind 1, 2 or 3. With `near` only smooth blocks differ from the pixels, and by no more than it."""
    choice = choice or Choice()
    choice.bits = choice.bits or depth
    height, width = -(-len(pixels) // choice.scale), -(-len(pixels[0]) // choice.scale)
    channels = len(pixels[0][0])
    narrow = {_wide(v, choice.bits, depth): v for v in range(1 << choice.bits)}
    rows = [
        [[narrow[s] for s in pixels[y * choice.scale][x * choice.scale]] for x in range(width)]
        for y in range(height)
    ]
    columns, blocks = -(-width // 32), -(-width // 32) * -(-height // 32)
    coder, drawn = _Coder(), choice.drawn if choice.drawn is not None else [1] * blocks
    coded = [1] * blocks
    if choice.part is not None:
        coded = _code_part(_Coder(), width, height, choice.part)
        drawn = [kind if there else 2 for kind, there in zip(drawn, coded, strict=True)]
    if choice.mask is not None:
        fixed = _whole_blocks(choice.mask)
        coded = [int(kind is None) for kind in fixed]
        drawn = [free if kind is None else kind for free, kind in zip(drawn, fixed, strict=True)]
    _code_plan(coder, choice, depth, int(0 in drawn), int(1 in drawn))
    if choice.mask is not None:
        _code_mask(coder, width, height, choice.mask)
    if choice.part is not None:
        _code_part(coder, width, height, choice.part)
    if 0 in drawn and 1 in drawn:
        _code_blocks(coder, columns, drawn, coded)
    streams = []
    smooth = _Smooth(coder, width, height, choice.bits, choice.near, channels, drawn)
    if 0 in drawn:
        for p, channel in enumerate(_order(channels)):
            plane = [[pixel[channel] for pixel in row] for row in rows]
            streams.append(smooth.encode(p, plane, choice.planes[p] if choice.planes else PlaneChoice()))
    if 1 in drawn:
        pass_ = _Drawn(coder, width, height, choice.bits, channels, depth == 16, drawn, choice.mask)
        for y, row in enumerate(rows):
            for x, pixel in enumerate(row):
                if not drawn[y // 32 * columns + x // 32]:
                    planes = {channel: smooth.samples[p] for p, channel in enumerate(_order(channels))}
                    pixel = [planes[c][y][x] for c in range(channels)]
                pass_.pixels[pass_.place(x, y)] = sum(s << (choice.bits * c) for c, s in enumerate(pixel))
        pass_.run()
    first = coder.finish()
    return (b"\3" if choice.mask is not None else b"\1" if choice.part is None else b"\2") + b"".join(
        _varint(len(part)) + part for part in (first, *streams)
    )


def decode(data: bytes, width: int, height: int, channels: int, depth: int) -> list[list[Pixel]]:
    """The pixels of a tile, 0 where it has none. Raises CoderError for damage."""
    if data[:1] == b"\0":
        size = depth // 8
        if len(data) != 1 + width * height * channels * size:
            raise CoderError("impossible size")
        values = [int.from_bytes(data[i : i + size], "little") for i in range(1, len(data), size)]
        flat = [tuple(values[i : i + channels]) for i in range(0, len(values), channels)]
        return [flat[y * width : (y + 1) * width] for y in range(height)]
    if data[:1] not in (b"\1", b"\2", b"\3"):
        raise CoderError("an unknown kind")
    at = 1

    def take() -> bytes:
        nonlocal at
        size = shift = 0
        while True:
            if at >= len(data) or shift > 28:
                raise CoderError("a slice is missing")
            byte = data[at]
            at += 1
            size |= byte % 128 << shift
            if byte < 128:
                break
            shift += 7
        if (byte == 0 and shift) or at + size > len(data):
            raise CoderError("a slice is missing")
        at += size
        return data[at - size : at]

    coder, choice = _Coder(take()), Choice(bits=1)
    has_smooth, has_drawn = _code_plan(coder, choice, depth, 0, 0)
    w, h, bits = -(-width // choice.scale), -(-height // choice.scale), choice.bits
    columns, rows = -(-w // 32), -(-h // 32)
    coded = [1] * (columns * rows)
    if data[:1] != b"\1" and choice.scale > 1:
        raise CoderError("parts of an enlarged tile")
    if data[:1] == b"\2":
        coded = _code_part(coder, w, h, None)
    drawn = [has_drawn if there else 2 for there in coded]
    mask = None
    if data[:1] == b"\3":
        mask = _code_mask(coder, w, h, None)
        fixed = _whole_blocks(mask)
        if 1 in fixed and not has_drawn:
            raise CoderError("blocks that are cut and not drawn")
        coded = [int(kind is None) for kind in fixed]
        drawn = [has_drawn if kind is None else kind for kind in fixed]
    if has_smooth and has_drawn:
        drawn = _code_blocks(coder, columns, drawn, coded)
    order = _order(channels)
    smooth = _Smooth(coder, w, h, bits, choice.near, channels, drawn)
    if has_smooth:
        parts = []
        for p in range(channels):
            plane = PlaneChoice()
            smooth.code_header(p, plane)
            parts.append((plane, smooth.code_weights(plane.contexts[-1] + 1, None), take()))
        for p, part in enumerate(parts):
            smooth.decode(p, *part)
    if at != len(data):
        raise CoderError("bytes are left over")
    pass_ = _Drawn(coder, w, h, bits, channels, depth == 16, drawn, mask)
    for p, plane_samples in enumerate(smooth.samples):
        for y in range(h):
            for x in range(w):
                pass_.pixels[pass_.place(x, y)] |= plane_samples[y][x] << (bits * order[p])
    if has_drawn:
        pass_.run()
    coder.finish()
    values = [_wide(v, bits, depth) for v in range(1 << bits)]
    result = []
    for y in range(height):
        row = []
        for x in range(width):
            colour = pass_.pixels[pass_.place(x // choice.scale, y // choice.scale)]
            there = drawn[y // choice.scale // 32 * columns + x // choice.scale // 32] != 2
            there = there and (mask is None or bool(mask[y][x]))
            row.append(tuple(values[pass_.sample(colour, c)] if there else 0 for c in range(channels)))
        result.append(row)
    return result
