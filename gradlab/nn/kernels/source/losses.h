/* Data and losses. */

/* The chosen rows of x, scaled. */
static void gather(long batch, long width, const long *chosen, const REAL *x, const REAL *scale, REAL *restrict out)
{
    const REAL by = *scale;
    for (long i = 0; i < batch; i++)
        for (long j = 0; j < width; j++)
            out[i * width + j] = by * x[chosen[i] * width + j];
}

/* Cross-entropy in nats, its mean over the batch, and its derivative: the softmax, less one for the class, over B. */
static void cross_entropy(
    long batch, long outputs, const REAL *restrict z, const long *chosen, const long *classes, REAL *loss,
    REAL *restrict dz)
{
    double sum = 0, product = 1;
    for (long i = 0; i < batch; i++) {
        const REAL *const own = z + i * outputs;
        REAL most = own[0];
        for (long k = 1; k < outputs; k++)
            most = own[k] > most || own[k] != own[k] ? own[k] : most;
        for (long k = 0; k < outputs; k++)
            dz[i * outputs + k] = own[k] - most;
        sum -= (double)dz[i * outputs + classes[chosen[i]]];
    }
    for (long j = 0; j < batch * outputs; j++)
        dz[j] = exp_less_1(dz[j]) + 1;
    for (long i = 0; i < batch; i++, dz += outputs) {
        REAL whole = 0;
        for (long k = 0; k < outputs; k++)
            whole += dz[k];
        for (long k = 0; k < outputs; k++)
            dz[k] /= whole * (REAL)batch;
        dz[classes[chosen[i]]] -= 1 / (REAL)batch;
        /* The sum of logarithms, by few of them: each factor is from 1 to the outputs. */
        product *= (double)whole;
        if (product > 1e200) {
            sum += log(product);
            product = 1;
        }
    }
    *loss = (REAL)((sum + log(product)) / (double)batch);
}

/* Mean over batch and outputs; targets (N, K), scaled. */
static void squared_error(
    long batch, long outputs, const REAL *restrict z, const long *chosen, const REAL *targets, const REAL *scale,
    REAL *loss, REAL *restrict dz)
{
    const REAL count = (REAL)(batch * outputs), by = *scale;
    REAL sum = 0;
    for (long i = 0; i < batch; i++)
        for (long k = 0; k < outputs; k++) {
            const REAL error = z[i * outputs + k] - by * targets[chosen[i] * outputs + k];
            sum += error * error;
            dz[i * outputs + k] = error * (2 / count);
        }
    *loss = sum / count;
}
