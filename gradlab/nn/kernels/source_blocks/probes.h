/* Probes, as of source/probes.h: what is measured is summed in double precision. */

/* The sum of (x - y)^2; y may be missing. */
FUNCTION double squares_of(WIDE count, const REAL *x, const REAL *y)
{
    double sum = 0;
    EACH(j, count)
    {
        const double term = (double)(REAL)(y ? x[j] - y[j] : x[j]);
        sum += term * term;
    }
    return block_sum(sum);
}

KERNEL void norms(
    int spans, const WIDE *from, const WIDE *to, const REAL *x, double *norm, const double *changed, const double *was)
{
    for (int s = 0; s < spans; s++) {
        const double own = changed && *changed == 0 ? was[s] : sqrt(squares_of(to[s] - from[s], x + from[s], 0));
        LEAVE(norm + s, own);
    }
}

KERNEL void distances(int spans, const WIDE *from, const WIDE *to, const REAL *x, const REAL *y, double *norm)
{
    for (int s = 0; s < spans; s++) {
        const double own = sqrt(squares_of(to[s] - from[s], x + from[s], y + from[s]));
        LEAVE(norm + s, own);
    }
}

KERNEL void unsound(int count, const REAL *x, double *found)
{
    double sum = 0;
    EACH(j, count)
    sum += x[j] * 0;
    sum = block_sum(sum);
    LEAVE(found, sum);
}

/* The norm of a layer, and that of its matrix, which comes first: the same numbers whether it is recorded or not. */
FUNCTION double norm_of_layer(WIDE from, WIDE matrix, WIDE to, const REAL *x, double *weights)
{
    const double squares = squares_of(matrix - from, x + from, 0);
    *weights = sqrt(squares);
    return sqrt(squares + squares_of(to - matrix, x + matrix, 0));
}

KERNEL void sound_norm(
    int count, int layers, const WIDE *from, const WIDE *matrix, const WIDE *to, const REAL *x, const double *known,
    double *norm, double *found)
{
    double squares = 0, weights;
    for (int l = 0; l < layers; l++) {
        const double own = known ? known[l] : norm_of_layer(from[l], matrix[l], to[l], x, &weights);
        squares += own * own;
    }
    if (BITS == 64)
        unsound(count, x, found);
    if (FIRST) {
        *norm = sqrt(squares);
        if (BITS == 32)
            *found = *norm * 0; /* no single number is so large that its square is infinite in double precision */
    }
}

KERNEL void gradients(
    int layers, const WIDE *from, const WIDE *matrix, const WIDE *to, const REAL *x, double *norm, double *weights,
    double *zero)
{
    for (int l = 0; l < layers; l++) {
        double none = 0, own_weights;
        const double own = norm_of_layer(from[l], matrix[l], to[l], x, &own_weights);
        EACH(j, to[l] - from[l])
        none += x[from[l] + j] == 0;
        none = block_sum(none);
        if (FIRST) {
            norm[l] = own;
            weights[l] = own_weights;
            zero[l] = own != own ? own : none / (double)(to[l] - from[l]);
        }
    }
}

/* The share of entries in either of two ranges, ends included; not a number where an entry is not. */
KERNEL void within(int count, const double *ends, const REAL *x, double *share)
{
    const REAL a = (REAL)ends[0], b = (REAL)ends[1], c = (REAL)ends[2], d = (REAL)ends[3];
    double found = 0;
    EACH(j, count)
    found += x[j] == x[j] ? (double)((x[j] >= a && x[j] <= b) || (x[j] >= c && x[j] <= d)) : (double)x[j];
    found = block_sum(found);
    LEAVE(share, found / count);
}

KERNEL void dead(int batch, int width, const REAL *z, const REAL *slope, double *share)
{
    double never = 0;
    COLUMNS(d, width)
    {
        double above = 0;
        if (d < width)
            IN_COLUMN(i, batch) above += !(z[i * width + d] <= 0);
        above = column_sum(above);
        never += d < width && TOPS && above == 0;
    }
    never = block_sum(never);
    LEAVE(share, slope && *slope != 0 ? 0 : never / width);
}

/* `scale` holds a number for each row of a group. */
#define ALIKE 1e-3
KERNEL void spread(
    int groups, int batch, int width, const REAL *h, double *scale, double *mean, double *deviation, double *cosine,
    double *each_mean, double *each_deviation, double *each_cosine)
{
    const int count = batch * width;
    double total_mean = 0, running = 0, inside = 0, between = 0, cosines = 0, pairs = 0;
    for (int g = 0; g < groups; g++, h += count) {
        double first = 0, squares = 0, awake = 0, square = 0;
        EACH(j, count)
        {
            first += (double)h[j];
            squares += (double)h[j] * (double)h[j];
        }
        first = block_sum(first);
        squares = block_sum(squares);
        double own = first / count, variance = squares / count - own * own;
        if (!(variance > ALIKE * own * own)) {
            const double shift = *h * 0 == 0 ? (double)*h : 0;
            first = squares = 0;
            EACH(j, count)
            {
                first += (double)h[j] - shift;
                squares += ((double)h[j] - shift) * ((double)h[j] - shift);
            }
            first = block_sum(first);
            squares = block_sum(squares);
            own = shift + first / count;
            variance = squares / count - first / count * (first / count);
        }
        ROWS(i, batch)
        {
            double row = 0;
            if (i < batch)
                IN_ROW(d, width) row += (double)h[i * width + d] * (double)h[i * width + d];
            row = team_sum(row);
            if (i < batch && LEADS) {
                scale[i] = row == 0 ? 0 : 1 / sqrt(row);
                awake += row != 0;
            }
        }
        awake = block_sum(awake);
        COLUMNS(d, width)
        {
            double sum = 0;
            if (d < width)
                IN_COLUMN(i, batch) sum += scale[i] * (double)h[i * width + d];
            sum = column_sum(sum);
            square += d < width && TOPS ? sum * sum : 0;
        }
        square = block_sum(square);
        const double kept = variance < 0 ? 0 : variance, away = own - running, several = awake * (awake - 1);
        running += away / (g + 1);
        between += away * away * g / (g + 1);
        inside += kept;
        total_mean += own;
        cosines += square - awake;
        pairs += several;
        if (FIRST && each_mean) {
            each_mean[g] = own;
            each_deviation[g] = sqrt(kept);
            if (each_cosine)
                each_cosine[g] = several > 0 ? (square - awake) / several : 0 / several;
        }
    }
    if (FIRST) {
        *mean = total_mean / groups;
        *deviation = sqrt((inside + between) / groups);
        if (cosine)
            *cosine = pairs > 0 ? cosines / pairs : 0 / pairs; /* not a number without a pair */
    }
}
