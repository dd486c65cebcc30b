// How networks run: strip by strip, each stage on all threads. Stages that look at neighbouring rows keep the
// last ones until the next strip comes.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "network.hpp"
#include "pool.hpp"

namespace latens {
namespace {

// Positions that go through the products of a block together: what lies between them stays in the cache.
constexpr std::size_t positions_together = 24;
constexpr std::size_t positions_at_least = 6;
// Positions of a strip, about.
constexpr std::size_t positions_in_strip = 4096;
// Less than this is done before another thread has begun.
constexpr std::size_t products_for_a_thread = 1'000'000;
// Between two looks whether to go on.
constexpr std::chrono::milliseconds patience{50};
constexpr std::size_t samples_side = 8;  // of the square that a position stands for

struct Step {
    const Network::Stage* stage = nullptr;
    std::size_t width = 0, pitch = 0;         // of what comes in
    std::size_t seen = 0;                     // rows that have come
    std::size_t given = 0;                    // rows that have left
    Aligned<std::int16_t> held, held_inside;  // the last rows that came, and those of a block's `pw_in`

    bool looks_around() const {
        return stage->kind == StageKind::block || stage->kind == StageKind::depthwise ||
               (stage->kind == StageKind::product && stage->number > 1);
    }
    // Most rows that are kept.
    std::size_t kept() const {
        if (stage->kind == StageKind::unshuffle) return stage->number - 1;
        if (stage->kind == StageKind::block) return 1;
        return looks_around() ? 2 : 0;
    }
    std::size_t row() const { return width * pitch; }
    // Rows that leave when so many come.
    std::size_t leaving(std::size_t rows, bool last) const {
        const std::size_t all = seen + rows;
        switch (stage->kind) {
            case StageKind::shuffle:
            case StageKind::pixels:
                return rows * stage->number;
            case StageKind::unshuffle:
            case StageKind::input:
                return all / stage->number - given;
            default:
                if (!looks_around()) return rows;
                return (last || all == 0 ? all : all - 1) - given;
        }
    }
    std::size_t out_width() const {
        switch (stage->kind) {
            case StageKind::shuffle:
            case StageKind::pixels:
                return width * stage->number;
            case StageKind::unshuffle:
            case StageKind::input:
                return width / stage->number;
            default:
                return width;
        }
    }
};

Factors factors_of(const Scale& scale, std::size_t pitch) {
    Factors f;
    for (Aligned<std::int32_t>* values : {&f.m, &f.limit, &f.left, &f.half, &f.right})
        values->assign(pitch, 0);
    for (std::size_t c = 0; c < scale.count; ++c) {
        const std::int32_t s = scale.s[c];
        f.m[c] = s > 30 ? 0 : scale.m[c];  // products have 30 bits and a sign: nothing is left of them
        f.limit[c] = s > 0 ? std::numeric_limits<std::int32_t>::max() : 32767;
        f.left[c] = s < 0 ? -s : 0;
        f.right[c] = s > 30 || s < 0 ? 0 : s;
        f.half[c] = f.right[c] > 0 ? std::int32_t{1} << (s - 1) : 0;
    }
    return f;
}

template <class Sample>
void put_samples(const std::int32_t* sums, const Samples& samples, unsigned shift, Sample* out) {
    const std::int64_t top = (std::int64_t{1} << samples.depth) - 1;
    const std::int64_t unit = samples.channels == 1 ? 3 * 255 : 255, half = unit << (shift - 1);
    const std::size_t each = samples.channels == 1 ? 3 : 1, count = samples_side * 3 / each;
    for (std::size_t i = 0; i < count; ++i) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < each; ++k) sum += sums[each * i + k];
        const std::int64_t scaled = std::clamp<std::int64_t>((sum * top + half) >> shift, 0, top * unit);
        out[i] = static_cast<Sample>(static_cast<std::uint32_t>(scaled) / static_cast<std::uint32_t>(unit));
    }
}

}  // namespace

struct Stream::State {
    std::shared_ptr<const Network> network;
    Samples samples;
    std::size_t width = 0;
    std::vector<Step> steps;
    std::vector<Factors> factors;
    std::vector<std::int16_t> table;  // what samples become
    std::vector<std::uint8_t> begun;  // samples of rows that do not yet fill one of positions
    Aligned<std::int16_t> buffers[2], inside, zeros;
    unsigned slots = 1;
    std::vector<Aligned<std::int16_t>> memory;  // of each slot
    std::vector<Aligned<std::int32_t>> sums;
    bool finished = false, interrupted = false;
    std::chrono::steady_clock::time_point asked = std::chrono::steady_clock::now();

    const Kernels& kernels() const { return network->kernels(); }
    std::size_t sample_bytes() const { return samples.depth > 8 ? 2 : 1; }

    // Calls `work(first, end, slot)` for groups of positions.
    template <class Work>
    void each_group(std::size_t positions, std::size_t products, const Work& work) {
        if (positions == 0) return;
        const unsigned helpers = positions * products < products_for_a_thread ? 1 : slots;
        // Two groups or more for each thread, so that one that comes late does fewer.
        const std::size_t share_of_each = (positions + 2 * helpers - 1) / (2 * helpers);
        const std::size_t together =
            std::clamp((share_of_each + positions_at_least - 1) / positions_at_least * positions_at_least,
                       positions_at_least, positions_together);
        share((positions + together - 1) / together, helpers, [&](std::size_t part, unsigned slot) {
            work(part * together, std::min(positions, (part + 1) * together), slot);
        });
    }

    // Memory in the other buffer for what step `next` takes.
    std::int16_t* make_room(Aligned<std::int16_t>& buffer, std::size_t next, std::size_t values) {
        const std::size_t front = next < steps.size() ? steps[next].kept() * steps[next].row() : 0;
        if (buffer.size() < front + values) buffer.resize(front + values);
        return buffer.data() + front;
    }

    // Lays the rows that were kept in front of the new ones; says how many.
    static std::size_t bring_back(const Aligned<std::int16_t>& held, std::int16_t* rows) {
        std::copy(held.begin(), held.end(), rows - held.size());
        return held.size();
    }

    void product(const Packed& p, const std::int16_t* in, std::size_t in_pitch, std::size_t positions,
                 std::int16_t* out, const std::int16_t* added = nullptr) const {
        kernels().product({p, in, in_pitch, positions, out, added, nullptr, padded(p.outputs)});
    }

    // Row `row` of the picture, of those that begin at `rows` with row `first`.
    const std::int16_t* row_of(const std::int16_t* rows, std::size_t first, std::size_t end,
                               std::ptrdiff_t row, std::size_t size) const {
        const auto from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(end);
        return row < 0 || row >= to ? zeros.data() : rows + (row - from) * static_cast<std::ptrdiff_t>(size);
    }

    // Calls `work(row, first column, end column, position in the group)` for the rows of some positions.
    template <class Work>
    static void each_row(std::size_t width, std::size_t first, std::size_t end, const Work& work) {
        for (std::size_t p = first; p < end;) {
            const std::size_t x = p % width, some = std::min(width - x, end - p);
            work(p / width, x, x + some, p - first);
            p += some;
        }
    }

    void depthwise(const Step& step, const Packed& weights, const std::int16_t* rows, std::size_t first_row,
                   std::size_t end_row, std::size_t first, std::size_t end, std::int16_t* out) const {
        const std::size_t pitch = padded(weights.outputs), size = step.width * pitch;
        each_row(step.width, first, end,
                 [&](std::size_t y, std::size_t x, std::size_t x_end, std::size_t at) {
                     const auto row = static_cast<std::ptrdiff_t>(step.given + y);
                     kernels().depthwise({weights,
                                          {row_of(rows, first_row, end_row, row - 1, size),
                                           row_of(rows, first_row, end_row, row, size),
                                           row_of(rows, first_row, end_row, row + 1, size)},
                                          step.width,
                                          x,
                                          x_end,
                                          out + at * pitch});
                 });
    }

    void gather(const Step& step, const std::int16_t* rows, std::size_t first_row, std::size_t end_row,
                std::size_t first, std::size_t end, std::int16_t* out) const {
        const std::size_t each = (step.stage->inputs + 1) / 2 * 2;
        each_row(step.width, first, end,
                 [&](std::size_t y, std::size_t x, std::size_t x_end, std::size_t at) {
                     for (std::size_t r = 0; r < 3; ++r) {
                         const std::int16_t* row =
                             row_of(rows, first_row, end_row,
                                    static_cast<std::ptrdiff_t>(step.given + y + r) - 1, step.row());
                         for (std::size_t column = x; column < x_end; ++column)
                             for (std::size_t c = 0; c < 3; ++c) {
                                 const std::size_t from = column + c;  // one more than its number
                                 std::int16_t* to = out + (9 * (at + column - x) + 3 * r + c) * each;
                                 if (from == 0 || from > step.width)
                                     std::fill_n(to, each, std::int16_t{0});
                                 else
                                     std::copy_n(row + (from - 1) * step.pitch, each, to);
                             }
                     }
                 });
    }

    void run_product(Step& step, std::int16_t* in, std::size_t rows, std::size_t leaving, std::int16_t* out) {
        const Packed& p = step.stage->parts[0];
        const std::size_t out_pitch = padded(p.outputs), products = p.inputs * out_pitch;
        if (!step.looks_around()) {
            each_group(rows * step.width, products, [&](std::size_t first, std::size_t end, unsigned) {
                product(p, in + first * step.pitch, step.pitch, end - first, out + first * out_pitch);
            });
            return;
        }
        const std::size_t before = bring_back(step.held, in) / step.row();
        const std::int16_t* top = in - before * step.row();
        const std::size_t first_row = step.seen - before, end_row = step.seen + rows;
        each_group(leaving * step.width, products, [&](std::size_t first, std::size_t end, unsigned slot) {
            gather(step, top, first_row, end_row, first, end, memory[slot].data());
            product(p, memory[slot].data(), p.inputs, end - first, out + first * out_pitch);
        });
        keep(step.held, top, before + rows, 2, step.row());
    }

    void run_depthwise(Step& step, std::int16_t* in, std::size_t rows, std::size_t leaving,
                       std::int16_t* out) {
        const std::size_t before = bring_back(step.held, in) / step.row();
        const std::int16_t* top = in - before * step.row();
        const std::size_t first_row = step.seen - before, end_row = step.seen + rows;
        each_group(leaving * step.width, 9 * step.pitch, [&](std::size_t first, std::size_t end, unsigned) {
            depthwise(step, step.stage->parts[0], top, first_row, end_row, first, end,
                      out + first * step.pitch);
        });
        keep(step.held, top, before + rows, 2, step.row());
    }

    void run_block(Step& step, std::int16_t* in, std::size_t rows, std::size_t leaving, std::int16_t* out) {
        // Not bound by structure: older compilers cannot pass such names on to lambdas.
        const auto& parts = step.stage->parts;
        const Packed &pw_in = parts[0], &dw = parts[1], &pw_out = parts[2], &ffn_in = parts[3],
                     &ffn_out = parts[4];
        const std::size_t pitch = step.pitch, inner = padded(dw.outputs), hidden = padded(ffn_in.outputs);
        const std::size_t inner_row = step.width * inner;
        if (inside.size() < (2 + rows) * inner_row) inside.resize((2 + rows) * inner_row);
        std::int16_t* g = inside.data() + 2 * inner_row;
        bring_back(step.held, in);
        const std::size_t before = bring_back(step.held_inside, g) / inner_row;
        each_group(rows * step.width, pw_in.inputs * inner,
                   [&](std::size_t first, std::size_t end, unsigned) {
                       product(pw_in, in + first * pitch, pitch, end - first, g + first * inner);
                   });
        const std::int16_t* top = g - before * inner_row;
        const std::size_t first_row = step.seen - before, end_row = step.seen + rows;
        const std::int16_t* x = in - (step.seen - step.given) * step.row();
        const std::size_t products = inner * pitch + 2 * hidden * pitch;
        each_group(leaving * step.width, products, [&](std::size_t first, std::size_t end, unsigned slot) {
            const std::size_t some = end - first;
            std::int16_t* d = memory[slot].data();
            std::int16_t* h = d + positions_together * inner;
            std::int16_t* result = out + first * pitch;
            depthwise(step, dw, top, first_row, end_row, first, end, d);
            product(pw_out, d, inner, some, result, x + first * pitch);
            product(ffn_in, result, pitch, some, h);
            product(ffn_out, h, hidden, some, result, result);
        });
        keep(step.held, in - step.held.size(), step.held.size() / step.row() + rows, 1, step.row());
        keep(step.held_inside, top, before + rows, 2, inner_row);
    }

    // Keeps the last rows of `rows`, `most` at most.
    static void keep(Aligned<std::int16_t>& held, const std::int16_t* all, std::size_t rows, std::size_t most,
                     std::size_t size) {
        const std::size_t some = std::min(rows, most);
        held.assign(all + (rows - some) * size, all + rows * size);
    }

    void shuffle(const Step& step, const std::int16_t* in, std::size_t rows, std::int16_t* out) {
        const std::size_t r = step.stage->number, channels = step.stage->outputs, pitch = padded(channels);
        each_group(rows * step.width, step.pitch, [&](std::size_t first, std::size_t end, unsigned) {
            for (std::size_t p = first; p < end; ++p) {
                const std::size_t y = p / step.width, x = p % step.width;
                for (std::size_t i = 0; i < r; ++i)
                    for (std::size_t j = 0; j < r; ++j) {
                        const std::int16_t* from = in + p * step.pitch + i * r + j;
                        std::int16_t* to = out + ((r * y + i) * r * step.width + r * x + j) * pitch;
                        for (std::size_t c = 0; c < channels; ++c) to[c] = from[c * r * r];
                    }
            }
        });
    }

    void unshuffle(Step& step, std::int16_t* in, std::size_t rows, std::size_t leaving, std::int16_t* out) {
        const std::size_t r = step.stage->number, channels = step.stage->inputs;
        const std::size_t pitch = padded(step.stage->outputs), width = step.width / r;
        const std::size_t before = bring_back(step.held, in) / step.row();
        const std::int16_t* top = in - before * step.row();
        each_group(leaving * width, pitch, [&](std::size_t first, std::size_t end, unsigned) {
            for (std::size_t p = first; p < end; ++p) {
                const std::size_t y = p / width, x = p % width;
                for (std::size_t i = 0; i < r; ++i)
                    for (std::size_t j = 0; j < r; ++j) {
                        const std::int16_t* from = top + ((r * y + i) * step.width + r * x + j) * step.pitch;
                        std::int16_t* to = out + p * pitch + i * r + j;
                        for (std::size_t c = 0; c < channels; ++c) to[c * r * r] = from[c];
                    }
            }
        });
        const std::size_t used = leaving * r;
        keep(step.held, top + used * step.row(), before + rows - used, r - 1, step.row());
    }

    void pixels(const Step& step, const std::int16_t* in, std::size_t rows, void* out) {
        const Network::Stage& stage = *step.stage;
        const Packed& p = stage.parts[0];
        const std::size_t per_position = samples_side * samples.channels;
        each_group(rows * step.width, p.inputs * 192, [&](std::size_t first, std::size_t end, unsigned slot) {
            std::int32_t* result = sums[slot].data();
            kernels().product(
                {p, in + first * step.pitch, step.pitch, end - first, nullptr, nullptr, result, 192});
            for (std::size_t position = first; position < end; ++position, result += 192) {
                const std::size_t y = position / step.width, x = position % step.width;
                for (std::size_t i = 0; i < samples_side; ++i) {
                    const std::size_t at = ((samples_side * y + i) * step.width + x) * per_position;
                    const std::int32_t* from = result + 24 * i;
                    if (samples.depth > 8)
                        put_samples(from, samples, stage.shift, static_cast<std::uint16_t*>(out) + at);
                    else if (samples.depth == 8 && samples.channels == 3)
                        kernels().bytes(from, 24, stage.shift, static_cast<std::uint8_t*>(out) + at);
                    else
                        put_samples(from, samples, stage.shift, static_cast<std::uint8_t*>(out) + at);
                }
            }
        });
    }

    // Whole rows of positions from samples.
    template <class Sample>
    void take_samples(const Sample* data, std::size_t rows, std::int16_t* out) {
        const std::size_t pitch = padded(3 * samples_side * samples_side), channels = samples.channels;
        const std::size_t positions = width / samples_side;
        const auto top = static_cast<Sample>(table.size() - 1);
        each_group(rows * positions, pitch, [&](std::size_t first, std::size_t end, unsigned) {
            for (std::size_t p = first; p < end; ++p)
                for (std::size_t i = 0; i < samples_side; ++i) {
                    const std::size_t y = p / positions * samples_side + i, x = p % positions * samples_side;
                    const Sample* from = data + (y * width + x) * channels;
                    for (std::size_t c = 0; c < 3; ++c)
                        for (std::size_t j = 0; j < samples_side; ++j)
                            out[p * pitch + (c * samples_side + i) * samples_side + j] =
                                table[std::min(from[j * channels + (channels == 3 ? c : 0)], top)];
                }
        });
    }

    void take_tensor(const std::int16_t* data, std::size_t rows, std::int16_t* out) {
        const Step& step = steps.front();
        const std::size_t channels = step.stage->inputs;
        const Limits limits = network->limits();
        const auto low = static_cast<std::int16_t>(limits.low), high = static_cast<std::int16_t>(limits.high);
        for (std::size_t p = 0; p < rows * step.width; ++p, data += channels, out += step.pitch) {
            for (std::size_t c = 0; c < channels; ++c) out[c] = std::min(std::max(data[c], low), high);
        }
    }

    void begin_table() {
        const std::int64_t top = (std::int64_t{1} << samples.depth) - 1;
        for (std::int64_t p = 0; p <= top; ++p)
            table.push_back(static_cast<std::int16_t>((p * 32768 + top / 2) / top - 16384));
    }

    // Whether to go on. Asks once in a while: others may hold what that takes.
    bool goes_on(Poll poll) {
        const auto now = std::chrono::steady_clock::now();
        if (now - asked < patience) return true;
        const bool on = poll();
        asked = std::chrono::steady_clock::now();
        return on;
    }

    Status push(const void* data, std::size_t rows, bool last, void* out, Poll poll);
};

Stream::Stream() = default;
Stream::~Stream() = default;
Stream::Stream(Stream&&) noexcept = default;
Stream& Stream::operator=(Stream&&) noexcept = default;

Status Stream::open(std::shared_ptr<const Network> network, std::size_t width,
                    const std::vector<Scale>& scales, Samples samples) {
    auto made = std::make_unique<State>();
    State& s = *made;
    s.network = std::move(network);
    s.samples = samples;
    s.width = width;
    const auto& stages = s.network->stages();
    if (samples.depth < 1 || samples.depth > 16 || (samples.channels != 1 && samples.channels != 3))
        return {Code::run_depth, 0, samples.depth, static_cast<std::int64_t>(samples.channels)};
    const auto count = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    if (scales.size() != s.network->slots())
        return {Code::run_scales, 0, count(scales.size()), count(s.network->slots())};
    s.slots = threads();
    s.factors.resize(scales.size());
    std::size_t shared_memory = 0, widest_row = 0, step_width = width;
    for (const Network::Stage& stage : stages) {
        const std::size_t inputs = stage.kind == StageKind::input ? stage.outputs : stage.inputs;
        Step step;
        step.stage = &stage;
        step.width = step_width;
        step.pitch = padded(inputs);
        if (stage.kind == StageKind::scale) {
            const Scale& scale = scales[stage.number];
            if (scale.count != stage.inputs)
                return {Code::run_scale_size, count(stage.number), count(scale.count), count(stage.inputs)};
            for (std::size_t c = 0; c < scale.count; ++c)
                if (scale.m[c] < 0 || scale.m[c] > 32767 || scale.s[c] < -15 || scale.s[c] > 46)
                    return {Code::run_scale_value, count(stage.number), scale.m[c], scale.s[c]};
            s.factors[stage.number] = factors_of(scale, padded(stage.inputs));
        }
        std::size_t needed = 0;
        if (stage.kind == StageKind::block) {
            const std::size_t inner = padded(stage.parts[1].outputs);
            needed = positions_together * (inner + padded(stage.parts[3].outputs));
            widest_row = std::max(widest_row, step_width * inner);
        } else if (step.looks_around()) {
            needed = positions_together * stage.parts[0].inputs;
            widest_row = std::max(widest_row, step.row());
        }
        shared_memory = std::max(shared_memory, needed);
        step_width = step.out_width();
        s.steps.push_back(std::move(step));
    }
    s.zeros.assign(widest_row, 0);
    s.memory.resize(s.slots);
    s.sums.resize(s.slots);
    for (Aligned<std::int16_t>& memory : s.memory) memory.resize(shared_memory);
    if (s.network->gives_samples())
        for (Aligned<std::int32_t>& sums : s.sums) sums.resize(positions_together * 192);
    if (s.network->takes_samples()) s.begin_table();
    state_ = std::move(made);
    return {};
}

std::size_t Stream::out_width() const {
    return state_->steps.back().out_width();
}

std::size_t Stream::ready(std::size_t rows, bool last) const {
    if (state_->finished || state_->interrupted) return 0;
    for (const Step& step : state_->steps) rows = step.leaving(rows, last);
    return rows;
}

std::size_t Stream::strip() const {
    // Positions of the largest tensor for each row that comes in, as a fraction.
    std::size_t most = 1, rows = 1, together = 1, divided = 1;
    for (const Step& step : state_->steps) {
        if (step.stage->kind == StageKind::shuffle) rows *= step.stage->number;
        if (step.stage->kind == StageKind::unshuffle || step.stage->kind == StageKind::input) {
            together *= step.stage->number;
            divided *= step.stage->number;
        }
        const std::size_t width = step.stage->kind == StageKind::pixels ? step.width : step.out_width();
        most = std::max(most, width * rows / divided);
    }
    return std::max<std::size_t>(1, positions_in_strip / most / together) * together;
}

Status Stream::push(const void* data, std::size_t rows, bool last, void* out, Poll poll) {
    if (state_->interrupted) return {Code::interrupted, 0, 0, 0};
    if (state_->finished) return {Code::run_finished, 0, 0, 0};
    if (last)
        for (std::size_t count = rows; const Step& step : state_->steps) {
            const bool divides =
                step.stage->kind == StageKind::unshuffle || step.stage->kind == StageKind::input;
            if (divides && (step.seen + count) % step.stage->number != 0)
                return {Code::run_multiple, 0, static_cast<std::int64_t>(step.seen + count),
                        static_cast<std::int64_t>(step.stage->number)};
            count = step.leaving(count, last);
        }
    state_->finished = last;
    const Status status = state_->push(data, rows, last, out, poll);
    state_->interrupted = !status.ok();
    return status;
}

Status Stream::State::push(const void* data, std::size_t rows, bool last, void* out, Poll poll) {
    std::size_t current = 0, number = 0;
    if (network->takes_samples()) {
        Step& step = steps.front();
        const std::size_t leaving = step.leaving(rows, last), row = width * samples.channels * sample_bytes();
        std::int16_t* to = make_room(buffers[0], 1, leaving * step.out_width() * padded(step.stage->outputs));
        const auto* from = static_cast<const std::uint8_t*>(data);
        // Rows that were begun are filled up first, so that the rest can be read where it lies.
        std::size_t made = 0, used = 0;
        const auto take = [&](const void* at, std::size_t count) {
            std::int16_t* target = to + made * step.out_width() * padded(step.stage->outputs);
            if (sample_bytes() == 2)
                take_samples(static_cast<const std::uint16_t*>(at), count, target);
            else
                take_samples(static_cast<const std::uint8_t*>(at), count, target);
            made += count;
        };
        if (!begun.empty() || leaving == 0) {
            used = std::min(rows, samples_side - begun.size() / row);
            begun.insert(begun.end(), from, from + used * row);
            if (begun.size() == samples_side * row) {
                take(begun.data(), 1);
                begun.clear();
            }
        }
        if (leaving > made) {
            const std::size_t whole = leaving - made;
            take(from + used * row, whole);
            used += whole * samples_side;
        }
        begun.insert(begun.end(), from + used * row, from + rows * row);
        step.seen += rows;
        step.given += leaving;
        rows = leaving;
        number = 1;
    } else {
        const Step& step = steps.front();
        take_tensor(static_cast<const std::int16_t*>(data), rows,
                    make_room(buffers[0], 0, rows * step.row()));
    }
    for (; number < steps.size(); ++number) {
        if (!goes_on(poll)) return {Code::interrupted, 0, 0, 0};
        Step& step = steps[number];
        const std::size_t leaving = step.leaving(rows, last);
        std::int16_t* in = make_room(buffers[current], number, rows * step.row());
        if (step.stage->kind == StageKind::scale) {
            const Factors& f = factors[step.stage->number];
            each_group(rows * step.width, step.pitch, [&](std::size_t first, std::size_t end, unsigned) {
                kernels().scale(f, end - first, in + first * step.pitch);
            });
            // It stays in its buffer, where the next step may want another distance from the beginning.
            std::int16_t* to = make_room(buffers[current], number + 1, rows * step.row());
            in = buffers[current].data();
            if (to != in) std::copy_backward(in, in + rows * step.row(), to + rows * step.row());
        } else if (step.stage->kind == StageKind::pixels) {
            pixels(step, in, rows, out);
        } else {
            std::int16_t* to = make_room(buffers[1 - current], number + 1,
                                         leaving * step.out_width() * padded(step.stage->outputs));
            switch (step.stage->kind) {
                case StageKind::product:
                    run_product(step, in, rows, leaving, to);
                    break;
                case StageKind::depthwise:
                    run_depthwise(step, in, rows, leaving, to);
                    break;
                case StageKind::block:
                    run_block(step, in, rows, leaving, to);
                    break;
                case StageKind::shuffle:
                    shuffle(step, in, rows, to);
                    break;
                default:
                    unshuffle(step, in, rows, leaving, to);
            }
            current = 1 - current;
        }
        step.seen += rows;
        step.given += leaving;
        rows = leaving;
    }
    if (!network->gives_samples()) {
        const std::size_t channels = network->outputs(), pitch = padded(channels);
        const std::int16_t* from = make_room(buffers[current], steps.size(), 0);
        auto* to = static_cast<std::int16_t*>(out);
        const std::size_t positions = rows * steps.back().out_width();
        for (std::size_t p = 0; p < positions; ++p, from += pitch, to += channels)
            std::memcpy(to, from, channels * sizeof *to);
    }
    return {};
}

Status run(const std::shared_ptr<const Network>& network, const void* data, std::size_t height,
           std::size_t width, const std::vector<Scale>& scales, Samples samples, void* out, Poll poll) {
    Stream stream;
    if (const Status s = stream.open(network, width, scales, samples); !s.ok()) return s;
    const std::size_t bytes = samples.depth > 8 ? 2 : 1;
    const std::size_t in_row =
        width * (network->takes_samples() ? samples.channels * bytes : 2 * network->inputs());
    const std::size_t out_row =
        stream.out_width() * (network->gives_samples() ? samples.channels * bytes : 2 * network->outputs());
    const auto* from = static_cast<const std::uint8_t*>(data);
    auto* to = static_cast<std::uint8_t*>(out);
    const std::size_t strip = stream.strip();
    for (std::size_t row = 0; row < height;) {
        const std::size_t some = std::min(strip, height - row);
        const bool last = row + some == height;
        const std::size_t ready = stream.ready(some, last);
        if (const Status s = stream.push(from, some, last, to, poll); !s.ok()) return s;
        row += some;
        from += some * in_row;
        to += ready * out_row;
    }
    return {};
}

template <class Value, class Result>
void rescale(const Value* x, std::size_t positions, const Scale& scale, std::int64_t low, std::int64_t high,
             Result* out) {
    constexpr std::size_t together = 64;
    const unsigned slots = positions * scale.count < products_for_a_thread / 16 ? 1 : threads();
    share((positions + together - 1) / together, slots, [&](std::size_t part, unsigned) {
        const std::size_t first = part * together * scale.count;
        const std::size_t end = std::min(positions, (part + 1) * together) * scale.count;
        for (std::size_t i = first; i < end; i += scale.count)
            for (std::size_t c = 0; c < scale.count; ++c)
                out[i + c] =
                    static_cast<Result>(std::clamp(rescaled(x[i + c], scale.m[c], scale.s[c]), low, high));
    });
}

template void rescale(const std::int32_t*, std::size_t, const Scale&, std::int64_t, std::int64_t,
                      std::int32_t*);
template void rescale(const std::int16_t*, std::size_t, const Scale&, std::int64_t, std::int64_t,
                      std::int32_t*);
template void rescale(const std::int32_t*, std::size_t, const Scale&, std::int64_t, std::int64_t,
                      std::int16_t*);
template void rescale(const std::int16_t*, std::size_t, const Scale&, std::int64_t, std::int64_t,
                      std::int16_t*);

}  // namespace latens
