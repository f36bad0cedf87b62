/* Numbers and vectors of them, in the precision that BITS says. */

#if defined(__GNUC__) && !defined(__clang__)
/* Otherwise a second copy of the loop over a tile keeps its sums in memory: half the speed. */
#pragma GCC optimize("no-version-loops-for-strides")
#if defined(__AVX512F__)
#pragma GCC target("prefer-vector-width=512")
#endif
#endif

#include <stdint.h>
#include <string.h>
#include <tgmath.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

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
#define LINE 64 /* bytes of a line of the cache */
#define LANES (VECTOR_BYTES * 8 / BITS)

typedef REAL lanes __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef COUNT whole_lanes __attribute__((vector_size(VECTOR_BYTES)));
/* a b + c, rounded once where the processor can. Elsewhere nothing is contracted (-ffp-contract=off): what cancels in
   exact arithmetic cancels here.                                                                                    */
#if defined(__AVX512F__) && BITS == 32
#define FUSED(a, b, c) ((lanes)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#elif defined(__AVX512F__)
#define FUSED(a, b, c) ((lanes)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#elif defined(__FMA__) && BITS == 32
#define FUSED(a, b, c) ((lanes)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#elif defined(__FMA__)
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

/* Calls a function by one of the usual widths as a constant, for which its loops over a row are unrolled, or any other. */
#define BY_WIDTH(width, call)                                                                                          \
    switch (width) {                                                                                                   \
    case 8: call(8); break;                                                                                            \
    case 16: call(16); break;                                                                                          \
    case 32: call(32); break;                                                                                          \
    case 64: call(64); break;                                                                                          \
    case 128: call(128); break;                                                                                        \
    default: call(width); break;                                                                                       \
    }

/* Calls a function for blocks of columns, from d on, whose number is a constant but for the last. */
#define BY_COLUMNS(width, call)                                                                                        \
    do {                                                                                                               \
        long d = 0;                                                                                                    \
        for (; d + 64 <= width; d += 64)                                                                               \
            call(64);                                                                                                  \
        for (; d + 16 <= width; d += 16)                                                                               \
            call(16);                                                                                                  \
        if (d < width)                                                                                                 \
            call(width - d);                                                                                           \
    } while (0)

#define INLINE static inline __attribute__((always_inline))
