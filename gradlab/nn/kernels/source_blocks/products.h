/* Matrix products and sums. */

/* C = start + A B, as of source/products.h, 64 x 64 entries of C at a time: columns of A and rows of B, so many DEEP, lie
   in shared memory, and a thread holds 4 x 4 entries.                                                               */
#define TILE 64
#define DEEP 32
#define EDGE (TILE + 4)
#define OWN (TILE / 4 * TILE / 4 / THREADS)
#define ROW_OF(m) ((THREAD + (m) * THREADS) / (TILE / 4) * 4)
#define COLUMN_OF(m) ((THREAD + (m) * THREADS) % (TILE / 4) * 4)
#define FOUR(i) _Pragma("unroll") for (int i = 0; i < 4; i++)
#define OWNED(m) _Pragma("unroll") for (int m = 0; m < OWN; m++)
FUNCTION void tile(
    int rows, int columns, int inner, const REAL *a, WIDE a_row, WIDE a_column, const REAL *b, WIDE b_row, WIDE b_column,
    const REAL *start, WIDE start_row, REAL *c, WIDE c_row)
{
    SHARED REAL left[DEEP][EDGE], right[DEEP][EDGE];
    REAL sum[OWN][4][4];
    OWNED(m) FOUR(i) FOUR(j)
    {
        const int row = ROW_OF(m) + i, column = COLUMN_OF(m) + j;
        sum[m][i][j] = start && row < rows && column < columns ? start[row * start_row + column] : 0;
    }
    for (int from = 0; from < inner; from += DEEP) {
        const int deep = inner - from < DEEP ? inner - from : DEEP;
        /* Neighbours read what lies side by side. */
        EACH(e, TILE *DEEP)
        {
            const int i = a_column == 1 ? e / DEEP : e % TILE, q = a_column == 1 ? e % DEEP : e / TILE;
            if (i < rows && q < deep)
                left[q][i] = a[i * a_row + (from + q) * a_column];
        }
        EACH(e, TILE *DEEP)
        {
            const int j = b_column == 1 ? e % TILE : e / DEEP, q = b_column == 1 ? e / TILE : e % DEEP;
            if (j < columns && q < deep)
                right[q][j] = b[(from + q) * b_row + j * b_column];
        }
        SYNC();
        OWNED(m)
        if (ROW_OF(m) < rows && COLUMN_OF(m) < columns)
#pragma unroll 4
            for (int q = 0; q < deep; q++)
                FOUR(i) FOUR(j)
                sum[m][i][j] = fma(left[q][ROW_OF(m) + i], right[q][COLUMN_OF(m) + j], sum[m][i][j]);
        SYNC();
    }
    OWNED(m) FOUR(i) FOUR(j)
    {
        const int row = ROW_OF(m) + i, column = COLUMN_OF(m) + j;
        if (row < rows && column < columns)
            c[row * c_row + column] = sum[m][i][j];
    }
}

KERNEL void product(
    int rows, int columns, int inner, const REAL *a, WIDE a_row, WIDE a_column, const REAL *b, WIDE b_row, WIDE b_column,
    const REAL *start, WIDE start_row, REAL *c, WIDE c_row)
{
    for (int i = 0; i < rows; i += TILE)
        for (int j = 0; j < columns; j += TILE)
            tile(rows - i, columns - j, inner, a + i * a_row, a_row, a_column, b + j * b_column, b_row, b_column,
                 start ? start + i * start_row + j : 0, start_row, c + i * c_row + j, c_row);
}

KERNEL void batch_sum(int batch, int width, WIDE x_row, const REAL *x, REAL *sum)
{
    COLUMNS(d, width)
    {
        REAL whole = 0;
        if (d < width)
            IN_COLUMN(i, batch) whole += x[i * x_row + d];
        whole = (REAL)column_sum(whole);
        if (d < width && TOPS)
            sum[d] = whole;
    }
}

KERNEL void add(int count, REAL by, const REAL *x, const REAL *y, REAL *out)
{
    EACH(j, count)
    out[j] = !x ? 0 : y ? y[j] + by * x[j] : by * x[j];
}

KERNEL void affine(int count, const REAL *scale, const REAL *shift, const REAL *x, REAL *y)
{
    const REAL by = scale ? *scale : 1, level = shift ? *shift : 0;
    EACH(j, count)
    y[j] = by * x[j] + level;
}

KERNEL void copy(int rows, int width, WIDE x_row, WIDE out_row, const REAL *x, REAL *out)
{
    EACH(e, rows *width)
    out[e / width * out_row + e % width] = x[e / width * x_row + e % width];
}

KERNEL void gather(int batch, int width, const WIDE *chosen, const REAL *x, const REAL *scale, REAL *out)
{
    EACH(e, batch *width)
    out[e] = *scale * x[chosen[e / width] * width + e % width];
}
