// Networks in integers, and the threads that run them.
#include "network.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "latents.hpp"
#include "pool.hpp"
#include "shared.hpp"

namespace bindings {
namespace {

using latens::StageKind;

using Factors = std::vector<std::pair<In<std::int32_t, 1>, In<std::int32_t, 1>>>;
using Depth = std::optional<std::pair<std::int64_t, std::size_t>>;

// What a description points at while a network is built.
struct Kept {
    std::vector<nb::object> arrays;
    std::vector<std::unique_ptr<std::uint8_t[]>> shifts;
};

template <class T>
T value(const nb::dict& from, const char* name, const std::string& where) {
    if (!from.contains(name)) raise("ModelError", where + " lacks " + name);
    T result;
    if (!nb::try_cast<T>(from[name], result))
        raise("ModelError", where + ": " + name + " is not of the right kind");
    return result;
}

template <class T, class... Size>
const T* array(const nb::dict& from, const char* name, const std::string& where, Kept& kept, Size&... size) {
    const nb::object given = value<nb::object>(from, name, where);
    nb::ndarray<const T, nb::ndim<sizeof...(Size)>, nb::c_contig, nb::device::cpu> result;
    if (!nb::try_cast(given, result, false))
        raise("ModelError", where + ": " + name + " is not an array of the right type and dimensions");
    kept.arrays.push_back(given);
    std::size_t axis = 0;
    ((size = result.shape(axis++)), ...);
    return result.data();
}

void same_outputs(std::size_t got, std::size_t outputs, const char* name, const std::string& where) {
    if (got != outputs)
        raise("ModelError", where + ": " + std::to_string(outputs) + " outputs, but " + std::to_string(got) +
                                " of " + name);
}

enum class Shape { product, residual, depthwise, pixels };

latens::Weights weights(const nb::dict& from, Shape shape, const std::string& where, Kept& kept) {
    latens::Weights w;
    std::size_t rows = 1, columns = 1, count = 0;
    if (shape == Shape::product || shape == Shape::residual) {
        w.weight = array<std::int16_t>(from, "weight", where, kept, w.outputs, rows, columns, w.inputs);
        if (rows != columns) raise("ModelError", where + ": its kernel is not square");
        w.kernel = rows;
        if (shape == Shape::product) {
            w.low = value<std::int64_t>(from, "low", where);
            w.high = value<std::int64_t>(from, "high", where);
            w.gate = value<std::int64_t>(from, "gate", where);
        }
    } else if (shape == Shape::depthwise) {
        w.weight = array<std::int16_t>(from, "weight", where, kept, w.outputs, rows, columns);
        if (rows != 3 || columns != 3) raise("ModelError", where + ": its kernel is not 3x3");
        w.kernel = 3;
        w.inputs = 1;
    } else {
        w.weight = array<std::int16_t>(from, "weight", where, kept, w.outputs, w.inputs);
    }
    w.bias = array<std::int32_t>(from, "bias", where, kept, count);
    same_outputs(count, w.outputs, "bias", where);
    if (shape == Shape::pixels) {
        const auto shift = value<std::int64_t>(from, "shift", where);
        kept.shifts.push_back(std::make_unique<std::uint8_t[]>(w.outputs));
        std::fill_n(kept.shifts.back().get(), w.outputs,
                    static_cast<std::uint8_t>(std::clamp<std::int64_t>(shift, 0, 255)));
        w.shift = kept.shifts.back().get();
    } else {
        w.shift = array<std::uint8_t>(from, "shift", where, kept, count);
        same_outputs(count, w.outputs, "shift", where);
    }
    return w;
}

latens::StageForm stage(const nb::handle& given, std::size_t number, Kept& kept) {
    constexpr std::array<const char*, 8> kinds = {"product",   "depthwise", "block",  "shuffle",
                                                  "unshuffle", "scale",     "pixels", "input"};
    std::string where = "stage " + std::to_string(number);
    std::pair<std::string, nb::dict> pair;
    if (!nb::try_cast(given, pair)) raise("ModelError", where + ": expected a pair of kind and dict");
    const auto& [name, from] = pair;
    const auto found = std::find(kinds.begin(), kinds.end(), name);
    if (found == kinds.end()) raise("ModelError", where + " is of an unknown kind: " + name);
    where += " (" + name;
    latens::StageForm form;
    form.kind = static_cast<StageKind>(found - kinds.begin());
    const auto part = [&](const char* key, Shape shape) {
        const std::string part_of = where + ", " + key + ")";
        return weights(value<nb::dict>(from, key, where + ")"), shape, part_of, kept);
    };
    switch (form.kind) {
        case StageKind::product:
            form.parts[0] = weights(from, Shape::product, where + ")", kept);
            break;
        case StageKind::depthwise:
            form.parts[0] = weights(from, Shape::depthwise, where + ")", kept);
            break;
        case StageKind::pixels:
            form.parts[0] = weights(from, Shape::pixels, where + ")", kept);
            break;
        case StageKind::block:
            form.parts = {part("pw_in", Shape::product), part("dw", Shape::depthwise),
                          part("pw_out", Shape::residual), part("ffn_in", Shape::product),
                          part("ffn_out", Shape::residual)};
            break;
        case StageKind::shuffle:
        case StageKind::unshuffle:
            form.number = value<std::int64_t>(from, "r", where + ")");
            if (number == 0) form.channels = value<std::size_t>(from, "channels", where + ")");
            break;
        case StageKind::scale:
            form.number = value<std::int64_t>(from, "slot", where + ")");
            form.channels = value<std::size_t>(from, "channels", where + ")");
            break;
        case StageKind::input:
            break;
    }
    return form;
}

std::vector<latens::Scale> scales(const Factors& factors) {
    std::vector<latens::Scale> result;
    for (const auto& [m, s] : factors) {
        same_size(m.size(), s.size());
        result.push_back({m.data(), s.data(), m.size()});
    }
    return result;
}

using Core = std::shared_ptr<const latens::Network>;

// What a network gives: samples of 8 or 16 bits, or a tensor.
nb::object new_result(const latens::Network& network, latens::Samples samples, std::size_t height,
                      std::size_t width, void*& data) {
    const auto make = [&]<class T>(T*, std::size_t channels) {
        T* memory = nullptr;
        nb::object result = new_array<T>({height, width, channels}, memory);
        data = memory;
        return result;
    };
    if (!network.gives_samples()) return make(static_cast<std::int16_t*>(nullptr), network.outputs());
    if (samples.depth > 8) return make(static_cast<std::uint16_t*>(nullptr), samples.channels);
    return make(static_cast<std::uint8_t*>(nullptr), samples.channels);
}

latens::Samples samples_of(const latens::Network& network, const Depth& given) {
    if (network.takes_samples() || network.gives_samples()) {
        if (!given.has_value()) raise("ShapeError", "this network needs samples=(depth, channels)");
    } else if (given.has_value()) {
        raise("ShapeError", "this network neither takes nor gives samples");
    }
    return given.has_value() ? latens::Samples{given->first, given->second} : latens::Samples{};
}

// Checks type and channels of rows.
void check_rows(const latens::Network& network, latens::Samples samples, const Array& x) {
    const bool takes = network.takes_samples();
    const std::size_t channels = takes ? samples.channels : network.inputs();
    const auto type = !takes               ? nb::dtype<std::int16_t>()
                      : samples.depth <= 8 ? nb::dtype<std::uint8_t>()
                                           : nb::dtype<std::uint16_t>();
    if (x.ndim() != 3 || x.shape(2) != channels)
        raise("ShapeError", "expected an array (height, width, " + std::to_string(channels) + ")");
    if (x.dtype() != type)
        raise("ShapeError", std::string("expected values of type ") + (!takes               ? "int16"
                                                                       : samples.depth <= 8 ? "uint8"
                                                                                            : "uint16"));
}

class Stream {
  public:
    Stream(Core network, std::size_t width, const Factors& factors, const Depth& depth)
        : network_(std::move(network)), samples_(samples_of(*network_, depth)), width_(width) {
        std::size_t out_width;
        check(network_->outcome(width, out_width));
        check(core_.open(network_, width, scales(factors), samples_));
    }
    nb::object push(const Array& rows) {
        const Busy busy(flag_);
        check_rows(*network_, samples_, rows);
        if (rows.shape(1) != width_)
            raise("ShapeError", "expected rows of width " + std::to_string(width_) + ", got " +
                                    std::to_string(rows.shape(1)));
        return advance(rows.data(), rows.shape(0), false);
    }
    nb::object finish() {
        const Busy busy(flag_);
        return advance(nullptr, 0, true);
    }

  private:
    nb::object advance(const void* data, std::size_t rows, bool last) {
        void* out = nullptr;
        nb::object result = new_result(*network_, samples_, core_.ready(rows, last), core_.out_width(), out);
        run([&] { return core_.push(data, rows, last, out, poll); });
        return result;
    }

    Core network_;
    latens::Samples samples_;
    std::size_t width_;
    latens::Stream core_;
    std::atomic<int> flag_{0};
};

struct Network {
    Core core;

    Network(const nb::sequence& stages, std::pair<std::int64_t, std::int64_t> limits) {
        Kept kept;
        std::vector<latens::StageForm> forms;
        for (const nb::handle given : stages) forms.push_back(stage(given, forms.size(), kept));
        bindings::run([&] { return latens::Network::build(forms, {limits.first, limits.second}, core); });
    }

    nb::object run(const Array& x, const Factors& factors, const Depth& depth) const {
        const latens::Samples samples = samples_of(*core, depth);
        check_rows(*core, samples, x);
        std::size_t height, width;
        check(core->outcome(x.shape(0), height));
        check(core->outcome(x.shape(1), width));
        const std::vector<latens::Scale> given = scales(factors);
        void* out = nullptr;
        nb::object result = new_result(*core, samples, height, width, out);
        bindings::run(
            [&] { return latens::run(core, x.data(), x.shape(0), x.shape(1), given, samples, out, poll); });
        return result;
    }

    nb::list bounds() const {
        nb::list result;
        for (const latens::Network::Stage& stage : core->stages()) {
            std::int64_t* data = nullptr;
            const nb::object array = new_array<std::int64_t>({stage.bounds.size(), 2}, data);
            for (const latens::Limits& limits : stage.bounds) {
                *data++ = limits.low;
                *data++ = limits.high;
            }
            result.append(array);
        }
        return result;
    }
};

void check_factors(const latens::Scale& scale) {
    if (std::any_of(scale.m, scale.m + scale.count, [](std::int32_t v) { return v < 0 || v > 32767; }))
        raise("ShapeError", "m must be 0 to 32767");
}

template <class Result>
nb::object rescale(const Array& x, const In<std::int32_t, 1>& m, const In<std::int32_t, 1>& s,
                   std::int64_t low, std::int64_t high) {
    same_size(m.size(), s.size());
    if (x.ndim() != 2) raise("ShapeError", "expected an array (positions, channels)");
    same_size(x.shape(1), m.size());
    if (low > high) raise("ShapeError", "expected limits in order");
    const latens::Scale scale{m.data(), s.data(), m.size()};
    check_factors(scale);
    const std::size_t positions = x.shape(0);
    Result* out = nullptr;
    nb::object result = new_array<Result>({positions, m.size()}, out);
    const bool narrow = x.dtype() == nb::dtype<std::int16_t>();
    if (!narrow && x.dtype() != nb::dtype<std::int32_t>())
        raise("ShapeError", "expected an int16 or int32 array");
    run([&]() -> latens::Status {
        if (narrow)
            latens::rescale(static_cast<const std::int16_t*>(x.data()), positions, scale, low, high, out);
        else
            latens::rescale(static_cast<const std::int32_t*>(x.data()), positions, scale, low, high, out);
        return {};
    });
    return result;
}

// The two steps over y: shapes are checked here, networks are those of one model.
struct TwoSteps {
    Core h_mean, mean_0, context;

    TwoSteps(const Network& h_mean_, const Network& mean_0_, const Network& context_)
        : h_mean(h_mean_.core), mean_0(mean_0_.core), context(context_.core) {
        same_size(mean_0->inputs(), h_mean->outputs());
        same_size(context->inputs(), mean_0->outputs() + h_mean->outputs());
        same_size(context->outputs(), mean_0->outputs());
        for (const Core& network : {h_mean, mean_0, context})
            if (network->takes_samples() || network->gives_samples() || network->slots() > 0)
                raise("ShapeError", "expected networks between tensors, without factors");
    }

    nb::object decode(const Factors& factors, const In<std::int16_t, 3>& z,
                      const In<std::int16_t, 3>& symbols) const {
        return values(factors, z, {.given = symbols.data()}, shape(symbols));
    }

    nb::object encode(const Factors& factors, const In<std::int16_t, 3>& z, const In<std::int32_t, 3>& y,
                      const In<std::uint8_t, 3>& indexes, unsigned skip) const {
        if (shape(y) != shape(indexes)) raise("ShapeError", "expected y and indexes of one shape");
        std::int16_t* symbols = nullptr;
        const nb::object found = new_array<std::int16_t>({y.shape(0), y.shape(1), y.shape(2)}, symbols);
        const latens::TileSymbols tile{
            .found = symbols, .y = y.data(), .indexes = indexes.data(), .skip = skip};
        return nb::make_tuple(found, values(factors, z, tile, shape(y)));
    }

  private:
    using Size = std::array<std::size_t, 3>;
    template <class T>
    static Size shape(const T& array) {
        return {array.shape(0), array.shape(1), array.shape(2)};
    }

    nb::object values(const Factors& factors, const In<std::int16_t, 3>& z, const latens::TileSymbols& tile,
                      const Size& size) const {
        const std::vector<latens::Scale> given = scales(factors);
        same_size(given.size(), 2);
        const latens::TwoSteps model{h_mean, mean_0, context, given[0], given[1]};
        std::size_t rows = 0, columns = 0;
        check(h_mean->outcome(z.shape(0), rows));
        check(h_mean->outcome(z.shape(1), columns));
        same_size(z.shape(2), h_mean->inputs());
        if (size != Size{rows, columns, model.known()})
            raise("ShapeError", "expected latents of the size that the networks make of z");
        for (const latens::Scale& scale : given) {
            same_size(scale.count, model.known());
            check_factors(scale);
        }
        std::int32_t* y_hat = nullptr;
        nb::object result = new_array<std::int32_t>({rows, columns, model.known()}, y_hat);
        run([&] { return latens::two_steps(model, z.data(), z.shape(0), z.shape(1), tile, y_hat, poll); });
        return result;
    }
};

}  // namespace

void add_networks(nb::module_& m) {
    nb::class_<Stream>(m, "Stream")
        .def("push", &Stream::push, "rows"_a.noconvert())
        .def("finish", &Stream::finish);
    nb::class_<Network>(m, "Network")
        .def(nb::init<const nb::sequence&, std::pair<std::int64_t, std::int64_t>>(), "stages"_a, "limits"_a)
        .def_prop_ro("inputs", [](const Network& n) { return n.core->inputs(); })
        .def_prop_ro("outputs", [](const Network& n) { return n.core->outputs(); })
        .def_prop_ro("isa", [](const Network& n) { return n.core->kernels().name; })
        .def("bounds", &Network::bounds)
        .def("run", &Network::run, "x"_a.noconvert(), "factors"_a = Factors(), "samples"_a = nb::none())
        .def(
            "stream",
            [](const Network& n, std::size_t width, const Factors& factors, const Depth& samples) {
                return new Stream(n.core, width, factors, samples);  // Python owns it
            },
            "width"_a, "factors"_a = Factors(), "samples"_a = nb::none());
    m.def("rescale", &rescale<std::int32_t>, "x"_a.noconvert(), "m"_a.noconvert(), "s"_a.noconvert(), "low"_a,
          "high"_a);
    m.def(
        "rescale16",
        [](const Array& x, const In<std::int32_t, 1>& f, const In<std::int32_t, 1>& s) {
            return rescale<std::int16_t>(x, f, s, -32768, 32767);
        },
        "x"_a.noconvert(), "m"_a.noconvert(), "s"_a.noconvert());
    nb::class_<TwoSteps>(m, "TwoSteps")
        .def(nb::init<const Network&, const Network&, const Network&>(), "h_mean"_a, "mean_0"_a, "context"_a)
        .def("decode", &TwoSteps::decode, "factors"_a, "z"_a.noconvert(), "symbols"_a.noconvert())
        .def("encode", &TwoSteps::encode, "factors"_a, "z"_a.noconvert(), "y"_a.noconvert(),
             "indexes"_a.noconvert(), "skip"_a);
    m.def(
        "tame",
        [](const In<std::int32_t, 3>& y) {
            std::int16_t* out = nullptr;
            nb::object result = new_array<std::int16_t>({y.shape(0), y.shape(1), y.shape(2)}, out);
            run([&]() -> latens::Status {
                latens::tame(y.data(), y.size(), out);
                return {};
            });
            return result;
        },
        "y"_a.noconvert());
    m.def("set_threads", &latens::set_threads, "count"_a);
    m.def("threads", &latens::threads);
    m.def("processor_quota", &latens::processor_quota, "groups"_a, "mount"_a);
}

}  // namespace bindings
