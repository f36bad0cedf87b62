"""The remedies of the literature: what each changes in a run (`values`), what kind of change it is, and whose it is."""

from __future__ import annotations

from gradlab.cure import values as to
from gradlab.cure.changes import Remedy

_COHEN = "Cohen et al. 2021, arXiv:2103.00065"
_SMITH = "Smith 2015, arXiv:1506.01186"
_PASCANU = "Pascanu et al. 2013, arXiv:1211.5063"

REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        Remedy(
            "lr/10",
            "a tenth of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            to.learning_rate(1 / 10),
        ),
        Remedy(
            "lr/3",
            "a third of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            to.learning_rate(1 / 3),
        ),
        Remedy("lr*3", "three times the learning rate", _SMITH, "learning rate", to.learning_rate(3.0)),
        Remedy("lr*10", "ten times the learning rate", _SMITH, "learning rate", to.learning_rate(10.0)),
        Remedy(
            "lr/100",
            "a hundredth of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            to.learning_rate(1 / 100),
        ),
        Remedy("lr*100", "a hundred times the learning rate", _SMITH, "learning rate", to.learning_rate(100.0)),
        Remedy(
            "lr-usual",
            "the usual learning rate: 0.01, and 0.001 of adam and its like",
            "Bengio 2012, arXiv:1206.5533, section 3.1.1; Kingma & Ba 2014, arXiv:1412.6980",
            "learning rate",
            to.usual_learning_rate,
        ),
        Remedy(
            "calmer-momentum",
            "momentum 0.9, or none where it is no more: steps are 1/(1-momentum) times as long",
            "Sutskever et al. 2013",
            "learning rate",
            to.calmer_momentum,
        ),
        Remedy(
            "no-decay",
            "no weight decay, which pulls all weights to 0",
            "Krogh & Hertz 1991",
            "learning rate",
            to.no_decay,
        ),
        Remedy(
            "warmup",
            "a tenth of the steps in which the learning rate rises to its value",
            "Goyal et al. 2017, arXiv:1706.02677; Xiong et al. 2020, arXiv:2002.04745",
            "schedule",
            to.warmup,
        ),
        Remedy(
            "cosine",
            "a learning rate that falls to 0 on half a cosine",
            "Loshchilov & Hutter 2016, arXiv:1608.03983",
            "schedule",
            to.always({"optim.schedule": "cosine", "optim.end_factor": 0.0}),
        ),
        Remedy("clip-norm", "clip the whole gradient to norm 1", _PASCANU, "clipping", to.clip("norm", 1.0)),
        *(
            Remedy(
                name,
                f"clip to the norm that {words} of the sick run's steps exceed",
                _PASCANU,
                "clipping",
                share=share,
            )
            for name, words, share in (
                ("clip-tenth", "a tenth", 0.1),
                ("clip-half", "half", 0.5),
                ("clip-most", "nine tenths", 0.9),
            )
        ),
        Remedy(
            "clip-advised",
            "the way of clipping that fits the norms of the sick run: spikes alone, or one layer",
            "Kumar et al. 2025, arXiv:2504.02507; Seetharaman et al. 2020, arXiv:2007.14469",
            "clipping",
            advised=True,
        ),
        Remedy("clip-value", "clip each entry to 0.1", "Mikolov 2012", "clipping", to.clip("value", 0.1)),
        Remedy(
            "clip-layers",
            "clip each layer's gradient to norm 0.1",
            "Keras clipnorm",
            "clipping",
            to.clip("layerwise", 0.1),
        ),
        Remedy(
            "normalize",
            "steps of one length: the whole gradient to norm 1",
            "Hazan et al. 2015, arXiv:1507.02030",
            "clipping",
            to.clip("normalize", 1.0),
        ),
        Remedy("clip-wider", "ten times the threshold of clipping", _PASCANU, "clipping", to.clip_wider),
        Remedy("clip-off", "no clipping", _PASCANU, "clipping", to.always({"clip.mode": "none"})),
        Remedy(
            "standardise",
            "inputs of mean 0 and variance 1",
            "LeCun et al. 1998, Efficient BackProp, section 4.3",
            "input",
            to.standardise,
        ),
        Remedy(
            "unit-targets",
            "targets of variance 1; losses are told at the scale that they had",
            "Bishop 1995, Neural Networks for Pattern Recognition, section 8.2",
            "input",
            to.unit_targets,
        ),
        Remedy(
            "gain",
            "initial weights without a further gain",
            "Saxe et al. 2013, arXiv:1312.6120",
            "init",
            to.always({"model.gain": 1.0}),
        ),
        Remedy("he", "weights of variance 2/fan_in", "He et al. 2015, arXiv:1502.01852", "init", to.init("he_normal")),
        Remedy(
            "xavier",
            "weights of variance 2/(fan_in+fan_out)",
            "Glorot & Bengio 2010",
            "init",
            to.init("xavier_normal"),
        ),
        Remedy(
            "orthogonal",
            "orthogonal weights with the gain of the activation, no biases",
            "Saxe et al. 2013, arXiv:1312.6120; Pennington et al. 2017, arXiv:1711.04735",
            "init",
            to.orthogonal,
        ),
        Remedy(
            "lsuv",
            "orthogonal weights scaled by the first batch to signals of variance 1, no biases",
            "Mishkin & Matas 2015, arXiv:1511.06422",
            "init",
            to.without_biases("lsuv"),
        ),
        Remedy(
            "fixup",
            "residual branches and a read-out that begin at 0",
            "Zhang et al. 2019, arXiv:1901.09321",
            "init",
            to.fixup,
        ),
        Remedy(
            "rezero",
            "residual blocks times one learned number each, which begins at 0",
            "Bachlechner et al. 2020, arXiv:2003.04887",
            "init",
            to.rezero,
        ),
        Remedy(
            "delta-orthogonal",
            "an orthogonal matrix at the middle tap of every convolution, with the activation's gain, no biases",
            "Xiao et al. 2018, arXiv:1806.05393",
            "init",
            to.delta_orthogonal,
        ),
        Remedy(
            "identity",
            "recurrent matrices that begin as the identity, no biases",
            "Le, Jaitly & Hinton 2015, arXiv:1504.00941",
            "init",
            to.identity,
        ),
        Remedy(
            "forget-bias",
            "a forget bias of 1: at the start a cell keeps 0.73 of itself a step, not 0.5",
            "Gers et al. 2000; Jozefowicz et al. 2015",
            "init",
            to.forget_bias,
        ),
        Remedy(
            "chrono",
            "gates that begin with time scales up to the length of the sequence",
            "Tallec & Ollivier 2018, arXiv:1804.11188",
            "init",
            to.chrono,
        ),
        Remedy(
            "no-biases",
            "biases that begin at 0",
            "Schoenholz et al. 2016, arXiv:1611.01232",
            "init",
            to.no_biases,
        ),
        Remedy(
            "critical",
            "the weight variance at which theory has gradients keep their size",
            "Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232",
            "init",
            to.critical,
        ),
        Remedy(
            "branch-scale",
            "residual branches scaled by 1/sqrt(L)",
            "Zhang et al. 2019, arXiv:1901.09321; Hanin & Rolnick 2018, arXiv:1803.01719",
            "init",
            to.branch_scale,
        ),
        Remedy(
            "zero-branches",
            "branches of a transformer that begin at 0",
            "Goyal et al. 2017, arXiv:1706.02677; Bachlechner et al. 2020, arXiv:2003.04887",
            "init",
            to.without_biases("zero_branches"),
        ),
        Remedy(
            "attention-scale",
            "q.k over the root of a head's units",
            "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1",
            "init",
            to.attention_scale,
        ),
        Remedy("tanh", "tanh, of slope 1 at the origin", "Glorot & Bengio 2010", "activation", to.activation("tanh")),
        Remedy("relu", "relu, which does not saturate", "Nair & Hinton 2010", "activation", to.activation("relu")),
        Remedy(
            "leaky_relu",
            "leaky_relu, whose units cannot die",
            "Maas et al. 2013",
            "activation",
            to.activation("leaky_relu"),
        ),
        Remedy(
            "elu",
            "elu, whose mean is near 0",
            "Clevert et al. 2015, arXiv:1511.07289",
            "activation",
            to.activation("elu"),
        ),
        Remedy(
            "gelu",
            "gelu, a smooth relu",
            "Hendrycks & Gimpel 2016, arXiv:1606.08415",
            "activation",
            to.activation("gelu"),
        ),
        Remedy(
            "squash-eps",
            "1e-8 under the root by which capsules are squashed, so that one of zeros stays one",
            "Sabour et al. 2017, arXiv:1710.09829, equation 1",
            "activation",
            to.squash_eps,
        ),
        Remedy(
            "bare-output",
            "no activation behind the last layer: the loss takes what it puts out",
            "Goodfellow et al. 2016, section 6.2.2",
            "output",
            to.bare_output,
        ),
        Remedy("batch", "batch norm", "Ioffe & Szegedy 2015, arXiv:1502.03167", "norm", to.batch_norm),
        Remedy("layer", "layer norm", "Ba et al. 2016, arXiv:1607.06450", "norm", to.norm("layer")),
        Remedy("rms", "rms norm", "Zhang & Sennrich 2019, arXiv:1910.07467", "norm", to.norm("rms")),
        Remedy(
            "norm-off",
            "no norm: a deep batch norm explodes by itself",
            "Yang et al. 2019, arXiv:1902.08129",
            "norm",
            to.norm("none"),
        ),
        Remedy(
            "pre-norm",
            "norms before each branch of a transformer, and before its read-out",
            "Xiong et al. 2020, arXiv:2002.04745",
            "norm",
            to.norms_first,
        ),
        Remedy(
            "deepnorm",
            "norms behind weighted skips, and smaller branches",
            "Wang et al. 2022, arXiv:2203.00555",
            "norm",
            to.deepnorm,
        ),
        Remedy(
            "qk-norm",
            "rms norm of queries and keys, which bounds the logits of attention",
            "Henry et al. 2020, arXiv:2010.04245; Wortsman et al. 2023, arXiv:2309.14322",
            "norm",
            to.qk_norm,
        ),
        Remedy("momentum", "momentum 0.9", "Sutskever et al. 2013", "optimizer", to.momentum),
        Remedy(
            "adam",
            "adam at its default learning rate, 0.001",
            "Kingma & Ba 2014, arXiv:1412.6980",
            "optimizer",
            to.adam,
        ),
        Remedy(
            "residual",
            "residual branches, scaled by 1/sqrt(L)",
            "He et al. 2016, arXiv:1603.05027; the scale: Hanin & Rolnick 2018, arXiv:1803.01719",
            "architecture",
            to.residual,
        ),
        Remedy(
            "gru",
            "gated recurrent units in place of Elman's",
            "Cho et al. 2014, arXiv:1406.1078",
            "architecture",
            to.gates("gru"),
        ),
        Remedy(
            "lstm",
            "long short-term memory of forget bias 1 in place of Elman's units",
            "Hochreiter & Schmidhuber 1997; Gers et al. 2000",
            "architecture",
            to.gates("lstm"),
        ),
        Remedy(
            "attention",
            "attention to all states of the encoder",
            "Bahdanau et al. 2014, arXiv:1409.0473",
            "architecture",
            to.attention,
        ),
        Remedy("half-depth", "half as many layers", "Schoenholz et al. 2016, arXiv:1611.01232", "depth", to.half_depth),
        Remedy(
            "reach",
            "as many layers as gradients pass at the expected rate",
            "Schoenholz et al. 2016, arXiv:1611.01232, section 5",
            "depth",
            to.reach,
        ),
        Remedy(
            "twice-as-wide",
            "layers twice as wide: draws differ less",
            "Hanin & Rolnick 2018, arXiv:1803.01719",
            "width",
            to.twice_as_wide,
        ),
    )
}
"""Every remedy by its name."""

_DRAWN = "he xavier orthogonal lsuv"
_SLOPED = "tanh relu leaky_relu elu gelu"
_SLOWER = "lr/3 lr/10 lr/100 lr-usual"

MENDS: dict[str, frozenset[str]] = {
    cause: frozenset(names.split())
    for cause, names in {
        "infinite_slope": "squash-eps",
        "input_scale": "standardise",
        "input_offset": "standardise",
        "target_scale": "unit-targets",
        "labels": "unit-targets bare-output",
        "activation_on_logits": "bare-output",
        "softmax_twice": "bare-output",
        "missing_activation": _SLOPED,
        "equal_weights": _DRAWN,
        "broken_layer": f"{_DRAWN} gain",
        "dead_units": f"{_DRAWN} no-biases leaky_relu elu",
        "init": f"{_DRAWN} delta-orthogonal gain critical",
        "activation": _SLOPED,
        "depth": "batch layer rms residual half-depth reach",
        "rank": "batch layer rms residual",
        "growth": "branch-scale fixup rezero batch layer rms",
        "normalised_growth": "warmup norm-off",
        "norm_of_one": "norm-off",
        "recurrence": "orthogonal identity",
        "learning_rate_high": f"{_SLOWER} calmer-momentum",
        "learning_rate_low": "lr*3 lr*10 lr*100 lr-usual",
        "momentum": f"calmer-momentum {_SLOWER}",
        "weight_decay": "no-decay",
        "clip": "clip-wider clip-off",
    }.items()
}
"""By the cause of a verdict, the remedies that take it away; others treat what follows from it."""
