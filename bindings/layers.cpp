// Layers in exact integers, and the threads that run them.
#include "layers.hpp"

#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "shared.hpp"

namespace bindings {
namespace {

struct Crew {
    latens::Crew core;
    std::atomic<bool> flag{false};

    explicit Crew(unsigned size) : core(size) {}
};

struct Layers {
    std::shared_ptr<const latens::Layers> core;

    // A form is shift, activation and largest activation.
    Layers(const std::vector<In<std::int16_t, 2>>& weights, In<std::int64_t, 2> forms) {
        same_size(weights.size(), forms.shape(0));
        same_size(forms.shape(1), 3);
        std::vector<latens::Layer> layers;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const std::int64_t* form = forms.data() + 3 * i;
            // Negative ones become large, and are refused as such.
            layers.push_back({weights[i].data(), weights[i].shape(0), weights[i].shape(1),
                              static_cast<unsigned>(std::min<std::uint64_t>(
                                  static_cast<std::uint64_t>(form[0]), std::numeric_limits<unsigned>::max())),
                              form[1], form[2]});
        }
        run([&] { return latens::Layers::build(layers, core); });
    }

    void sums(In<std::int32_t, 2> in, const std::vector<In<std::int64_t, 2>>& added, Out<std::int64_t> out,
              Crew& crew) const {
        const Busy busy(crew.flag);
        const std::size_t positions = in.shape(0);
        same_size(in.shape(1), core->inputs());
        same_size(added.size(), core->count());
        std::vector<latens::Added> rows;
        for (std::size_t i = 0; i < added.size(); ++i) {
            same_size(added[i].shape(1), core->outputs(i));
            const bool each = added[i].shape(0) != 1;
            if (each) same_size(added[i].shape(0), positions);
            rows.push_back({added[i].data(), each});
        }
        same_size(out.size(), positions * core->outputs(core->count() - 1));
        run([&]() -> latens::Status {
            core->run(in.data(), positions, rows.data(), out.data(), crew.core);
            return {};
        });
    }
};

}  // namespace

void add_layers(nb::module_& m) {
    nb::class_<Crew>(m, "Crew").def(nb::init<unsigned>(), "size"_a);
    nb::class_<Layers>(m, "Layers")
        .def(nb::init<const std::vector<In<std::int16_t, 2>>&, In<std::int64_t, 2>>(),
             "weights"_a.noconvert(), "forms"_a.noconvert())
        .def("sums", &Layers::sums, "inputs"_a.noconvert(), "added"_a.noconvert(), "out"_a.noconvert(),
             "crew"_a);
}

}  // namespace bindings
