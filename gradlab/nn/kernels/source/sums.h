/* Sums. */

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

/* The sum of (x - y)^2 over j < count, in double precision; y may be missing. In so many sums at a time that none waits
   for its last addition.                                                                                            */
#define CHAINS 4
typedef double wide __attribute__((vector_size(VECTOR_BYTES)));
#if defined(__AVX512F__)
#define WIDE_FUSED(a, b, c) ((wide)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#elif defined(__FMA__)
#define WIDE_FUSED(a, b, c) ((wide)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#else
#define WIDE_FUSED(a, b, c) ((a) * (b) + (c))
#endif
#define WIDE_LANES (VECTOR_BYTES / 8)
static inline __attribute__((always_inline)) double wide_by_halves(wide x)
{
    double part[WIDE_LANES];
    memcpy(part, &x, sizeof x);
#pragma GCC unroll 4
    for (int half = WIDE_LANES / 2; half; half /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < half; i++)
            part[i] += part[i + half];
    return part[0];
}

static inline __attribute__((always_inline)) wide widened(const REAL *x)
{
#if defined(__AVX512F__) && BITS == 32
    return (wide)_mm512_cvtps_pd(_mm256_loadu_ps(x));
#elif defined(__AVX__) && BITS == 32
    return (wide)_mm256_cvtps_pd(_mm_loadu_ps(x));
#else
    typedef REAL narrow __attribute__((vector_size(VECTOR_BYTES / 8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
    return __builtin_convertvector(*(const narrow *)x, wide);
#endif
}

/* x - y, rounded as numbers of their own precision are, in double precision. */
static inline __attribute__((always_inline)) wide widened_difference(const REAL *x, const REAL *y)
{
    typedef REAL narrow __attribute__((vector_size(VECTOR_BYTES / 8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
    const narrow away = *(const narrow *)x - *(const narrow *)y;
    REAL parts[WIDE_LANES];
    memcpy(parts, &away, sizeof away);
    return widened(parts);
}

static inline __attribute__((always_inline)) double squares_of(long count, const REAL *x, const REAL *y)
{
    const long many = WIDE_LANES;
    wide part[CHAINS];
    double sum = 0;
    long j = 0;
#pragma GCC unroll 8
    for (int v = 0; v < CHAINS; v++)
        part[v] = (wide){0};
    for (; j + CHAINS * many <= count; j += CHAINS * many)
#pragma GCC unroll 8
        for (int v = 0; v < CHAINS; v++) {
            const wide term = y ? widened_difference(x + j + v * many, y + j + v * many) : widened(x + j + v * many);
            part[v] = WIDE_FUSED(term, term, part[v]);
        }
    for (; j < count; j++) {
        const double term = (double)(y ? x[j] - y[j] : x[j]);
        sum += term * term;
    }
    return sum + wide_by_halves((part[0] + part[1]) + (part[2] + part[3]));
}

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
