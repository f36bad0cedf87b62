/* Activations, there and back. */

/* a + b c, in one instruction where the processor has it. */
#if (defined(__FMA__) || defined(__aarch64__)) && BITS == 32
#define PLUS_TIMES(a, b, c) __builtin_fmaf(b, c, a)
#elif defined(__FMA__) || defined(__aarch64__)
#define PLUS_TIMES(a, b, c) __builtin_fma(b, c, a)
#else
#define PLUS_TIMES(a, b, c) ((a) + (b) * (c))
#endif

/* e^x with x = n ln 2 + r, |r| <= ln(2)/2, in two parts: 2^n, and e^r - 1 by its series. What is `bounded` lies within
   the range of numbers; else 2^n is 0 below it, and the largest that there is above it, where r is as large as makes
   e^x infinite.                                                                                                     */
static inline REAL exp_parts(const int bounded, REAL x, REAL *power)
{
    const int single = sizeof(REAL) == 4;
    const REAL most = single ? 127 : 1023;
    const long double ln2 = 0.693147180559945309417232121458L;
    const long double high = single ? 0.693359375L : 6.93147180369123816490e-1L; /* few bits: n high is exact */
    if (!bounded) {
        const REAL least = single ? -88 : -709, ends = single ? 89 : 710;
        x = x > ends ? ends : x;
        x = x < least ? least : x;
    }
    REAL n = rint(x * (REAL)(1 / ln2));
    if (!bounded)
        n = n > most ? most : n;
    const REAL r = PLUS_TIMES(PLUS_TIMES(x, n, -(REAL)high), n, -(REAL)(ln2 - high));
    static const REAL inverse_factorials[] = {
        1, 1 / 2.L, 1 / 6.L, 1 / 24.L, 1 / 120.L, 1 / 720.L, 1 / 5040.L, 1 / 40320.L, 1 / 362880.L, 1 / 3628800.L,
        1 / 39916800.L, 1 / 479001600.L, 1 / 6227020800.L, 1 / 87178291200.L,
    };
    REAL series = 0;
#pragma GCC unroll 16
    for (int k = single ? 7 : 14; k > 0; k--)
        series = PLUS_TIMES(inverse_factorials[k - 1], r, series);
    if (single) {
        const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
        float value;
        memcpy(&value, &bits, 4);
        *power = (REAL)value;
    } else {
        const uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
        double value;
        memcpy(&value, &bits, 8);
        *power = (REAL)value;
    }
    return series * r;
}

/* e^x - 1, right to two units in the last place; inf above the range, nan for nan. */
static inline REAL exp_less_1_of(const int bounded, REAL x)
{
    REAL power;
    const REAL series = exp_parts(bounded, x, &power);
    return PLUS_TIMES(power - 1, power, series);
}

static inline REAL exp_less_1(REAL x)
{
    return exp_less_1_of(0, x);
}

/* e/(e + 2) with e = exp(2|z|) - 1; beyond 50 it is 1. */
static inline REAL tanh_(REAL z)
{
    const REAL twice = 2 * fabs(z), e = exp_less_1_of(1, twice > 50 ? 50 : twice);
    return copysign(e / (e + 2), z);
}

/* 1/(1 + e) with e = e^-|z|, or e/(1 + e) below zero; 0 where e would be no normal number. */
static inline REAL sigmoid(REAL z)
{
    const REAL least = sizeof(REAL) == 4 ? -88 : -709, below = -fabs(z);
    REAL power;
    const REAL series = exp_parts(1, below < least ? least : below, &power), e = PLUS_TIMES(power, power, series);
    return (z < 0 ? e : 1) / (1 + e);
}

/* e^x, right to two units in the last place; 0 where it would be no normal number. */
static inline REAL exponential(REAL x)
{
    REAL power;
    const REAL series = exp_parts(0, x, &power), found = PLUS_TIMES(power, power, series);
    return x < (sizeof(REAL) == 4 ? -87 : -708) ? 0 : found;
}

/* The share of a normal variable below z, and e^(-z^2/2). With x = |z|/sqrt 2 and t = (x - 5/2)/(x + 5/2), which is -1
   to 1, (1 + 2x) e^(x^2) erfc x is a polynomial in t (the form of Shepherd & Laframboise 1981; ours are the Chebyshev
   coefficients of those two degrees): right to 3e-7, or 2e-15, of the smaller of the two tails.                     */
static inline REAL normal_share(REAL z, REAL *bell)
{
    static const REAL single[] = {
        1.26483805539821593, -0.122357465773893163, -0.0990179996789786495, 0.157644294807646168,
        -0.103020474189103443, 0.0326775700704523988, 0.00108657996229806124, -0.00418024663031909614,
        0.000303542855487721772, 0.000405488919171794944,
    };
    static const REAL twice[] = {
        1.26483818436686166, -0.122356763082383819, -0.0990245395736517787, 0.157629919021379617,
        -0.102967056036193921, 0.0327608933176123761, 0.000931892772931873389, -0.00438207894439120865,
        0.000491866242440702291, 0.000632128504239996598, -0.0000884816979478206797, -0.000113540003896757857,
        6.27498428237527463e-6, 0.0000227480331653035278, 2.58739412822032532e-6, -4.30597201105372368e-6,
        -1.55078869908296977e-6, 6.3368343837325874e-7, 4.9722881291745187e-7, -5.07418434658107452e-8,
        -1.01770211175603901e-7, -2.67553795182620863e-10, 1.0425002487453678e-8,
    };
    const REAL size = z < 0 ? -z : z, x = (size > 60 ? 60 : size) * (REAL)0.707106781186547524L;
    const REAL above = x + (REAL)2.5, wide = 1 + 2 * x, over = 1 / (above * wide);
    const REAL t = (x - (REAL)2.5) * wide * over;
    REAL series = 0;
    if (sizeof(REAL) == 4)
#pragma GCC unroll 32
        for (int k = 9; k >= 0; k--)
            series = PLUS_TIMES(single[k], t, series);
    else
#pragma GCC unroll 32
        for (int k = 22; k >= 0; k--)
            series = PLUS_TIMES(twice[k], t, series);
    *bell = exponential((REAL)-0.5 * z * z);
    const REAL tail = (REAL)0.5 * *bell * series * above * over;
    return z < 0 ? tail : 1 - tail;
}

/* ln(1 + u) for u of 0 to 1: twice the area tangent of u/(2 + u), by its series. */
static inline REAL log_1_more(REAL u)
{
    const REAL s = u / (2 + u), square = s * s;
    REAL series = 0;
#pragma GCC unroll 32
    for (int k = sizeof(REAL) == 4 ? 8 : 17; k >= 0; k--)
        series = (REAL)(1.L / (2 * k + 1)) + square * series;
    return 2 * s * series;
}

enum { RELU, LEAKY, TANH, SIGMOID, SILU, ELU, SELU, HARDTANH, GELU, SOFTPLUS };

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
    case TANH:
        for (long j = 0; j < count; j++)
            h[j] = tanh_(z[j]);
        break;
    case SIGMOID:
        for (long j = 0; j < count; j++)
            h[j] = sigmoid(z[j]);
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
    case GELU:
        for (long j = 0; j < count; j++) {
            REAL bell;
            h[j] = z[j] * normal_share(z[j], &bell);
        }
        break;
    case SOFTPLUS: /* max(z, 0) + ln(1 + e^-|z|); beyond 20 torch has z */
        for (long j = 0; j < count; j++) {
            const REAL small = log_1_more(exponential(z[j] < 0 ? z[j] : -z[j]));
            h[j] = z[j] > 20 ? z[j] : (z[j] < 0 ? 0 : z[j]) + small;
        }
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
    case GELU: /* (z Phi)' = Phi + z e^(-z^2/2)/sqrt(2 pi) */
        for (long j = 0; j < count; j++) {
            REAL bell;
            const REAL share = normal_share(known[j], &bell);
            dz[j] = dh[j] * (share + known[j] * bell * (REAL)0.398942280401432678L);
        }
        break;
    case SOFTPLUS:
        for (long j = 0; j < count; j++)
            dz[j] = known[j] > 20 ? dh[j] : dh[j] / (2 + exp_less_1(-known[j]));
        break;
    }
}
