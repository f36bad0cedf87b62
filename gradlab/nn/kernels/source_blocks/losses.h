/* Losses: the mean over the batch, and its derivative. */

FUNCTION int class_of(int i, int places, const WIDE *chosen, const WIDE *classes)
{
    return (int)classes[chosen[i / places] * places + i % places];
}

FUNCTION void leave(double sum, double count, REAL *loss)
{
    sum = block_sum(sum);
    LEAVE(loss, (REAL)(sum / count));
}

KERNEL void cross_entropy(
    int batch, int outputs, int places, const REAL *z, const WIDE *chosen, const WIDE *classes, REAL *loss, REAL *dz)
{
    double sum = 0;
    EACH(i, batch)
    {
        const REAL *const own = z + i * outputs;
        const int right = class_of(i, places, chosen, classes);
        REAL most = own[0], whole = 0;
        for (int k = 1; k < outputs; k++)
            most = own[k] > most ? own[k] : most;
        for (int k = 0; k < outputs; k++)
            whole += dz[i * outputs + k] = exp(own[k] - most);
        for (int k = 0; k < outputs; k++)
            dz[i * outputs + k] = dz[i * outputs + k] / (whole * batch) - (k == right ? 1 / (REAL)batch : 0);
        sum += log((double)whole) - (double)(own[right] - most);
    }
    leave(sum, batch, loss);
}

KERNEL void squared_error(
    int batch, int outputs, const REAL *z, const WIDE *chosen, const REAL *targets, const REAL *scale, REAL *loss,
    REAL *dz)
{
    const REAL count = (REAL)(batch * outputs);
    double sum = 0;
    EACH(e, batch *outputs)
    {
        const REAL error = z[e] - *scale * targets[chosen[e / outputs] * outputs + e % outputs];
        sum += error * error;
        dz[e] = error * (2 / count);
    }
    leave(sum, batch * outputs, loss);
}

KERNEL void margins(
    int batch, int outputs, int places, const REAL *z, const WIDE *chosen, const WIDE *classes, const double *known,
    REAL *loss, REAL *dz)
{
    const REAL below = (REAL)known[0], above = (REAL)known[1], weight = (REAL)known[2];
    double sum = 0;
    EACH(e, batch *outputs)
    {
        const int right = e % outputs == class_of(e / outputs, places, chosen, classes);
        REAL off = right ? below - z[e] : z[e] - above;
        off = off < 0 ? 0 : off;
        sum += (right ? 1 : weight) * off * off;
        dz[e] = (right ? -1 : weight) * off * (2 / (REAL)batch);
    }
    leave(sum, batch, loss);
}
