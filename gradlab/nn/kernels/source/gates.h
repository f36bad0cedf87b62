/* Gated recurrences, all time steps of a member at once. Signals are (T, B, ...): what a step needs lies together. */

/* The derivative by what step t puts out: by what is above it, and `more`, which has come from step t + 1, if any. */
static void gather_above(long count, const REAL *above, const REAL *more, REAL *out)
{
    if (above && more)
        for (long j = 0; j < count; j++)
            out[j] = above[j] + more[j];
    else if (above || more)
        memmove(out, above ? above : more, (size_t)count * sizeof(REAL));
    else
        memset(out, 0, (size_t)count * sizeof(REAL));
}

/* One sample of one step. z becomes the gates i, f, g, o (torch's order), D of each; c_before may be 0. */
static inline void lstm_cell(
    long width, REAL *restrict z, const REAL *c_before, REAL *restrict c, REAL *restrict squashed, REAL *restrict h)
{
    REAL *restrict in = z, *restrict keep = z + width, *restrict new = z + 2 * width, *restrict out = z + 3 * width;
#pragma omp simd
    for (long j = 0; j < width; j++) {
        in[j] = sigmoid(in[j]);
        keep[j] = sigmoid(keep[j]);
        new[j] = tanh_(new[j]);
        out[j] = sigmoid(out[j]);
    }
#pragma omp simd
    for (long j = 0; j < width; j++) {
        c[j] = in[j] * new[j] + (c_before ? keep[j] * c_before[j] : 0);
        squashed[j] = tanh_(c[j]);
        h[j] = out[j] * squashed[j];
    }
}

/* `gates` (T, B, 4D) come as the inputs' part of z and go as i, f, g, o; u (4D, D); c, tanh c and h (T, B, D). room holds
   D * padded(4D) + B * LANES numbers.                                                                               */
static void lstm(
    long time, long batch, long width, const REAL *u, REAL *gates, REAL *c, REAL *squashed, REAL *h, REAL *room)
{
    const long four = 4 * width, row = padded(four), step = batch * width;
    pack(width, four, u, 1, width, room, row);
    for (long t = 0; t < time; t++) {
        REAL *z = gates + t * batch * four;
        if (t)
            product_packed(
                batch, four, width, h + (t - 1) * step, width, 1, room, row, z, four, z, four, room + width * row, 0);
        for (long i = 0; i < batch; i++) {
            const long at = t * step + i * width;
            lstm_cell(width, z + i * four, t ? c + at - step : 0, c + at, squashed + at, h + at);
        }
    }
}

/* dz (T, B, 4D) and dh (T, B, D), from the derivative `above` (P, B, D) by the last P steps' h; dc holds B * D numbers,
   room 4D * padded(D) + B * LANES.                                                                                  */
static void lstm_back(
    long time, long batch, long width, long seen, const REAL *above, const REAL *u, const REAL *gates, const REAL *c,
    const REAL *squashed, REAL *dz, REAL *dh, REAL *dc, REAL *room)
{
    const long four = 4 * width, row = padded(width), step = batch * width;
    pack(four, width, u, width, 1, room, row);
    memset(dc, 0, (size_t)step * sizeof(REAL));
    for (long t = time - 1; t >= 0; t--) {
        REAL *own = dh + t * step;
        gather_above(step, t >= time - seen ? above + (t - time + seen) * step : 0, 0, own);
        if (t < time - 1)
            product_packed(
                batch, width, four, dz + (t + 1) * batch * four, four, 1, room, row, own, width, own, width,
                room + four * row, 0);
        for (long i = 0; i < batch; i++) {
            const long at = t * step + i * width;
            const REAL *restrict in = gates + (t * batch + i) * four, *restrict keep = in + width;
            const REAL *restrict new = keep + width, *restrict out = new + width, *restrict s = squashed + at;
            const REAL *restrict before = t ? c + at - step : 0, *restrict d = dh + at;
            REAL *restrict din = dz + (t * batch + i) * four, *restrict dkeep = din + width;
            REAL *restrict dnew = dkeep + width, *restrict dout = dnew + width, *restrict along = dc + i * width;
#pragma omp simd
            for (long j = 0; j < width; j++) {
                const REAL slope = along[j] + d[j] * out[j] * (1 - s[j] * s[j]);
                din[j] = slope * new[j] * in[j] * (1 - in[j]);
                dnew[j] = slope * in[j] * (1 - new[j] * new[j]);
                dout[j] = d[j] * s[j] * out[j] * (1 - out[j]);
                along[j] = slope * keep[j];
            }
#pragma omp simd
            for (long j = 0; j < width; j++) /* along is slope * keep by now */
                dkeep[j] = before ? along[j] * before[j] * (1 - keep[j]) : 0;
        }
    }
}

/* `gates` (T, B, 3D) come as the inputs' part and go as r, z, n; u (3D, D), bias (D,) inside the reset; `first` (B, D)
   is the state before them, 0 for zeros; `fresh`, what r multiplies, and h (T, B, D). room holds
   D * padded(3D) + B * LANES + B * 3D numbers.                                                                      */
static void gru(
    long time, long batch, long width, const REAL *u, const REAL *bias, const REAL *first, REAL *gates, REAL *fresh,
    REAL *h, REAL *room)
{
    const long three = 3 * width, row = padded(three), step = batch * width;
    REAL *edge = room + width * row, *again = edge + batch * LANES;
    pack(width, three, u, 1, width, room, row);
    for (long t = 0; t < time; t++) {
        const REAL *before = t ? h + (t - 1) * step : first;
        if (before)
            product_packed(batch, three, width, before, width, 1, room, row, 0, 0, again, three, edge, 0);
        else
            memset(again, 0, (size_t)(batch * three) * sizeof(REAL));
        for (long i = 0; i < batch; i++) {
            REAL *restrict reset = gates + (t * batch + i) * three, *restrict keep = reset + width;
            REAL *restrict new = keep + width, *restrict m = fresh + t * step + i * width;
            REAL *restrict now = h + t * step + i * width;
            const REAL *restrict last = before ? before + i * width : 0, *restrict from = again + i * three;
#pragma omp simd
            for (long j = 0; j < width; j++) {
                reset[j] = sigmoid(reset[j] + from[j]);
                keep[j] = sigmoid(keep[j] + from[width + j]);
                m[j] = from[2 * width + j] + bias[j];
                new[j] = tanh_(new[j] + reset[j] * m[j]);
            }
#pragma omp simd
            for (long j = 0; j < width; j++)
                now[j] = (1 - keep[j]) * new[j] + (last ? keep[j] * last[j] : 0);
        }
    }
}

/* da (T, B, 3D) by the inputs' part and db (T, B, 3D) by the recurrent one, dh (T, B, D), and, where it is asked for,
   dfirst (B, D), from the derivative `above` (P, B, D) by the last P steps' h. carry holds B * D numbers, room
   3D * padded(D) + B * LANES.                                                                                       */
static void gru_back(
    long time, long batch, long width, long seen, const REAL *above, const REAL *u, const REAL *first,
    const REAL *gates, const REAL *fresh, const REAL *h, REAL *da, REAL *db, REAL *dh, REAL *dfirst, REAL *room)
{
    const long three = 3 * width, row = padded(width), step = batch * width;
    REAL *edge = room + three * row, *carry = edge + batch * LANES;
    pack(three, width, u, width, 1, room, row);
    for (long t = time - 1; t >= 0; t--) {
        REAL *own = dh + t * step;
        gather_above(
            step, t >= time - seen ? above + (t - time + seen) * step : 0, t < time - 1 ? carry : 0, own);
        const REAL *before = t ? h + (t - 1) * step : first;
        for (long i = 0; i < batch; i++) {
            const REAL *restrict reset = gates + (t * batch + i) * three, *restrict keep = reset + width;
            const REAL *restrict new = keep + width, *restrict m = fresh + t * step + i * width;
            const REAL *restrict last = before ? before + i * width : 0, *restrict d = own + i * width;
            REAL *restrict dreset = da + (t * batch + i) * three, *restrict dkeep = dreset + width;
            REAL *restrict dnew = dkeep + width, *restrict again = db + (t * batch + i) * three;
            REAL *restrict along = carry + i * width;
#pragma omp simd
            for (long j = 0; j < width; j++) {
                const REAL slope = d[j] * (1 - keep[j]) * (1 - new[j] * new[j]);
                dnew[j] = slope;
                dreset[j] = slope * m[j] * reset[j] * (1 - reset[j]);
                dkeep[j] = d[j] * ((last ? last[j] : 0) - new[j]) * keep[j] * (1 - keep[j]);
                along[j] = d[j] * keep[j];
            }
#pragma omp simd
            for (long j = 0; j < width; j++) {
                again[j] = dreset[j];
                again[width + j] = dkeep[j];
                again[2 * width + j] = dnew[j] * reset[j];
            }
        }
        if (t || dfirst)
            product_packed(
                batch, width, three, db + t * batch * three, three, 1, room, row, carry, width, carry, width, edge,
                0);
    }
    if (dfirst)
        memcpy(dfirst, carry, (size_t)step * sizeof(REAL));
}

/* Of sigmoids s in rows of so many gates, the share whose slope is below the limit; `chosen` has a bit for each gate that
   counts. Not a number where an entry is not.                                                                       */
static void shut(long rows, long gates, long width, long chosen, double limit, const REAL *restrict s, double *share)
{
    const REAL least = (REAL)limit;
    const lanes limits = least - (lanes){0};
    long below = 0, count = 0;
    lanes nans = {0};
    whole_lanes found = {0};
    REAL nan = 0;
    for (long i = 0; i < rows; i++)
        for (long g = 0; g < gates; g++, s += width)
            if (chosen >> g & 1) {
                long j = 0;
                for (; j + LANES <= width; j += LANES) {
                    const lanes x = *(const lanes *)(s + j);
                    found -= (whole_lanes)(x * (1 - x) < limits);
                    nans += x * 0;
                }
                for (; j < width; j++) {
                    below += s[j] * (1 - s[j]) < least;
                    nan += s[j] * 0;
                }
                count += width;
            }
    for (int j = 0; j < LANES; j++)
        below += found[j];
    *share = (double)below / (double)count + (double)(nan + by_halves(nans));
}
