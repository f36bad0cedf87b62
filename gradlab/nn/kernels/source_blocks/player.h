/* Steps of a member, played by a block from the calls that program.py writes down. */

#define SIZES 9
#define PLACES 12

/* As of source/player.c. */
struct call {
    WIDE kernel, size[SIZES];
    double number[2];
    char *at[PLACES];
    WIDE step[PLACES], turn[PLACES], counted;
};

/* A call of one member at one step: its places are known. */
struct row {
    WIDE kernel, size[SIZES];
    double number[2];
    char *place[PLACES];
};

FUNCTION void fetch(const struct call *call, WIDE member, WIDE t, WIDE played, struct row *row)
{
    EACH(j, 1 + SIZES + 2)
    {
        if (j == 0)
            row->kernel = call->kernel;
        else if (j <= SIZES)
            row->size[j - 1] = call->size[j - 1];
        else
            row->number[j - 1 - SIZES] = call->number[j - 1 - SIZES];
    }
    EACH(j, PLACES)
    row->place[j] = call->at[j] + call->step[j] * member + call->turn[j] * (call->counted >> j & 1 ? played : t);
}

FUNCTION void play_one(const struct row *row)
{
    const WIDE *n = row->size;
    const double *x = row->number;
#define N(j) ((int)n[j])
#define R(j) ((REAL *)row->place[j])
#define D(j) ((double *)row->place[j])
#define W(j) ((WIDE *)row->place[j])
    switch ((int)row->kernel) {
    case PRODUCT: product(N(0), N(1), N(2), R(0), n[3], n[4], R(1), n[5], n[6], R(2), n[7], R(3), n[8]); break;
    case ACTIVATE: activate(N(0), N(1), R(0), R(1), R(2)); break;
    case ACTIVATE_BACK: activate_back(N(0), N(1), R(0), R(1), R(2), R(3), R(4)); break;
    case BATCH_NORM:
        batch_norm(N(0), N(1), (REAL)x[0], (REAL)x[1], R(0), R(1), R(2), R(3), R(4), R(5), R(6), R(7));
        break;
    case BATCH_NORM_BACK: batch_norm_back(N(0), N(1), R(0), R(1), R(2), R(3), R(4), R(5), R(6), R(8)); break;
    case LAYER_NORM: group_norm(N(0), 1, 1, N(1), N(2), (REAL)x[0], R(0), R(1), R(2), R(3), R(4), R(5)); break;
    case LAYER_NORM_BACK: group_norm_back(N(0), 1, 1, N(1), N(2), R(0), R(1), R(2), R(3), R(4), R(5), R(6)); break;
    case GROUP_NORM: group_norm(N(0), N(1), N(2), N(3), 1, (REAL)x[0], R(0), R(1), R(2), R(3), R(4), R(5)); break;
    case GROUP_NORM_BACK: group_norm_back(N(0), N(1), N(2), N(3), 1, R(0), R(1), R(2), R(3), R(4), R(5), R(6)); break;
    case DIRECTED: directed(N(0), N(1), R(0), R(1), R(2), R(3)); break;
    case DIRECTED_BACK: directed_back(N(0), N(1), R(0), R(1), R(2), R(3), R(4), R(5)); break;
    case DROPOUT: dropout(N(0), n[1], W(0), D(1), D(2), R(3), R(4)); break;
    case BATCH_SUM: batch_sum(N(0), N(1), n[2], R(0), R(1)); break;
    case ADD: add(N(0), (REAL)x[0], R(0), R(1), R(2)); break;
    case AFFINE: affine(N(0), R(0), R(1), R(2), R(3)); break;
    case COPY: copy(N(0), N(1), n[2], n[3], R(0), R(1)); break;
    case GATHER: gather(N(0), N(1), W(0), R(1), R(2), R(3)); break;
    case NORMS: norms(N(0), W(0), W(1), R(2), D(3), D(4), D(5)); break;
    case DISTANCES: distances(N(0), W(0), W(1), R(2), R(3), D(4)); break;
    case UNSOUND: unsound(N(0), R(0), D(1)); break;
    case SOUND_NORM: sound_norm(N(0), N(1), W(0), W(1), W(2), R(3), D(4), D(5), D(6)); break;
    case GRADIENTS: gradients(N(0), W(0), W(1), W(2), R(3), D(4), D(5), D(6)); break;
    case WITHIN: within(N(0), D(0), R(1), D(2)); break;
    case DEAD: dead(N(0), N(1), R(0), R(1), D(3)); break;
    case SPREAD: spread(N(0), N(1), N(2), R(0), D(1), D(2), D(3), D(4), D(5), D(6), D(7)); break;
    case CROSS_ENTROPY: cross_entropy(N(0), N(1), N(2), R(0), W(1), W(2), R(3), R(4)); break;
    case SQUARED_ERROR: squared_error(N(0), N(1), R(0), W(1), R(2), R(3), R(4), R(5)); break;
    case MARGINS: margins(N(0), N(1), N(2), R(0), W(1), W(2), D(3), R(4), R(5)); break;
    case CLIP: clip(N(0), N(1), (int)*W(0), *D(1), *D(2), W(3), W(4), *D(5), R(6), D(7), D(8)); break;
    case SGD: sgd(N(0), *R(0), *R(1), *R(2), *R(3), *R(4), R(5), R(6), R(7)); break;
    case ADAM: adam(N(0), N(1), *D(0), *R(1), *R(2), *R(3), *R(4), *R(5), *R(6), R(7), R(8), R(9), R(10)); break;
    case RMSPROP: rmsprop(N(0), *R(0), *R(1), *R(2), *R(3), *R(4), *R(5), R(6), R(7), R(8), R(9)); break;
    case ADAGRAD: adagrad(N(0), *R(0), *R(1), *R(2), *R(3), R(4), R(5), R(6)); break;
    }
}

/* Steps from `first` on: step i by the calls of `other` where the bit i of `which` (low, high) is set, else by those of
   `one`. While a call is played, the next is fetched.                                                               */
ENTRY play_blocks(
    const struct call *one, const struct call *other, int ones, int others, int low, int high, int first, int steps)
{
    const unsigned long long which = (unsigned int)low | (unsigned long long)(unsigned int)high << 32;
    SHARED struct row rows[2];
    int played[2] = {0, 0}, now = 0;
    fetch(which & 1 ? other : one, MEMBER, first, 0, rows);
    SYNC();
    for (int s = 0; s < steps; s++) {
        const int chosen = (int)(which >> s & 1), count = chosen ? others : ones;
        for (int k = 0; k < count; k++, now = 1 - now) {
            const int over = k + 1 == count, at = s + over, whose = (int)(which >> at & 1);
            if (at < steps)
                fetch((whose ? other : one) + (over ? 0 : k + 1), MEMBER, first + at,
                      played[whose] + (over && whose == chosen), rows + 1 - now);
            play_one(rows + now);
            SYNC();
        }
        played[chosen]++;
    }
}
