/* Norms of signals, there and back. */

/* Each unit over the batch: y = shift + gain (z - mean) inverse, inverse = 1/sqrt(var + eps). Where there are running
   statistics they move towards the batch's mean and unbiased variance.                                              */
INLINE void batch_norm_columns(
    const long columns, long batch, long width, double eps, double momentum, const REAL *restrict z, const REAL *gain,
    const REAL *shift, REAL *running_mean, REAL *running_var, REAL *restrict mean, REAL *restrict inverse,
    REAL *restrict y)
{
    for (long d = 0; d < columns; d++)
        mean[d] = inverse[d] = 0;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < columns; d++)
            mean[d] += z[i * width + d];
    for (long d = 0; d < columns; d++)
        mean[d] /= (REAL)batch;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < columns; d++) {
            const REAL centred = z[i * width + d] - mean[d];
            inverse[d] += centred * centred;
        }
    if (running_mean)
        for (long d = 0; d < columns; d++) {
            running_mean[d] += (REAL)momentum * (mean[d] - running_mean[d]);
            running_var[d] += (REAL)momentum * (inverse[d] / (REAL)(batch - 1) - running_var[d]);
        }
    for (long d = 0; d < columns; d++)
        inverse[d] = 1 / sqrt(inverse[d] / (REAL)batch + (REAL)eps);
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < columns; d++)
            y[i * width + d] = shift[d] + gain[d] * inverse[d] * (z[i * width + d] - mean[d]);
}

static void batch_norm(
    long batch, long width, double eps, double momentum, const REAL *z, const REAL *gain, const REAL *shift,
    REAL *running_mean, REAL *running_var, REAL *mean, REAL *inverse, REAL *y)
{
#define COLUMNS(count)                                                                                                 \
    batch_norm_columns(count, batch, width, eps, momentum, z + d, gain + d, shift + d,                                 \
                       running_mean ? running_mean + d : 0, running_var ? running_var + d : 0, mean + d, inverse + d,  \
                       y + d)
    BY_COLUMNS(width, COLUMNS);
#undef COLUMNS
}

/* With c = z - mean and r = inverse: dz = gain r (dy - mean(dy) - c r^2 mean(dy c)), means over the batch; dgain is
   r sum(dy c), dshift sum(dy).                                                                                      */
INLINE void batch_norm_back_columns(
    const long columns, long batch, long width, const REAL *restrict dy, const REAL *restrict z,
    const REAL *restrict mean, const REAL *restrict inverse, const REAL *restrict gain, REAL *restrict dgain,
    REAL *restrict dshift, REAL *restrict level, REAL *restrict slope, REAL *restrict dz)
{
    for (long d = 0; d < columns; d++)
        level[d] = slope[d] = 0;
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < columns; d++) {
            level[d] += dy[i * width + d];
            slope[d] += dy[i * width + d] * (z[i * width + d] - mean[d]);
        }
    for (long d = 0; d < columns; d++) {
        dshift[d] = level[d];
        dgain[d] = slope[d] * inverse[d];
        level[d] /= (REAL)batch;
        slope[d] *= inverse[d] * inverse[d] / (REAL)batch;
    }
    for (long i = 0; i < batch; i++)
        for (long d = 0; d < columns; d++)
            dz[i * width + d] =
                gain[d] * inverse[d] * (dy[i * width + d] - level[d] - slope[d] * (z[i * width + d] - mean[d]));
}

static void batch_norm_back(
    long batch, long width, const REAL *dy, const REAL *z, const REAL *mean, const REAL *inverse, const REAL *gain,
    REAL *dgain, REAL *dshift, REAL *scratch, REAL *dz)
{
#define COLUMNS(count)                                                                                                 \
    batch_norm_back_columns(count, batch, width, dy + d, z + d, mean + d, inverse + d, gain + d, dgain + d,            \
                            dshift + d, scratch + d, scratch + width + d, dz + d)
    BY_COLUMNS(width, COLUMNS);
#undef COLUMNS
}

/* Each sample over its units: y = shift + gain n, n = (z - mean) inverse. Without `centred` the mean stays in, and
   there is no shift (rms norm).                                                                                     */
INLINE void layer_norm_rows(
    long batch, const long width, long centred, double eps, const REAL *restrict z, const REAL *restrict gain,
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

static void layer_norm(
    long batch, long width, long centred, double eps, const REAL *z, const REAL *gain, const REAL *shift, REAL *n,
    REAL *inverse, REAL *y)
{
#define ROWS_OF(count) layer_norm_rows(batch, count, centred, eps, z, gain, shift, n, inverse, y)
    BY_WIDTH(width, ROWS_OF)
#undef ROWS_OF
}

/* With dn = gain dy: dz = inverse (dn - mean(dn) - n mean(dn n)), means over the units; dgain is sum(dy n) over the
   batch, dshift sum(dy).                                                                                            */
INLINE void layer_norm_back_rows(
    long batch, const long width, long centred, const REAL *restrict dy, const REAL *restrict n,
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

static void layer_norm_back(
    long batch, long width, long centred, const REAL *dy, const REAL *n, const REAL *inverse, const REAL *gain,
    REAL *dgain, REAL *dshift, REAL *dz)
{
#define ROWS_OF(count) layer_norm_back_rows(batch, count, centred, dy, n, inverse, gain, dgain, dshift, dz)
    BY_WIDTH(width, ROWS_OF)
#undef ROWS_OF
}

/* Each sample over `size` units of each group, with all `places` (pixels) between: y = shift + gain n. */
static void group_norm(
    long batch, long places, long groups, long size, double eps, const REAL *restrict z, const REAL *restrict gain,
    const REAL *restrict shift, REAL *restrict n, REAL *restrict inverse, REAL *restrict y)
{
    const long width = groups * size;
    const REAL count = (REAL)(places * size);
    for (long i = 0; i < batch; i++, z += places * width, n += places * width, y += places * width)
        for (long g = 0; g < groups; g++) {
            const long first = g * size;
            REAL mean = 0, square = 0;
            for (long s = 0; s < places; s++)
                for (long d = first; d < first + size; d++)
                    mean += z[s * width + d];
            mean /= count;
            for (long s = 0; s < places; s++)
                for (long d = first; d < first + size; d++) {
                    const REAL centred = z[s * width + d] - mean;
                    n[s * width + d] = centred;
                    square += centred * centred;
                }
            const REAL by = inverse[i * groups + g] = 1 / sqrt(square / count + (REAL)eps);
            for (long s = 0; s < places; s++)
                for (long d = first; d < first + size; d++) {
                    n[s * width + d] *= by;
                    y[s * width + d] = shift[d] + gain[d] * n[s * width + d];
                }
        }
}

/* As of layer norm, means over the units and places of a group. */
static void group_norm_back(
    long batch, long places, long groups, long size, const REAL *restrict dy, const REAL *restrict n,
    const REAL *restrict inverse, const REAL *restrict gain, REAL *restrict dgain, REAL *restrict dshift,
    REAL *restrict dz)
{
    const long width = groups * size;
    const REAL count = (REAL)(places * size);
    for (long d = 0; d < width; d++)
        dgain[d] = dshift[d] = 0;
    for (long i = 0; i < batch; i++, dy += places * width, n += places * width, dz += places * width)
        for (long g = 0; g < groups; g++) {
            const long first = g * size;
            REAL level = 0, along = 0;
            for (long s = 0; s < places; s++)
                for (long d = first; d < first + size; d++) {
                    const REAL dn = gain[d] * dy[s * width + d];
                    level += dn;
                    along += dn * n[s * width + d];
                    dgain[d] += dy[s * width + d] * n[s * width + d];
                    dshift[d] += dy[s * width + d];
                }
            level /= count;
            along /= count;
            for (long s = 0; s < places; s++)
                for (long d = first; d < first + size; d++)
                    dz[s * width + d] = inverse[i * groups + g] *
                                        (gain[d] * dy[s * width + d] - level - n[s * width + d] * along);
        }
}

/* Rows v of a matrix as w = length v/|v|; `inverse` is 1/|v|. */
static void directed(
    long rows, long columns, const REAL *restrict v, const REAL *restrict length, REAL *restrict inverse,
    REAL *restrict w)
{
    for (long i = 0; i < rows; i++, v += columns, w += columns) {
        inverse[i] = 1 / sqrt(total(columns, v, v, 0));
        for (long d = 0; d < columns; d++)
            w[d] = length[i] * (v[d] * inverse[i]);
    }
}

/* dlength = dw.v/|v|, and dv = length/|v| (dw - dlength v/|v|). */
static void directed_back(
    long rows, long columns, const REAL *restrict dw, const REAL *restrict v, const REAL *restrict length,
    const REAL *restrict inverse, REAL *restrict dv, REAL *restrict dlength)
{
    for (long i = 0; i < rows; i++, dw += columns, v += columns, dv += columns) {
        dlength[i] = inverse[i] * total(columns, dw, v, 0);
        for (long d = 0; d < columns; d++)
            dv[d] = length[i] * inverse[i] * (dw[d] - dlength[i] * inverse[i] * v[d]);
    }
}
