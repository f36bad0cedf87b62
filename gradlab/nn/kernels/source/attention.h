/* Attention over the places of a sequence, there and back, and sums over places. Queries, keys and values are rows of
   heads * d numbers; those of queries and keys lie one row length apart, those of values another.                   */

/* The logits scale q k' of one head of one sample: (places, places). */
static void logits(
    long places, long d, double scale, const REAL *q, const REAL *k, long row, REAL *restrict w, REAL *scratch)
{
    const REAL by = (REAL)scale;
    product(places, places, d, q, row, 1, k, 1, row, 0, 0, w, places, scratch);
    for (long j = 0; j < places * places; j++)
        w[j] *= by;
}

static inline REAL most_of(long count, const REAL *row)
{
    REAL most = row[0];
    for (long j = 1; j < count; j++)
        most = row[j] > most ? row[j] : most;
    return most;
}

/* What each place gathers, softmax(scale q k') v by heads, into rows of heads * d numbers. The weights (samples, heads,
   places, places) are kept where there is room for them; a place that is `causal` sees none behind itself. scratch holds
   places^2 numbers and what products take.                                                                          */
static void attend(
    long samples, long places, long heads, long d, long causal, long row, long v_row, double scale, const REAL *q,
    const REAL *k, const REAL *v, REAL *weights, REAL *out, REAL *scratch)
{
    const long square = places * places, width = heads * d;
    for (long b = 0; b < samples; b++)
        for (long h = 0; h < heads; h++) {
            REAL *const w = weights ? weights + (b * heads + h) * square : scratch;
            const long at = b * places * row + h * d;
            logits(places, d, scale, q + at, k + at, row, w, scratch + square);
            for (long i = 0; i < places; i++) {
                REAL *const restrict mine = w + i * places;
                const long seen = causal ? i + 1 : places;
                const REAL most = most_of(seen, mine);
                for (long j = 0; j < seen; j++)
                    mine[j] = exponential(mine[j] - most);
                const REAL share = 1 / total(seen, mine, 0, 0);
                for (long j = 0; j < seen; j++)
                    mine[j] *= share;
                for (long j = seen; j < places; j++)
                    mine[j] = 0;
            }
            product(places, d, places, w, places, 1, v + b * places * v_row + h * d, v_row, 1, 0, 0,
                    out + b * places * width + h * d, width, scratch + square);
        }
}

/* With P the weights and O = P V: dV = P' dO, dP = dO V', dS = scale P (dP - sum(P dP)) by rows, dQ = dS K, dK = dS' Q.
   scratch as in attend.                                                                                             */
static void attend_back(
    long samples, long places, long heads, long d, long row, long v_row, long d_row, long dv_row, double scale,
    const REAL *grad, const REAL *q, const REAL *k, const REAL *v, const REAL *weights, REAL *dq, REAL *dk, REAL *dv,
    REAL *scratch)
{
    const long square = places * places, width = heads * d;
    const REAL by = (REAL)scale;
    REAL *const ds = scratch, *const room = scratch + square;
    for (long b = 0; b < samples; b++)
        for (long h = 0; h < heads; h++) {
            const REAL *const w = weights + (b * heads + h) * square;
            const REAL *const out = grad + b * places * width + h * d;
            const long at = b * places * row + h * d, to = b * places * d_row + h * d;
            product(places, places, d, out, width, 1, v + b * places * v_row + h * d, 1, v_row, 0, 0, ds, places, room);
            for (long i = 0; i < places; i++) {
                const REAL *const restrict mine = w + i * places;
                REAL *const restrict theirs = ds + i * places;
                const REAL along = total(places, mine, theirs, 0);
                for (long j = 0; j < places; j++)
                    theirs[j] = by * mine[j] * (theirs[j] - along);
            }
            product(places, d, places, ds, places, 1, k + at, row, 1, 0, 0, dq + to, d_row, room);
            product(places, d, places, ds, 1, places, q + at, row, 1, 0, 0, dk + to, d_row, room);
            product(places, d, places, w, 1, places, out, width, 1, 0, 0,
                    dv + b * places * dv_row + h * d, dv_row, room);
        }
}

/* The mean over samples, heads and places of the entropy of a place's weights over the logarithm of how many places it
   sees, those left out that see themselves alone; and the largest size of a logit. scratch as in attend.            */
static void attention_spread(
    long samples, long places, long heads, long d, long causal, long row, double scale, const REAL *q, const REAL *k,
    double *entropy, double *largest, REAL *scratch)
{
    double sum = 0, most_size = 0;
    for (long b = 0; b < samples; b++)
        for (long h = 0; h < heads; h++) {
            const long at = b * places * row + h * d;
            logits(places, d, scale, q + at, k + at, row, scratch, scratch + places * places);
            for (long i = 0; i < places; i++) {
                REAL *const restrict mine = scratch + i * places;
                const long seen = causal ? i + 1 : places;
                const REAL most = most_of(seen, mine);
                for (long j = 0; j < seen; j++) {
                    const double size = fabs((double)mine[j]);
                    most_size = size > most_size || size != size ? size : most_size;
                }
                if (seen == 1)
                    continue;
                /* ln Z - sum(e s)/Z, with s the logits below their largest and Z the sum of e = exp(s) */
                REAL whole = 0, moment = 0;
                for (long j = 0; j < seen; j++) {
                    const REAL s = mine[j] - most, e = exponential(s);
                    whole += e;
                    moment += e == 0 ? 0 : e * s;
                }
                sum += (log((double)whole) - (double)moment / (double)whole) / log((double)seen);
            }
        }
    if (entropy)
        *entropy = sum / (double)(samples * heads * (causal ? places - 1 : places > 1 ? places : 0));
    if (largest)
        *largest = most_size;
}

/* (B, D) plus a row (D) that all samples share. */
static void add_to_each(long samples, long width, const REAL *restrict x, const REAL *restrict row, REAL *restrict out)
{
    for (long b = 0; b < samples; b++)
        for (long j = 0; j < width; j++)
            out[b * width + j] = x[b * width + j] + row[j];
}

/* (B, T, D) -> (B, D), the mean over T; and back. */
static void mean_of_places(long samples, long places, long width, const REAL *restrict x, REAL *restrict out)
{
    for (long b = 0; b < samples; b++) {
        batch_sum(places, width, width, x + b * places * width, out + b * width);
        for (long j = 0; j < width; j++)
            out[b * width + j] /= (REAL)places;
    }
}

static void mean_of_places_back(long samples, long places, long width, const REAL *restrict grad, REAL *restrict out)
{
    for (long b = 0; b < samples; b++)
        for (long t = 0; t < places; t++)
            for (long j = 0; j < width; j++)
                out[(b * places + t) * width + j] = grad[b * width + j] / (REAL)places;
}
