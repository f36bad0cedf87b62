"""The columns of the per-layer table."""

from __future__ import annotations

from gradlab.spec.named import Choice, table

PROBES: dict[str, Choice] = table(
    Choice(
        "grad_norm", "2-norm of the gradient of all parameters of the layer, before clipping", "Glorot & Bengio 2010"
    ),
    Choice("grad_norm_clipped", "the same after clipping", "Pascanu et al. 2013, arXiv:1211.5063"),
    Choice(
        "weight_grad_norm", "2-norm of the gradient of the weight matrix alone, before clipping", "Glorot & Bengio 2010"
    ),
    Choice(
        "signal_grad_norm",
        "2-norm of the loss's derivative by the pre-activation z_l, over the batch",
        "Schoenholz et al. 2016, arXiv:1611.01232",
    ),
    Choice("weight_norm", "2-norm of the weight matrix", "-"),
    Choice(
        "update_ratio",
        "2-norm of the step of the weight matrix over that of the matrix",
        "Bottou 2015; Karpathy, CS231n",
    ),
    Choice("act_mean", "mean of the activation over batch and units", "Glorot & Bengio 2010"),
    Choice("act_std", "standard deviation of the activation over batch and units", "Glorot & Bengio 2010"),
    Choice(
        "act_correlation",
        "mean cosine of the activations of two samples of the batch",
        "Poole et al. 2016, arXiv:1606.05340",
    ),
    Choice(
        "saturated",
        "share of entries where |phi'(z)| is below 5 % of its maximum",
        "Glorot & Bengio 2010; the threshold is ours",
    ),
    Choice("dead", "share of units at zero slope on every sample of the batch", "Maas et al. 2013"),
    Choice("grad_zero", "share of the layer's gradient entries that are exactly zero", "-"),
    Choice("signal_grad_rms", "root mean square of the entries of the loss's derivative by z_l", "-"),
    Choice("grad_rms", "root mean square of the entries of the layer's gradient", "-"),
    Choice(
        "attention_entropy",
        "mean entropy of attention weights over its largest value",
        "Zhai et al. 2023, arXiv:2303.06296",
    ),
    Choice("attention_logit_max", "the largest size of an attention logit", "Dehghani et al. 2023, arXiv:2302.05442"),
)
