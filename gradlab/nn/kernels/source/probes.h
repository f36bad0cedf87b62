/* Probes: what is measured of parameters, gradients and signals. */

static double norm_of(long count, const REAL *x)
{
    return sqrt(sum_of(2, count, x, 0, 0));
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
    lanes part[CHAINS];
    REAL sum = 0;
    long j = 0;
#pragma GCC unroll 8
    for (int v = 0; v < CHAINS; v++)
        part[v] = (lanes){0};
    for (; j + CHAINS * LANES <= count; j += CHAINS * LANES)
#pragma GCC unroll 8
        for (int v = 0; v < CHAINS; v++)
            part[v] += *(const lanes *)(x + j + v * LANES) * 0;
    for (; j < count; j++)
        sum += x[j] * 0;
#pragma GCC unroll 8
    for (int v = 0; v < CHAINS; v++)
        sum += by_halves(part[v]);
    *found = (double)sum;
}

/* The norm, and what `unsound` finds: no single number is so large that its square is infinite in double precision. */
static void sound_norm(long count, const REAL *x, double *norm, double *found)
{
    *norm = norm_of(count, x);
    *found = *norm * 0;
    if (sizeof(REAL) == 8)
        unsound(count, x, found);
}

/* Mean and population standard deviation, in double precision. */
static void moments(long count, const REAL *restrict x, double *mean, double *deviation)
{
    *mean = sum_of(1, count, x, 0, 0) / (double)count;
    *deviation = sqrt(sum_of(2, count, x, 0, *mean) / (double)count);
}

/* The mean cosine of two of a batch's rows, over all groups of rows: |sum of u|^2 is n and twice the cosines of the unit
   vectors u of n rows. A row of zeros has no direction, and is left out; no number where fewer than two are left.   */
static void correlation(long groups, long batch, long width, const REAL *restrict h, double *restrict sum, double *found)
{
    double cosines = 0, pairs = 0;
    for (long g = 0; g < groups; g++) {
        long awake = 0;
        for (long d = 0; d < width; d++)
            sum[d] = 0;
        for (long i = 0; i < batch; i++) {
            const REAL *row = h + (g * batch + i) * width;
            const double norm = norm_of(width, row);
            if (norm == 0)
                continue;
            awake++;
            const double scale = 1 / norm;
#pragma omp simd
            for (long d = 0; d < width; d++)
                sum[d] += scale * (double)row[d];
        }
        double square = 0;
#pragma omp simd reduction(+ : square)
        for (long d = 0; d < width; d++)
            square += sum[d] * sum[d];
        cosines += square - (double)awake;
        pairs += (double)awake * (double)(awake - 1);
    }
    *found = pairs > 0 ? cosines / pairs : NAN;
}

/* The norm of the difference of two vectors in each span. */
static void distances(long spans, const long *from, const long *to, const REAL *x, const REAL *y, double *norm)
{
    for (long s = 0; s < spans; s++)
        norm[s] = sqrt(sum_of(2, to[s] - from[s], x + from[s], y + from[s], 0));
}

/* Entries that are exactly zero. */
static long zeros_of(long count, const REAL *x)
{
    COUNT zeros = 0;
#pragma omp simd reduction(+ : zeros)
    for (long j = 0; j < count; j++)
        zeros += x[j] == 0;
    return zeros;
}

/* Of each layer, its matrix first: the norm of all, that of the matrix, and the share of entries that are exactly zero,
   not a number where an entry is not.                                                                               */
static void gradients(
    long layers, const long *from, const long *matrix, const long *to, const REAL *x, double *norm, double *weights,
    double *zero)
{
    for (long l = 0; l < layers; l++) {
        const double squares = sum_of(2, matrix[l] - from[l], x + from[l], 0, 0);
        const double all = squares + sum_of(2, to[l] - matrix[l], x + matrix[l], 0, 0);
        weights[l] = sqrt(squares);
        norm[l] = sqrt(all);
        zero[l] = (double)zeros_of(to[l] - from[l], x + from[l]) / (double)(to[l] - from[l]);
        if (all != all)
            zero[l] = all;
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
