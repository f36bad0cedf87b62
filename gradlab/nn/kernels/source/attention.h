/* Attention over the places of a sequence, there and back, and sums over places. Queries, keys and values are rows of
   heads * d numbers; those of queries and keys lie one distance apart, those of values another. The weights of a head
   are held by keys: a row holds one key and all queries, so that what is summed for a query is summed over rows.    */

/* (places, d) = A' B or A B of a head's weights and rows of d numbers, the weights read at these strides. Where d fills
   no vector it is its transpose that is computed, for queries and keys fill more. scratch holds what a product takes,
   and d * places numbers.                                                                                           */
static void gathered(
    long places, long d, const REAL *w, long w_row, long w_column, const REAL *rows, long row, REAL *restrict out,
    long out_row, REAL *scratch)
{
    if (d >= LANES) {
        product(places, d, places, w, w_row, w_column, rows, row, 1, 0, 0, out, out_row, scratch, 0);
        return;
    }
    REAL *const restrict turned = scratch;
    product(d, places, places, rows, 1, row, w, w_column, w_row, 0, 0, turned, places, scratch + d * places, 0);
    for (long i = 0; i < places; i++)
        for (long u = 0; u < d; u++)
            out[i * out_row + u] = turned[u * places + i];
}

/* scale q k' of one head of one sample, by keys. */
static void logits(
    long places, long d, double scale, const REAL *q, const REAL *k, long row, REAL *restrict w, REAL *scratch)
{
    const REAL by = (REAL)scale;
    product(places, places, d, k, row, 1, q, 1, row, 0, 0, w, places, scratch, 0);
    for (long j = 0; j < places * places; j++)
        w[j] *= by;
}

/* The logits become their exponentials, less the largest of each query, which are left in `most`, and the sums of the
   exponentials in `whole`. What a query does not see, if it is `causal`, is 0.                                       */
static void exponentials(long places, long causal, REAL *restrict w, REAL *restrict most, REAL *restrict whole)
{
    if (causal)
        for (long key = 1; key < places; key++)
            for (long i = 0; i < key; i++)
                w[key * places + i] = -INFINITY;
    for (long i = 0; i < places; i++) {
        most[i] = w[i];
        whole[i] = 0;
    }
    for (long key = 1; key < places; key++)
        for (long i = 0; i < places; i++)
            most[i] = w[key * places + i] > most[i] ? w[key * places + i] : most[i];
    for (long key = 0; key < places; key++)
        for (long i = 0; i < places; i++)
            w[key * places + i] -= most[i];
    for (long j = 0; j < places * places; j++)
        w[j] = exponential(w[j]);
    for (long key = 0; key < places; key++)
        for (long i = 0; i < places; i++)
            whole[i] += w[key * places + i];
}

/* What each place gathers, softmax(scale q k') v by heads, into rows of heads * d numbers. The weights (samples, heads,
   places, places) are kept where there is room for them; a place that is `causal` sees none behind itself. scratch holds
   places * (places + 3) numbers and what `gathered` takes.                                                          */
static void attend(
    long samples, long places, long heads, long d, long causal, long row, long v_row, double scale, const REAL *q,
    const REAL *k, const REAL *v, REAL *weights, REAL *out, REAL *scratch)
{
    const long square = places * places, width = heads * d;
    REAL *const most = scratch, *const restrict whole = scratch + places, *const room = scratch + 2 * places;
    for (long b = 0; b < samples; b++)
        for (long h = 0; h < heads; h++) {
            REAL *const restrict w = weights ? weights + (b * heads + h) * square : room;
            const long at = b * places * row + h * d;
            logits(places, d, scale, q + at, k + at, row, w, room + square);
            exponentials(places, causal, w, most, whole);
            for (long i = 0; i < places; i++)
                whole[i] = 1 / whole[i];
            for (long key = 0; key < places; key++)
                for (long i = 0; i < places; i++)
                    w[key * places + i] *= whole[i];
            gathered(places, d, w, 1, places, v + b * places * v_row + h * d, v_row, out + b * places * width + h * d,
                     width, room + square);
        }
}

/* With P the weights and O = P V: dV = P' dO, dP = dO V', dS = scale P (dP - sum(P dP)), sums over keys, dQ = dS K and
   dK = dS' Q. scratch as in attend.                                                                                 */
static void attend_back(
    long samples, long places, long heads, long d, long row, long v_row, long d_row, long dv_row, double scale,
    const REAL *grad, const REAL *q, const REAL *k, const REAL *v, const REAL *weights, REAL *dq, REAL *dk, REAL *dv,
    REAL *scratch)
{
    const long square = places * places, width = heads * d;
    const REAL by = (REAL)scale;
    REAL *const restrict along = scratch, *const restrict ds = scratch + 2 * places, *const room = ds + square;
    for (long b = 0; b < samples; b++)
        for (long h = 0; h < heads; h++) {
            const REAL *const restrict w = weights + (b * heads + h) * square;
            const REAL *const out = grad + b * places * width + h * d;
            const long at = b * places * row + h * d, to = b * places * d_row + h * d;
            product(places, places, d, v + b * places * v_row + h * d, v_row, 1, out, 1, width, 0, 0, ds, places, room,
                    0);
            for (long i = 0; i < places; i++)
                along[i] = 0;
            for (long key = 0; key < places; key++)
                for (long i = 0; i < places; i++)
                    along[i] += w[key * places + i] * ds[key * places + i];
            for (long key = 0; key < places; key++)
                for (long i = 0; i < places; i++)
                    ds[key * places + i] = by * w[key * places + i] * (ds[key * places + i] - along[i]);
            gathered(places, d, ds, 1, places, k + at, row, dq + to, d_row, room);
            gathered(places, d, ds, places, 1, q + at, row, dk + to, d_row, room);
            gathered(places, d, w, places, 1, out, width, dv + b * places * dv_row + h * d, dv_row, room);
        }
}

/* The mean over samples, heads and places of the entropy of a place's weights over the logarithm of how many places it
   sees, those left out that see themselves alone; and the largest size of a logit. With s the logits less their largest
   and Z the sum of e^s the entropy is ln Z - sum(s e^s)/Z; of several Z the logarithm of the product is taken. `sums`
   holds two numbers a place, scratch as in attend.                                                                  */
static void attention_spread(
    long samples, long places, long heads, long d, long causal, long row, double scale, const REAL *q, const REAL *k,
    double *entropy, double *largest, double *restrict sums, REAL *scratch)
{
    const long square = places * places, matrices = samples * heads, unseen = causal || places == 1;
    REAL *const restrict most = scratch, *const restrict whole = most + places, *const restrict moment = whole + places;
    REAL *const restrict w = moment + places, *const restrict lower = w + square;
    double *const restrict products = sums + places;
    REAL size = 0, lost = 0;
    double sum = 0;
    for (long i = 0; i < places; i++) {
        sums[i] = 0;
        products[i] = 1;
    }
    for (long m = 0; m < matrices; m++) {
        const long at = m / heads * places * row + m % heads * d;
        logits(places, d, scale, q + at, k + at, row, w, lower);
        memcpy(lower, w, (size_t)square * sizeof(REAL));
        for (long key = 1; causal && key < places; key++)
            memset(lower + key * places, 0, (size_t)key * sizeof(REAL)); /* as if it were not there */
#pragma omp simd reduction(max : size) reduction(+ : lost)
        for (long j = 0; j < square; j++) {
            const REAL one = fabs(lower[j]);
            size = one > size ? one : size;
            lost += one != one ? one : 0;
        }
        exponentials(places, causal, w, most, whole);
        for (long i = 0; i < places; i++)
            moment[i] = 0;
        for (long key = 0; key < places; key++)
            for (long i = 0; i < places; i++)
                moment[i] += w[key * places + i] * (lower[key * places + i] - most[i]);
        for (long i = 0; i < places; i++) {
            sums[i] -= (double)(moment[i] / whole[i]);
            products[i] *= (double)whole[i];
        }
        if (m % 16 == 15 || m == matrices - 1)
            for (long i = 0; i < places; i++) {
                sums[i] += log(products[i]);
                products[i] = 1;
            }
    }
    for (long i = unseen; i < places; i++)
        sum += sums[i] / log((double)(causal ? i + 1 : places));
    *entropy = sum / (double)(matrices * (places - unseen));
    *largest = (double)size + (double)lost;
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
