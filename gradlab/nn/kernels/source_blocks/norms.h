/* Norms of signals, there and back, as of source/norms.h. */

KERNEL void batch_norm(
    int batch, int width, REAL eps, REAL momentum, const REAL *z, const REAL *gain, const REAL *shift,
    REAL *running_mean, REAL *running_var, REAL *mean, REAL *inverse, REAL *y)
{
    COLUMNS(d, width)
    {
        const int there = d < width;
        REAL middle = 0, square = 0;
        if (there)
            IN_COLUMN(i, batch) middle += z[i * width + d];
        middle = (REAL)column_sum(middle) / batch;
        if (there)
            IN_COLUMN(i, batch) square += (z[i * width + d] - middle) * (z[i * width + d] - middle);
        square = (REAL)column_sum(square);
        const REAL by = 1 / sqrt(square / batch + eps);
        if (there)
            IN_COLUMN(i, batch) y[i * width + d] = shift[d] + gain[d] * by * (z[i * width + d] - middle);
        if (there && TOPS) {
            mean[d] = middle;
            inverse[d] = by;
            if (running_mean) {
                running_mean[d] += momentum * (middle - running_mean[d]);
                running_var[d] += momentum * (square / (batch - 1) - running_var[d]);
            }
        }
    }
}

KERNEL void batch_norm_back(
    int batch, int width, const REAL *dy, const REAL *z, const REAL *mean, const REAL *inverse, const REAL *gain,
    REAL *dgain, REAL *dshift, REAL *dz)
{
    COLUMNS(d, width)
    {
        const int there = d < width;
        const REAL middle = there ? mean[d] : 0, by = there ? inverse[d] : 0;
        REAL whole = 0, along = 0;
        if (there)
            IN_COLUMN(i, batch)
            {
                whole += dy[i * width + d];
                along += dy[i * width + d] * (z[i * width + d] - middle);
            }
        whole = (REAL)column_sum(whole);
        along = (REAL)column_sum(along);
        const REAL level = whole / batch, slope = along * (by * by / batch);
        if (there)
            IN_COLUMN(i, batch)
            dz[i * width + d] = gain[d] * by * (dy[i * width + d] - level - slope * (z[i * width + d] - middle));
        if (there && TOPS) {
            dshift[d] = whole;
            dgain[d] = along * by;
        }
    }
}

#define AT(e) (base + (places == 1 ? (e) : (e) / size * width + (e) % size))
#define UNIT(e) (unit + (places == 1 ? (e) : (e) % size))
/* Each sample over `size` units of each group, with all `places` between: of layer norm one group and one place. Without
   `centred` the mean stays in (rms norm).                                                                           */
KERNEL void group_norm(
    int batch, int places, int groups, int size, int centred, REAL eps, const REAL *z, const REAL *gain,
    const REAL *shift, REAL *n, REAL *inverse, REAL *y)
{
    const int width = groups * size, count = places * size;
    ROWS(i, batch *groups)
    {
        const int there = i < batch * groups, unit = i % groups * size, base = i / groups * places * width + unit;
        REAL mean = 0, square = 0;
        if (there && centred)
            IN_ROW(e, count) mean += z[AT(e)];
        mean = (REAL)team_sum(mean) / count;
        if (there)
            IN_ROW(e, count) square += (z[AT(e)] - mean) * (z[AT(e)] - mean);
        const REAL by = 1 / sqrt((REAL)team_sum(square) / count + eps);
        if (there && LEADS)
            inverse[i] = by;
        if (there)
            IN_ROW(e, count)
            {
                const int at = AT(e), d = UNIT(e);
                n[at] = (z[at] - mean) * by;
                y[at] = shift ? shift[d] + gain[d] * n[at] : gain[d] * n[at];
            }
    }
}

KERNEL void group_norm_back(
    int batch, int places, int groups, int size, int centred, const REAL *dy, const REAL *n, const REAL *inverse,
    const REAL *gain, REAL *dgain, REAL *dshift, REAL *dz)
{
    const int width = groups * size, count = places * size;
    ROWS(i, batch *groups)
    {
        const int there = i < batch * groups, unit = i % groups * size, base = i / groups * places * width + unit;
        REAL level = 0, along = 0;
        if (there)
            IN_ROW(e, count)
            {
                const int at = AT(e);
                const REAL dn = gain[UNIT(e)] * dy[at];
                level += dn;
                along += dn * n[at];
            }
        level = (REAL)team_sum(centred ? level : 0) / count;
        along = (REAL)team_sum(along) / count;
        if (there)
            IN_ROW(e, count)
            {
                const int at = AT(e);
                dz[at] = inverse[i] * (gain[UNIT(e)] * dy[at] - level - n[at] * along);
            }
    }
    COLUMNS(d, width)
    {
        REAL by = 0, whole = 0;
        if (d < width)
            IN_COLUMN(i, batch *places)
            {
                by += dy[i * width + d] * n[i * width + d];
                whole += dy[i * width + d];
            }
        by = (REAL)column_sum(by);
        whole = (REAL)column_sum(whole);
        if (d < width && TOPS) {
            dgain[d] = by;
            if (dshift)
                dshift[d] = whole;
        }
    }
}

KERNEL void directed(int rows, int columns, const REAL *v, const REAL *length, REAL *inverse, REAL *w)
{
    ROWS(i, rows)
    {
        REAL square = 0;
        if (i < rows)
            IN_ROW(d, columns) square += v[i * columns + d] * v[i * columns + d];
        const REAL by = 1 / sqrt((REAL)team_sum(square));
        if (i < rows && LEADS)
            inverse[i] = by;
        if (i < rows)
            IN_ROW(d, columns) w[i * columns + d] = length[i] * (v[i * columns + d] * by);
    }
}

KERNEL void directed_back(
    int rows, int columns, const REAL *dw, const REAL *v, const REAL *length, const REAL *inverse, REAL *dv,
    REAL *dlength)
{
    ROWS(i, rows)
    {
        REAL along = 0;
        if (i < rows)
            IN_ROW(d, columns) along += dw[i * columns + d] * v[i * columns + d];
        along = (REAL)team_sum(along);
        if (i < rows && LEADS)
            dlength[i] = inverse[i] * along;
        if (i < rows)
            IN_ROW(d, columns)
            {
                const int at = i * columns + d;
                dv[at] = length[i] * inverse[i] * (dw[at] - inverse[i] * along * inverse[i] * v[at]);
            }
    }
}

FUNCTION unsigned long long mixed(unsigned long long x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

KERNEL void dropout(
    int count, WIDE site, const WIDE *seed, const double *done, const double *share, const REAL *x, REAL *y)
{
    const unsigned long long start =
        mixed((unsigned long long)*seed + 0xD1B54A32D192ED03ULL * (unsigned long long)(WIDE)*done
              + 0x8CB92BA72F3D8DD7ULL * (unsigned long long)site);
    const REAL kept = (REAL)(1 / (1 - *share));
    EACH(j, count)
    {
        const unsigned long long bits = mixed(start + (unsigned long long)(j + 1) * 0x9E3779B97F4A7C15ULL) >> 11;
        y[j] = x[j] * ((double)bits / 9007199254740992.0 >= *share ? kept : 0);
    }
}
