// The default model in integers (docs/pixels.md): between pictures, latents and the streams of tiles.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coder.hpp"
#include "latents.hpp"
#include "network.hpp"
#include "outcome.hpp"
#include "tables.hpp"
#include "weights.hpp"

namespace latens {

inline constexpr std::size_t latent_side = 16, hyper_side = 64;  // pixels of a position of y, and of z
inline constexpr unsigned quality_max = 65535;

using Int16s = std::vector<std::int16_t>;
using Int32s = std::vector<std::int32_t>;

// Factors for each channel at one quality.
struct FactorsAt {
    Int32s m, s;
    Scale scale() const { return {m.data(), s.data(), m.size()}; }
};

// What a tile's stream stands for.
struct Latents {
    std::uint32_t checksum = 0;
    Int16s entry;  // what synthesis takes, (H, W, M)
};

struct CodedTile {
    std::vector<std::uint8_t> stream;
    unsigned lanes = 1;
    Latents latents;
};

// Only read once it is built: several threads may use it.
class Model {
  public:
    enum Net { h_scale, h_mean, mean_0, context, g_s, g_a, h_a, nets };
    enum Factor { mean_scale, context_scale, input_scale, out_scale, gain, factors };

    static Outcome build(const WeightsFile& weights, std::shared_ptr<const Model>& result);

    const std::string& name() const { return name_; }
    const std::string& weights_id() const { return weights_id_; }
    const std::string& entropy_id() const { return entropy_id_; }
    std::size_t channels() const { return channels_; }
    bool encodes() const { return networks_[g_a] != nullptr; }
    static constexpr unsigned skip = 4;  // indexes below are not coded

    // A header's quality for a user's, 0 to 100.
    unsigned level(double quality) const;

    // `height` and `width` are of the coded tile.
    Outcome decode(View stream, std::size_t height, std::size_t width, unsigned quality, unsigned skip,
                   unsigned lanes, Latents& result) const;
    // `features` are (H, W, M) of analysis. With 0 lanes as many as suit the number of symbols.
    Outcome encode(const Int16s& features, std::size_t height, std::size_t width, unsigned quality,
                   unsigned lanes, CodedTile& result) const;

    // From rows of latents to rows of samples, and back. `width` is in positions, or in pixels.
    Outcome synthesis(std::size_t width, unsigned quality, Samples samples, Stream& result) const;
    Outcome analysis(std::size_t width, Samples samples, Stream& result) const;

    // About the bytes that decoding a tile of so many positions takes.
    std::size_t memory(std::size_t positions) const;

  private:
    struct Group {
        std::size_t knots = 0, channels = 0;
        Int32s logs;
    };

    std::size_t knot(unsigned quality) const;
    FactorsAt factors_at(Factor factor, unsigned quality) const;
    Outcome run(Net net, const std::int16_t* x, std::size_t height, std::size_t width, Int16s& out) const;
    Outcome indexes(const Int16s& z, std::size_t height, std::size_t width,
                    std::vector<std::uint8_t>& result) const;
    // y_hat, see `two_steps`.
    Outcome values(const Int16s& z, std::size_t height, std::size_t width, unsigned quality,
                   const TileSymbols& tile, Int32s& result) const;
    Outcome hyper(const Int32s& y, std::size_t height, std::size_t width, unsigned quality, Int16s& z) const;
    Int16s entry_of(const Int32s& y_hat, unsigned quality) const;

    std::string name_, weights_id_, entropy_id_;
    std::size_t channels_ = 0, hyper_ = 0, inner_ = 0, knots_ = 0;
    std::array<std::shared_ptr<const Network>, nets> networks_;
    std::array<Group, factors> factors_;
    std::vector<std::shared_ptr<const Tables>> z_tables_;  // for each knot
    std::shared_ptr<const Tables> y_tables_;
    Int32s z_offset_;  // (knots, hyper)
    std::vector<double> scale_qualities_, scale_levels_;
};

}  // namespace latens
