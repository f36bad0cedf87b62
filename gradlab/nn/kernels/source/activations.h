/* Activations, there and back. */

/* e^x - 1: with x = n ln 2 + r, |r| <= ln(2)/2, it is 2^n (e^r - 1) + (2^n - 1), and e^r - 1 its series. Right to two
   units in the last place; inf above the range, nan for nan.                                                        */
static inline REAL exp_less_1(REAL x)
{
    const int single = sizeof(REAL) == 4;
    const REAL most = single ? 127 : 1023, ends = single ? 100 : 800;
    const long double ln2 = 0.693147180559945309417232121458L;
    const long double high = single ? 0.693359375L : 6.93147180369123816490e-1L; /* few bits: n high is exact */
    x = x > ends ? ends : x;
    x = x < -ends ? -ends : x;
    REAL n = rint(x * (REAL)(1 / ln2));
    n = n > most ? most : n;
    n = n < -most ? -most : n;
    const REAL r = (x - n * (REAL)high) - n * (REAL)(ln2 - high);
    static const REAL inverse_factorials[] = {
        1, 1 / 2.L, 1 / 6.L, 1 / 24.L, 1 / 120.L, 1 / 720.L, 1 / 5040.L, 1 / 40320.L, 1 / 362880.L, 1 / 3628800.L,
        1 / 39916800.L, 1 / 479001600.L, 1 / 6227020800.L, 1 / 87178291200.L,
    };
    REAL series = 0;
    for (int k = single ? 7 : 14; k > 0; k--)
        series = inverse_factorials[k - 1] + r * series;
    series *= r;
    REAL power;
    if (single) {
        const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
        float value;
        memcpy(&value, &bits, 4);
        power = (REAL)value;
    } else {
        const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
        double value;
        memcpy(&value, &bits, 8);
        power = (REAL)value;
    }
    return power * series + (power - 1);
}

enum { RELU, LEAKY, TANH, SIGMOID, SILU, ELU, SELU, HARDTANH };

#define SELU_SCALE ((REAL)1.0507009873554805)
#define SELU_ALPHA ((REAL)1.6732632423543772)

/* h = phi(z), entry by entry; slope is that of the leaky family below zero. */
static void activate(long kind, long count, const REAL *restrict z, const REAL *slope, REAL *restrict h)
{
    switch (kind) {
    case RELU:
        for (long j = 0; j < count; j++)
            h[j] = z[j] <= 0 ? 0 : z[j];
        break;
    case LEAKY: {
        const REAL below = *slope;
        for (long j = 0; j < count; j++)
            h[j] = z[j] > 0 ? z[j] : below * z[j];
        break;
    }
    case TANH: /* e/(e+2) with e = exp(2|z|) - 1; beyond 50 it is 1 */
        for (long j = 0; j < count; j++) {
            const REAL twice = 2 * fabs(z[j]), e = exp_less_1(twice > 50 ? 50 : twice);
            h[j] = copysign(e / (e + 2), z[j]);
        }
        break;
    case SIGMOID:
        for (long j = 0; j < count; j++)
            h[j] = 1 / (2 + exp_less_1(-z[j]));
        break;
    case SILU:
        for (long j = 0; j < count; j++)
            h[j] = z[j] / (2 + exp_less_1(-z[j]));
        break;
    case ELU:
        for (long j = 0; j < count; j++)
            h[j] = z[j] > 0 ? z[j] : exp_less_1(z[j]);
        break;
    case SELU:
        for (long j = 0; j < count; j++)
            h[j] = SELU_SCALE * (z[j] > 0 ? z[j] : SELU_ALPHA * exp_less_1(z[j]));
        break;
    case HARDTANH:
        for (long j = 0; j < count; j++)
            h[j] = z[j] < -1 ? -1 : z[j] > 1 ? 1 : z[j];
        break;
    }
}

/* dz = dh phi'(z), from h = phi(z) (of relu, tanh and sigmoid) or from z (of the others); dslope is the slope's gradient, where it is learned. */
static void activate_back(
    long kind, long count, const REAL *dh, const REAL *restrict known, const REAL *slope, REAL *dslope,
    REAL *dz)
{
    switch (kind) {
    case RELU:
        for (long j = 0; j < count; j++)
            dz[j] = known[j] <= 0 ? 0 : dh[j];
        break;
    case LEAKY: {
        const REAL below = *slope;
        for (long j = 0; j < count; j++)
            dz[j] = known[j] > 0 ? dh[j] : below * dh[j];
        if (dslope) {
            REAL sum = 0;
#pragma omp simd reduction(+ : sum)
            for (long j = 0; j < count; j++)
                sum += known[j] > 0 ? 0 : dh[j] * known[j];
            *dslope = sum;
        }
        break;
    }
    case TANH:
        for (long j = 0; j < count; j++)
            dz[j] = dh[j] * (1 - known[j] * known[j]);
        break;
    case SIGMOID:
        for (long j = 0; j < count; j++)
            dz[j] = dh[j] * known[j] * (1 - known[j]);
        break;
    case SILU: /* with s the sigmoid: (z s)' = s (1 + z (1 - s)) */
        for (long j = 0; j < count; j++) {
            const REAL s = 1 / (2 + exp_less_1(-known[j]));
            dz[j] = dh[j] * s * (1 + known[j] * (1 - s));
        }
        break;
    case ELU:
        for (long j = 0; j < count; j++)
            dz[j] = known[j] > 0 ? dh[j] : dh[j] * (exp_less_1(known[j]) + 1);
        break;
    case SELU:
        for (long j = 0; j < count; j++)
            dz[j] = SELU_SCALE * dh[j] * (known[j] > 0 ? 1 : SELU_ALPHA * (exp_less_1(known[j]) + 1));
        break;
    case HARDTANH:
        for (long j = 0; j < count; j++)
            dz[j] = known[j] <= -1 || known[j] >= 1 ? 0 : dh[j];
        break;
    }
}
