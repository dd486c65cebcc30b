// Convolutions of float images.
#include "winograd.hpp"

#include <algorithm>

#include "shared.hpp"

namespace bindings {
namespace {

// Weights as `latens.ops.fast_convolutions` prepares them: what they say of themselves is checked against the
// images.
struct Winograd {
    In<float, 6> weight;
    In<std::uint8_t, 3> zero;
    std::size_t outputs;

    Winograd(In<float, 6> weight, In<std::uint8_t, 3> zero, std::size_t outputs)
        : weight(weight), zero(zero), outputs(outputs) {
        for (const std::size_t phases : {weight.shape(0), weight.shape(3)})
            if (phases != 1 && phases != 4) raise("ShapeError", "expected 1 or 4 phases");
        const latens::Winograd layer = core();
        same_size(weight.shape(1), layer.panels());
        same_size(weight.shape(2), layer.points);
        same_size(weight.shape(5), layer.panel);
        same_size(zero.shape(0), weight.shape(0));
        same_size(zero.shape(1), weight.shape(2));
        same_size(zero.shape(2), weight.shape(3));
    }

    latens::Winograd core() const {
        return {weight.shape(4),
                outputs,
                weight.shape(3) == 4 ? 2U : 1U,
                weight.shape(0) == 4 ? 2U : 1U,
                weight.data(),
                zero.data(),
                nullptr};
    }

    void run(In<float, 4> in, In<float, 1> bias, Out<float> out, Out<float> scratch) const {
        latens::Winograd layer = core();
        const std::size_t height = (in.shape(1) + layer.gather - 1) / layer.gather * layer.scatter;
        const std::size_t width = (in.shape(2) + layer.gather - 1) / layer.gather * layer.scatter;
        same_size(in.shape(3), layer.inputs);
        same_size(out.ndim(), 4);
        same_size(out.shape(0), in.shape(0));
        same_size(out.shape(1), height);
        same_size(out.shape(2), width);
        same_size(out.shape(3), outputs);
        if (bias.size() > 0) {
            same_size(bias.size(), outputs);
            layer.bias = bias.data();
        }
        const std::size_t threads = scratch.size() / layer.scratch();
        if (threads == 0) raise("ShapeError", "expected memory for a thread");
        if (in.size() == 0) return;
        const nb::gil_scoped_release release;
        layer.run(in.data(), in.shape(0), in.shape(1), in.shape(2), out.data(), scratch.data(), threads);
    }
};

}  // namespace

void add_winograd(nb::module_& m) {
    nb::class_<Winograd>(m, "Winograd")
        .def(nb::init<In<float, 6>, In<std::uint8_t, 3>, std::size_t>(), "weight"_a.noconvert(),
             "zero"_a.noconvert(), "outputs"_a)
        .def("scratch", [](const Winograd& layer) { return layer.core().scratch(); })
        .def("run", &Winograd::run, "inputs"_a.noconvert(), "bias"_a.noconvert(), "out"_a.noconvert(),
             "scratch"_a.noconvert());
}

}  // namespace bindings
