// The boundary between Python and the core: checks arrays, releases the GIL, turns a status into an
// exception. Arrays cross without copies. Everything else is Python's business.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coder.hpp"
#include "layers.hpp"
#include "quantize.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Data = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
template <class T, std::size_t dimensions>
using In = nb::ndarray<const T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using TablesPointer = std::shared_ptr<const latens::Tables>;

[[noreturn]] void raise(const char* error, const std::string& message) {
    PyErr_SetString(nb::module_::import_("latens.errors").attr(error).ptr(), message.c_str());
    throw nb::python_error();
}

void check(const latens::Status& status) {
    if (status.ok()) return;
    // `poll` has left the exception of the signal handler in place; a second call finds none.
    if (status.code == latens::Code::interrupted && PyErr_Occurred()) throw nb::python_error();
    raise(status.concerns_tables()   ? "TableError"
          : status.concerns_layers() ? "ModelError"
                                     : "CoderError",
          latens::describe(status));
}

bool poll() {
    nb::gil_scoped_acquire gil;
    return PyErr_CheckSignals() == 0;
}

// Runs core work without the GIL.
template <class Work>
void run(Work work) {
    latens::Status status;
    {
        nb::gil_scoped_release release;
        status = work();
    }
    check(status);
}

// A coder has one position in one stream: two threads inside it at once is an error, not a race.
class Busy {
  public:
    explicit Busy(std::atomic<bool>& flag) : flag_(flag) {
        if (flag_.exchange(true)) raise("CoderError", "this coder is in use by another thread");
    }
    ~Busy() { flag_ = false; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

  private:
    std::atomic<bool>& flag_;
};

latens::Ints ints(const Array& array) {
    const auto kind = [&] {
        if (array.dtype() == nb::dtype<std::uint8_t>()) return latens::Kind::uint8;
        if (array.dtype() == nb::dtype<std::int16_t>()) return latens::Kind::int16;
        if (array.dtype() == nb::dtype<std::int32_t>()) return latens::Kind::int32;
        raise("ShapeError", "expected a uint8, int16 or int32 array");
    };
    return {array.data(), kind(), array.size()};
}

void same_size(std::size_t a, std::size_t b) {
    if (a != b)
        raise("ShapeError",
              "expected arrays of one size, got " + std::to_string(a) + " and " + std::to_string(b));
}

struct Tables {
    TablesPointer core;

    Tables(In<std::int32_t, 2> cdfs, In<std::int32_t, 1> sizes, In<std::int32_t, 1> offsets) {
        same_size(cdfs.shape(0), sizes.shape(0));
        same_size(cdfs.shape(0), offsets.shape(0));
        run([&] {
            return latens::Tables::build(cdfs.data(), sizes.data(), offsets.data(), cdfs.shape(0),
                                         cdfs.shape(1), core);
        });
    }
};

class Encoder {
  public:
    explicit Encoder(unsigned escape_nibbles) : backlog_(escape_nibbles) {}

    void push(const Array& symbols, const Array& indexes, const Tables& tables, std::uint32_t skip_below) {
        const Busy busy(flag_);
        same_size(symbols.size(), indexes.size());
        const latens::Ints s = ints(symbols), i = ints(indexes);
        run([&] { return backlog_.push(s, i, tables.core, skip_below, poll); });
    }
    nb::bytes finish_stream() {
        return finish([&](latens::Bytes& result) { return backlog_.encode_stream(result, poll); });
    }
    nb::bytes finish_lanes(unsigned lanes) {
        return finish([&](latens::Bytes& result) { return backlog_.encode_lanes(lanes, result, poll); });
    }
    std::size_t size() const { return backlog_.size(); }

  private:
    template <class Work>
    nb::bytes finish(const Work& work) {
        const Busy busy(flag_);
        latens::Bytes result;
        run([&] { return work(result); });
        return nb::bytes(result.data, result.size);
    }

    latens::Backlog backlog_;
    std::atomic<bool> flag_{false};
};

// Holds on to the array that the core reads in place. Lanes have one option each: their number, `skip_below`.
template <class Core, class Symbol, class... Option>
class Decoder {
  public:
    Decoder(Data data, Option... lanes) : data_(std::move(data)) {
        check(core_.open(data_.data(), data_.size(), lanes...));
    }
    void decode(const Array& indexes, const Tables& tables, Out<Symbol> out, Option... skip_below) {
        const Busy busy(flag_);
        same_size(indexes.size(), out.size());
        const latens::Ints i = ints(indexes);
        run([&] { return core_.decode(i, *tables.core, out.data(), poll, skip_below...); });
    }
    void finish() const { check(core_.finish()); }

  private:
    Data data_;
    Core core_;
    std::atomic<bool> flag_{false};
};
using StreamDecoder = Decoder<latens::StreamDecoder, std::int32_t>;
using LaneDecoder = Decoder<latens::LaneDecoder, std::int16_t, std::uint32_t>;

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

void quantize(In<float, 2> pmf, In<std::int32_t, 1> lengths, unsigned precision, Out<std::int32_t> cdfs) {
    same_size(pmf.shape(0), lengths.shape(0));
    const std::size_t width = pmf.shape(1);
    same_size(pmf.shape(0) * (width + 1), cdfs.size());
    run([&]() -> latens::Status {
        for (std::size_t row = 0; row < pmf.shape(0); ++row) {
            const auto at = static_cast<std::int64_t>(row);
            const std::int32_t length = lengths.data()[row];
            if (length < 1 || static_cast<std::size_t>(length) > width)
                return {latens::Code::pmf_length, at, length, static_cast<std::int64_t>(width)};
            const latens::Status status =
                latens::quantize(pmf.data() + row * width, static_cast<std::size_t>(length), precision, at,
                                 cdfs.data() + row * (width + 1));
            if (!status.ok()) return status;
        }
        return {};
    });
}

}  // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // objects that modules keep for ever, such as tables, are no leaks
    m.attr("STREAM_ESCAPE_NIBBLES") = latens::stream_escape_nibbles;
    m.attr("LANE_ESCAPE_NIBBLES") = latens::lane_escape_nibbles;
    nb::class_<Tables>(m, "Tables")
        .def(nb::init<In<std::int32_t, 2>, In<std::int32_t, 1>, In<std::int32_t, 1>>(), "cdfs"_a.noconvert(),
             "sizes"_a.noconvert(), "offsets"_a.noconvert())
        .def("__len__", [](const Tables& tables) { return tables.core->count(); });
    nb::class_<Encoder>(m, "Encoder")
        .def(nb::init<unsigned>(), "escape_nibbles"_a)
        .def("push", &Encoder::push, "symbols"_a.noconvert(), "indexes"_a.noconvert(), "tables"_a,
             "skip_below"_a)
        .def("finish_stream", &Encoder::finish_stream)
        .def("finish_lanes", &Encoder::finish_lanes, "lanes"_a)
        .def("__len__", &Encoder::size);
    nb::class_<StreamDecoder>(m, "StreamDecoder")
        .def(nb::init<Data>(), "data"_a.noconvert())
        .def("decode", &StreamDecoder::decode, "indexes"_a.noconvert(), "tables"_a, "out"_a.noconvert())
        .def("finish", &StreamDecoder::finish);
    nb::class_<LaneDecoder>(m, "LaneDecoder")
        .def(nb::init<Data, std::uint32_t>(), "data"_a.noconvert(), "lanes"_a)
        .def("decode", &LaneDecoder::decode, "indexes"_a.noconvert(), "tables"_a, "out"_a.noconvert(),
             "skip_below"_a)
        .def("finish", &LaneDecoder::finish);
    nb::class_<Crew>(m, "Crew").def(nb::init<unsigned>(), "size"_a);
    nb::class_<Layers>(m, "Layers")
        .def(nb::init<const std::vector<In<std::int16_t, 2>>&, In<std::int64_t, 2>>(),
             "weights"_a.noconvert(), "forms"_a.noconvert())
        .def("sums", &Layers::sums, "inputs"_a.noconvert(), "added"_a.noconvert(), "out"_a.noconvert(),
             "crew"_a);
    m.def("quantize", &quantize, "pmf"_a.noconvert(), "lengths"_a.noconvert(), "precision"_a,
          "cdfs"_a.noconvert());
}
