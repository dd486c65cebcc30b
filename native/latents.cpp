#include "latents.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pool.hpp"

namespace latens {
namespace {

constexpr std::size_t rows_together = 2;
constexpr float asinh_unit = 2048.0F;
constexpr std::int32_t tame_table_end = 32 << latent_bits;

std::int16_t tamed(std::int32_t y) {
    const float value = static_cast<float>(y) * (1.0F / (1 << latent_bits));
    const float found = std::nearbyint(std::asinh(value) * asinh_unit);
    return static_cast<std::int16_t>(std::clamp(found, -32768.0F, 32767.0F));
}

// One step at one position: channels `first` to before `end` of y_hat. `at` is where the position begins.
void step(const TileSymbols& tile, std::size_t at, std::size_t first, std::size_t end,
          const std::int16_t* mean, const Scale& scale, std::int32_t* y_hat) {
    constexpr std::int64_t half = 1 << (latent_bits - 1);
    for (std::size_t c = first; c < end; ++c) {
        const std::int64_t value =
            std::clamp(rescaled(mean[at + c], scale.m[c], scale.s[c]), -latent_max, latent_max);
        std::int64_t symbol = 0;
        if (tile.given != nullptr) {
            symbol = tile.given[at + c];
        } else {
            if (tile.indexes[at + c] >= tile.skip)
                symbol = std::clamp((tile.y[at + c] - value + half) >> latent_bits, -symbol_max, symbol_max);
            tile.found[at + c] = static_cast<std::int16_t>(symbol);
        }
        y_hat[at + c] = static_cast<std::int32_t>(
            std::clamp(value + symbol * (1 << latent_bits), -latent_max, latent_max));
    }
}

}  // namespace

Status two_steps(const TwoSteps& model, const std::int16_t* z, std::size_t height, std::size_t width,
                 const TileSymbols& tile, std::int32_t* y_hat, Poll poll) {
    std::size_t rows = 0, columns = 0;
    if (const Status s = model.h_mean->outcome(height, rows); !s.ok()) return s;
    if (const Status s = model.h_mean->outcome(width, columns); !s.ok()) return s;
    const std::size_t positions = rows * columns, known = model.known(), inner = model.features();
    const std::size_t both = known + inner, half = known / 2;
    std::vector<std::int16_t> features(positions * inner), mean(positions * known), joined(positions * both);
    if (const Status s = run(model.h_mean, z, height, width, {}, {}, features.data(), poll); !s.ok())
        return s;
    if (const Status s = run(model.mean_0, features.data(), rows, columns, {}, {}, mean.data(), poll);
        !s.ok())
        return s;

    // Of the first half of the channels those with row plus column even come first, of the second half the
    // odd.
    const auto each = [&](bool first, const auto& after) {
        share((rows + rows_together - 1) / rows_together, threads(), [&](std::size_t part, unsigned) {
            const std::size_t end = std::min(rows, (part + 1) * rows_together);
            for (std::size_t row = part * rows_together; row < end; ++row)
                for (std::size_t column = 0; column < columns; ++column) {
                    const std::size_t position = row * columns + column;
                    const bool lower = ((row + column) % 2 == 0) == first;
                    const std::size_t from = lower ? 0 : half, to = lower ? half : known;
                    step(tile, position * known, from, to, mean.data(), model.mean_scale, y_hat);
                    after(position, from, to);
                }
        });
    };
    each(true, [&](std::size_t position, std::size_t from, std::size_t to) {
        std::int16_t* const out = joined.data() + position * both;
        const std::int32_t* const y = y_hat + position * known;
        for (std::size_t c = from; c < to; ++c)
            out[c] = static_cast<std::int16_t>(std::clamp<std::int64_t>(
                rescaled(y[c], model.context_scale.m[c], model.context_scale.s[c]), -32768, 32767));
        std::memcpy(out + known, features.data() + position * inner, inner * sizeof *out);
    });
    if (const Status s = run(model.context, joined.data(), rows, columns, {}, {}, mean.data(), poll); !s.ok())
        return s;
    each(false, [](std::size_t, std::size_t, std::size_t) {});
    return {};
}

void tame(const std::int32_t* y, std::size_t count, std::int16_t* out) {
    // Nearly all values are in it.
    static const std::vector<std::int16_t> table = [] {
        std::vector<std::int16_t> found(tame_table_end);
        for (std::int32_t v = 0; v < tame_table_end; ++v) found[static_cast<std::size_t>(v)] = tamed(v);
        return found;
    }();
    for (std::size_t i = 0; i < count; ++i) {
        const std::int32_t v = y[i];
        if (v >= 0 && v < tame_table_end)
            out[i] = table[static_cast<std::size_t>(v)];
        else if (v < 0 && v > -tame_table_end)
            out[i] = static_cast<std::int16_t>(-table[static_cast<std::size_t>(-v)]);
        else
            out[i] = tamed(v);
    }
}

}  // namespace latens
