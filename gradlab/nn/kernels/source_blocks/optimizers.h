/* Clipping and descent, as of source/optimizers.h. */

#define MARGIN 1e-6

/* Multiplies by a scale that is first rounded, as the gradient is; gives the rounded scale. */
FUNCTION double rescale(WIDE count, double scale, REAL *g)
{
    const REAL rounded = (REAL)scale;
    if (rounded != 1)
        EACH(j, count) g[j] *= rounded;
    return (double)rounded;
}

KERNEL void clip(
    int count, int layers, int mode, double threshold, double output_threshold, const WIDE *from, const WIDE *to,
    double norm, REAL *g, double *after, double *changed)
{
    double is = norm, cut = 0;
    if (mode == NORM || mode == NORMALIZE) {
        const double scale = threshold / (norm + MARGIN);
        is = norm * rescale(count, mode == NORM && scale > 1 ? 1 : scale, g);
        cut = is - norm;
    } else if (mode == VALUE) {
        const REAL most = (REAL)threshold;
        double sum = 0;
        EACH(j, count)
        {
            const REAL low = g[j] < -most ? -most : g[j], kept = low > most ? most : low;
            cut += fabs(g[j] - kept);
            g[j] = kept;
            sum += (double)kept * (double)kept;
        }
        is = sqrt(block_sum(sum));
        cut = block_sum(cut);
    } else if (mode == LAYERWISE) {
        is = 0;
        for (int l = 0; l < layers; l++) {
            const double was = sqrt(squares_of(to[l] - from[l], g + from[l], 0));
            const double scale = (l < layers - 1 ? threshold : output_threshold) / (was + MARGIN);
            const double own = was * rescale(to[l] - from[l], scale > 1 ? 1 : scale, g + from[l]);
            is += own * own;
            cut += fabs(own - was);
        }
        is = sqrt(is);
    }
    if (FIRST) {
        *after = is;
        *changed = cut;
    }
}

/* The gradient with L2 weight decay and L1, after clipping. */
FUNCTION REAL decayed(REAL g, REAL w, REAL l2, REAL l1)
{
    g = l2 != 0 ? g + l2 * w : g;
    return l1 != 0 ? g + l1 * (REAL)((w > 0) - (w < 0)) : g;
}

KERNEL void sgd(
    int count, REAL rate, REAL momentum, REAL nesterov, REAL l2, REAL l1, const REAL *gradient, REAL *buffer, REAL *w)
{
    EACH(j, count)
    {
        const REAL g = decayed(gradient[j], w[j], l2, l1);
        if (buffer)
            buffer[j] = momentum * buffer[j] + g;
        w[j] -= rate * (!buffer ? g : nesterov != 0 ? g + momentum * buffer[j] : buffer[j]);
    }
}

KERNEL void adam(
    int count, int decoupled, double done, REAL lr, REAL beta1, REAL beta2, REAL eps, REAL l2, REAL l1,
    const REAL *gradient, REAL *mean, REAL *square, REAL *w)
{
    const REAL rate = lr / (REAL)(1 - pow((double)beta1, done + 1)), root = (REAL)sqrt(1 - pow((double)beta2, done + 1));
    EACH(j, count)
    {
        const REAL at = decoupled && l2 != 0 ? w[j] * (1 - lr * l2) : w[j];
        const REAL g = decayed(gradient[j], at, decoupled ? 0 : l2, l1);
        mean[j] += (1 - beta1) * (g - mean[j]);
        square[j] = beta2 * square[j] + (1 - beta2) * g * g;
        w[j] = at - rate * (mean[j] / (sqrt(square[j]) / root + eps));
    }
}

KERNEL void rmsprop(
    int count, REAL rate, REAL momentum, REAL beta2, REAL eps, REAL l2, REAL l1, const REAL *gradient, REAL *square,
    REAL *buffer, REAL *w)
{
    EACH(j, count)
    {
        REAL g = decayed(gradient[j], w[j], l2, l1);
        square[j] = beta2 * square[j] + (1 - beta2) * g * g;
        g /= sqrt(square[j]) + eps;
        if (buffer)
            buffer[j] = g = momentum * buffer[j] + g;
        w[j] -= rate * g;
    }
}

KERNEL void adagrad(
    int count, REAL rate, REAL eps, REAL l2, REAL l1, const REAL *gradient, REAL *sum, REAL *w)
{
    EACH(j, count)
    {
        const REAL g = decayed(gradient[j], w[j], l2, l1);
        sum[j] += g * g;
        w[j] -= rate * (g / (sqrt(sum[j]) + eps));
    }
}
