// Fields of motion to streams and back.
#include <new>

#include "motion_syntax.hpp"

namespace latens {

void encode_field(const FieldView& field, int references, std::vector<std::uint8_t>& out) {
    std::vector<Unit> known(static_cast<std::size_t>(field.rows) * static_cast<std::size_t>(field.columns));
    BitEncoder coder;
    FieldSyntax<BitEncoder>(coder, field, {known.data(), field.rows, field.columns}, references).code();
    coder.finish(out);
}

Status decode_field(const std::uint8_t* data, std::size_t size, int references, const Field& field) {
    const Unit unknown{};
    std::fill_n(field.units, static_cast<std::size_t>(field.rows) * static_cast<std::size_t>(field.columns),
                unknown);
    BitDecoder coder(data, size);
    FieldSyntax<BitDecoder> syntax(coder, {}, field, references);
    if (!syntax.code() || !coder.finished()) return {Code::motion_damaged};
    return {};
}

}  // namespace latens
