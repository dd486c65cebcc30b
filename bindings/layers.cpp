// Layers in exact integers.
#include "layers.hpp"

#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "shared.hpp"

namespace bindings {
namespace {

struct Layers {
    std::shared_ptr<const latens::Layers> core;

    // A form is shift, activation, shuffle, up and largest activation.
    Layers(const std::vector<In<std::int16_t, 4>>& weights, In<std::int64_t, 2> forms) {
        same_size(weights.size(), forms.shape(0));
        same_size(forms.shape(1), 5);
        std::vector<latens::Layer> layers;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const auto& weight = weights[i];
            const std::int64_t* form = forms.data() + 5 * i;
            same_size(weight.shape(2), weight.shape(3));
            // Negative ones become large, and are refused as such.
            const auto size = [](std::int64_t n) {
                return static_cast<std::size_t>(std::min<std::uint64_t>(
                    static_cast<std::uint64_t>(n), std::numeric_limits<unsigned>::max()));
            };
            layers.push_back({weight.data(), weight.shape(0), weight.shape(1),
                              static_cast<unsigned>(size(form[0])), form[1], form[4], weight.shape(2),
                              size(form[2]), size(form[3])});
        }
        run([&] { return latens::Layers::build(layers, core); });
    }

    std::vector<latens::Added> rows(const std::vector<In<std::int64_t, 2>>& added,
                                    std::size_t positions) const {
        same_size(added.size(), core->count());
        std::vector<latens::Added> found;
        for (std::size_t i = 0; i < added.size(); ++i) {
            same_size(added[i].shape(1), core->outputs(i));
            const bool each = added[i].shape(0) != 1;
            if (each) same_size(added[i].shape(0), positions);
            found.push_back({added[i].data(), each});
        }
        return found;
    }

    void sums(In<std::int32_t, 2> in, const std::vector<In<std::int64_t, 2>>& added,
              Out<std::int64_t> out) const {
        const std::size_t positions = in.shape(0);
        same_size(in.shape(1), core->inputs());
        same_size(core->pointwise(), true);
        const auto given = rows(added, positions);
        same_size(out.size(), positions * core->outputs(core->count() - 1));
        run([&]() -> latens::Status {
            core->run(in.data(), positions, given.data(), out.data());
            return {};
        });
    }

    // Results `(scaling * height, scaling * width, channels)`.
    void plane(In<std::int32_t, 3> in, const std::vector<In<std::int64_t, 2>>& added, std::size_t channels,
               std::size_t scaling, std::size_t size, std::int64_t* sums, std::int32_t* activations) const {
        same_size(in.shape(2), core->inputs());
        const auto given = rows(added, 1);
        same_size(size, in.shape(0) * in.shape(1) * scaling * scaling * channels);
        run([&]() -> latens::Status {
            core->run(in.data(), in.shape(0), in.shape(1), given.data(), sums, activations);
            return {};
        });
    }

    void plane_sums(In<std::int32_t, 3> in, const std::vector<In<std::int64_t, 2>>& added,
                    Out<std::int64_t> out) const {
        plane(in, added, core->outputs(core->count() - 1), core->scaling_of_sums(), out.size(), out.data(),
              nullptr);
    }

    void plane_activations(In<std::int32_t, 3> in, const std::vector<In<std::int64_t, 2>>& added,
                           Out<std::int32_t> out) const {
        plane(in, added, core->channels(), core->scaling(), out.size(), nullptr, out.data());
    }
};

void count_exceeded(In<std::int64_t, 2> sums, std::size_t first, In<std::int64_t, 1> thresholds,
                    nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> out) {
    same_size(out.shape(0), sums.shape(0));
    same_size(std::min<std::size_t>(thresholds.size(), 255), thresholds.size());
    if (first > sums.shape(1) || out.shape(1) > sums.shape(1) - first) same_size(out.shape(1), 0);
    run([&]() -> latens::Status {
        const std::vector<std::int64_t> values(thresholds.data(), thresholds.data() + thresholds.size());
        latens::count_exceeded(sums.data(), sums.shape(0), sums.shape(1), first, out.shape(1), values,
                               out.data());
        return {};
    });
}

}  // namespace

void add_layers(nb::module_& m) {
    nb::class_<Layers>(m, "Layers")
        .def(nb::init<const std::vector<In<std::int16_t, 4>>&, In<std::int64_t, 2>>(),
             "weights"_a.noconvert(), "forms"_a.noconvert())
        .def("sums", &Layers::sums, "inputs"_a.noconvert(), "added"_a.noconvert(), "out"_a.noconvert())
        .def("plane_sums", &Layers::plane_sums, "inputs"_a.noconvert(), "added"_a.noconvert(),
             "out"_a.noconvert())
        .def("plane_activations", &Layers::plane_activations, "inputs"_a.noconvert(), "added"_a.noconvert(),
             "out"_a.noconvert());
    m.def("count_exceeded", &count_exceeded, "sums"_a.noconvert(), "first"_a, "thresholds"_a.noconvert(),
          "out"_a.noconvert());
}

}  // namespace bindings
