/* Probes: what is measured of parameters, gradients and signals. */

static double norm_of(long count, const REAL *x)
{
    return sqrt(squares_of(count, x, 0));
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

/* Adds what lies beyond a shift, and its squares. */
static void sums_beyond(long count, const REAL *x, double shift, double *sum, double *squares)
{
    double first = 0, second = 0;
#pragma omp simd reduction(+ : first, second)
    for (long j = 0; j < count; j++) {
        const double off = (double)x[j] - shift;
        first += off;
        second += off * off;
    }
    *sum += first;
    *squares += second;
}

/* Of groups of a batch's rows, in double precision: the mean and the population standard deviation of all entries, and
   the mean cosine of two of a batch's rows, over all groups. |sum of u|^2 is n and twice the cosines of the unit vectors
   u of n rows; a row of zeros has no direction, and is left out; no number where fewer than two are left. The same of
   each group where there is a place for it. What is summed is how far entries lie from a group's first, so that equal
   ones have no deviation. `sum` holds a row.                                                                        */
static void spread(
    long groups, long batch, long width, const REAL *restrict h, double *restrict sum, double *mean, double *deviation,
    double *cosine, double *each_mean, double *each_deviation, double *each_cosine)
{
    const double count = (double)(batch * width);
    double total_mean = 0, running = 0, within = 0, between = 0, cosines = 0, pairs = 0;
    for (long g = 0; g < groups; g++, h += batch * width) {
        const double shift = isfinite(*h) ? (double)*h : 0;
        double first = 0, squares = 0, awake = 0, square = 0;
        memset(sum, 0, (size_t)width * sizeof(double));
        for (long i = 0; i < batch; i += 4) { /* four rows in one pass over the sum */
            const REAL *row[4];
            double scale[4];
            const long rows = batch - i < 4 ? batch - i : 4;
            sums_beyond(rows * width, h + i * width, shift, &first, &squares);
            for (long r = 0; r < 4; r++) {
                row[r] = h + (r < rows ? i + r : i) * width;
                const double norm = r < rows ? norm_of(width, row[r]) : 0;
                scale[r] = norm == 0 ? 0 : 1 / norm;
                awake += norm != 0;
            }
            const REAL *const a = row[0], *const b = row[1], *const c = row[2], *const d = row[3];
#pragma omp simd
            for (long j = 0; j < width; j++)
                sum[j] += (scale[0] * (double)a[j] + scale[1] * (double)b[j]) +
                          (scale[2] * (double)c[j] + scale[3] * (double)d[j]);
        }
#pragma omp simd reduction(+ : square)
        for (long j = 0; j < width; j++)
            square += sum[j] * sum[j];
        const double own = shift + first / count, variance = squares / count - first / count * (first / count);
        const double kept = variance < 0 ? 0 : variance, away = own - running, several = awake * (awake - 1);
        running += away / (double)(g + 1);
        between += away * away * (double)g / (double)(g + 1);
        within += kept;
        total_mean += own;
        cosines += square - awake;
        pairs += several;
        if (each_mean) {
            each_mean[g] = own;
            each_deviation[g] = sqrt(kept);
            if (each_cosine)
                each_cosine[g] = several > 0 ? (square - awake) / several : NAN;
        }
    }
    *mean = total_mean / (double)groups;
    *deviation = sqrt((within + between) / (double)groups);
    if (cosine)
        *cosine = pairs > 0 ? cosines / pairs : NAN;
}

/* The norm of the difference of two vectors in each span. */
static void distances(long spans, const long *from, const long *to, const REAL *x, const REAL *y, double *norm)
{
    for (long s = 0; s < spans; s++)
        norm[s] = sqrt(squares_of(to[s] - from[s], x + from[s], y + from[s]));
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
        const double squares = squares_of(matrix[l] - from[l], x + from[l], 0);
        const double all = squares + squares_of(to[l] - matrix[l], x + matrix[l], 0);
        weights[l] = sqrt(squares);
        norm[l] = sqrt(all);
        zero[l] = (double)zeros_of(to[l] - from[l], x + from[l]) / (double)(to[l] - from[l]);
        if (all != all)
            zero[l] = all;
    }
}

/* The share of entries in either of two ranges, ends included; not a number where an entry is not. */
static void within(long count, const double *ends, const REAL *restrict x, double *share)
{
    const REAL a = (REAL)ends[0], b = (REAL)ends[1], c = (REAL)ends[2], d = (REAL)ends[3];
    COUNT found = 0;
    REAL lost = 0;
#pragma omp simd reduction(+ : found, lost)
    for (long j = 0; j < count; j++) {
        found += ((x[j] >= a) & (x[j] <= b)) | ((x[j] >= c) & (x[j] <= d));
        lost += x[j] != x[j] ? x[j] : 0;
    }
    *share = (double)found / (double)count + (double)lost;
}

/* The share of units that are nowhere in the batch above zero; none where the slope below zero is not zero. Rows of few
   units are looked at several at a time; `most` holds a row, or MOST_UNITS.                                         */
#define MOST_UNITS 512
static void dead(long batch, long width, const REAL *restrict z, const REAL *slope, REAL *restrict most, double *share)
{
    long beside = 1;
    while (2 * beside * width <= MOST_UNITS && batch % (2 * beside) == 0)
        beside *= 2;
    const long row = beside * width;
    for (long d = 0; d < row; d++)
        most[d] = z[d];
    for (long i = 1; i < batch / beside; i++)
        for (long d = 0; d < row; d++)
            most[d] = z[i * row + d] <= most[d] ? most[d] : z[i * row + d];
    for (; beside > 1; beside--)
        for (long d = 0; d < width; d++) {
            const REAL one = most[(beside - 1) * width + d];
            most[d] = one <= most[d] ? most[d] : one;
        }
    long count = 0;
    for (long d = 0; d < width; d++)
        count += most[d] <= 0;
    *share = slope && *slope != 0 ? 0 : (double)count / (double)width;
}
