/* Kernels of a stacked network on a CPU: a step as a list of calls, played member by member.

   `compiler.py` compiles this file for the machine it finds itself on, once with -DBITS=32 and once with -DBITS=64; `native.py` says what each kernel computes, in tensors. Nothing here assumes that numbers are finite,
   flushes subnormals, or reorders a sum by chance.

   A kernel sees one member. Shapes: B batch, D width, K outputs, P parameters.                                      */

#if defined(__GNUC__) && !defined(__clang__)
/* Otherwise a second copy of the loop over a tile keeps its sums in memory: half the speed. */
#pragma GCC optimize("no-version-loops-for-strides")
#endif

#include <stdint.h>
#include <string.h>
#include <tgmath.h>

#if BITS == 32
typedef float REAL;
typedef int32_t COUNT; /* as wide as REAL, so that entries are counted as fast as they are added */
#else
typedef double REAL;
typedef int64_t COUNT;
#endif

/* Sums of a product that registers hold: so many vectors wide, so many rows high. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64 /* 32 registers */
#define TILE_VECTORS 4
#define TILE_ROWS(vectors) ((vectors) == 2 ? 12 : (vectors) == 3 ? 8 : 6)
#elif defined(__AVX__)
#define VECTOR_BYTES 32 /* 16 registers */
#define TILE_VECTORS 2
#define TILE_ROWS(vectors) 6
#else
#define VECTOR_BYTES 16 /* 32 registers on ARM */
#define TILE_VECTORS 4
#define TILE_ROWS(vectors) ((vectors) == 2 ? 12 : (vectors) == 3 ? 8 : 6)
#endif
#define MOST_ROWS 12
#define LANES (VECTOR_BYTES * 8 / BITS)

typedef REAL lanes __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
/* a b + c, rounded once where the processor can. Elsewhere nothing is contracted (-ffp-contract=off): what cancels in
   exact arithmetic cancels here.                                                                                    */
#if defined(__AVX512F__) && BITS == 32
#include <immintrin.h>
#define FUSED(a, b, c) ((lanes)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#elif defined(__AVX512F__)
#include <immintrin.h>
#define FUSED(a, b, c) ((lanes)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#elif defined(__FMA__) && BITS == 32
#include <immintrin.h>
#define FUSED(a, b, c) ((lanes)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#elif defined(__FMA__)
#include <immintrin.h>
#define FUSED(a, b, c) ((lanes)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#elif defined(__aarch64__) && BITS == 32
#include <arm_neon.h>
#define FUSED(a, b, c) ((lanes)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define FUSED(a, b, c) ((lanes)vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b)))
#else
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif

typedef REAL quad __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

/* ---- matrix products -------------------------------------------------------------------------------------------- */

/* rows x (vectors*LANES) entries of C = start + A B, held in registers; A is read entry by entry at any strides. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int vectors, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    const REAL *start, long start_row, REAL *c, long c_row)
{
    lanes sum[MOST_ROWS][TILE_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            sum[i][j] = start ? *(const lanes *)(start + i * start_row + j * LANES) : (lanes){0};
#define ADD_COLUMN_TIMES_ROW(q)                                                                                        \
    do {                                                                                                               \
        lanes right[TILE_VECTORS];                                                                                     \
        _Pragma("GCC unroll 8") for (int j = 0; j < vectors; j++)                                                      \
            right[j] = *(const lanes *)(b + (q) * b_row + j * LANES);                                                  \
        _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++)                                                        \
        {                                                                                                              \
            const lanes left = a[i * a_row + (q) * a_column] - (lanes){0};                                             \
            _Pragma("GCC unroll 8") for (int j = 0; j < vectors; j++)                                                  \
                sum[i][j] = FUSED(left, right[j], sum[i][j]);                                                          \
        }                                                                                                              \
    } while (0)
    if (vectors == 1) { /* too little for the loop around it */
#pragma GCC unroll 4
        for (long q = 0; q < inner; q++)
            ADD_COLUMN_TIMES_ROW(q);
    } else
        for (long q = 0; q < inner; q++)
            ADD_COLUMN_TIMES_ROW(q);
#undef ADD_COLUMN_TIMES_ROW
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            *(lanes *)(c + i * c_row + j * LANES) = sum[i][j];
}

/* A strip of C as wide as `vectors` vectors, all its rows. */
static inline __attribute__((always_inline)) void strip(
    const int vectors, long rows, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    const REAL *start, long start_row, REAL *c, long c_row)
{
    long i = 0;
#define TILE(count)                                                                                                    \
    tile(count, vectors, inner, a + i * a_row, a_row, a_column, b, b_row, start ? start + i * start_row : 0,     \
               start_row, c + i * c_row, c_row)
    for (; i + TILE_ROWS(vectors) <= rows; i += TILE_ROWS(vectors))
        TILE(TILE_ROWS(vectors));
    if (TILE_ROWS(vectors) > 8 && i + 8 <= rows) {
        TILE(8);
        i += 8;
    }
    if (i + 4 <= rows) {
        TILE(4);
        i += 4;
    }
    switch (rows - i) {
    case 3: TILE(3); break;
    case 2: TILE(2); break;
    case 1: TILE(1); break;
    }
#undef TILE
}

/* B, or its transpose, copied to rows of a whole number of vectors; what is beyond its columns is zero. */
static void pack(long inner, long columns, const REAL *b, long b_row, long b_column, REAL *packed, long packed_row)
{
    if (columns < packed_row)
        memset(packed, 0, (size_t)(inner * packed_row) * sizeof(REAL));
    if (b_column == 1 || b_row != 1) {
        for (long q = 0; q < inner; q++)
            for (long j = 0; j < columns; j++)
                packed[q * packed_row + j] = b[q * b_row + j * b_column];
        return;
    }
    /* Blocks of 4 x 4, turned in registers; what is left at the edges one by one. */
    for (long j = 0; j < columns / 4 * 4; j += 4)
        for (long q = 0; q < inner / 4 * 4; q += 4) {
            const REAL *from = b + q * b_row + j * b_column;
            const quad w = *(const quad *)from, x = *(const quad *)(from + b_column);
            const quad y = *(const quad *)(from + 2 * b_column), z = *(const quad *)(from + 3 * b_column);
            const quad wx0 = __builtin_shufflevector(w, x, 0, 4, 1, 5), wx1 = __builtin_shufflevector(w, x, 2, 6, 3, 7);
            const quad yz0 = __builtin_shufflevector(y, z, 0, 4, 1, 5), yz1 = __builtin_shufflevector(y, z, 2, 6, 3, 7);
            REAL *to = packed + q * packed_row + j;
            *(quad *)to = __builtin_shufflevector(wx0, yz0, 0, 1, 4, 5);
            *(quad *)(to + packed_row) = __builtin_shufflevector(wx0, yz0, 2, 3, 6, 7);
            *(quad *)(to + 2 * packed_row) = __builtin_shufflevector(wx1, yz1, 0, 1, 4, 5);
            *(quad *)(to + 3 * packed_row) = __builtin_shufflevector(wx1, yz1, 2, 3, 6, 7);
        }
    for (long q = 0; q < inner; q++)
        for (long j = q < inner / 4 * 4 ? columns / 4 * 4 : 0; j < columns; j++)
            packed[q * packed_row + j] = b[q * b_row + j * b_column];
}

/* C = start + A B: A (rows, inner) and B (inner, columns) at any strides, C with adjacent columns. start is 0, or a bias
   (start_row 0), or a matrix, C itself included. scratch holds inner * padded + rows * LANES numbers.               */
static void product(
    long rows, long columns, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    long b_column, const REAL *start, long start_row, REAL *c, long c_row, REAL *scratch)
{
    const long padded = (columns + LANES - 1) / LANES * LANES, whole = columns / LANES * LANES;
    if (b_column != 1 || whole < columns) {
        pack(inner, columns, b, b_row, b_column, scratch, padded);
        b = scratch;
        b_row = padded;
    }
    long j = 0;
#define STRIP(vectors)                                                                                                 \
    strip(vectors, rows, inner, a, a_row, a_column, b + j, b_row, start ? start + j : 0, start_row, c + j, c_row)
    for (; j + TILE_VECTORS * LANES <= whole; j += TILE_VECTORS * LANES)
        STRIP(TILE_VECTORS);
    switch ((whole - j) / LANES) {
    case 3: STRIP(3); j += 3 * LANES; break;
    case 2: STRIP(2); j += 2 * LANES; break;
    case 1: STRIP(1); j += LANES; break;
    }
#undef STRIP
    if (j < columns) {
        REAL *edge = scratch + inner * padded;
        strip(1, rows, inner, a, a_row, a_column, b + j, b_row, 0, 0, edge, LANES);
        for (long i = 0; i < rows; i++)
            for (long d = j; d < columns; d++)
                c[i * c_row + d] = edge[i * LANES + d - j] + (start ? start[i * start_row + d] : 0);
    }
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

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

/* The sum of a vector's numbers: its upper half is added to its lower, and so on. */
static inline __attribute__((always_inline)) REAL by_halves(lanes x)
{
#if LANES == 16
    typedef REAL oct __attribute__((vector_size(8 * sizeof(REAL))));
    const oct lower = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    const oct y = lower + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    const lanes y = x;
#endif
#if LANES >= 8
    const quad z = __builtin_shufflevector(y, y, 0, 1, 2, 3) + __builtin_shufflevector(y, y, 4, 5, 6, 7);
#else
    const lanes z = y;
#endif
#if LANES >= 4
    return (z[0] + z[2]) + (z[1] + z[3]);
#else
    return z[0] + z[1];
#endif
}

/* The sum of a[j] b[j] c[j] over j < count, where b and c may be missing: in sixteen parts that are added by halves, so
   that the mean of equal numbers is that number, and what a norm takes out is gone.                                 */
#define PARTS 16
static inline __attribute__((always_inline)) REAL total(long count, const REAL *a, const REAL *b, const REAL *c)
{
    lanes part[PARTS / LANES];
    const long whole = count / PARTS * PARTS;
#pragma GCC unroll 8
    for (int v = 0; v < PARTS / LANES; v++)
        part[v] = (lanes){0};
    for (long from = 0; from < whole; from += PARTS)
#pragma GCC unroll 8
        for (int v = 0; v < PARTS / LANES; v++) {
            const long j = from + v * LANES;
            lanes term = *(const lanes *)(a + j);
            if (b)
                term *= *(const lanes *)(b + j);
            if (c)
                term *= *(const lanes *)(c + j);
            part[v] += term;
        }
    if (whole < count) {
        REAL rest[PARTS] = {0};
        for (long j = whole; j < count; j++)
            rest[j - whole] = a[j] * (b ? b[j] : 1) * (c ? c[j] : 1);
#pragma GCC unroll 8
        for (int v = 0; v < PARTS / LANES; v++)
            part[v] += *(const lanes *)(rest + v * LANES);
    }
#pragma GCC unroll 4
    for (int half = PARTS / LANES / 2; half; half /= 2)
#pragma GCC unroll 4
        for (int v = 0; v < half; v++)
            part[v] += part[v + half];
    return by_halves(part[0]);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

/* Each unit over the batch: y = shift + gain (z - mean) inverse, inverse = 1/sqrt(var + eps). Where there are running
   statistics they move towards the batch's mean and unbiased variance.                                              */
static void batch_norm(
    long batch, long width, double eps, double momentum, const REAL *restrict z, const REAL *gain, const REAL *shift,
    REAL *running_mean, REAL *running_var, REAL *restrict mean, REAL *restrict inverse, REAL *restrict y)
{
    for (long d = 0; d < width; d++)
        mean[d] = inverse[d] = 0;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++)
            mean[d] += z[i * width + d];
    for (long d = 0; d < width; d++)
        mean[d] /= (REAL)batch;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++) {
            const REAL centred = z[i * width + d] - mean[d];
            inverse[d] += centred * centred;
        }
    if (running_mean)
        for (long d = 0; d < width; d++) {
            running_mean[d] += (REAL)momentum * (mean[d] - running_mean[d]);
            running_var[d] += (REAL)momentum * (inverse[d] / (REAL)(batch - 1) - running_var[d]);
        }
    for (long d = 0; d < width; d++)
        inverse[d] = 1 / sqrt(inverse[d] / (REAL)batch + (REAL)eps);
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++)
            y[i * width + d] = shift[d] + gain[d] * inverse[d] * (z[i * width + d] - mean[d]);
}

/* With c = z - mean and r = inverse: dz = gain r (dy - mean(dy) - c r^2 mean(dy c)), means over the batch; dgain is
   r sum(dy c), dshift sum(dy).                                                                                      */
static void batch_norm_back(
    long batch, long width, const REAL *restrict dy, const REAL *restrict z, const REAL *restrict mean,
    const REAL *restrict inverse, const REAL *restrict gain, REAL *restrict dgain, REAL *restrict dshift,
    REAL *restrict scratch, REAL *restrict dz)
{
    REAL *restrict level = scratch, *restrict slope = scratch + width;
    for (long d = 0; d < width; d++)
        level[d] = slope[d] = 0;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++) {
            level[d] += dy[i * width + d];
            slope[d] += dy[i * width + d] * (z[i * width + d] - mean[d]);
        }
    for (long d = 0; d < width; d++) {
        dshift[d] = level[d];
        dgain[d] = slope[d] * inverse[d];
        level[d] /= (REAL)batch;
        slope[d] *= inverse[d] * inverse[d] / (REAL)batch;
    }
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++)
            dz[i * width + d] =
                gain[d] * inverse[d] * (dy[i * width + d] - level[d] - slope[d] * (z[i * width + d] - mean[d]));
}

/* Each sample over its units: y = shift + gain n, n = (z - mean) inverse. Without `centred` the mean stays in, and
   there is no shift (rms norm).                                                                                     */
static void layer_norm(
    long batch, long width, long centred, double eps, const REAL *restrict z, const REAL *restrict gain,
    const REAL *restrict shift, REAL *restrict n, REAL *restrict inverse, REAL *restrict y)
{
    for (long i = 0; i < batch; i++) {
        const REAL mean = centred ? total(width, z + i * width, 0, 0) / (REAL)width : 0;
        REAL *const restrict row = n + i * width;
        for (long d = 0; d < width; d++)
            row[d] = z[i * width + d] - mean;
        inverse[i] = total(width, row, row, 0);
    }
    for (long i = 0; i < batch; i++)
        inverse[i] = 1 / sqrt(inverse[i] / (REAL)width + (REAL)eps);
    for (long i = 0; i < batch; i++, n += width, y += width) {
        for (long d = 0; d < width; d++)
            n[d] *= inverse[i];
        if (shift)
            for (long d = 0; d < width; d++)
                y[d] = shift[d] + gain[d] * n[d];
        else
            for (long d = 0; d < width; d++)
                y[d] = gain[d] * n[d];
    }
}

/* With dn = gain dy: dz = inverse (dn - mean(dn) - n mean(dn n)), means over the units; dgain is sum(dy n) over the
   batch, dshift sum(dy).                                                                                            */
static void layer_norm_back(
    long batch, long width, long centred, const REAL *restrict dy, const REAL *restrict n,
    const REAL *restrict inverse, const REAL *restrict gain, REAL *restrict dgain, REAL *restrict dshift,
    REAL *restrict dz)
{
    for (long d = 0; d < width; d++)
        dgain[d] = 0;
    if (dshift)
        for (long d = 0; d < width; d++)
            dshift[d] = 0;
    for (long i = 0; i < batch; i++, dy += width, n += width, dz += width) {
        const REAL level = centred ? total(width, gain, dy, 0) / (REAL)width : 0;
        const REAL along = total(width, gain, dy, n) / (REAL)width;
        for (long d = 0; d < width; d++)
            dz[d] = inverse[i] * (gain[d] * dy[d] - level - n[d] * along);
        for (long d = 0; d < width; d++)
            dgain[d] += dy[d] * n[d];
        if (dshift)
            for (long d = 0; d < width; d++)
                dshift[d] += dy[d];
    }
}

/* ---- sums ------------------------------------------------------------------------------------------------------- */

/* (B, D) -> (D): over the batch. */
static void batch_sum(long batch, long width, long x_row, const REAL *restrict x, REAL *restrict sum)
{
    for (long d = 0; d < width; d++)
        sum[d] = 0;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < width; d++)
            sum[d] += x[i * x_row + d];
}

/* out = scale x, added to y where there is one; out may be either. Without x it is zero. */
static void add(long count, double scale, const REAL *x, const REAL *y, REAL *out)
{
    const REAL by = (REAL)scale;
    if (!x)
        memset(out, 0, (size_t)count * sizeof(REAL));
    else if (!y)
        for (long j = 0; j < count; j++)
            out[j] = by * x[j];
    else
        for (long j = 0; j < count; j++)
            out[j] = y[j] + by * x[j];
}

static double norm_of(long count, const REAL *x)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = 0; j < count; j++)
        sum += (double)x[j] * (double)x[j];
    return sqrt(sum);
}

/* The norm of each span of columns, in double precision. */
static void norms(long spans, const long *from, const long *to, const REAL *x, double *norm)
{
    for (long s = 0; s < spans; s++)
        norm[s] = norm_of(to[s] - from[s], x + from[s]);
}

/* Zero where every entry is finite, else not a number. */
static void unsound(long count, const REAL *restrict x, double *found)
{
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = 0; j < count; j++)
        sum += x[j] * 0;
    *found = (double)sum;
}

/* Mean and population standard deviation, in double precision. */
static void moments(long count, const REAL *restrict x, double *mean, double *deviation)
{
    double sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = 0; j < count; j++)
        sum += (double)x[j];
    const double middle = sum / (double)count;
#pragma omp simd reduction(+ : square)
    for (long j = 0; j < count; j++)
        square += ((double)x[j] - middle) * ((double)x[j] - middle);
    *mean = middle;
    *deviation = sqrt(square / (double)count);
}

/* The norm of the difference of two vectors in each span. */
static void distances(long spans, const long *from, const long *to, const REAL *x, const REAL *y, double *norm)
{
    for (long s = 0; s < spans; s++) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long j = from[s]; j < to[s]; j++)
            sum += ((double)x[j] - (double)y[j]) * ((double)x[j] - (double)y[j]);
        norm[s] = sqrt(sum);
    }
}

/* Adds the squares of a span, and counts its zeros; a `lost` that is not zero is not a number, as an entry is. */
static void squares_and_zeros(long count, const REAL *x, double *squares, long *zeros, REAL *lost)
{
    double sum = 0;
    COUNT zero = 0;
    REAL nan = 0;
#pragma omp simd reduction(+ : sum, zero, nan)
    for (long j = 0; j < count; j++) {
        sum += (double)x[j] * (double)x[j];
        zero += x[j] == 0;
        nan += x[j] != x[j] ? x[j] : 0;
    }
    *squares += sum;
    *zeros += zero;
    *lost += nan;
}

/* Of each layer, its matrix first: the norm of all, that of the matrix, and the share of entries that are exactly zero,
   not a number where an entry is not.                                                                               */
static void gradients(
    long layers, const long *from, const long *matrix, const long *to, const REAL *x, double *norm, double *weights,
    double *zero)
{
    for (long l = 0; l < layers; l++) {
        double squares = 0;
        long zeros = 0;
        REAL lost = 0;
        squares_and_zeros(matrix[l] - from[l], x + from[l], &squares, &zeros, &lost);
        weights[l] = sqrt(squares);
        squares_and_zeros(to[l] - matrix[l], x + matrix[l], &squares, &zeros, &lost);
        norm[l] = sqrt(squares);
        zero[l] = (double)zeros / (double)(to[l] - from[l]) + (double)lost;
    }
}

/* The share of entries whose slope is smaller than a limit; not a number where an entry is not. `known` as in
   activate_back; the slopes are scratch.                                                                            */
static void saturated(long kind, long count, double limit, const REAL *restrict known, REAL *restrict slopes, double *share)
{
    const REAL least = (REAL)limit;
    COUNT below = 0;
    REAL sum = 0;
    switch (kind) {
    case TANH:
#pragma omp simd reduction(+ : below, sum)
        for (long j = 0; j < count; j++) {
            below += 1 - known[j] * known[j] < least;
            sum += known[j] * 0;
        }
        break;
    case SIGMOID:
#pragma omp simd reduction(+ : below, sum)
        for (long j = 0; j < count; j++) {
            below += known[j] * (1 - known[j]) < least;
            sum += known[j] * 0;
        }
        break;
    default:
        for (long j = 0; j < count; j++)
            slopes[j] = 1;
        activate_back(kind, count, slopes, known, 0, 0, slopes);
#pragma omp simd reduction(+ : below, sum)
        for (long j = 0; j < count; j++) {
            below += fabs(slopes[j]) < least;
            sum += known[j] != known[j] ? known[j] : 0;
        }
    }
    *share = (double)below / (double)count + (double)sum;
}

/* The share of units that are nowhere in the batch above zero; none where the slope below zero is not zero. */
static void dead(long batch, long width, const REAL *restrict z, const REAL *slope, REAL *restrict most, double *share)
{
    for (long d = 0; d < width; d++)
        most[d] = z[d];
    for (long i = 1; i < batch; i++)
        for (long d = 0; d < width; d++)
            most[d] = z[i * width + d] <= most[d] ? most[d] : z[i * width + d];
    long count = 0;
    for (long d = 0; d < width; d++)
        count += most[d] <= 0;
    *share = slope && *slope != 0 ? 0 : (double)count / (double)width;
}

/* ---- data and losses -------------------------------------------------------------------------------------------- */

/* The chosen rows of x, scaled. */
static void gather(long batch, long width, const long *chosen, const REAL *x, const REAL *scale, REAL *restrict out)
{
    const REAL by = *scale;
    for (long i = 0; i < batch; i++)
        for (long j = 0; j < width; j++)
            out[i * width + j] = by * x[chosen[i] * width + j];
}

/* Cross-entropy in nats, its mean over the batch, and its derivative: the softmax, less one for the class, over B. */
static void cross_entropy(
    long batch, long outputs, const REAL *restrict z, const long *chosen, const long *classes, REAL *loss,
    REAL *restrict dz)
{
    double sum = 0, product = 1;
    for (long i = 0; i < batch; i++) {
        const REAL *const own = z + i * outputs;
        REAL most = own[0];
        for (long k = 1; k < outputs; k++)
            most = own[k] > most || own[k] != own[k] ? own[k] : most;
        for (long k = 0; k < outputs; k++)
            dz[i * outputs + k] = own[k] - most;
        sum -= (double)dz[i * outputs + classes[chosen[i]]];
    }
    for (long j = 0; j < batch * outputs; j++)
        dz[j] = exp_less_1(dz[j]) + 1;
    for (long i = 0; i < batch; i++, dz += outputs) {
        REAL whole = 0;
        for (long k = 0; k < outputs; k++)
            whole += dz[k];
        for (long k = 0; k < outputs; k++)
            dz[k] /= whole * (REAL)batch;
        dz[classes[chosen[i]]] -= 1 / (REAL)batch;
        /* The sum of logarithms, by few of them: each factor is from 1 to the outputs. */
        product *= (double)whole;
        if (product > 1e200) {
            sum += log(product);
            product = 1;
        }
    }
    *loss = (REAL)((sum + log(product)) / (double)batch);
}

/* Mean over batch and outputs; targets (N, K), scaled. */
static void squared_error(
    long batch, long outputs, const REAL *restrict z, const long *chosen, const REAL *targets, const REAL *scale,
    REAL *loss, REAL *restrict dz)
{
    const REAL count = (REAL)(batch * outputs), by = *scale;
    REAL sum = 0;
    for (long i = 0; i < batch; i++)
        for (long k = 0; k < outputs; k++) {
            const REAL error = z[i * outputs + k] - by * targets[chosen[i] * outputs + k];
            sum += error * error;
            dz[i * outputs + k] = error * (2 / count);
        }
    *loss = sum / count;
}

/* ---- clipping and descent --------------------------------------------------------------------------------------- */

enum { NONE, NORM, VALUE, LAYERWISE, NORMALIZE };
#define MARGIN 1e-6

/* Multiplies by a scale that is first rounded, as the gradient is; gives the rounded scale. */
static double rescale(long count, double scale, REAL *g)
{
    const REAL rounded = (REAL)scale;
    if (rounded == 1)
        return 1;
    for (long j = 0; j < count; j++)
        g[j] *= rounded;
    return (double)rounded;
}

/* The member's own way of clipping, in place: the norm after it, and zero where no entry changed. */
static void clip(
    long count, long layers, const long *mode, const double *threshold, const double *output_threshold,
    const long *from, const long *to, const double *norm, REAL *restrict g, double *after, double *changed)
{
    *after = *norm;
    *changed = 0;
    switch (*mode) {
    case NORM:
    case NORMALIZE: {
        double scale = *threshold / (*norm + MARGIN);
        if (*mode == NORM && scale > 1)
            scale = 1;
        *after = *norm * rescale(count, scale, g);
        *changed = *after - *norm;
        break;
    }
    case VALUE: {
        const REAL most = (REAL)*threshold;
        double sum = 0;
        REAL cut = 0;
#pragma omp simd reduction(+ : sum, cut)
        for (long j = 0; j < count; j++) {
            const REAL low = g[j] < -most ? -most : g[j], kept = low > most ? most : low;
            cut += fabs(g[j] - kept);
            g[j] = kept;
            sum += (double)kept * (double)kept;
        }
        *after = sqrt(sum);
        *changed = (double)cut;
        break;
    }
    case LAYERWISE: {
        double sum = 0;
        for (long l = 0; l < layers; l++) {
            const double was = norm_of(to[l] - from[l], g + from[l]);
            double scale = (l < layers - 1 ? *threshold : *output_threshold) / (was + MARGIN);
            scale = scale > 1 ? 1 : scale;
            const double is = was * rescale(to[l] - from[l], scale, g + from[l]);
            sum += is * is;
            *changed += fabs(is - was);
        }
        *after = sqrt(sum);
        break;
    }
    }
}

/* Adds L2 weight decay and L1 to the gradient, as torch.optim adds `weight_decay`: after clipping. */
static void decay(long count, REAL l2, REAL l1, const REAL *restrict w, REAL *restrict g)
{
    if (l2 != 0)
        for (long j = 0; j < count; j++)
            g[j] += l2 * w[j];
    if (l1 != 0)
        for (long j = 0; j < count; j++)
            g[j] += l1 * (REAL)((w[j] > 0) - (w[j] < 0));
}

/* torch.optim.SGD with dampening 0: b <- mu b + g where there is a buffer; w <- w - lr b, or w - lr (g + mu b) with
   Nesterov's.                                                                                                       */
static void sgd(
    long count, const REAL *lr, const REAL *momentum, const REAL *nesterov, const REAL *l2, const REAL *l1,
    REAL *restrict g, REAL *restrict buffer, REAL *restrict w)
{
    const REAL rate = *lr, keep = *momentum;
    decay(count, *l2, *l1, w, g);
    if (buffer)
        for (long j = 0; j < count; j++)
            buffer[j] = keep * buffer[j] + g[j];
    if (!buffer)
        for (long j = 0; j < count; j++)
            w[j] -= rate * g[j];
    else if (*nesterov != 0)
        for (long j = 0; j < count; j++)
            w[j] -= rate * (g[j] + keep * buffer[j]);
    else
        for (long j = 0; j < count; j++)
            w[j] -= rate * buffer[j];
}

/* torch.optim.Adam, or AdamW where the decay is decoupled: there it acts on the weights; `done` updates came before. */
static void adam(
    long count, long decoupled, const double *done, const REAL *lr, const REAL *beta1, const REAL *beta2, const REAL *eps,
    const REAL *l2, const REAL *l1, REAL *restrict g, REAL *restrict mean, REAL *restrict square, REAL *restrict w)
{
    if (decoupled && *l2 != 0)
        for (long j = 0; j < count; j++)
            w[j] *= 1 - *lr * *l2;
    decay(count, decoupled ? 0 : *l2, *l1, w, g);
    const REAL b1 = *beta1, b2 = *beta2, least = *eps;
    const REAL rate = *lr / (REAL)(1 - pow((double)b1, *done + 1)), root = (REAL)sqrt(1 - pow((double)b2, *done + 1));
    for (long j = 0; j < count; j++) {
        mean[j] += (1 - b1) * (g[j] - mean[j]);
        square[j] = b2 * square[j] + (1 - b2) * g[j] * g[j];
        w[j] -= rate * (mean[j] / (sqrt(square[j]) / root + least));
    }
}

/* torch.optim.RMSprop; beta2 is its alpha. */
static void rmsprop(
    long count, const REAL *lr, const REAL *momentum, const REAL *beta2, const REAL *eps, const REAL *l2, const REAL *l1,
    REAL *restrict g, REAL *restrict square, REAL *restrict buffer, REAL *restrict w)
{
    const REAL rate = *lr, keep = *momentum, b2 = *beta2, least = *eps;
    decay(count, *l2, *l1, w, g);
    for (long j = 0; j < count; j++) {
        square[j] = b2 * square[j] + (1 - b2) * g[j] * g[j];
        g[j] /= sqrt(square[j]) + least;
    }
    if (buffer)
        for (long j = 0; j < count; j++) {
            buffer[j] = keep * buffer[j] + g[j];
            g[j] = buffer[j];
        }
    for (long j = 0; j < count; j++)
        w[j] -= rate * g[j];
}

/* torch.optim.Adagrad without learning-rate decay. */
static void adagrad(
    long count, const REAL *lr, const REAL *eps, const REAL *l2, const REAL *l1, REAL *restrict g, REAL *restrict sum,
    REAL *restrict w)
{
    const REAL rate = *lr, least = *eps;
    decay(count, *l2, *l1, w, g);
    for (long j = 0; j < count; j++) {
        sum[j] += g[j] * g[j];
        w[j] -= rate * (g[j] / (sqrt(sum[j]) + least));
    }
}

/* ---- a step as a list of calls ---------------------------------------------------------------------------------- */

#define SIZES 9
#define PLACES 12

/* One kernel with its arguments. A place is an address, that of member 0, and the bytes from there to the next member's:
   none where all members share it, or where no member needs it once its step is done.                               */
struct call {
    int64_t kernel;
    int64_t size[SIZES];
    double number[2];
    char *at[PLACES];
    int64_t step[PLACES];
};

enum {
    PRODUCT, ACTIVATE, ACTIVATE_BACK, BATCH_NORM, BATCH_NORM_BACK, LAYER_NORM, LAYER_NORM_BACK, BATCH_SUM, ADD, NORMS,
    UNSOUND, MOMENTS, DISTANCES, GRADIENTS, SATURATED, DEAD, GATHER, CROSS_ENTROPY, SQUARED_ERROR, CLIP, SGD, ADAM,
    RMSPROP, ADAGRAD,
};

static void play_one(const struct call *call, void **p)
{
    const int64_t *n = call->size;
    const double *x = call->number;
    switch (call->kernel) {
    case PRODUCT:
        product(n[0], n[1], n[2], p[0], n[3], n[4], p[1], n[5], n[6], p[2], n[7], p[3], n[8], p[4]);
        break;
    case ACTIVATE: activate(n[0], n[1], p[0], p[1], p[2]); break;
    case ACTIVATE_BACK: activate_back(n[0], n[1], p[0], p[1], p[2], p[3], p[4]); break;
    case BATCH_NORM: batch_norm(n[0], n[1], x[0], x[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]); break;
    case BATCH_NORM_BACK: batch_norm_back(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]); break;
    case LAYER_NORM: layer_norm(n[0], n[1], n[2], x[0], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case LAYER_NORM_BACK: layer_norm_back(n[0], n[1], n[2], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case BATCH_SUM: batch_sum(n[0], n[1], n[2], p[0], p[1]); break;
    case ADD: add(n[0], x[0], p[0], p[1], p[2]); break;
    case NORMS: norms(n[0], p[0], p[1], p[2], p[3]); break;
    case UNSOUND: unsound(n[0], p[0], p[1]); break;
    case MOMENTS: moments(n[0], p[0], p[1], p[2]); break;
    case DISTANCES: distances(n[0], p[0], p[1], p[2], p[3], p[4]); break;
    case GRADIENTS: gradients(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case SATURATED: saturated(n[0], n[1], x[0], p[0], p[1], p[2]); break;
    case DEAD: dead(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case GATHER: gather(n[0], n[1], p[0], p[1], p[2], p[3]); break;
    case CROSS_ENTROPY: cross_entropy(n[0], n[1], p[0], p[1], p[2], p[3], p[4]); break;
    case SQUARED_ERROR: squared_error(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5]); break;
    case CLIP: clip(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]); break;
    case ADAM:
        adam(n[0], n[1], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10]);
        break;
    case RMSPROP: rmsprop(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]); break;
    case ADAGRAD: adagrad(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6]); break;
    case SGD: sgd(n[0], p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]); break;
    }
}

/* Plays the calls for each of the members, one member after the other: what it computes stays in the cache. */
void play(const struct call *calls, int64_t count, const int64_t *members, int64_t how_many)
{
    for (int64_t i = 0; i < how_many; i++)
        for (const struct call *call = calls; call < calls + count; call++) {
            void *places[PLACES];
            for (int j = 0; j < PLACES; j++)
                places[j] = call->at[j] ? call->at[j] + call->step[j] * members[i] : 0;
            play_one(call, places);
        }
}
