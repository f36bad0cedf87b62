/* Matrix products. */

/* rows x (vectors*LANES) entries of C = start + A B, held in registers; A is read entry by entry at any strides. What
   lies `ahead`, a line of the cache for each column of A, is fetched meanwhile.                                     */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int vectors, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    const REAL *start, long start_row, REAL *c, long c_row, const char *ahead)
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
        for (long q = 0; q < inner; q++) {
            __builtin_prefetch(ahead + q * LINE, 0, 2);
            ADD_COLUMN_TIMES_ROW(q);
        }
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
    const REAL *start, long start_row, REAL *c, long c_row, const char *ahead)
{
    long i = 0;
#define TILE(count)                                                                                                    \
    tile(count, vectors, inner, a + i * a_row, a_row, a_column, b, b_row, start ? start + i * start_row : 0,           \
         start_row, c + i * c_row, c_row, ahead + i / TILE_ROWS(vectors) * inner * LINE)
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

/* Four entries of each of TURNED columns, of which `there` are there and the others zero, turned in registers to four
   rows: where a vector is sixteen numbers as many columns, so that no line of the cache is written to twice.        */
#if defined(__AVX512F__) && BITS == 32
#define TURNED 16
static inline __attribute__((always_inline)) void turn(
    long there, const REAL *b, long b_column, REAL *packed, long packed_row)
{
#define QUAD(i) ((i) < there ? _mm_loadu_ps(b + (i) * b_column) : _mm_setzero_ps())
#define QUADS(i)                                                                                                       \
    _mm512_insertf32x4(                                                                                                \
        _mm512_insertf32x4(_mm512_insertf32x4(_mm512_castps128_ps512(QUAD(i)), QUAD(i + 4), 1), QUAD(i + 8), 2),       \
        QUAD(i + 12), 3)
    const __m512 w = QUADS(0), x = QUADS(1), y = QUADS(2), z = QUADS(3);
    const __m512 wx0 = _mm512_unpacklo_ps(w, x), wx1 = _mm512_unpackhi_ps(w, x);
    const __m512 yz0 = _mm512_unpacklo_ps(y, z), yz1 = _mm512_unpackhi_ps(y, z);
    _mm512_storeu_ps(packed, _mm512_shuffle_ps(wx0, yz0, 0x44));
    _mm512_storeu_ps(packed + packed_row, _mm512_shuffle_ps(wx0, yz0, 0xee));
    _mm512_storeu_ps(packed + 2 * packed_row, _mm512_shuffle_ps(wx1, yz1, 0x44));
    _mm512_storeu_ps(packed + 3 * packed_row, _mm512_shuffle_ps(wx1, yz1, 0xee));
#undef QUADS
#undef QUAD
}
#else
#define TURNED 4
static inline __attribute__((always_inline)) void turn(
    long there, const REAL *b, long b_column, REAL *packed, long packed_row)
{
#define QUAD(i) ((i) < there ? *(const quad *)(b + (i) * b_column) : (quad){0})
    const quad w = QUAD(0), x = QUAD(1), y = QUAD(2), z = QUAD(3);
    const quad wx0 = __builtin_shufflevector(w, x, 0, 4, 1, 5), wx1 = __builtin_shufflevector(w, x, 2, 6, 3, 7);
    const quad yz0 = __builtin_shufflevector(y, z, 0, 4, 1, 5), yz1 = __builtin_shufflevector(y, z, 2, 6, 3, 7);
    *(quad *)packed = __builtin_shufflevector(wx0, yz0, 0, 1, 4, 5);
    *(quad *)(packed + packed_row) = __builtin_shufflevector(wx0, yz0, 2, 3, 6, 7);
    *(quad *)(packed + 2 * packed_row) = __builtin_shufflevector(wx1, yz1, 0, 1, 4, 5);
    *(quad *)(packed + 3 * packed_row) = __builtin_shufflevector(wx1, yz1, 2, 3, 6, 7);
#undef QUAD
}
#endif

/* B, or its transpose, copied to rows of a whole number of vectors; what is beyond its columns is zero. */
static void pack(long inner, long columns, const REAL *b, long b_row, long b_column, REAL *packed, long packed_row)
{
    long j = 0, blocks = 0;
    if (b_column == 1) {
        for (long q = 0; q < inner; q++)
            memcpy(packed + q * packed_row, b + q * b_row, (size_t)columns * sizeof(REAL));
        j = columns;
        blocks = inner;
    } else if (b_row == 1)
        for (blocks = inner / 4 * 4; j + TURNED <= packed_row; j += TURNED)
            for (long q = 0; q < blocks; q += 4) {
                const REAL *from = b + q + j * b_column;
                REAL *to = packed + q * packed_row + j;
                if (j + TURNED <= columns)
                    turn(TURNED, from, b_column, to, packed_row);
                else
                    turn(columns - j, from, b_column, to, packed_row);
            }
    for (long q = j < packed_row ? 0 : blocks; q < inner; q++)
        for (long d = q < blocks ? j : 0; d < packed_row; d++)
            packed[q * packed_row + d] = d < columns ? b[q * b_row + d * b_column] : 0;
}

/* C = start + A B: A (rows, inner) at any strides; the rows of B (inner, columns) lie b_row apart and reach to a whole
   number of vectors, zeros beyond the columns where need be; C with adjacent columns. start is 0, or a bias (start_row
   0), or a matrix, C itself included. edge holds rows * LANES numbers.                                              */
static void product_block(
    long rows, long columns, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    const REAL *start, long start_row, REAL *c, long c_row, REAL *edge, const char *ahead)
{
    const long whole = columns / LANES * LANES;
    long j = 0;
#define STRIP(vectors)                                                                                                 \
    strip(vectors, rows, inner, a, a_row, a_column, b + j, b_row, start ? start + j : 0, start_row, c + j, c_row,      \
          ahead)
    for (; j + TILE_VECTORS * LANES <= whole; j += TILE_VECTORS * LANES)
        STRIP(TILE_VECTORS);
    switch ((whole - j) / LANES) {
    case 3: STRIP(3); j += 3 * LANES; break;
    case 2: STRIP(2); j += 2 * LANES; break;
    case 1: STRIP(1); j += LANES; break;
    }
#undef STRIP
    if (j < columns) {
        strip(1, rows, inner, a, a_row, a_column, b + j, b_row, 0, 0, edge, LANES, ahead);
        for (long i = 0; i < rows; i++)
            for (long d = j; d < columns; d++)
                c[i * c_row + d] = edge[i * LANES + d - j] + (start ? start[i * start_row + d] : 0);
    }
}

/* As above; a long sum in parts, whose rows of A and B stay in the cache from one strip of C to the next. `ahead`: what
   will be needed next, 0 where nothing is known of that.                                                            */
#define LONGEST 256
static void product_packed(
    long rows, long columns, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    const REAL *start, long start_row, REAL *c, long c_row, REAL *edge, const char *ahead)
{
    long q = 0;
    do {
        const long part = inner - q < 2 * LONGEST ? inner - q : LONGEST;
        product_block(
            rows, columns, part, a + q * a_column, a_row, a_column, b + q * b_row, b_row, q ? c : start,
            q ? c_row : start_row, c, c_row, edge, ahead ? ahead : (const char *)a);
        q += part;
    } while (q < inner);
}

/* How many numbers the rows of a packed matrix of so many columns have. */
static inline long padded(long columns)
{
    return (columns + LANES - 1) / LANES * LANES;
}

/* As above, B at any strides. scratch holds inner * padded + rows * LANES numbers. */
static void product(
    long rows, long columns, long inner, const REAL *a, long a_row, long a_column, const REAL *b, long b_row,
    long b_column, const REAL *start, long start_row, REAL *c, long c_row, REAL *scratch, const char *ahead)
{
    if (b_column != 1 || columns % LANES) {
        pack(inner, columns, b, b_row, b_column, scratch, padded(columns));
        b = scratch;
        b_row = padded(columns);
    }
    product_packed(
        rows, columns, inner, a, a_row, a_column, b, b_row, start, start_row, c, c_row,
        scratch + inner * padded(columns), ahead);
}
