/* Activations, there and back, by the exponentials that the platform has. */

#define SELU_SCALE ((REAL)1.0507009873554805)
#define SELU_ALPHA ((REAL)1.6732632423543772)

FUNCTION REAL sigmoid(REAL z)
{
    const REAL e = exp(-fabs(z));
    return (z < 0 ? e : 1) / (1 + e);
}

/* The share of a normal variable below z: in double precision, since a tail in single has lost digits to z^2. */
FUNCTION double normal_share(double z)
{
    return 0.5 * erfc(z * -0.70710678118654752440);
}

FUNCTION REAL phi(int kind, REAL z, REAL below)
{
    switch (kind) {
    case RELU: return z <= 0 ? 0 : z;
    case LEAKY: return z > 0 ? z : below * z;
    case TANH: return tanh(z);
    case SIGMOID: return sigmoid(z);
    case SILU: return z / (1 + exp(-z));
    case ELU: return z > 0 ? z : expm1(z);
    case SELU: return SELU_SCALE * (z > 0 ? z : SELU_ALPHA * expm1(z));
    case HARDTANH: return z < -1 ? -1 : z > 1 ? 1 : z;
    case GELU: return (REAL)((double)z * normal_share((double)z));
    default: return z > 20 ? z : (z < 0 ? 0 : z) + log1p(exp(-fabs(z))); /* softplus; beyond 20 torch has z */
    }
}

/* phi'(z), from phi(z) of relu, tanh and sigmoid, from z of the others. */
FUNCTION REAL slope_of(int kind, REAL known, REAL below)
{
    switch (kind) {
    case RELU: return known <= 0 ? 0 : 1;
    case LEAKY: return known > 0 ? 1 : below;
    case TANH: return 1 - known * known;
    case SIGMOID: return known * (1 - known);
    case SILU: return sigmoid(known) * (1 + known * (1 - sigmoid(known)));
    case ELU: return known > 0 ? 1 : exp(known);
    case SELU: return SELU_SCALE * (known > 0 ? 1 : SELU_ALPHA * exp(known));
    case HARDTANH: return known <= -1 || known >= 1 ? 0 : 1;
    case GELU: /* Phi + z e^(-z^2/2)/sqrt(2 pi) */
        return (REAL)(normal_share((double)known)
                      + (double)known * exp(-0.5 * (double)known * (double)known) * 0.398942280401432678);
    default: return known > 20 ? 1 : sigmoid(known);
    }
}

KERNEL void activate(int kind, int count, const REAL *z, const REAL *slope, REAL *h)
{
    const REAL below = slope ? *slope : 0;
    EACH(j, count)
    h[j] = phi(kind, z[j], below);
}

KERNEL void activate_back(
    int kind, int count, const REAL *dh, const REAL *known, const REAL *slope, REAL *dslope, REAL *dz)
{
    const REAL below = slope ? *slope : 0;
    double sum = 0;
    EACH(j, count)
    {
        const REAL by = slope_of(kind, known[j], below);
        dz[j] = by == 0 && (kind == RELU || kind == HARDTANH) ? 0 : dh[j] * by; /* of infinite ones, too */
        if (dslope && !(known[j] > 0))
            sum += dh[j] * known[j];
    }
    if (dslope) {
        sum = block_sum(sum);
        LEAVE(dslope, (REAL)sum);
    }
}
