/* Clipping and descent. */

enum { NONE, NORM, VALUE, LAYERWISE, NORMALIZE };
#define MARGIN 1e-6

/* Multiplies by a scale that is first rounded, as the gradient is; gives the rounded scale. */
static double rescale(long count, double scale, REAL *g)
{
    const REAL rounded = (REAL)scale;
    if (rounded == 1)
        return 1;
    for (long j = 0; j < count; j++)
        g[j] *= rounded;
    return (double)rounded;
}

/* The member's own way of clipping, in place: the norm after it, and zero where no entry changed. */
static void clip(
    long count, long layers, const long *mode, const double *threshold, const double *output_threshold,
    const long *from, const long *to, const double *norm, REAL *restrict g, double *after, double *changed)
{
    *after = *norm;
    *changed = 0;
    switch (*mode) {
    case NORM:
    case NORMALIZE: {
        double scale = *threshold / (*norm + MARGIN);
        if (*mode == NORM && scale > 1)
            scale = 1;
        *after = *norm * rescale(count, scale, g);
        *changed = *after - *norm;
        break;
    }
    case VALUE: {
        const REAL most = (REAL)*threshold;
        double sum = 0;
        REAL cut = 0;
#pragma omp simd reduction(+ : sum, cut)
        for (long j = 0; j < count; j++) {
            const REAL low = g[j] < -most ? -most : g[j], kept = low > most ? most : low;
            cut += fabs(g[j] - kept);
            g[j] = kept;
            sum += (double)kept * (double)kept;
        }
        *after = sqrt(sum);
        *changed = (double)cut;
        break;
    }
    case LAYERWISE: {
        double sum = 0;
        for (long l = 0; l < layers; l++) {
            const double was = norm_of(to[l] - from[l], g + from[l]);
            double scale = (l < layers - 1 ? *threshold : *output_threshold) / (was + MARGIN);
            scale = scale > 1 ? 1 : scale;
            const double is = was * rescale(to[l] - from[l], scale, g + from[l]);
            sum += is * is;
            *changed += fabs(is - was);
        }
        *after = sqrt(sum);
        break;
    }
    }
}

/* Adds L2 weight decay and L1 to the gradient, as torch.optim adds `weight_decay`: after clipping. */
static void decay(long count, REAL l2, REAL l1, const REAL *restrict w, REAL *restrict g)
{
    if (l2 != 0)
        for (long j = 0; j < count; j++)
            g[j] += l2 * w[j];
    if (l1 != 0)
        for (long j = 0; j < count; j++)
            g[j] += l1 * (REAL)((w[j] > 0) - (w[j] < 0));
}

/* torch.optim.SGD with dampening 0: b <- mu b + g where there is a buffer; w <- w - lr b, or w - lr (g + mu b) with
   Nesterov's.                                                                                                       */
static void sgd(
    long count, const REAL *lr, const REAL *momentum, const REAL *nesterov, const REAL *l2, const REAL *l1,
    REAL *restrict g, REAL *restrict buffer, REAL *restrict w)
{
    const REAL rate = *lr, keep = *momentum;
    decay(count, *l2, *l1, w, g);
    if (buffer)
        for (long j = 0; j < count; j++)
            buffer[j] = keep * buffer[j] + g[j];
    if (!buffer)
        for (long j = 0; j < count; j++)
            w[j] -= rate * g[j];
    else if (*nesterov != 0)
        for (long j = 0; j < count; j++)
            w[j] -= rate * (g[j] + keep * buffer[j]);
    else
        for (long j = 0; j < count; j++)
            w[j] -= rate * buffer[j];
}

/* torch.optim.Adam, or AdamW where the decay is decoupled: there it acts on the weights; `done` updates came before. */
static void adam(
    long count, long decoupled, const double *done, const REAL *lr, const REAL *beta1, const REAL *beta2, const REAL *eps,
    const REAL *l2, const REAL *l1, REAL *restrict g, REAL *restrict mean, REAL *restrict square, REAL *restrict w)
{
    if (decoupled && *l2 != 0)
        for (long j = 0; j < count; j++)
            w[j] *= 1 - *lr * *l2;
    decay(count, decoupled ? 0 : *l2, *l1, w, g);
    const REAL b1 = *beta1, b2 = *beta2, least = *eps;
    const REAL rate = *lr / (REAL)(1 - pow((double)b1, *done + 1)), root = (REAL)sqrt(1 - pow((double)b2, *done + 1));
    for (long j = 0; j < count; j++) {
        mean[j] += (1 - b1) * (g[j] - mean[j]);
        square[j] = b2 * square[j] + (1 - b2) * g[j] * g[j];
        w[j] -= rate * (mean[j] / (sqrt(square[j]) / root + least));
    }
}

/* torch.optim.RMSprop; beta2 is its alpha. */
static void rmsprop(
    long count, const REAL *lr, const REAL *momentum, const REAL *beta2, const REAL *eps, const REAL *l2, const REAL *l1,
    REAL *restrict g, REAL *restrict square, REAL *restrict buffer, REAL *restrict w)
{
    const REAL rate = *lr, keep = *momentum, b2 = *beta2, least = *eps;
    decay(count, *l2, *l1, w, g);
    for (long j = 0; j < count; j++) {
        square[j] = b2 * square[j] + (1 - b2) * g[j] * g[j];
        g[j] /= sqrt(square[j]) + least;
    }
    if (buffer)
        for (long j = 0; j < count; j++) {
            buffer[j] = keep * buffer[j] + g[j];
            g[j] = buffer[j];
        }
    for (long j = 0; j < count; j++)
        w[j] -= rate * g[j];
}

/* torch.optim.Adagrad without learning-rate decay. */
static void adagrad(
    long count, const REAL *lr, const REAL *eps, const REAL *l2, const REAL *l1, REAL *restrict g, REAL *restrict sum,
    REAL *restrict w)
{
    const REAL rate = *lr, least = *eps;
    decay(count, *l2, *l1, w, g);
    for (long j = 0; j < count; j++) {
        sum[j] += g[j] * g[j];
        w[j] -= rate * (g[j] / (sqrt(sum[j]) + least));
    }
}
