/* Convolutions 3 x 3 of images whose channels are adjacent, with a border of zeros; means over blocks of pixels. */

/* In an image with its border, (height+2, width+2, channels), what one row of a filter meets are 3*channels numbers in a
   row: for each of the three, an image's row is a matrix product whose left rows overlap.                             */

#if defined(__AVX512F__)
#define PIXEL_LINES(vectors) ((vectors) == 1 ? 2 : 1)
#define PIXELS 8
#else
#define PIXEL_LINES(vectors) 1
#define PIXELS 4
#endif

/* rows x lines pixels of the output, as wide as `vectors` vectors. */
static inline __attribute__((always_inline)) void pixels(
    const int rows, const int lines, const int vectors, long inner, const REAL *a, long a_row, long a_line,
    const REAL *b, long b_row, const REAL *start, REAL *c, long c_row, long c_line)
{
    lanes sum[2][PIXELS][2];
#pragma GCC unroll 2
    for (int l = 0; l < lines; l++)
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                sum[l][i][j] = *(const lanes *)(start + j * LANES);
    for (int k = 0; k < 3; k++, a += a_line)
        for (long q = 0; q < inner; q++, b += b_row) {
            lanes right[2];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                right[j] = *(const lanes *)(b + j * LANES);
#pragma GCC unroll 2
            for (int l = 0; l < lines; l++)
#pragma GCC unroll 8
                for (int i = 0; i < rows; i++) {
                    const lanes left = a[l * a_line + i * a_row + q] - (lanes){0};
#pragma GCC unroll 2
                    for (int j = 0; j < vectors; j++)
                        sum[l][i][j] = FUSED(left, right[j], sum[l][i][j]);
                }
        }
#pragma GCC unroll 2
    for (int l = 0; l < lines; l++)
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                *(lanes *)(c + l * c_line + i * c_row + j * LANES) = sum[l][i][j];
}

/* All pixels of one image, as wide as `vectors` vectors. */
static inline __attribute__((always_inline)) void image(
    const int vectors, long height, long width, long channels, const REAL *a, const REAL *b, long b_row,
    const REAL *start, REAL *c, long c_row)
{
    const long a_line = (width + 2) * channels, c_line = width * c_row;
#define TILE(rows, lines)                                                                                              \
    pixels(rows, lines, vectors, 3 * channels, a + y * a_line + x * channels, channels, a_line, b, b_row, start,       \
           c + y * c_line + x * c_row, c_row, c_line)
#define LINES(lines)                                                                                                   \
    do {                                                                                                               \
        long x = 0;                                                                                                    \
        for (; x + PIXELS <= width; x += PIXELS)                                                                       \
            TILE(PIXELS, lines);                                                                                       \
        if (PIXELS > 4 && x + 4 <= width) {                                                                            \
            TILE(4, lines);                                                                                            \
            x += 4;                                                                                                    \
        }                                                                                                              \
        switch (width - x) {                                                                                           \
        case 3: TILE(3, lines); break;                                                                                 \
        case 2: TILE(2, lines); break;                                                                                 \
        case 1: TILE(1, lines); break;                                                                                 \
        }                                                                                                              \
    } while (0)
    long y = 0;
    for (; y + PIXEL_LINES(vectors) <= height; y += PIXEL_LINES(vectors))
        LINES(PIXEL_LINES(vectors));
    if (y < height)
        LINES(1);
#undef LINES
#undef TILE
}

/* An image (height, width, channels) into the middle of one with a border, whose own is left as it is. */
static void frame(long height, long width, long channels, const REAL *x, REAL *framed)
{
    const long line = (width + 2) * channels;
    for (long y = 0; y < height; y++)
        memcpy(framed + (y + 1) * line + channels, x + y * width * channels, (size_t)(width * channels) * sizeof(REAL));
}

/* One image of few channels `to`: a filter's entries (to, 9 from) lie one after the other, and sums are taken along them;
   3 from are a whole number of vectors.                                                                              */
static void image_of_few(
    long height, long width, long from, long to, const REAL *framed, const REAL *filters, const REAL *level,
    REAL *restrict y)
{
    const long line = 3 * from;
    for (long p = 0; p < height * width; p++)
        for (long d = 0; d < to; d++, y++) {
            const REAL *a = framed + (p / width * (width + 2) + p % width) * from, *b = filters + d * 3 * line;
            lanes sum = {0};
            for (long k = 0; k < 3; k++, a += (width + 2) * from, b += line)
                for (long q = 0; q < line; q += LANES)
                    sum = FUSED(*(const lanes *)(a + q), *(const lanes *)(b + q), sum);
            *y = by_halves(sum) + level[d];
        }
}

/* (B, H, W, from) -> (B, H, W, to), filters w (to, 9 from). `turned`: the way back to what entered, with the filters
   (from, 9 to) of the way there. scratch holds to+1 times 9 from, rounded up to vectors, an image with its border, and
   a vector a pixel.                                                                                                  */
static void convolve(
    long batch, long height, long width, long from, long to, long turned, const REAL *x, const REAL *w,
    const REAL *bias, REAL *y, REAL *scratch)
{
    const long padded = (to + LANES - 1) / LANES * LANES, whole = to / LANES * LANES, inner = 9 * from;
    const int few = turned && 4 * to <= LANES && 3 * from % LANES == 0;
    REAL *packed = scratch, *level = packed + inner * padded, *framed = level + padded;
    REAL *edge = framed + (height + 2) * (width + 2) * from;
    if (few) {
        for (long d = 0; d < to; d++)
            for (long tap = 0; tap < 9; tap++)
                for (long q = 0; q < from; q++)
                    packed[d * inner + tap * from + q] = w[(q * 9 + 8 - tap) * to + d];
    } else if (turned) {
        memset(packed, 0, (size_t)(inner * padded) * sizeof(REAL));
        for (long tap = 0; tap < 9; tap++)
            for (long q = 0; q < from; q++)
                memcpy(packed + (tap * from + q) * padded, w + (q * 9 + 8 - tap) * to, (size_t)to * sizeof(REAL));
    } else
        pack(inner, to, w, 1, inner, packed, padded);
    memset(level, 0, (size_t)(edge - level) * sizeof(REAL));
    if (bias)
        memcpy(level, bias, (size_t)to * sizeof(REAL));
    for (long i = 0; i < batch; i++, x += height * width * from, y += height * width * to) {
        frame(height, width, from, x, framed);
        if (few) {
            image_of_few(height, width, from, to, framed, packed, level, y);
            continue;
        }
        long j = 0;
        for (; j + 2 * LANES <= whole; j += 2 * LANES)
            image(2, height, width, from, framed, packed + j, padded, level + j, y + j, to);
        if (j + LANES <= whole) {
            if (from == 16) /* strides that are known are part of an address */
                image(1, height, width, 16, framed, packed + j, padded, level + j, y + j, to);
            else
                image(1, height, width, from, framed, packed + j, padded, level + j, y + j, to);
            j += LANES;
        }
        if (j < to) {
            image(1, height, width, from, framed, packed + j, padded, level + j, edge, LANES);
            for (long p = 0; p < height * width; p++)
                for (long d = j; d < to; d++)
                    y[p * to + d] = edge[p * LANES + d - j];
        }
    }
}

/* rows x vectors sums over all pixels of one image: `rows` of dz's channels times a row of a filter's entries. */
static inline __attribute__((always_inline)) void filters(
    const int rows, const int vectors, long height, long width, const REAL *dz, long to, const REAL *framed,
    long from, REAL *sums, long sums_row)
{
    lanes sum[MOST_ROWS][TILE_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[i][j] = *(const lanes *)(sums + i * sums_row + j * LANES);
    for (long y = 0; y < height; y++, framed += 2 * from)
        for (long x = 0; x < width; x++, dz += to, framed += from) {
            lanes right[TILE_VECTORS];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                right[j] = *(const lanes *)(framed + j * LANES);
#pragma GCC unroll 12
            for (int i = 0; i < rows; i++) {
                const lanes left = dz[i] - (lanes){0};
#pragma GCC unroll 4
                for (int j = 0; j < vectors; j++)
                    sum[i][j] = FUSED(left, right[j], sum[i][j]);
            }
        }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            *(lanes *)(sums + i * sums_row + j * LANES) = sum[i][j];
}

static inline __attribute__((always_inline)) void all_filters(
    const int vectors, long height, long width, const REAL *dz, long to, const REAL *framed, long from, REAL *sums,
    long sums_row)
{
    long i = 0;
#define TILE(rows) filters(rows, vectors, height, width, dz + i, to, framed, from, sums + i * sums_row, sums_row)
    for (; i + TILE_ROWS(vectors) <= to; i += TILE_ROWS(vectors))
        TILE(TILE_ROWS(vectors));
    if (TILE_ROWS(vectors) > 4 && i + 4 <= to) {
        TILE(4);
        i += 4;
    }
    for (; i < to; i++)
        TILE(1);
#undef TILE
}

/* The filters' gradient (to, 9 from), from dz (B, H, W, to) and what entered; added to what is there if `more`.
   scratch holds 3 to times 3 from, rounded up to vectors, an image with its border, and a vector.                     */
static void convolve_filters(
    long batch, long height, long width, long from, long to, long more, const REAL *dz, const REAL *x, REAL *dw,
    REAL *scratch)
{
    const long inner = 3 * from, padded = (inner + LANES - 1) / LANES * LANES, line = (width + 2) * from;
    REAL *sums = scratch, *framed = sums + 3 * to * padded;
    memset(scratch, 0, (size_t)(3 * to * padded + (height + 2) * line + LANES * 4) * sizeof(REAL));
    for (long b = 0; b < batch; b++, dz += height * width * to, x += height * width * from) {
        frame(height, width, from, x, framed);
        for (long k = 0; k < 3; k++) {
            long j = 0;
#define STRIP(vectors)                                                                                                 \
    all_filters(vectors, height, width, dz, to, framed + k * line + j, from, sums + k * to * padded + j, padded)
            for (; j + TILE_VECTORS * LANES <= padded; j += TILE_VECTORS * LANES)
                STRIP(TILE_VECTORS);
            switch ((padded - j) / LANES) {
            case 3: STRIP(3); break;
            case 2: STRIP(2); break;
            case 1: STRIP(1); break;
            }
#undef STRIP
        }
    }
    for (long o = 0; o < to; o++)
        for (long k = 0; k < 3; k++)
            for (long j = 0; j < inner; j++) {
                REAL *const at = dw + (o * 3 + k) * inner + j;
                *at = (more ? *at : 0) + sums[(k * to + o) * padded + j];
            }
}

/* (B, H, W, C) -> (B, H/rows, W/columns, C): the mean of each block; what is left at the lower and right edge is not in
   any.                                                                                                               */
static void block_mean(
    long batch, long height, long width, long channels, long rows, long columns, const REAL *restrict x,
    REAL *restrict y)
{
    const REAL share = 1 / (REAL)(rows * columns);
    for (long b = 0; b < batch; b++, x += height * width * channels)
        for (long i = 0; i < height / rows; i++)
            for (long j = 0; j < width / columns; j++, y += channels) {
                for (long c = 0; c < channels; c++)
                    y[c] = 0;
                for (long p = 0; p < rows * columns; p++) {
                    const REAL *pixel = x + ((i * rows + p / columns) * width + j * columns + p % columns) * channels;
                    for (long c = 0; c < channels; c++)
                        y[c] += pixel[c];
                }
                for (long c = 0; c < channels; c++)
                    y[c] *= share;
            }
}

static void block_mean_back(
    long batch, long height, long width, long channels, long rows, long columns, const REAL *restrict dy,
    REAL *restrict dx)
{
    const REAL share = 1 / (REAL)(rows * columns);
    const long lines = height / rows, places = width / columns;
    for (long b = 0; b < batch; b++, dy += lines * places * channels)
        for (long i = 0; i < height; i++)
            for (long j = 0; j < width; j++, dx += channels) {
                const int within = i < lines * rows && j < places * columns;
                const REAL *from = dy + (within ? (i / rows * places + j / columns) * channels : 0);
                for (long c = 0; c < channels; c++)
                    dx[c] = within ? from[c] * share : 0;
            }
}

/* y = scale x + shift, one learned number each, of which one may be missing. */
static void affine(long count, const REAL *scale, const REAL *shift, const REAL *restrict x, REAL *restrict y)
{
    const REAL by = scale ? *scale : 1, level = shift ? *shift : 0;
    for (long j = 0; j < count; j++)
        y[j] = by * x[j] + level;
}

static void affine_back(
    long count, const REAL *scale, const REAL *restrict dy, const REAL *restrict x, REAL *dscale, REAL *dshift,
    REAL *restrict dx)
{
    const REAL by = scale ? *scale : 1;
    if (dscale)
        *dscale = total(count, dy, x, 0);
    if (dshift)
        *dshift = total(count, dy, 0, 0);
    for (long j = 0; j < count; j++)
        dx[j] = by * dy[j];
}
