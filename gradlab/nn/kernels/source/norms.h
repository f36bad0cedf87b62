/* Norms of signals, there and back. */

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
