/* Probes: what is measured of parameters, gradients and signals. */

static double norm_of(long count, const REAL *x)
{
    return sqrt(squares_of(count, x, 0));
}

/* The norm of each span of columns, in double precision; where nothing has `changed` since, it is as it `was`. */
static void norms(
    long spans, const long *from, const long *to, const REAL *x, double *norm, const double *changed, const double *was)
{
    for (long s = 0; s < spans; s++)
        norm[s] = changed && *changed == 0 ? was[s] : norm_of(to[s] - from[s], x + from[s]);
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

/* The norm of a layer, and that of its matrix, which comes first. */
static double norm_of_layer(long from, long matrix, long to, const REAL *x, double *weights)
{
    const double squares = squares_of(matrix - from, x + from, 0);
    *weights = sqrt(squares);
    return sqrt(squares + squares_of(to - matrix, x + matrix, 0));
}

/* The norm of all layers, which may be known, and what `unsound` finds: no single number is so large that its square is
   infinite in double precision.                                                                                     */
static void sound_norm(
    long count, long layers, const long *from, const long *matrix, const long *to, const REAL *x, const double *known,
    double *norm, double *found)
{
    double squares = 0, weights;
    for (long l = 0; l < layers; l++) {
        const double own = known ? known[l] : norm_of_layer(from[l], matrix[l], to[l], x, &weights);
        squares += own * own;
    }
    *norm = sqrt(squares);
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

/* Of four rows, `rows` of which are there: adds their numbers to `all` and, what is beyond vectors of them, to `first`,
   and gives the squares of each row.                                                                                */
#define ROWS 4
INLINE void sums_of_rows(
    long width, const REAL *const *row, long rows, wide *all, double *first, double *squares)
{
    wide sum[ROWS], square[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
        sum[r] = square[r] = (wide){0};
    long j = 0;
    for (; j + WIDE_LANES <= width; j += WIDE_LANES)
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const wide x = widened(row[r] + j);
            sum[r] += x;
            square[r] = WIDE_FUSED(x, x, square[r]);
        }
    for (int r = 0; r < ROWS; r++) {
        if (r < rows)
            *all += sum[r];
        squares[r] = wide_by_halves(square[r]);
    }
    for (; j < width; j++)
        for (long r = 0; r < rows; r++) {
            const double x = (double)row[r][j];
            *first += x;
            squares[r] += x * x;
        }
}

/* Adds four rows, each times its scale, to a sum. */
INLINE void add_rows(
    long width, const REAL *const *row, const double *scale, double *restrict sum)
{
    typedef double wide_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
    long j = 0;
    for (; j + WIDE_LANES <= width; j += WIDE_LANES) {
        wide found = *(const wide_anywhere *)(sum + j);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const wide by = scale[r] - (wide){0};
            found = WIDE_FUSED(by, widened(row[r] + j), found);
        }
        *(wide_anywhere *)(sum + j) = found;
    }
    for (; j < width; j++)
        for (int r = 0; r < ROWS; r++)
            sum[j] += scale[r] * (double)row[r][j];
}

/* Of groups of a batch's rows, in double precision: the mean and the population standard deviation of all entries, and
   the mean cosine of two of a batch's rows, over all groups. |sum of u|^2 is n and twice the cosines of the unit vectors
   u of n rows; a row of zeros has no direction, and is left out; no number where fewer than two are left. The same of
   each group where there is a place for it. Where entries differ by little beside their mean, what is summed for the
   deviation is how far they lie from a group's first, so that equal ones have none. `sum` holds a row.               */
#define ALIKE 1e-3
INLINE void spread_of(
    long groups, long batch, const long width, const REAL *restrict h, double *restrict sum, double *mean, double *deviation,
    double *cosine, double *each_mean, double *each_deviation, double *each_cosine)
{
    const double count = (double)(batch * width);
    double total_mean = 0, running = 0, within = 0, between = 0, cosines = 0, pairs = 0;
    for (long g = 0; g < groups; g++, h += batch * width) {
        wide all = {0};
        double first = 0, squares = 0, awake = 0;
        memset(sum, 0, (size_t)width * sizeof(double));
        for (long i = 0; i < batch; i += ROWS) {
            const REAL *row[ROWS];
            double own[ROWS], scale[ROWS];
            const long rows = batch - i < ROWS ? batch - i : ROWS;
            for (long r = 0; r < ROWS; r++)
                row[r] = h + (r < rows ? i + r : i) * width;
            sums_of_rows(width, row, rows, &all, &first, own);
            for (long r = 0; r < ROWS; r++) {
                own[r] = r < rows ? own[r] : 0;
                squares += own[r];
                scale[r] = own[r] == 0 ? 0 : 1 / sqrt(own[r]);
                awake += own[r] != 0;
            }
            add_rows(width, row, scale, sum);
        }
        first += wide_by_halves(all);
        double own = first / count, variance = squares / count - own * own;
        if (!(variance > ALIKE * own * own)) {
            const double shift = isfinite(*h) ? (double)*h : 0;
            first = squares = 0;
            sums_beyond(batch * width, h, shift, &first, &squares);
            own = shift + first / count;
            variance = squares / count - first / count * (first / count);
        }
        double square = 0;
#pragma omp simd reduction(+ : square)
        for (long j = 0; j < width; j++)
            square += sum[j] * sum[j];
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

static void spread(
    long groups, long batch, long width, const REAL *h, double *sum, double *mean, double *deviation, double *cosine,
    double *each_mean, double *each_deviation, double *each_cosine)
{
#define OF_ROWS(count)                                                                                                 \
    spread_of(groups, batch, count, h, sum, mean, deviation, cosine, each_mean, each_deviation, each_cosine)
    BY_WIDTH(width, OF_ROWS)
#undef OF_ROWS
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
        norm[l] = norm_of_layer(from[l], matrix[l], to[l], x, weights + l);
        zero[l] = (double)zeros_of(to[l] - from[l], x + from[l]) / (double)(to[l] - from[l]);
        if (norm[l] != norm[l])
            zero[l] = norm[l];
    }
}

/* How many entries lie in either of two ranges, the first without its lower end and the second without its upper one
   where they are `open`; and whether some are not numbers.                                                          */
INLINE long count_within(
    const int open, long count, const REAL *ends, const REAL *x, int *lost)
{
    const lanes a = ends[0] - (lanes){0}, b = ends[1] - (lanes){0}, c = ends[2] - (lanes){0}, d = ends[3] - (lanes){0};
    whole_lanes found = {0}, none = {0};
    long all = 0, j = 0;
    for (; j + LANES <= count; j += LANES) {
        const lanes y = *(const lanes *)(x + j);
        if (open)
            found -= (whole_lanes)(y <= b) | (whole_lanes)(y >= c);
        else
            found -= ((whole_lanes)(y >= a) & (whole_lanes)(y <= b)) | ((whole_lanes)(y >= c) & (whole_lanes)(y <= d));
        none |= (whole_lanes)(y != y);
    }
    for (int i = 0; i < LANES; i++) {
        all += found[i];
        *lost |= none[i] != 0;
    }
    for (; j < count; j++) {
        all += ((x[j] >= ends[0]) & (x[j] <= ends[1])) | ((x[j] >= ends[2]) & (x[j] <= ends[3]));
        *lost |= x[j] != x[j];
    }
    return all;
}

/* The share of entries in either of two ranges, ends included; not a number where an entry is not. */
static void within(long count, const double *ends, const REAL *x, double *share)
{
    const REAL edge[] = {(REAL)ends[0], (REAL)ends[1], (REAL)ends[2], (REAL)ends[3]}, endless = (REAL)INFINITY;
    int lost = 0;
    const long found = edge[0] == -endless && edge[3] == endless ? count_within(1, count, edge, x, &lost)
                                                                 : count_within(0, count, edge, x, &lost);
    *share = lost ? NAN : (double)found / (double)count;
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
