/* Capsules: `count` of them vote for `to` others, whose vectors have `size` entries. */

/* (B, H, W, C) -> (B, H/2, W/2, 9 C), both rounded up: of every second pixel, itself and its neighbours, zeros beyond
   the edge. `back`: each of the nine hands what is in `columns` back to its pixel of x.                             */
static void columns_by_two(
    long batch, long height, long width, long channels, long back, REAL *restrict x, REAL *restrict columns)
{
    if (back)
        memset(x, 0, (size_t)(batch * height * width * channels) * sizeof(REAL));
    for (long b = 0; b < batch; b++, x += height * width * channels)
        for (long i = 0; i < height; i += 2)
            for (long j = 0; j < width; j += 2)
                for (long tap = 0; tap < 9; tap++, columns += channels) {
                    const long y = i + tap / 3 - 1, z = j + tap % 3 - 1;
                    REAL *const pixel = x + (y * width + z) * channels;
                    const int inside = y >= 0 && y < height && z >= 0 && z < width;
                    if (back)
                        for (long c = 0; inside && c < channels; c++)
                            pixel[c] += columns[c];
                    else if (inside)
                        memcpy(columns, pixel, (size_t)channels * sizeof(REAL));
                    else
                        memset(columns, 0, (size_t)channels * sizeof(REAL));
                }
}

/* Vectors x become as long as |x|^2/(1 + |x|^2); eps is under the root. */
static void squash(long count, long size, double eps, const REAL *restrict x, REAL *restrict y)
{
    for (long i = 0; i < count; i++, x += size, y += size) {
        const REAL square = dot_product(size, x, x), by = square / (1 + square) / sqrt(square + (REAL)eps);
        for (long d = 0; d < size; d++)
            y[d] = by * x[d];
    }
}

static void squash_back(
    long count, long size, double eps, const REAL *restrict dy, const REAL *restrict x, REAL *restrict dx)
{
    for (long i = 0; i < count; i++, dy += size, x += size, dx += size) {
        const REAL square = dot_product(size, x, x), under = square + (REAL)eps;
        const REAL share = 1 / (1 + square) / sqrt(under), by = square * share;
        const REAL slope = share * (1 - square / (1 + square) - square / (2 * under));
        const REAL along = 2 * slope * dot_product(size, x, dy);
        for (long d = 0; d < size; d++)
            dx[d] = by * dy[d] + along * x[d];
    }
}

static void lengths(long count, long size, double eps, const REAL *restrict x, REAL *restrict y)
{
    for (long i = 0; i < count; i++)
        y[i] = sqrt(dot_product(size, x + i * size, x + i * size) + (REAL)eps);
}

static void lengths_back(
    long count, long size, const REAL *restrict dy, const REAL *restrict x, const REAL *restrict y, REAL *restrict dx)
{
    for (long i = 0; i < count; i++) {
        const REAL by = dy[i] / y[i];
        for (long d = 0; d < size; d++)
            dx[i * size + d] = by * x[i * size + d];
    }
}

/* u (B, count, size) by a matrix (wide, size) of each capsule -> (B, count, wide). scratch as in `product`. */
static void vote(
    long batch, long count, long size, long wide, const REAL *u, const REAL *w, REAL *votes, REAL *scratch)
{
    for (long i = 0; i < count; i++)
        product(batch, wide, size, u + i * size, count * size, 1, w + i * wide * size, 1, size, 0, 0, votes + i * wide,
                count * wide, scratch, 0);
}

/* To the matrices, added to what is there if `more`, and to u if somebody asks for it. */
static void vote_back(
    long batch, long count, long size, long wide, long more, const REAL *dvotes, const REAL *u, const REAL *w, REAL *dw,
    REAL *du, REAL *scratch)
{
    for (long i = 0; i < count; i++) {
        const REAL *const dv = dvotes + i * wide, *const own = u + i * size;
        REAL *const to = dw + i * wide * size;
        product(wide, size, batch, dv, 1, count * wide, own, count * size, 1, more ? to : 0, size, to, size, scratch,
                0);
        if (du)
            product(batch, size, wide, dv, count * wide, 1, w + i * wide * size, size, 1, 0, 0, du + i * size,
                    count * size, scratch, 0);
    }
}

/* The softmax of logits (to, count) over those voted for; `whole` holds `count` numbers. */
static void shared_out(long count, long to, const REAL *restrict logits, REAL *restrict shares, REAL *restrict whole)
{
    memcpy(whole, logits, (size_t)count * sizeof(REAL));
    for (long j = 1; j < to; j++)
        for (long i = 0; i < count; i++)
            whole[i] = logits[j * count + i] > whole[i] ? logits[j * count + i] : whole[i];
    for (long j = 0; j < to; j++)
        for (long i = 0; i < count; i++)
            shares[j * count + i] = logits[j * count + i] - whole[i];
    for (long j = 0; j < to * count; j++)
        shares[j] = exponential(shares[j]);
    batch_sum(to, count, count, shares, whole);
    for (long j = 0; j < to; j++)
        for (long i = 0; i < count; i++)
            shares[j * count + i] /= whole[i];
}

/* sums (to, size): of the votes (count, to, size), each by its share (to, count). */
static void elected(long count, long to, long size, const REAL *votes, const REAL *shares, REAL *sums)
{
    memset(sums, 0, (size_t)(to * size) * sizeof(REAL));
    for (long i = 0; i < count; i++)
        for (long j = 0; j < to; j++)
            add_times(size, shares[j * count + i], votes + (i * to + j) * size, sums + j * size);
}

/* found (to, count), added to: how far the votes agree with a vector (to, size) each. */
static void agreement(long count, long to, long size, const REAL *votes, const REAL *with, REAL *found)
{
    for (long i = 0; i < count; i++)
        for (long j = 0; j < to; j++)
            found[j * count + i] += dot_product(size, votes + (i * to + j) * size, with + j * size);
}

/* votes (count, to, size), added to: a vector (to, size) each, by its share (to, count). */
static void handed_out(long count, long to, long size, const REAL *shares, const REAL *of, REAL *votes)
{
    for (long i = 0; i < count; i++)
        for (long j = 0; j < to; j++)
            add_times(size, shares[j * count + i], of + j * size, votes + (i * to + j) * size);
}

/* Routing by agreement, so many `times`: votes (B, count, to, size) -> (B, to, size). Of each sample and time the shares
   (to, count) are `kept`, and of each time but the last the sums (to, size); else there is room for one sample's.
   scratch holds to * (count + size) + count numbers.                                                                */
static void route(
    long batch, long count, long to, long size, long times, long kept, double eps, const REAL *votes, REAL *shares,
    REAL *sums, REAL *out, REAL *scratch)
{
    REAL *const logits = scratch, *const agreed = logits + to * count, *const whole = agreed + to * size;
    for (long b = 0; b < batch; b++, votes += count * to * size, out += to * size) {
        REAL *share = shares + (kept ? b * times * to * count : 0);
        REAL *sum = sums + (kept ? b * (times - 1) * to * size : 0);
        memset(logits, 0, (size_t)(to * count) * sizeof(REAL));
        for (long t = 1; t < times; t++, share += to * count, sum += to * size) {
            shared_out(count, to, logits, share, whole);
            elected(count, to, size, votes, share, sum);
            squash(to, size, eps, sum, agreed);
            agreement(count, to, size, votes, agreed, logits);
        }
        shared_out(count, to, logits, share, whole);
        elected(count, to, size, votes, share, out);
    }
}

/* Back through every iteration: with c the shares, s the sums, a = squash(s) and logits that grow by v . a,
   dv = sum of c ds and dlogits a, dc = v . ds, da = sum of dlogits v. scratch holds to * (2 count + 3 size) + count
   numbers.                                                                                                          */
static void route_back(
    long batch, long count, long to, long size, long times, double eps, const REAL *dout, const REAL *votes,
    const REAL *shares, const REAL *sums, REAL *dvotes, REAL *scratch)
{
    REAL *const dlogits = scratch, *const restrict dshares = dlogits + to * count, *const ds = dshares + to * count;
    REAL *const agreed = ds + to * size, *const da = agreed + to * size, *const restrict along = da + to * size;
    memset(dvotes, 0, (size_t)(batch * count * to * size) * sizeof(REAL));
    for (long b = 0; b < batch; b++, votes += count * to * size, dvotes += count * to * size, dout += to * size) {
        memcpy(ds, dout, (size_t)(to * size) * sizeof(REAL));
        memset(dlogits, 0, (size_t)(to * count) * sizeof(REAL));
        for (long t = times - 1; t >= 0; t--) {
            const REAL *const restrict share = shares + (b * times + t) * to * count;
            if (t) {
                const REAL *const sum = sums + (b * (times - 1) + t - 1) * to * size;
                memset(dshares, 0, (size_t)(to * count) * sizeof(REAL));
                agreement(count, to, size, votes, ds, dshares);
                for (long i = 0; i < count; i++)
                    along[i] = 0;
                for (long j = 0; j < to; j++)
                    for (long i = 0; i < count; i++)
                        along[i] += share[j * count + i] * dshares[j * count + i];
                for (long j = 0; j < to; j++)
                    for (long i = 0; i < count; i++)
                        dlogits[j * count + i] += share[j * count + i] * (dshares[j * count + i] - along[i]);
                elected(count, to, size, votes, dlogits, da);
                squash(to, size, eps, sum, agreed);
                handed_out(count, to, size, dlogits, agreed, dvotes);
                handed_out(count, to, size, share, ds, dvotes);
                squash_back(to, size, eps, da, sum, ds);
            } else
                handed_out(count, to, size, share, ds, dvotes);
        }
    }
}
