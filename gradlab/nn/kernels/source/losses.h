/* Data and losses. */

/* The chosen rows of x, scaled. */
static void gather(long batch, long width, const long *chosen, const REAL *x, const REAL *scale, REAL *restrict out)
{
    const REAL by = *scale;
    for (long i = 0; i < batch; i++)
        for (long j = 0; j < width; j++)
            out[i * width + j] = by * x[chosen[i] * width + j];
}

static void gather_tokens(long batch, long width, const long *chosen, const long *tokens, long *restrict out)
{
    for (long i = 0; i < batch; i++)
        for (long j = 0; j < width; j++)
            out[i * width + j] = tokens[chosen[i] * width + j];
}

/* Rows at any distance from each other. */
static void copy(long rows, long width, long x_row, long out_row, const REAL *x, REAL *restrict out)
{
    for (long i = 0; i < rows; i++)
        memcpy(out + i * out_row, x + i * x_row, (size_t)width * sizeof(REAL));
}

/* Rows of a table by the tokens that name them: `inner` of these lie `near` to each other, then `far`. */
static void look_up(
    long count, long width, long row, long column, long inner, long far, long near, const long *tokens,
    const REAL *table, const REAL *bias, REAL *restrict out)
{
    for (long i = 0; i < count; i++, out += width) {
        const REAL *from = table + tokens[i / inner * far + i % inner * near] * row;
        for (long j = 0; j < width; j++)
            out[j] = from[j * column] + (bias ? bias[j] : 0);
    }
}

static void look_up_back(
    long count, long width, long row, long column, long inner, long far, long near, long vocabulary, long more,
    const long *tokens, const REAL *restrict grad, REAL *restrict table)
{
    for (long v = 0; !more && v < vocabulary; v++)
        for (long j = 0; j < width; j++)
            table[v * row + j * column] = 0;
    for (long i = 0; i < count; i++, grad += width) {
        REAL *to = table + tokens[i / inner * far + i % inner * near] * row;
        for (long j = 0; j < width; j++)
            to[j * column] += grad[j];
    }
}

/* Cross-entropy in nats, its mean over the batch, and its derivative: the softmax, less one for the class, over B. Each
   sample has so many places, one answer at each; `batch` counts them all.                                           */
static inline long class_of(long i, long places, const long *chosen, const long *classes)
{
    return classes[chosen[i / places] * places + i % places];
}

static void cross_entropy(
    long batch, long outputs, long places, const REAL *restrict z, const long *chosen, const long *classes, REAL *loss,
    REAL *restrict dz)
{
    double sum = 0, product = 1;
    for (long i = 0; i < batch; i++) {
        const REAL *const own = z + i * outputs;
        REAL most = own[0];
        for (long k = 1; k < outputs; k++)
            most = own[k] > most ? own[k] : most; /* what is not a number is none by its own exponential */
        for (long k = 0; k < outputs; k++)
            dz[i * outputs + k] = own[k] - most;
        sum -= (double)dz[i * outputs + class_of(i, places, chosen, classes)];
    }
    for (long j = 0; j < batch * outputs; j++)
        dz[j] = exp_less_1(dz[j]) + 1;
    for (long i = 0; i < batch; i++, dz += outputs) {
        REAL whole = 0;
        for (long k = 0; k < outputs; k++)
            whole += dz[k];
        for (long k = 0; k < outputs; k++)
            dz[k] /= whole * (REAL)batch;
        dz[class_of(i, places, chosen, classes)] -= 1 / (REAL)batch;
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

/* Equation 4 of Sabour et al. 2017: what the right class lacks of the first margin, and what others have above the
   second, by the third: squares added up over the classes, their mean over the batch.                              */
static void margins(
    long batch, long outputs, long places, const REAL *restrict z, const long *chosen, const long *classes,
    const double *known, REAL *loss, REAL *restrict dz)
{
    const REAL below = (REAL)known[0], above = (REAL)known[1], weight = (REAL)known[2];
    REAL sum = 0;
    for (long i = 0; i < batch; i++, z += outputs, dz += outputs) {
        const long right = class_of(i, places, chosen, classes);
        for (long k = 0; k < outputs; k++) {
            REAL off = k == right ? below - z[k] : z[k] - above;
            off = off < 0 ? 0 : off;
            sum += (k == right ? 1 : weight) * off * off;
            dz[k] = (k == right ? -1 : weight) * off * (2 / (REAL)batch);
        }
    }
    *loss = sum / (REAL)batch;
}
