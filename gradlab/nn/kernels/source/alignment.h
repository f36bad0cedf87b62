/* Alignment of a decoder's queries (P, B, D) with an encoder's memory (S, B, D); the weights are (P, B, S). */

static void softmax(long count, REAL *x)
{
    REAL most = x[0], sum = 0;
    for (long j = 1; j < count; j++)
        most = x[j] > most ? x[j] : most;
    for (long j = 0; j < count; j++) {
        x[j] = exp_less_1(x[j] - most) + 1;
        sum += x[j];
    }
    for (long j = 0; j < count; j++)
        x[j] /= sum;
}

static inline REAL dot_product(long width, const REAL *restrict x, const REAL *restrict y)
{
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long j = 0; j < width; j++)
        sum += x[j] * y[j];
    return sum;
}

static inline void add_times(long width, REAL scale, const REAL *restrict x, REAL *restrict out)
{
#pragma omp simd
    for (long j = 0; j < width; j++)
        out[j] += scale * x[j];
}

/* Of one query: what it reads, the memory's rows by their weights. `row` is the distance of one sample's rows. */
static void read_by(long keys, long width, long row, const REAL *weights, const REAL *memory, REAL *context)
{
    memset(context, 0, (size_t)width * sizeof(REAL));
    for (long s = 0; s < keys; s++)
        add_times(width, weights[s], memory + s * row, context);
}

/* The way back through it and the softmax: to the memory, added, and to the scores, written. */
static void read_back(
    long keys, long width, long row, const REAL *weights, const REAL *memory, const REAL *dcontext, REAL *dmemory,
    REAL *dscore)
{
    REAL mean = 0;
    for (long s = 0; s < keys; s++) {
        dscore[s] = dot_product(width, dcontext, memory + s * row);
        mean += weights[s] * dscore[s];
        add_times(width, weights[s], dcontext, dmemory + s * row);
    }
    for (long s = 0; s < keys; s++)
        dscore[s] = weights[s] * (dscore[s] - mean);
}

/* Scores are q . h (Luong et al. 2015). */
static void align_dot(
    long queries, long batch, long keys, long width, const REAL *query, const REAL *memory, REAL *weights,
    REAL *context)
{
    const long row = batch * width;
    for (long i = 0; i < queries * batch; i++) {
        const REAL *h = memory + i % batch * width;
        for (long s = 0; s < keys; s++)
            weights[i * keys + s] = dot_product(width, query + i * width, h + s * row);
        softmax(keys, weights + i * keys);
        read_by(keys, width, row, weights + i * keys, h, context + i * width);
    }
}

/* score holds S numbers. */
static void align_dot_back(
    long queries, long batch, long keys, long width, const REAL *dcontext, const REAL *query, const REAL *memory,
    const REAL *weights, REAL *dquery, REAL *dmemory, REAL *score)
{
    const long row = batch * width;
    memset(dmemory, 0, (size_t)(keys * row) * sizeof(REAL));
    for (long i = 0; i < queries * batch; i++) {
        const REAL *h = memory + i % batch * width, *q = query + i * width;
        REAL *dh = dmemory + i % batch * width;
        read_back(keys, width, row, weights + i * keys, h, dcontext + i * width, dh, score);
        read_by(keys, width, row, score, h, dquery + i * width);
        for (long s = 0; s < keys; s++)
            add_times(width, score[s], q, dh + s * row);
    }
}

/* Scores are v . tanh(q + k) of one query a sample (Bahdanau et al. 2014); `bent` (S, B, D) are the tanh. */
static void align_additive(
    long batch, long keys, long width, const REAL *query, const REAL *key, const REAL *v, const REAL *memory,
    REAL *bent, REAL *weights, REAL *context)
{
    const long row = batch * width;
    for (long i = 0; i < batch; i++) {
        const REAL *restrict q = query + i * width;
        for (long s = 0; s < keys; s++) {
            const REAL *restrict k = key + s * row + i * width;
            REAL *restrict t = bent + s * row + i * width;
#pragma omp simd
            for (long j = 0; j < width; j++)
                t[j] = tanh_(q[j] + k[j]);
            weights[i * keys + s] = dot_product(width, v, t);
        }
        softmax(keys, weights + i * keys);
        read_by(keys, width, row, weights + i * keys, memory + i * width, context + i * width);
    }
}

/* dkey and dmemory are added to where there is `more` in them already; score holds S numbers. */
static void align_additive_back(
    long batch, long keys, long width, long more, const REAL *dcontext, const REAL *v, const REAL *memory,
    const REAL *bent, const REAL *weights, REAL *dquery, REAL *dkey, REAL *dv, REAL *dmemory, REAL *score)
{
    const long row = batch * width;
    if (!more) {
        memset(dkey, 0, (size_t)(keys * row) * sizeof(REAL));
        memset(dmemory, 0, (size_t)(keys * row) * sizeof(REAL));
    }
    memset(dv, 0, (size_t)width * sizeof(REAL));
    memset(dquery, 0, (size_t)row * sizeof(REAL));
    for (long i = 0; i < batch; i++) {
        read_back(
            keys, width, row, weights + i * keys, memory + i * width, dcontext + i * width, dmemory + i * width, score);
        REAL *restrict dq = dquery + i * width;
        for (long s = 0; s < keys; s++) {
            const REAL *restrict t = bent + s * row + i * width;
            REAL *restrict dk = dkey + s * row + i * width;
#pragma omp simd
            for (long j = 0; j < width; j++) {
                const REAL slope = score[s] * v[j] * (1 - t[j] * t[j]);
                dk[j] += slope;
                dq[j] += slope;
                dv[j] += score[s] * t[j];
            }
        }
    }
}

/* The mean over rows of the entropy of S weights, over ln S. */
static void entropy(long rows, long keys, const REAL *weights, double *found)
{
    double sum = 0;
    for (long j = 0; j < rows * keys; j++)
        sum -= weights[j] > 0 ? (double)weights[j] * log((double)weights[j]) : (double)weights[j] * 0;
    *found = sum / ((double)rows * log((double)keys));
}
