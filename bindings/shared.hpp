// What all bindings share: arrays, errors, work without the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "status.hpp"

namespace bindings {

namespace nb = nanobind;
using namespace nb::literals;

using Data = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
template <class T, std::size_t dimensions>
using In = nb::ndarray<const T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void raise(const char* error, const std::string& message) {
    PyErr_SetString(nb::module_::import_("latens.errors").attr(error).ptr(), message.c_str());
    throw nb::python_error();
}

inline void check(const latens::Status& status) {
    if (status.ok()) return;
    // `poll` has left the exception of the signal handler in place; a second call finds none.
    if (status.code == latens::Code::interrupted && PyErr_Occurred()) throw nb::python_error();
    raise(status.concerns_tables()   ? "TableError"
          : status.concerns_layers() ? "ModelError"
          : status.concerns_shapes() ? "ShapeError"
                                     : "CoderError",
          latens::describe(status));
}

inline bool poll() {
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
// The flag is an int: exchanging a byte takes libatomic on riscv64, before GCC 13.
class Busy {
  public:
    explicit Busy(std::atomic<int>& flag) : flag_(flag) {
        if (flag_.exchange(1)) raise("CoderError", "this coder is in use by another thread");
    }
    ~Busy() { flag_ = 0; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

  private:
    std::atomic<int>& flag_;
};

template <class T>
inline nb::object new_array(std::initializer_list<std::size_t> shape, T*& data) {
    std::size_t size = 1;
    for (const std::size_t n : shape) size *= n;
    data = new T[std::max<std::size_t>(size, 1)];
    const nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    return nb::cast(nb::ndarray<nb::numpy, T>(data, shape, owner));
}

inline void same_size(std::size_t a, std::size_t b) {
    if (a != b)
        raise("ShapeError",
              "expected arrays of one size, got " + std::to_string(a) + " and " + std::to_string(b));
}

void add_layers(nb::module_& module);
void add_winograd(nb::module_& module);
void add_networks(nb::module_& module);
void add_motion(nb::module_& module);
void add_lossless(nb::module_& module);

}  // namespace bindings
