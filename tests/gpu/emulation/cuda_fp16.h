// Stands in for CUDA's own header: a half is converted when it is read.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
    uint16_t bits;

    explicit operator float() const {
        const int exponent = bits >> 10 & 31;
        const float fraction = static_cast<float>(bits & 1023) / 1024.0f;
        const float sign = bits & 0x8000 ? -1.0f : 1.0f;
        if (exponent == 31) return fraction ? NAN : sign * INFINITY;
        return sign * (exponent ? std::ldexp(1.0f + fraction, exponent - 15) : std::ldexp(fraction, -14));
    }
};
