// The boundary between Python and the core: checks arrays, releases the GIL, turns a status into an
// exception. Arrays cross without copies. Everything else is Python's business.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "coder.hpp"
#include "fork.hpp"
#include "quantize.hpp"
#include "shared.hpp"

namespace bindings {
namespace {

using TablesPointer = std::shared_ptr<const latens::Tables>;

latens::Ints ints(const Array& array) {
    const auto kind = [&] {
        if (array.dtype() == nb::dtype<std::uint8_t>()) return latens::Kind::uint8;
        if (array.dtype() == nb::dtype<std::int16_t>()) return latens::Kind::int16;
        if (array.dtype() == nb::dtype<std::int32_t>()) return latens::Kind::int32;
        raise("ShapeError", "expected a uint8, int16 or int32 array");
    };
    return {array.data(), kind(), array.size()};
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
    std::atomic<int> flag_{0};
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
    std::atomic<int> flag_{0};
};
using StreamDecoder = Decoder<latens::StreamDecoder, std::int32_t>;
using LaneDecoder = Decoder<latens::LaneDecoder, std::int16_t, std::uint32_t>;

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
}  // namespace bindings

using namespace bindings;

NB_MODULE(_native, m) {
    latens::expect_forks();
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
    add_layers(m);
    add_winograd(m);
    add_networks(m);
    add_motion(m);
    add_lossless(m);
    m.def("quantize", &quantize, "pmf"_a.noconvert(), "lengths"_a.noconvert(), "precision"_a,
          "cdfs"_a.noconvert());
}
